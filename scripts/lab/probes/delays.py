"""One-way delays over a path within one machine, whose ends have one clock.

    lab.sh probe delays receive ADDRESS PORT COUNT MS
    lab.sh probe delays send ADDRESS PORT COUNT GAP_MS

`receive` prints "ready", then one JSON object: how many of COUNT datagrams came, and the median and
the 99th percentile of their delays beyond MS, in milliseconds. `send` sends one datagram each GAP_MS.
A datagram carries the time just before it is sent; that of its arrival is the kernel's, so that the
receiver may wake up late.
"""

import json
import socket
import struct
import time

from lab import LabError, UsageError

SO_TIMESTAMPNS = 35
PATIENCE_S = 3


def receive(address: str, port: int, count: int, expected_ms: float) -> dict[str, float]:
    errors: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.bind((address, port))
        print("ready", flush=True)
        try:
            while len(errors) < count:
                data, ancillary, _, _ = sock.recvmsg(64, 64)
                sock.settimeout(PATIENCE_S)
                (_, _, stamp), *_ = ancillary
                seconds, nanos = struct.unpack("qq", stamp)
                (sent,) = struct.unpack("q", data)
                errors.append((seconds * 10**9 + nanos - sent) / 1e6 - expected_ms)
        except TimeoutError:
            pass
    if not errors:
        raise LabError("delays: no datagram came")
    errors.sort()
    median, most = (errors[min(len(errors) - 1, int(share * len(errors)))] for share in (0.5, 0.99))
    return {"received": len(errors), "p50_ms": round(median, 3), "p99_ms": round(most, 3)}


def send(address: str, port: int, count: int, gap_ms: float) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        begin = time.monotonic()
        for n in range(count):
            pause = begin + n * gap_ms / 1e3 - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            sock.send(struct.pack("q", time.time_ns()))


def main(words: list[str]) -> None:
    match words:
        case ["receive", address, port, count, expected_ms]:
            print(json.dumps(receive(address, int(port), int(count), float(expected_ms))))
        case ["send", address, port, count, gap_ms]:
            send(address, int(port), int(count), float(gap_ms))
        case _:
            raise UsageError
