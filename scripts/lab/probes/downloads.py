"""Downloads an object on many connections of the kernel's TCP at once, in one process.

    lab.sh probe downloads ADDRESS PORT PATH COUNT WARM SECONDS

Prints one JSON object. All begin together. The bytes are counted and dropped; those of the last
SECONDS, after WARM, are "window_bytes", and those of each connection "window_bytes_each". "samples" is
the sum of bytes at every tenth of a second. The object must outlast the run. Names are those of
`headwater load --download`. A connection that breaks ends the program.
"""

import json
import selectors
import socket
import time

from lab import LabError, UsageError

TICK = 0.1
# Bytes wait this long before they are taken, so that a wake-up takes many packets.
NAP = 0.002
STAGE_BYTES = 1 << 20
STAGE = bytearray(STAGE_BYTES)


class Download:
    """One connection."""

    def __init__(self, address: str, port: int, path: str) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.connect_ex((address, port))
        self.request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        self.bytes = self.before = 0

    def write(self) -> None:
        """Sends the request once the connection is there."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise LabError(f"downloads: a connection failed, error {error}")
        self.sock.send(self.request)

    def read(self) -> int:
        """Takes all that has come, without a copy."""
        try:
            count = self.sock.recv_into(STAGE, STAGE_BYTES, socket.MSG_TRUNC)
        except BlockingIOError:
            return 0
        if count == 0:
            raise LabError("downloads: a connection ended early")
        self.bytes += count
        return count


def turn(selector: selectors.BaseSelector, left: float) -> int:
    """Waits at most `left` seconds; returns the bytes that came."""
    taken = 0
    ready = selector.select(left)
    for key, events in ready:
        if events & selectors.EVENT_WRITE:
            key.data.write()
            selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
        if events & selectors.EVENT_READ:
            taken += key.data.read()
    if ready:
        time.sleep(NAP)
    return taken


def measure(address: str, port: int, path: str, count: int, warm: float, seconds: float) -> dict[str, object]:
    start = time.monotonic()
    downloads = [Download(address, port, path) for _ in range(count)]
    selector = selectors.EpollSelector()
    for download in downloads:
        selector.register(download.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, download)
    total, began = 0, start
    samples: list[int] = []
    end = start + warm + seconds
    counting = False
    while (now := time.monotonic()) < end:
        if not counting and now >= start + warm:
            counting, began = True, now
            for download in downloads:
                download.before = download.bytes
        due = start + (len(samples) + 1) * TICK
        if now >= due:
            samples.append(total)
            continue
        total += turn(selector, max(0.0, min(due, end) - now))
    each = [download.bytes - download.before for download in downloads]
    return {
        "connections": count,
        "began": sum(download.bytes > 0 for download in downloads),
        "bytes": total,
        "window_bytes": sum(each),
        "window_seconds": round(time.monotonic() - began, 6),
        "tick_seconds": TICK,
        "samples": samples,
        "window_bytes_each": each,
    }


def main(words: list[str]) -> None:
    match words:
        case [address, port, path, count, warm, seconds]:
            figures = measure(address, int(port), path, int(count), float(warm), float(seconds))
            print(json.dumps(figures))
        case _:
            raise UsageError
