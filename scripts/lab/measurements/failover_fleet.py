"""Records of `failover-fleet.sh`: downloads of which a server was taken away.

    lab.sh record failover-fleet survived SCRATCH RESULTS run=UNIX case=WAY began=MS taken=MS noticed=MS
        gone=ID broken=N transfers=N handshakes=N tcp_broken=N downloads=N

Times are Unix milliseconds: when the server began to be taken away, when it was, and when the redirector
noticed. Reads samples.out (of the probe `counters`, a counter cN for download N), stats1, stats2, ... (of
`headwater get`) and redirector (of `redirect-control show`).

A stall is the longest time without a byte that ended within WINDOW_S after the beginning: of the downloads
that had a tenth of their packets and more of the server, and of the others. Others have a few packets of
that server: the answer to the packet that opens a connection may come from anywhere, and a server that is
late with its heartbeats is passed over for a moment.
"""

import json
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from lab.measurements import Session, make
from lab.records import Record

WINDOW_S = 3.0
SHARE = 0.1
QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def longest_gap_ms(times: Sequence[float], began: float) -> float | None:
    """The longest time between two of the instants at which bytes had come, of those that end in the
    window."""
    gaps = [after - before for before, after in pairwise(times) if began < after <= began + WINDOW_S]
    return max(gaps) * 1000 if gaps else None


def growth(samples: Sequence[dict[str, Any]], name: str) -> list[float]:
    """When the counter was seen to have grown."""
    return [after["time"] for before, after in pairwise(samples) if after["bytes"][name] > before["bytes"][name]]


def quantile(ordered: Sequence[float], part: float) -> float | None:
    return ordered[max(math.ceil(part * len(ordered)), 1) - 1] if ordered else None


def stalls(samples: list[dict[str, Any]], stats: dict[str, Any], began: float, gone: str) -> dict[str, list[float]]:
    """The stalls of the downloads that had the server (`had`) and of the `others`; {number: stats}."""
    groups: dict[str, list[float]] = {"had": [], "others": []}
    for number, one in stats.items():
        gap = longest_gap_ms(growth(samples, f"c{number}"), began)
        if gap is not None:
            packets = one["by_server"]
            had = packets.get(gone, 0) > SHARE * sum(packets.values())
            groups["had" if had else "others"].append(gap)
    return {name: sorted(held) for name, held in groups.items()}


def parsed(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Lines of JSON; the last may be cut short."""
    return [json.loads(line) for line in lines if line.endswith("\n")]


def survived(session: Session) -> list[Record]:
    stats = {
        path.name.removeprefix("stats"): json.loads(path.read_text())
        for path in session.scratch.glob("stats[0-9]*")
        if path.name.removeprefix("stats").isdigit()
    }
    began = session.number("began")
    samples = parsed(session.text("samples.out").splitlines(keepends=True))
    groups = stalls(samples, stats, began / 1000, session.word("gone"))
    rtts = sorted(one["rtt_smoothed_us"] / 1000 for one in stats.values())
    figures: dict[str, tuple[float | None, str]] = {
        "broken": (session.count("broken"), "count"),
        "handshakes": (session.count("handshakes"), "count"),
        "tcp_broken": (session.count("tcp_broken"), "count"),
        "noticed": (session.number("noticed") - began, "ms"),
        "taken_away": (session.number("taken") - began, "ms"),
        "rtt": (rtts[(len(rtts) - 1) // 2] if rtts else None, "ms"),
    }
    for name, held in groups.items():
        figures[f"{name}_count"] = (len(held), "count")
        figures |= {f"{name}_{key}": (quantile(held, part), "ms") for key, part in QUANTILES.items()}
    return [
        session.record(
            session.word("case"),
            "headwater",
            figures,
            parameters={"transfers": session.count("transfers"), "downloads": session.count("downloads")},
            details={"changes": [one["changes"] for one in session.json("redirector")["backends"]], "each": stats},
        )
    ]


def main(words: list[str]) -> None:
    make("failover-fleet", {"survived": survived}, words)
