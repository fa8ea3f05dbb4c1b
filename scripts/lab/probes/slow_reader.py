"""Reads standard input slowly, then as fast as it comes, and copies it to a file.

    lab.sh probe slow-reader SECONDS BYTES_PER_SECOND FILE

At 0 bytes a second it reads one piece and then nothing. Prints one JSON object: bytes read slowly,
bytes read fast, seconds that took, and the longest time between two of these reads in milliseconds.
"""

import json
import os
import time

from lab import UsageError

SLOW_BYTES = 16 * 1024
FAST_BYTES = 1 << 20


def read(seconds: float, rate: int, path: str) -> dict[str, float]:
    slow = fast = 0
    longest = 0.0
    with open(path, "wb") as copy:
        end = None
        while end is None or time.monotonic() < end:
            piece = os.read(0, SLOW_BYTES)
            # The time counts from the first byte on.
            end = end or time.monotonic() + seconds
            copy.write(piece)
            slow += len(piece)
            time.sleep(len(piece) / rate if rate else seconds)
        begun = last = time.monotonic()
        while piece := os.read(0, FAST_BYTES):
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            copy.write(piece)
            fast += len(piece)
    return {
        "slow_bytes": slow,
        "fast_bytes": fast,
        "fast_seconds": round(last - begun, 6),
        "longest_gap_ms": round(longest * 1000, 3),
    }


def main(words: list[str]) -> None:
    match words:
        case [seconds, rate, path]:
            print(json.dumps(read(float(seconds), int(rate), path)))
        case _:
            raise UsageError
