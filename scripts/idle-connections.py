"""Opens idle TCP connections of the kernel and holds them until SIGTERM.

    idle-connections.py ADDRESS PORT COUNT SOURCE...

The connections are shared out over the source addresses, since one has at most some 64,000 ports.
Prints "open N" when all are open, or when no more fit.
"""

import resource
import signal
import socket
import sys


def open_all(address, port, count, sources):
    sockets = []
    for index in range(count):
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.settimeout(5)
            # Ports are then chosen a destination at connect, not all at bind.
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            sock.bind((sources[index % len(sources)], 0))
            sock.connect((address, port))
        except OSError as error:
            print(f"stopped: {error}", file=sys.stderr)
            break
        sockets.append(sock)
    return sockets


def main(address, port, count, sources):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = open_all(address, int(port), int(count), sources)
    print(f"open {len(held)}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()


main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
