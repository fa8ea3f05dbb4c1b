"""Reports what `failover-fleet.sh` has measured.

    lab.sh report failover-fleet DIR

Reads DIR/failover-fleet.jsonl and prints the newest run. Fails if a download of ours broke.
"""

from pathlib import Path

from lab import LabError
from lab.records import Record, last_run, read
from lab.reports import of_folder
from lab.tables import aligned

HEADS = [
    "server taken by",
    "broken",
    "identical",
    "handshakes",
    "curl broken",
    "verdicts",
    "noticed ms",
    "2 RTT ms",
    "had by it",
    "stall p50",
    "p99",
    "max ms",
    "others p50",
    "p99",
    "max ms",
]


def whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def line(record: Record) -> list[str]:
    transfers, downloads = (record.parameters[name] for name in ("transfers", "downloads"))
    broken, rtt = record.known("broken"), record.value("rtt")
    return [
        record.case,
        f"{broken:.0f} of {transfers}",
        whole(transfers - broken),
        whole(record.known("handshakes")),
        f"{record.known('tcp_broken'):.0f} of {downloads}",
        " ".join(map(str, record.details["changes"])),
        whole(record.value("noticed")),
        whole(2 * rtt if rtt else None),
        whole(record.value("had_count")),
        *(whole(record.value(f"{group}_{part}")) for group in ("had", "others") for part in ("p50", "p99", "max")),
    ]


def report(folder: Path) -> None:
    records = last_run(read(folder / "failover-fleet.jsonl"))
    print(aligned([HEADS, *map(line, records)]))
    broken = sum(record.known("broken") for record in records)
    if broken:
        raise LabError(f"{broken:.0f} downloads did not survive, at most 0 may")


main = of_folder(report)
