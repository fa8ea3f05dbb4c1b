"""Object bytes in each datagram, found without knowing the transport's headers.

    payload.py ORIGINAL < hex   one UDP payload a line, as `tshark -T fields -e udp.payload` prints

For each line: the longest suffix of the datagram that occurs in ORIGINAL, which must not repeat
itself (random bytes). Prints JSON: datagrams, and median, least and greatest such suffix in bytes.
"""

import json
import statistics
import sys

PROBE = 16  # bytes at the end of a datagram that are looked up; by chance never found


def common_suffix(datagram, original, end):
    length = 0
    while length < len(datagram) and length < end and datagram[-1 - length] == original[end - 1 - length]:
        length += 1
    return length


def payload_bytes(datagram, original):
    if len(datagram) < PROBE:
        return 0
    at = original.find(datagram[-PROBE:])
    return common_suffix(datagram, original, at + PROBE) if at >= 0 else 0


with open(sys.argv[1], "rb") as source:
    whole = source.read()
found = [payload_bytes(bytes.fromhex(line.strip()), whole) for line in sys.stdin if line.strip()]
print(json.dumps({
    "datagrams": len(found),
    "median": statistics.median(found) if found else 0,
    "least": min(found, default=0),
    "greatest": max(found, default=0),
}))
