"""Records of `bench.sh`: requests, throughput, queues and connections; one for each round of a peer.

    lab.sh record bench KIND SCRATCH RESULTS run=UNIX case=NAME layout=two|one ...

`requests`, `transfers` and `connections` read stats (of `headwater bench`); `fetched` reads fetched (of
`headwater get --stats`), `iperf3` its JSON, `disk` what dd printed; `figure` takes Mbit/s as a word.
`queues` takes core_ticks and times before and after downloads at once. `round` and `contender` are words
where what is read does not name them.
"""

import os
import re
from typing import Any

from lab import LabError
from lab.measurements import Session, idle_memory, make, mbits
from lab.records import Record


def server_cpu(peer: dict[str, Any], served: int) -> tuple[float | None, str]:
    """The server's processor time for one of the requests that it served."""
    spent = peer.get("server_ns")
    return (spent / served / 1000 if spent and served else None), "us"


def requests(session: Session) -> list[Record]:
    records = []
    for peer in session.json("stats")["peers"]:
        for index, held in enumerate(peer["rounds"], 1):
            figures = {
                "rate": (held["per_second"], "1/s"),
                "p50": (held["latency"]["p50_us"], "us"),
                "p99": (held["latency"]["p99_us"], "us"),
                "server_cpu": server_cpu(held, held["completed"]),
            }
            case, details = session.word("case"), {"round": held}
            records.append(session.record(case, peer["peer"], figures, round=index, details=details))
    return records


def goodput(session: Session, contender: str, value: float, details: dict[str, object]) -> Record:
    return session.record(session.word("case"), contender, {"goodput": (value, "Mbit/s")}, details=details)


def transfers(session: Session) -> list[Record]:
    """One object by each peer; `contender` renames the only one."""
    return [
        goodput(
            session,
            session.words.get("contender", peer.get("peer", "")),
            held["body_bytes"] * 8 / held["latency"]["max_us"],
            {"round": held},
        )
        for peer in session.json("stats")["peers"]
        for held in peer["rounds"]
    ]


def fetched(session: Session) -> list[Record]:
    stats = session.json("fetched")
    return [goodput(session, session.word("contender"), mbits(stats["bytes"], stats["seconds"]), {"stats": stats})]


def iperf3(session: Session) -> list[Record]:
    value = session.json("iperf3")["end"]["sum_received"]["bits_per_second"] / 1e6
    return [goodput(session, session.word("contender"), value, {})]


def disk(session: Session) -> list[Record]:
    copied = re.search(r"^(\d+) bytes .* copied, ([\d.e-]+) s,", session.text("dd"), re.MULTILINE)
    if not copied:
        raise LabError("dd has not said how fast it was")
    return [goodput(session, session.word("contender"), mbits(int(copied[1]), float(copied[2])), {})]


def figure(session: Session) -> list[Record]:
    return [goodput(session, session.word("contender"), session.number("mbits"), {})]


def queues(session: Session) -> list[Record]:
    clients, size = session.count("clients"), session.count("bytes")
    ticks = [[int(word) for word in session.word(name).split()] for name in ("before", "after")]
    busy, whole = (after - before for before, after in zip(*ticks))
    seconds, cores = session.number("ended") - session.number("began"), os.cpu_count() or 1
    figures = {"goodput": (mbits(clients * size, seconds), "Mbit/s"), "busy": (busy * cores / max(whole, 1), "cores")}
    parameters = {"clients": clients, "cores": cores}
    case = f"queues, {clients} at once"
    return [session.record(case, session.word("contender"), figures, parameters=parameters)]


def connections(session: Session) -> list[Record]:
    records, kept = [], session.count("kept")
    for step in session.json("stats")["peers"]:
        live = step["live"]
        figures = {
            "rate": (live["per_second"], "1/s"),
            "p50": (live["latency"]["p50_us"], "us"),
            "p99": (live["latency"]["p99_us"], "us"),
            "server_cpu": server_cpu(step, live["completed"]),
            "server": (step["server_rss_kib"], "KiB"),
            "generator": (step["own_rss_kib"], "KiB"),
        }
        parameters = {"connections": step["connections"], "kept": kept}
        contender = f"{step['connections']} open"
        case = session.word("case")
        records.append(session.record(case, contender, figures, parameters=parameters, details={"step": step}))
    return records


KINDS = {
    "requests": requests,
    "transfers": transfers,
    "fetched": fetched,
    "iperf3": iperf3,
    "disk": disk,
    "figure": figure,
    "queues": queues,
    "connections": connections,
    **idle_memory.KINDS,
}


def main(words: list[str]) -> None:
    make("bench", KINDS, words)
