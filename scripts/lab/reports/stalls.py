"""How long downloads stood still when a server was taken away.

    lab.sh report stalls SAMPLES FROM_MS STATS GONE

SAMPLES are the lines of `lab.sh probe counters` with a counter cN for download N, STATS the beginning of
the names of their statistics (STATS1, STATS2, ...), GONE the id of the server. Prints JSON: for the
downloads that had a tenth of their packets and more of that server, and for the others, how many went on
after FROM_MS, and quantiles of the longest time without a byte that ended within WINDOW_S after FROM_MS.
Others have a few packets of that server: the answer to the packet that opens a connection may come from
anywhere, and a server that is late with its heartbeats is passed over for a moment.
"""

import glob
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import UsageError

WINDOW_S = 3.0
SHARE = 0.1


def longest_gap(times: Sequence[float], began: float) -> float | None:
    """Milliseconds of the longest time between two of the instants at which bytes had come, of those that
    end in the window."""
    pairs = itertools.pairwise(times)
    gaps = [after - before for before, after in pairs if began < after <= began + WINDOW_S]
    return max(gaps) * 1000 if gaps else None


def growth(samples: Sequence[dict[str, Any]], name: str) -> list[float]:
    """When the counter was seen to have grown."""
    pairs = itertools.pairwise(samples)
    return [after["time"] for before, after in pairs if after["bytes"][name] > before["bytes"][name]]


def quantiles(values: Sequence[float]) -> dict[str, int]:
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}

    def at(part: float) -> int:
        return round(ordered[max(math.ceil(part * len(ordered)), 1) - 1])

    return {"count": len(ordered), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": round(ordered[-1])}


def stalls(samples: list[dict[str, Any]], began: float, stats: str, gone: str) -> dict[str, dict[str, int]]:
    groups: dict[str, list[float]] = {"of_the_dead": [], "of_others": []}
    for name in glob.glob(glob.escape(stats) + "*"):
        packets = json.loads(Path(name).read_text(encoding="utf-8"))["by_server"]
        gap = longest_gap(growth(samples, "c" + name[len(stats) :]), began)
        if gap is not None:
            had = packets.get(gone, 0) > SHARE * sum(packets.values())
            groups["of_the_dead" if had else "of_others"].append(gap)
    return {name: quantiles(values) for name, values in groups.items()}


def main(words: list[str]) -> None:
    match words:
        case [path, began_ms, stats, gone]:
            lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
            samples = [json.loads(line) for line in lines if line.endswith("\n")]
            print(json.dumps(stalls(samples, int(began_ms) / 1000, stats, gone)))
        case _:
            raise UsageError
