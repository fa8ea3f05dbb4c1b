"""Reads one object of a server of HTTP at a fixed rate, with a small receive buffer.

    lab.sh probe http-reader ADDRESS PORT PATH BYTES_PER_SECOND FILE

Prints "reading" with the first byte, then one JSON object: bytes of the body, which FILE gets, and the end of
the connection, `closed` or `reset`.
"""

import json
import socket
import time

from lab import UsageError

PIECE_BYTES = 1024
BUFFER_BYTES = 4096
PATIENCE_S = 30.0


def read(sock: socket.socket, rate: int, path: str) -> tuple[int, str]:
    """Bytes of the body, and the end."""
    answer = b""
    end = "closed"
    due = time.monotonic()
    try:
        while piece := sock.recv(PIECE_BYTES):
            if not answer:
                print("reading", flush=True)
            answer += piece
            due += len(piece) / rate
            time.sleep(max(0.0, due - time.monotonic()))
    except OSError:
        end = "reset"
    body = answer.partition(b"\r\n\r\n")[2]
    with open(path, "wb") as copy:
        copy.write(body)
    return len(body), end


def main(words: list[str]) -> None:
    match words:
        case [address, port, target, rate, path]:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
                sock.settimeout(PATIENCE_S)
                sock.connect((address, int(port)))
                request = f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
                sock.sendall(request.encode())
                count, end = read(sock, int(rate), path)
            print(json.dumps({"bytes": count, "end": end}))
        case _:
            raise UsageError
