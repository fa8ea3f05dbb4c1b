"""Reports what `link-accuracy.sh` has measured.

    lab.sh report link-accuracy DIR

Reads DIR/link-accuracy.jsonl and prints the newest run: delays beyond the configured ones; for each rate
the goodput of TCP, and what the link spent on a packet.
"""

from pathlib import Path

from lab.figures import number
from lab.records import Record, last_run, read
from lab.reports import of_folder
from lab.tables import aligned


def cells(record: Record, *names: str) -> list[str]:
    held = (record.figures[name] for name in names)
    texts = ((number(figure.value), figure.unit.replace("packets", "")) for figure in held)
    return [record.case.split(" ")[1], *(" ".join(pair).rstrip() for pair in texts)]


def report(folder: Path) -> None:
    records = last_run(read(folder / "link-accuracy.jsonl"))
    delays = [record for record in records if record.case.startswith("delay")]
    rates = [record for record in records if record.case.startswith("throughput")]
    heads = ["delay", "packets", "p50 beyond", "p99 beyond"]
    print(aligned([heads, *(cells(one, "received", "p50_beyond", "p99_beyond") for one in delays)], right=True))
    heads = ["rate", "goodput", "program/packet", "kernel/packet"]
    print()
    print(aligned([heads, *(cells(one, "goodput", "program", "kernel") for one in rates)], right=True))


main = of_folder(report)
