"""Reports what `memory.sh` has measured.

    lab.sh report memory DIR

Reads DIR/memory.jsonl. Fails if ours grew by more than MAX_GROWTH_KIB over its connections.
"""

from pathlib import Path

from lab import LabError
from lab.figures import Verdict
from lab.records import Record, last_run, read
from lab.reports import of_folder
from lab.tables import aligned

MAX_GROWTH_KIB = 1024
HEADS = ["server", "connections", "RSS before", "RSS after", "grown", "kernel, one end", "bytes/connection"]


def line(record: Record) -> list[str]:
    before, after, kernel = (record.known(name) for name in ("server_before", "server", "kernel"))
    count = record.parameters["connections"]
    each = (after - before + kernel) * 1024 / max(count, 1)
    sizes = (before, after, after - before, kernel, each)
    return [record.contender, str(count), *(f"{size:.0f}" for size in sizes)]


def remarks(record: Record) -> list[str]:
    """What the load generator has seen of our server."""
    load, hostile = record.details["load"], record.details["hostile"]
    tried = load["resumed"] + load["not_resumed"]
    out = [
        f"sizes in KiB; a client of ours keeps {load['state_bytes_per_connection']} bytes a connection; "
        f"{load['resumed']} of {tried} kept connections went on; opened in {load['opening_seconds']:.1f} s"
    ]
    if hostile:
        held = hostile["hostile"]
        out.append(
            f"{sum(held['sent'].values())} mutated packets: {sum(held['replies'].values())} replies, "
            f"{held['pulses_missed']} of {held['pulses']} sound requests between them missed, "
            f"{hostile['resumed']} of {hostile['connections']} connections went on"
        )
    return [*out, f"server RSS at the end: {record.known('server_last'):.0f} KiB"]


def growth(record: Record) -> Verdict:
    most = max(record.known("server"), record.known("server_last"))
    return Verdict("growth in KiB", most - record.known("server_before"), greatest=MAX_GROWTH_KIB)


def report(folder: Path) -> None:
    records = last_run(read(folder / "memory.jsonl"))
    print(aligned([HEADS, *map(line, records)], right=True))
    for ours in records:
        if ours.contender == "headwater":
            print("\n".join([*remarks(ours), str(growth(ours))]))
            if not growth(ours).passed:
                raise LabError(f"the server grew over {ours.parameters['connections']} connections")


main = of_folder(report)
