"""Samples the byte counters of one network device of the namespace it runs in.

    lab.sh probe interface DEVICE INTERVAL_MS

Prints "unix_seconds rx_bytes tx_bytes" a line until SIGTERM.
"""

import time

from lab import LabError, UsageError
from lab.probes import periodically


def counters(device: str) -> tuple[int, int]:
    with open("/proc/self/net/dev", encoding="ascii") as table:
        for line in table:
            name, _, fields = line.partition(":")
            if name.strip() == device:
                values = fields.split()
                return int(values[0]), int(values[8])
    raise LabError(f"interface: no device '{device}' here")


def main(words: list[str]) -> None:
    match words:
        case [device, interval_ms]:
            for _ in periodically(int(interval_ms) / 1000):
                received, sent = counters(device)
                print(f"{time.time():.4f} {received} {sent}", flush=True)
        case _:
            raise UsageError
