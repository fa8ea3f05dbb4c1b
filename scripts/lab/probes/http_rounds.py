"""Requests on many kept TCP connections of the kernel in turn, one request at a time on each.

    lab.sh probe http-rounds ADDRESS PORT CONNECTIONS SECONDS PID DEVICE

PID and DEVICE are those of the server. Prints one JSON object when the time is over: requests that were answered,
and meanwhile the processor time of the server's first thread, in nanoseconds, and the packets of its device.
"""

import json
import resource
import socket
import struct
import time

from lab import LabError, UsageError
from lab.probes.http_crowd import BATCH, REQUEST, opened, speak

# Requests under way at a time, the same whatever the number of connections.
WINDOW = 8

PAUSE_S = 0.01


def cpu_ns(pid: int) -> int:
    """Processor time of the first thread of a process since its start."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as stat:
        return int(stat.read().split()[0])


def packets(pid: int, device: str) -> int:
    """Packets of a device in the namespace of a process, in both directions."""
    with open(f"/proc/{pid}/net/dev", encoding="ascii") as devices:
        for line in devices:
            name, _, counters = line.partition(":")
            if name.strip() == device:
                fields = counters.split()
                return int(fields[1]) + int(fields[9])
    raise LabError(f"no device '{device}' at process {pid}")


def rounds(sockets: list[socket.socket], seconds: float) -> int:
    """Requests in turn on all connections until the time is over; returns how many were answered."""
    answered = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for first in range(0, len(sockets), WINDOW):
            window = sockets[first : first + WINDOW]
            for sock in window:
                sock.sendall(REQUEST)
            for sock in window:
                if not sock.recv(4096):
                    raise ConnectionError("the server has closed a connection")
            answered += len(window)
            if time.monotonic() >= end:
                break
    return answered


def reset(sockets: list[socket.socket]) -> None:
    """Closes without TIME-WAIT, in which ports would become scarce, and not faster than a device takes it."""
    for index, sock in enumerate(sockets):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        if index % BATCH == 0:
            time.sleep(PAUSE_S)


def main(words: list[str]) -> None:
    match words:
        case [address, port, connections, seconds, pid, device]:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            held: list[socket.socket] = []
            while len(held) < int(connections):
                some = opened(address, int(port), min(BATCH, int(connections) - len(held)))
                speak(some, REQUEST, True)
                held += some
            spent, passed = cpu_ns(int(pid)), packets(int(pid), device)
            answered = rounds(held, float(seconds))
            spent, passed = cpu_ns(int(pid)) - spent, packets(int(pid), device) - passed
            reset(held)
            print(json.dumps({"requests": answered, "server_ns": spent, "packets": passed}))
        case _:
            raise UsageError
