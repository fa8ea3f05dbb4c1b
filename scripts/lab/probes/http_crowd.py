"""Opens TCP connections of the kernel to a server of HTTP and holds them until SIGTERM.

    lab.sh probe http-crowd ADDRESS PORT COUNT KIND

KIND is what each has said: `silent` nothing, `kept` a request that was answered, `partial` the first half of
a request, to which it adds a byte every two seconds. Prints "open N" when all have said it.
"""

import contextlib
import resource
import selectors
import socket
import time

from lab import UsageError
from lab.probes import end_at_sigterm

REQUEST = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"
WORDS = {"silent": b"", "kept": REQUEST, "partial": REQUEST[:20]}
BATCH = 200
DRIBBLE_S = 2.0


def opened(address: str, port: int, count: int) -> list[socket.socket]:
    """Connects that many at once."""
    sockets = []
    waiting = selectors.DefaultSelector()
    for _ in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect_ex((address, port))
        waiting.register(sock, selectors.EVENT_WRITE)
        sockets.append(sock)
    left = count
    while left:
        for key, _ in waiting.select():
            waiting.unregister(key.fileobj)
            left -= 1
    return sockets


def speak(sockets: list[socket.socket], words: bytes, answered: bool) -> None:
    for sock in sockets:
        sock.setblocking(True)
        sock.settimeout(10)
        sock.sendall(words)
    for sock in sockets if answered else ():
        sock.recv(65536)


def hold(sockets: list[socket.socket], dribbles: bool) -> None:
    while True:
        time.sleep(DRIBBLE_S)
        for sock in sockets if dribbles else ():
            # The server may have given up on it.
            with contextlib.suppress(OSError):
                sock.send(b"x")


def main(words: list[str]) -> None:
    match words:
        case [address, port, count, kind] if kind in WORDS:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            end_at_sigterm()
            held: list[socket.socket] = []
            while len(held) < int(count):
                some = opened(address, int(port), min(BATCH, int(count) - len(held)))
                speak(some, WORDS[kind], kind == "kept")
                held += some
            print(f"open {len(held)}", flush=True)
            hold(held, kind == "partial")
        case _:
            raise UsageError
