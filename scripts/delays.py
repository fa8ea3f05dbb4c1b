#!/usr/bin/env python3
"""One-way delays over a path within one machine, whose ends have one clock.

    delays.py receive ADDRESS PORT COUNT MS    prints "ready", then delays beyond MS in milliseconds:
                                               count, p50 and p99
    delays.py send ADDRESS PORT COUNT GAP_MS   COUNT datagrams, one each GAP_MS

A datagram carries the time just before it is sent; that of its arrival is the kernel's, so that the
receiver may wake up late.
"""

import socket
import struct
import sys
import time

SO_TIMESTAMPNS = 35
PATIENCE_S = 3


def receive(address, port, count, expected_ms):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.bind((address, port))
        print("ready", flush=True)
        errors = []
        try:
            while len(errors) < count:
                data, ancillary, _, _ = sock.recvmsg(64, 64)
                sock.settimeout(PATIENCE_S)
                (_, _, stamp), *_ = ancillary
                seconds, nanos = struct.unpack("qq", stamp)
                arrived = seconds * 10**9 + nanos
                (sent,) = struct.unpack("q", data)
                errors.append((arrived - sent) / 1e6 - expected_ms)
        except TimeoutError:
            pass
    errors.sort()
    quantile = lambda share: errors[min(len(errors) - 1, int(share * len(errors)))]
    print(f"{len(errors)} {quantile(0.5):.3f} {quantile(0.99):.3f}")


def send(address, port, count, gap_ms):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        begin = time.monotonic()
        for n in range(count):
            pause = begin + n * gap_ms / 1e3 - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            sock.send(struct.pack("q", time.time_ns()))


def main():
    match sys.argv[1:]:
        case ["receive", address, port, count, expected_ms]:
            receive(address, int(port), int(count), float(expected_ms))
        case ["send", address, port, count, gap_ms]:
            send(address, int(port), int(count), float(gap_ms))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
