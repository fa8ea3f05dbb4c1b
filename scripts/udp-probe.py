"""Kernel UDP through the testbed, to check the testbed itself before anything is measured with it.

    udp-probe.py serve ADDRESS PORT             echoes each datagram behind its own address
    udp-probe.py send SOURCE ADDRESS PORT COUNT sends COUNT datagrams, one by one; prints JSON:
                                                answers, their source addresses, who answered
"""

import json
import socket
import sys


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(address, port):
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        print("ready", flush=True)
        while True:
            data, peer = sock.recvfrom(2048)
            sock.sendto(address.encode() + b" " + data, peer)


def send(source, address, port, count):
    answers, sources, by_server = 0, set(), {}
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
    print(json.dumps({"answers": answers, "sources": sorted(sources), "by_server": by_server}))


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]))
else:
    send(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
