"""Samples the byte counters of one nft table of the namespace it runs in.

    lab.sh probe counters TABLE INTERVAL_MS

Prints a line of JSON, {"time", "bytes": {counter: bytes}}, of `table inet TABLE` until SIGTERM.
"""

import json
import subprocess
import time

from lab import UsageError
from lab.probes import periodically


def counters(table: str) -> dict[str, int]:
    listed = subprocess.run(["nft", "-j", "list", "counters", "table", "inet", table], capture_output=True, check=True)
    entries = json.loads(listed.stdout)["nftables"]
    return {one["counter"]["name"]: one["counter"]["bytes"] for one in entries if "counter" in one}


def main(words: list[str]) -> None:
    match words:
        case [table, interval_ms]:
            for _ in periodically(int(interval_ms) / 1000):
                before = time.time()
                found = counters(table)
                print(json.dumps({"time": (before + time.time()) / 2, "bytes": found}), flush=True)
        case _:
            raise UsageError
