"""Instruments that run inside a namespace; each prints what it has measured."""

import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

FLOOD_PAUSE_S = 0.01


def end_at_sigterm() -> None:
    """Ends the process with status 0 at SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def periodically(interval_s: float) -> Iterator[None]:
    """Yields at a fixed rate until SIGTERM; a turn that comes late is not left out."""
    end_at_sigterm()
    due = time.monotonic()
    while True:
        yield
        due += interval_s
        time.sleep(max(0.0, due - time.monotonic()))


def flood(address: str, per_second: int, packet: Callable[[int], bytes]) -> None:
    """Sends raw IPv4 packets, each made from its number, until SIGTERM; prints "sent N" then."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sent = 0

    def end(*_: object) -> None:
        print(f"sent {sent}", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    begun = time.monotonic()
    for turn in itertools.count(1):
        while sent < turn * FLOOD_PAUSE_S * per_second:
            raw.sendto(packet(sent), (address, 0))
            sent += 1
        time.sleep(max(0.0, begun + turn * FLOOD_PAUSE_S - time.monotonic()))


def core_seconds() -> tuple[float, float]:
    """(busy, all) seconds of all cores since the start of the machine."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz
