"""The record of `idle.sh`: how an idle connection went on after its server had been restarted.

    lab.sh record idle resumed SCRATCH RESULTS run=UNIX client=ADDRESS

Reads packets (a line "unix_seconds source_address" for each UDP packet at the client) and stats (of
`headwater get`). Fails if the client sent more than one packet before the first answer after the longest
silence.
"""

from collections.abc import Sequence
from itertools import pairwise

from lab import LabError
from lab.measurements import Session, make
from lab.records import Record

STATS = {"rtt_min_us": "us", "handshakes": "count", "lost": "packets", "timeouts": "count", "probes": "count"}


def resumption(packets: Sequence[tuple[float, str]], client: str) -> tuple[float, int, float]:
    """After the longest silence: its seconds, the client's packets until the first answer, and the
    milliseconds that it took."""
    gaps = [after - before for (before, _), (after, _) in pairwise(packets)]
    if not gaps:
        raise LabError("idle: the capture has no silence")
    first = gaps.index(max(gaps)) + 1
    answer = next((n for n in range(first, len(packets)) if packets[n][1] != client), None)
    if answer is None:
        raise LabError("idle: nothing was answered after the silence")
    return gaps[first - 1], answer - first, (packets[answer][0] - packets[first][0]) * 1000


def resumed(session: Session) -> list[Record]:
    lines = (line.split() for line in session.text("packets").splitlines())
    packets = [(float(at), source) for at, source in lines]
    silence, requests, answered = resumption(packets, session.word("client"))
    if requests != 1:
        raise LabError(f"idle: {requests} packets before the first answer, not 1")
    stats = session.json("stats")
    figures: dict[str, tuple[float | None, str]] = {
        "idle": (silence, "s"),
        "requests": (requests, "packets"),
        "answer": (answered, "ms"),
        **{name.removesuffix("_us"): (stats[name], unit) for name, unit in STATS.items()},
    }
    return [session.record("idle", "headwater", figures, details={"stats": stats})]


def main(words: list[str]) -> None:
    make("idle", {"resumed": resumed}, words)
