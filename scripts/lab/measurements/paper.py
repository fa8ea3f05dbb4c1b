"""Records of `paper.sh`: memory, throughput, friendliness and failover.

    lab.sh record paper idle-ours|idle-kernel SCRATCH RESULTS run=UNIX ...
    lab.sh record paper throughput SCRATCH RESULTS run=UNIX contender=NAME round=N rss_kib=N kernel_kib=N ...
    lab.sh record paper friendliness SCRATCH RESULTS run=UNIX contender=NAME round=N background=N rtt_ms=N ...
    lab.sh record paper failover SCRATCH RESULTS run=UNIX contender=NAME object_mib=N

`lab.measurements.idle_memory` has the memory of idle connections. `throughput` reads downloads.out, link and ss;
`friendliness` foreground.out, background.out, link and ss; `failover` result. Those that look at the
kernel's sockets (ss) fail if they do not use CUBIC. `busy` is the share of the cores that did anything.
"""

import re

from lab import LabError
from lab.figures import number
from lab.measurements import Session, idle_memory, make, mbits
from lab.records import Record

RATE_MBIT = 100


def queued_kib(sockets: str) -> float:
    """The bytes that the buffers of the kernel's sockets hold: receive, forward and send queues."""
    found = re.findall(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f(\d+),w(\d+),", sockets)
    return sum(int(part) for parts in found for part in parts) / 1024


def check_cubic(sockets: str) -> None:
    if " cubic " not in sockets or re.search(r" (bbr|reno) ", sockets):
        raise LabError("CUBIC was asked for, the kernel took another")


def bottleneck(session: Session) -> dict[str, tuple[float | None, str]]:
    way = session.json("link")["ba"]
    p95 = way["sojourn"]["p95_us"]
    queue = None if p95 is None else p95 / 1000
    return {
        "queue_p95": (queue, "ms"),
        "drops": (way["dropped"], "packets"),
        "busy": (session.number("busy"), "share"),
    }


def throughput(session: Session) -> list[Record]:
    contender, downloads, queued = session.word("contender"), session.json("downloads.out"), 0.0
    if contender == "cubic":
        check_cubic(session.text("ss"))
        queued = queued_kib(session.text("ss"))
    count = downloads["connections"]
    goodput = mbits(downloads["window_bytes"], downloads["window_seconds"])
    server, kernel = session.number("rss_kib"), max(session.number("kernel_kib"), 0)
    figures = {
        "goodput": (goodput, "Mbit/s"),
        "served": (sum(size > 0 for size in downloads["window_bytes_each"]), "connections"),
        "server": (server, "KiB"),
        "kernel": (kernel, "KiB"),
        "queued": (queued, "KiB"),
        **bottleneck(session),
    }
    print(f"throughput, {count} downloads, {contender}: {number(goodput)} Mbit/s, server {server + kernel:.0f} KiB")
    parameters, details = {"connections": count, "rate_mbit": RATE_MBIT}, {"downloads": downloads}
    return [session.record(f"throughput {count}", contender, figures, parameters=parameters, details=details)]


def friendliness(session: Session) -> list[Record]:
    check_cubic(session.text("ss"))
    contender, rtt, count = session.word("contender"), session.count("rtt_ms"), session.count("background")
    window, others = session.json("foreground.out"), session.json("background.out")
    goodput, beside = (mbits(one["window_bytes"], one["window_seconds"]) for one in (window, others))
    figures = {"goodput": (goodput, "Mbit/s"), "background": (beside, "Mbit/s"), **bottleneck(session)}
    print(
        f"friendliness, {rtt} ms, beside {count} of CUBIC, {contender}: "
        f"{number(goodput)} Mbit/s, the others {number(beside)}"
    )
    parameters = {"rtt_ms": rtt, "background": count, "rate_mbit": RATE_MBIT}
    case, details = f"friendliness {rtt}ms {count}", {"window": window}
    return [session.record(case, contender, figures, parameters=parameters, details=details)]


def failover(session: Session) -> list[Record]:
    result = session.json("result")
    figures = {
        "longest_stall": (result["longest_stall_ms"], "ms"),
        "time": (result["end_s"], "s"),
        "completed": (int(result["completed"]), "count"),
    }
    print(f"failover, {session.word('contender')}: {result['outcome']}")
    parameters = {"rate_mbit": RATE_MBIT, "object_mib": session.count("object_mib")}
    return [session.record("failover", session.word("contender"), figures, parameters=parameters, details=result)]


KINDS = {"throughput": throughput, "friendliness": friendliness, "failover": failover, **idle_memory.KINDS}


def main(words: list[str]) -> None:
    make("paper", KINDS, words)
