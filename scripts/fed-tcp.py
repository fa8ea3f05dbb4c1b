#!/usr/bin/env python3
"""The kernel's TCP as fast as a program can feed it: large calls, few wake-ups.

    fed-tcp.py serve ADDRESS PORT
    fed-tcp.py fetch ADDRESS PORT BYTES CONTROL     prints Mbit/s from the call of connect on

The sender writes 256 KB a call out of a send buffer of 1 MB, with the congestion control that the
receiver names; the receiver reads as much, and is woken when 128 KB have come (SO_RCVLOWAT).
"""

import socket
import sys
import time

PIECE = 256 * 1024
SEND_BUFFER = 1 << 20
LOW_WATER = 128 * 1024


def serve(address, port):
    listener = socket.create_server((address, port))
    print("ready", flush=True)
    piece = bytes(PIECE)
    while True:
        peer, _ = listener.accept()
        with peer:
            control, left = peer.recv(64).split()
            left = int(left)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            try:
                while left > 0:
                    left -= peer.send(memoryview(piece)[: min(left, PIECE)])
            except OSError:
                pass  # It has gone; the next may stay.


def fetch(address, port, size, control):
    buffer = bytearray(PIECE)
    start = time.monotonic()
    with socket.create_connection((address, port), timeout=60) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, LOW_WATER)
        peer.sendall(f"{control} {size}".encode())
        got = 0
        # The end of the stream wakes the reader of what is left.
        while count := peer.recv_into(buffer):
            got += count
    if got != size:
        sys.exit(f"fed-tcp.py: {got} of {size} bytes came: run it again")
    print(size * 8e-6 / (time.monotonic() - start))


def main(words):
    if len(words) == 3 and words[0] == "serve":
        serve(words[1], int(words[2]))
    elif len(words) == 5 and words[0] == "fetch":
        fetch(words[1], int(words[2]), int(words[3]), words[4])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
