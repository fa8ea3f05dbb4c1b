"""Sends datagrams that no redirector and no backend may take: to see that they are ignored and counted.

    lab.sh probe capsules CAPTURE PORT

CAPTURE is of a redirector's device, with genuine packets on UDP PORT. Prints how many of each sort were
sent.
"""

import collections
import random
import socket
import struct
from collections.abc import Iterator

from lab import UsageError

PCAP_LITTLE_ENDIAN = (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1")


def packets(path: str) -> Iterator[bytes]:
    """The IP packets of a pcap file, either byte order."""
    with open(path, "rb") as capture:
        order = "<" if capture.read(24)[:4] in PCAP_LITTLE_ENDIAN else ">"
        while len(header := capture.read(16)) == 16:
            length = struct.unpack(order + "4I", header)[2]
            yield capture.read(length)


def genuine(path: str, port: int) -> Iterator[tuple[str, bytes]]:
    """(destination, payload) of IPv4 datagrams to the port."""
    for packet in packets(path):
        if packet[:1] == b"\x45" and packet[9] == 17 and struct.unpack("!H", packet[22:24])[0] == port:
            yield socket.inet_ntoa(packet[16:20]), packet[28:]


def changed(payload: bytes, at: int, value: int) -> bytes:
    return payload[:at] + bytes([value]) + payload[at + 1 :]


def variants(payload: bytes, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Each way to be wrong, by name."""
    yield "replayed", payload
    yield "forged", payload[:-1] + bytes([payload[-1] ^ 1])
    yield "other sequence", changed(payload, 17, payload[17] ^ 0x55)
    yield "truncated", payload[: draw.randrange(34)]
    yield "unknown version", changed(payload, 0, 0x70)
    yield "unknown kind", changed(payload, 0, 0x1F)
    yield "unknown key", changed(payload, 1, payload[1] ^ 0x80)
    yield "random", draw.randbytes(draw.randrange(1, 1400))


def send(path: str, port: int) -> collections.Counter[str]:
    draw = random.Random(1)
    sent: collections.Counter[str] = collections.Counter()
    by_host = collections.defaultdict(list)
    for host, payload in genuine(path, port):
        by_host[host].append(payload)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for host, payloads in by_host.items():
            others = [one for other, many in by_host.items() if other != host for one in many[-20:]]
            for payload in payloads[-200:]:
                for name, variant in variants(payload, draw):
                    out.sendto(variant, (host, port))
                    sent[name] += 1
            for payload in others:
                out.sendto(payload, (host, port))
                sent["misdirected"] += 1
    return sent


def main(words: list[str]) -> None:
    match words:
        case [capture, port]:
            print(dict(send(capture, int(port))))
        case _:
            raise UsageError
