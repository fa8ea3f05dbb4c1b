"""Connects and requests, one after another, as clients that are new to a server of HTTP.

    lab.sh probe http-newcomers ADDRESS PORT COUNT

Prints one JSON object: how many were answered within 10 seconds, and the longest time that took, in
milliseconds, from the connect to the first byte.
"""

import json
import socket
import time

from lab import UsageError

PATIENCE_S = 10.0


def served(address: str, port: int) -> float | None:
    """Seconds to the answer, or None without one."""
    begun = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=PATIENCE_S) as sock:
            sock.sendall(b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            answer = sock.recv(65536)
    except OSError:
        return None
    return time.monotonic() - begun if answer.startswith(b"HTTP/1.1 ") else None


def main(words: list[str]) -> None:
    match words:
        case [address, port, count]:
            times = [served(address, int(port)) for _ in range(int(count))]
            took = [one for one in times if one is not None]
            longest = round(max(took, default=0.0) * 1000, 3)
            print(json.dumps({"answered": len(took), "longest_ms": longest}))
        case _:
            raise UsageError
