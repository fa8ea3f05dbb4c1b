"""Records of `compare.sh`: downloads over an emulated link, and small objects.

    lab.sh record compare transfer|object SCRATCH RESULTS run=UNIX cell=NAME contender=NAME round=N ...

`transfer` reads what a run has left: window (of the probe), link-start and link-end (of link-control),
stats (of `headwater get`) and ss; `device_drops` is how many packets TUN devices had no room for.
`object` reads how many seconds it took from `seconds`. Both print a line of progress, and fail if the
kernel's TCP took another congestion control than the run is about.
"""

import re
import sys

from lab import LabError
from lab.cells import Cell
from lab.figures import number
from lab.measurements import Session, make, mbits
from lab.records import Record

KERNEL = ("cubic", "reno", "bbr")


def congestion_control(contender: str, sockets: str) -> str:
    """The one that the kernel's sockets name."""
    found = re.search(r"\s(cubic|reno|bbr)\s", sockets)
    took = found[1] if found else ""
    if contender in KERNEL and took != contender:
        raise LabError(f"{contender} was asked for, the kernel took '{took}'")
    return took


def transfer(session: Session) -> list[Record]:
    cell, contender, sockets = Cell.parse(session.word("cell")), session.word("contender"), session.text("ss")
    window, end = session.json("window"), session.json("link-end")
    way = end["ba"]
    retransmitted = re.search(r"retrans:\d+/(\d+)", sockets)
    goodput = mbits(window["window_bytes"], window["window_seconds"])
    queue = way["sojourn"]["p95_us"]
    record = session.record(
        cell.name,
        contender,
        {
            "goodput": (goodput, "Mbit/s"),
            "goodput_from_start": (mbits(window["bytes"], window["seconds"]), "Mbit/s"),
            "queue_p50": (milliseconds(way["sojourn"]["p50_us"]), "ms"),
            "queue_p95": (milliseconds(queue), "ms"),
            "drops": (way["dropped"], "packets"),
            "device_drops": (session.count("device_drops"), "packets"),
            "marks": (way["counters"]["marked"], "packets"),
            "retransmitted": (int(retransmitted[1]) if retransmitted else None, "packets"),
            "busy": (window["busy"], "share"),
        },
        parameters=cell.parameters()
        | {"device": session.word("device"), "congestion_control": congestion_control(contender, sockets)},
        details={
            "window": window,
            "link_start": session.json("link-start"),
            "link_window": end,
            "stats": session.json("stats"),
            "socket": sockets,
        },
    )
    said(record, f"{number(goodput)} Mbit/s, queue p95 {number(milliseconds(queue))} ms")
    return [record]


def milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def object_(session: Session) -> list[Record]:
    cell, seconds = Cell.parse(session.word("cell")), float(session.text("seconds"))
    parameters = cell.parameters() | {"device": session.word("device")}
    record = session.record(cell.name, session.word("contender"), {"time": (seconds, "s")}, parameters=parameters)
    said(record, f"{seconds * 1000:.0f} ms")
    return [record]


def said(record: Record, outcome: str) -> None:
    """Prints progress; the script has printed how much there is before it on the same line."""
    print(f"{record.case} round {record.round} {record.contender}: {outcome}", file=sys.stderr)


def main(words: list[str]) -> None:
    make("compare", {"transfer": transfer, "object": object_}, words)
