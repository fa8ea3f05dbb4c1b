"""Object bytes in each datagram, found without knowing the transport's headers.

    lab.sh probe payload ORIGINAL < hex

Standard input has one UDP payload a line, as `tshark -T fields -e udp.payload` prints. For each line:
the longest suffix of the datagram that occurs in ORIGINAL, which must not repeat itself (random
bytes). Prints one JSON object: datagrams, and median, least and greatest such suffix in bytes.
"""

import json
import statistics
import sys
from pathlib import Path

from lab import UsageError

PROBE = 16  # bytes at the end of a datagram that are looked up; by chance never found


def common_suffix(datagram: bytes, original: bytes, end: int) -> int:
    """How many bytes the datagram's end and `original[:end]` have in common at their ends."""
    most = min(len(datagram), end)
    return next((n for n in range(most) if datagram[-1 - n] != original[end - 1 - n]), most)


def payload_bytes(datagram: bytes, original: bytes) -> int:
    if len(datagram) < PROBE:
        return 0
    at = original.find(datagram[-PROBE:])
    return common_suffix(datagram, original, at + PROBE) if at >= 0 else 0


def main(words: list[str]) -> None:
    match words:
        case [path]:
            whole = Path(path).read_bytes()
            lines = (line.strip() for line in sys.stdin)
            found = [payload_bytes(bytes.fromhex(line), whole) for line in lines if line]
        case _:
            raise UsageError
    figures = {
        "datagrams": len(found),
        "median": statistics.median(found) if found else 0,
        "least": min(found, default=0),
        "greatest": max(found, default=0),
    }
    print(json.dumps(figures))
