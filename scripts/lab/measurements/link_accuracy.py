"""Records of `link-accuracy.sh`: how exact an emulated link is, and what it costs.

    lab.sh record link-accuracy delay SCRATCH RESULTS run=UNIX ms=N
    lab.sh record link-accuracy throughput SCRATCH RESULTS run=UNIX rate=RATE before="U S" after="U S"

`delay` reads delays (of the probe); `throughput` reads iperf3 (its JSON) and show (of link-control), and
takes the clock ticks that the link's process has run in the program (U) and in the kernel (S).
"""

import os

from lab.measurements import Session, make
from lab.records import Record


def delay(session: Session) -> list[Record]:
    held = session.json("delays")
    figures = {
        "received": (held["received"], "packets"),
        "p50_beyond": (held["p50_ms"], "ms"),
        "p99_beyond": (held["p99_ms"], "ms"),
    }
    return [session.record(f"delay {session.word('ms')}ms", "link", figures)]


def throughput(session: Session) -> list[Record]:
    ways = session.json("show")
    packets = ways["ab"]["counters"]["popped"] + ways["ba"]["counters"]["popped"]
    ticks = [[int(word) for word in session.word(name).split()] for name in ("before", "after")]
    hertz = os.sysconf("SC_CLK_TCK")
    program, kernel = ((after - before) / hertz * 1e6 / max(packets, 1) for before, after in zip(*ticks))
    figures = {
        "goodput": (session.json("iperf3")["end"]["sum_received"]["bits_per_second"] / 1e6, "Mbit/s"),
        "program": (program, "us"),
        "kernel": (kernel, "us"),
    }
    return [session.record(f"throughput {session.word('rate')}", "link", figures)]


def main(words: list[str]) -> None:
    make("link-accuracy", {"delay": delay, "throughput": throughput}, words)
