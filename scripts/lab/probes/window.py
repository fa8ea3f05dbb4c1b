"""Runs a download that writes to standard output and prints how its bytes came over time.

    lab.sh probe window WARM SECONDS COMMAND...

Prints one JSON object. The download is stopped WARM + SECONDS after its start. "window_bytes" are
those of the last SECONDS, "bytes" all; "samples" is the sum of bytes at every tenth of a second. A
download that ends by itself, or a command that fails, is an error: the object must outlast the
window. The same instrument for every contender: the bytes go from its pipe to /dev/null without being
copied. "busy" is the share of all cores that did anything meanwhile, "client_cpu_seconds" the
command's part.
"""

import fcntl
import json
import os
import resource
import select
import signal
import subprocess
import time

from lab import LabError, UsageError
from lab.probes import core_seconds

TICK = 0.1
PIPE_BYTES = 1 << 20
# Bytes wait this long before they are taken: 2 ms at 1 Gb/s fill a quarter of the pipe.
NAP = 0.002
LONGEST_WAIT_MS = 1000


class Count:
    """The bytes that came from a pipe, until a given time."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.sink = os.open(os.devnull, os.O_WRONLY)
        self.poll = select.poll()
        self.poll.register(pipe, select.POLLIN)
        self.bytes = 0
        self.first: float | None = None
        self.ended = False

    def until(self, due: float) -> None:
        while not self.ended:
            left = due - time.monotonic()
            if left <= 0:
                return
            if self.poll.poll(min(max(1, left * 1000), LONGEST_WAIT_MS)):
                time.sleep(NAP)
                self.take()

    def take(self) -> None:
        count = os.splice(self.pipe, self.sink, PIPE_BYTES)
        if count > 0 and self.first is None:
            self.first = time.monotonic()
        self.bytes += count
        self.ended = count == 0


def measure(warm: float, seconds: float, command: list[str]) -> dict[str, object]:
    start, (busy, cores) = time.monotonic(), core_seconds()
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    count = Count(child.stdout.fileno())
    samples: list[int] = []
    before, began, tick = 0, start, 0
    counting = False
    end = start + warm + seconds
    while not count.ended and time.monotonic() < end:
        tick += 1
        due = min(start + tick * TICK, end)
        if not counting and due >= start + warm:
            count.until(start + warm)
            counting, before, began = True, count.bytes, time.monotonic()
        count.until(due)
        samples.append(count.bytes)
    now, (busy_now, cores_now) = time.monotonic(), core_seconds()
    child.send_signal(signal.SIGTERM)
    child.stdout.close()
    status = child.wait()
    if count.ended:
        raise LabError(f"window: the download ended by itself, exit status {status}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "bytes": count.bytes,
        "seconds": round(now - start, 6),
        "window_bytes": count.bytes - before,
        "window_seconds": round(now - began, 6),
        "first_byte_seconds": None if count.first is None else round(count.first - start, 6),
        "busy": round((busy_now - busy) / max(cores_now - cores, 1e-9), 3),
        "client_cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "tick_seconds": TICK,
        "samples": samples,
    }


def main(words: list[str]) -> None:
    match words:
        case [warm, seconds, *command] if command:
            print(json.dumps(measure(float(warm), float(seconds), command)))
        case _:
            raise UsageError
