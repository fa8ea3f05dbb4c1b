"""Records of `friendliness.sh`: one for each flow of a shared link.

    lab.sh record friendliness flows SCRATCH RESULTS run=UNIX cell=NAME round=N kinds="CONTENDER..."

Reads flow1.out, flow2.out, ... (of the probe `window`) and link (of link-control). The figures of the
queue are those of the link, the same in every record of a round.
"""

from lab.cells import SharedLink
from lab.measurements import Session, make, mbits
from lab.records import Record


def flows(session: Session) -> list[Record]:
    cell, kinds = SharedLink.parse(session.word("cell")), session.word("kinds").split()
    way = session.json("link")["ba"]
    records = []
    for index, kind in enumerate(kinds):
        window = session.json(f"flow{index + 1}.out")
        figures = {
            "goodput": (mbits(window["window_bytes"], window["window_seconds"]), "Mbit/s"),
            "queue_p50": (way["sojourn"]["p50_us"] / 1000, "ms"),
            "queue_p95": (way["sojourn"]["p95_us"] / 1000, "ms"),
            "drops": (way["dropped"], "packets"),
            "busy": (window["busy"], "share"),
        }
        parameters = {
            "flow": index + 1,
            "rtt_ms": cell.rtts[index] if len(cell.rtts) > 1 else cell.rtts[0],
            "rate_mbit": cell.rate,
            "queue_bytes": cell.queue_bytes,
            "seconds": session.count("seconds"),
        }
        details = {"window": window}
        records.append(session.record(cell.name, kind, figures, parameters=parameters, details=details))
    return records


def main(words: list[str]) -> None:
    make("friendliness", {"flows": flows}, words)
