"""Samples the byte counters of one network device of the namespace it runs in.

    sample.py DEVICE INTERVAL_MS    prints "unix_seconds rx_bytes tx_bytes" a line until SIGTERM
"""

import signal
import sys
import time


def counters(device):
    with open("/proc/self/net/dev", encoding="ascii") as table:
        for line in table:
            name, _, fields = line.partition(":")
            if name.strip() == device:
                values = fields.split()
                return int(values[0]), int(values[8])
    raise SystemExit(f"sample: no device {device}")


def main(device, interval_s):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    due = time.monotonic()
    while True:
        received, sent = counters(device)
        print(f"{time.time():.4f} {received} {sent}", flush=True)
        due += interval_s
        time.sleep(max(0.0, due - time.monotonic()))


main(sys.argv[1], int(sys.argv[2]) / 1000)
