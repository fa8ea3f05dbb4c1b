"""Instruments that run inside a namespace; each prints what it has measured."""

import os
import signal
import sys
import time
from collections.abc import Iterator


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


def core_seconds() -> tuple[float, float]:
    """(busy, all) seconds of all cores since the start of the machine."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, sum(ticks) / hertz
