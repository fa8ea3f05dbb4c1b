"""Watches the states of a redirector's backends through its control socket.

    states.py SOCKET INTERVAL_MS    prints a line of JSON, {"time", "states": {backend: state}}, at first
                                    and when a state has changed; `time` is in milliseconds since the
                                    epoch. Until SIGTERM, or until the redirector ends
"""

import json
import signal
import socket
import sys
import time


def shown(stream):
    """The answer to `show`, or None at the end of the connection."""
    stream.write("show\n")
    stream.flush()
    lines = []
    for line in stream:
        if line == "ok\n":
            return json.loads("".join(lines))
        if line.startswith("error: "):
            raise SystemExit(f"states: {line.strip()}")
        lines.append(line)
    return None


def main(path, interval_s):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    last = None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        stream = connection.makefile("rw", encoding="utf-8")
        while (answer := shown(stream)) is not None:
            states = {backend["name"]: backend["state"] for backend in answer["backends"]}
            if states != last:
                print(json.dumps({"time": round(time.time() * 1000), "states": states}), flush=True)
                last = states
            time.sleep(interval_s)


main(sys.argv[1], int(sys.argv[2]) / 1000)
