"""Opens idle TCP connections of the kernel and holds them until SIGTERM.

    lab.sh probe idle-connections ADDRESS PORT COUNT SOURCE...

The connections are shared out over the source addresses, since one has at most some 64,000 ports.
Prints "open N" when all are open, or when no more fit.
"""

import resource
import signal
import socket
import sys

from lab import UsageError
from lab.probes import end_at_sigterm

IP_BIND_ADDRESS_NO_PORT = 24


def open_all(address: str, port: int, count: int, sources: list[str]) -> list[socket.socket]:
    sockets = []
    for index in range(count):
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.settimeout(5)
            # Ports are then chosen a destination at connect, not all at bind.
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((sources[index % len(sources)], 0))
            sock.connect((address, port))
        except OSError as error:
            print(f"stopped: {error}", file=sys.stderr)
            break
        sockets.append(sock)
    return sockets


def main(words: list[str]) -> None:
    match words:
        case [address, port, count, *sources] if sources:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            end_at_sigterm()
            held = open_all(address, int(port), int(count), sources)
            print(f"open {len(held)}", flush=True)
            signal.pause()
        case _:
            raise UsageError
