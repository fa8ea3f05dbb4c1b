"""Records of `redirect-bench.sh`: a flood through a redirector, and its memory.

    lab.sh record redirect-bench flood SCRATCH RESULTS run=UNIX contender=NAME round=N bytes=N
                                                       arrived=N ran_ns=N
    lab.sh record redirect-bench memory SCRATCH RESULTS run=UNIX fresh=KIB few=KIB many=KIB last=KIB
                                                       few_connections=N many_connections=N

`flood` reads flood (of `headwater bench flood`); `arrived` is how many packets came to the servers,
`ran_ns` the processor time of a program between. `memory` reads keeper*.json (of `headwater load`).
"""

import json

from lab.measurements import Session, make
from lab.records import Record


def flood(session: Session) -> list[Record]:
    sent, size, arrived = session.json("flood")["peers"][0], session.count("bytes"), session.count("arrived")
    rate, ran = arrived / sent["seconds"], session.count("ran_ns")
    figures = {
        "rate": (rate, "1/s"),
        "goodput": (rate * size * 8e-9, "Gbit/s"),
        "program": (ran / max(arrived, 1) if ran else None, "ns"),
        "flood": (sent["own_ns"] / sent["packets"], "ns"),
        "sent": (sent["packets"], "packets"),
        "arrived": (arrived, "packets"),
    }
    parameters = {"bytes": size}
    return [session.record(f"flood {size}", session.word("contender"), figures, parameters=parameters)]


def memory(session: Session) -> list[Record]:
    figures = {name: (session.number(name), "KiB") for name in ("fresh", "few", "many", "last")}
    loads = [json.loads(path.read_text()) for path in sorted(session.scratch.glob("keeper*.json"))]
    names = ("few_connections", "many_connections")
    parameters = {name: session.count(name) for name in names}
    return [session.record("memory", "headwater", figures, parameters=parameters, details={"loads": loads})]


def main(words: list[str]) -> None:
    make("redirect-bench", {"flood": flood, "memory": memory}, words)
