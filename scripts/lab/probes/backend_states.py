"""Watches the states of a redirector's backends through its control socket.

    lab.sh probe backend-states SOCKET INTERVAL_MS

Prints a line of JSON, {"time", "states": {backend: state}}, at first and whenever a state has changed;
`time` is in milliseconds since the epoch. Ends at SIGTERM, or with the redirector.
"""

import json
import socket
import time
from typing import TextIO

from lab import LabError, UsageError
from lab.probes import periodically


def shown(stream: TextIO) -> dict[str, str] | None:
    """The states by `show`, or None at the end of the connection."""
    stream.write("show\n")
    stream.flush()
    lines: list[str] = []
    for line in stream:
        if line == "ok\n":
            return {one["name"]: one["state"] for one in json.loads("".join(lines))["backends"]}
        if line.startswith("error: "):
            raise LabError(f"the redirector answers '{line.strip()}'")
        lines.append(line)
    return None


def watch(stream: TextIO, interval_s: float) -> None:
    last = None
    for _ in periodically(interval_s):
        states = shown(stream)
        if states is None:
            return
        if states != last:
            print(json.dumps({"time": round(time.time() * 1000), "states": states}), flush=True)
            last = states


def main(words: list[str]) -> None:
    match words:
        case [path, interval_ms]:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                with connection.makefile("rw", encoding="utf-8") as stream:
                    watch(stream, int(interval_ms) / 1000)
        case _:
            raise UsageError
