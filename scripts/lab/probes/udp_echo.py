"""Kernel UDP through the testbed, to check the testbed itself before anything is measured with it.

    lab.sh probe udp-echo serve ADDRESS PORT
    lab.sh probe udp-echo send SOURCE ADDRESS PORT COUNT

`serve` echoes each datagram behind its own address. `send` sends COUNT datagrams, one by one, and
prints one JSON object: answers, their source addresses, and how many each server answered.
"""

import json
import socket

from lab import UsageError


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(address: str, port: int) -> None:
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        print("ready", flush=True)
        while True:
            data, peer = sock.recvfrom(2048)
            sock.sendto(address.encode() + b" " + data, peer)


def send(source: str, address: str, port: int, count: int) -> dict[str, object]:
    answers = 0
    sources: set[str] = set()
    by_server: dict[str, int] = {}
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.settimeout(0.05)
        for number in range(count):
            sock.sendto(b"%d" % number + b"." * 1000, (address, port))
            try:
                data, peer = sock.recvfrom(2048)
            except TimeoutError:
                continue
            answers += 1
            sources.add(peer[0])
            server = data.split(b" ", 1)[0].decode()
            by_server[server] = by_server.get(server, 0) + 1
    return {"answers": answers, "sources": sorted(sources), "by_server": by_server}


def main(words: list[str]) -> None:
    match words:
        case ["serve", address, port]:
            serve(address, int(port))
        case ["send", source, address, port, count]:
            print(json.dumps(send(source, address, int(port), int(count))))
        case _:
            raise UsageError
