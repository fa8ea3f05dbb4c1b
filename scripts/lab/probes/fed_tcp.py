"""The kernel's TCP as fast as a program can feed it: large calls, few wake-ups.

    lab.sh probe fed-tcp serve ADDRESS PORT
    lab.sh probe fed-tcp fetch ADDRESS PORT BYTES CONTROL

`fetch` prints Mbit/s from the call of connect on. The sender writes 256 KB a call out of a send buffer
of 1 MB, with the congestion control that the receiver names; the receiver reads as much, and is woken
when 128 KB have come (SO_RCVLOWAT).
"""

import socket
import time

from lab import LabError, UsageError

PIECE = 256 * 1024
SEND_BUFFER = 1 << 20
LOW_WATER = 128 * 1024


def serve(address: str, port: int) -> None:
    listener = socket.create_server((address, port))
    print("ready", flush=True)
    piece = bytes(PIECE)
    while True:
        peer, _ = listener.accept()
        with peer:
            control, size = peer.recv(64).split()
            left = int(size)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            try:
                while left > 0:
                    left -= peer.send(memoryview(piece)[: min(left, PIECE)])
            except OSError:
                pass  # It has gone; the next may stay.


def fetch(address: str, port: int, size: int, control: str) -> float:
    buffer = bytearray(PIECE)
    start = time.monotonic()
    with socket.create_connection((address, port), timeout=60) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, LOW_WATER)
        peer.sendall(f"{control} {size}".encode())
        got = 0
        # The end of the stream wakes the reader of the remaining bytes.
        while count := peer.recv_into(buffer):
            got += count
    if got != size:
        raise LabError(f"fed-tcp: {got} of {size} bytes came: run it again")
    return size * 8e-6 / (time.monotonic() - start)


def main(words: list[str]) -> None:
    match words:
        case ["serve", address, port]:
            serve(address, int(port))
        case ["fetch", address, port, size, control]:
            print(fetch(address, int(port), int(size), control))
        case _:
            raise UsageError
