#!/usr/bin/env python3
"""Reads standard input slowly, then as fast as it comes, and copies it to a file.

slow-reader.py SECONDS BYTES_PER_SECOND FILE

At 0 bytes a second it reads one piece and then nothing. Prints one JSON object: bytes read slowly,
bytes read fast, seconds that took, and the longest time between two of these reads in milliseconds.
"""

import json
import os
import sys
import time

SLOW_BYTES = 16 * 1024
FAST_BYTES = 1 << 20


def main():
    seconds, rate, path = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
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
    print(json.dumps({
        "slow_bytes": slow,
        "fast_bytes": fast,
        "fast_seconds": round(last - begun, 6),
        "longest_gap_ms": round(longest * 1000, 3),
    }))


main()
