"""Reports what `redirect-bench.sh` has measured.

    lab.sh report redirect-bench DIR

Reads DIR/redirect-bench.jsonl and prints the newest run: medians and ranges of floods, and the memory of
the redirector.
"""

from collections.abc import Sequence
from pathlib import Path

from lab.figures import Spread, number
from lab.records import Record, by, known_spread, last_run, read, spread
from lab.reports import of_folder
from lab.tables import aligned

HEADS = ["bytes", "case", "1000 packets/s", "Gbit/s", "of nft", "program ns", "flood ns"]


def flood_lines(records: Sequence[Record]) -> list[list[str]]:
    """The floods of one size."""
    contenders = by(records, lambda record: record.contender)
    nft = spread(contenders.get("nft", []), "rate")
    out = []
    for name, held in contenders.items():
        rate, program = known_spread(held, "rate"), spread(held, "program")
        thousands = Spread(tuple(value / 1000 for value in rate.rounds))
        out.append(
            [
                str(held[0].parameters["bytes"]),
                name,
                str(thousands),
                str(known_spread(held, "goodput")),
                number(rate.median / nft.median) if nft else "-",
                number(program.median) if program else "-",
                number(known_spread(held, "flood").median),
            ]
        )
    return out


def memory_line(record: Record) -> str:
    loads = record.details["loads"]
    tried = sum(load["resumed"] + load["not_resumed"] for load in loads)
    few, many = (record.parameters[name] for name in ("few_connections", "many_connections"))
    sizes = {name: f"{record.known(name):.0f} KiB" for name in ("fresh", "few", "many", "last")}
    return (
        f"redirector: {sizes['fresh']} fresh, {sizes['few']} with {few} connections, {sizes['many']} with "
        f"{many}, {sizes['last']} at the end; opened in "
        f"{max(load['opening_seconds'] for load in loads):.0f} s, "
        f"{sum(load['resumed'] for load in loads)} of {tried} tried went on"
    )


def report(folder: Path) -> None:
    cases = by(last_run(read(folder / "redirect-bench.jsonl")), lambda record: record.case)
    memory = cases.pop("memory", [])
    if cases:
        rows = [line for held in cases.values() for line in flood_lines(held)]
        print(aligned([HEADS, *rows]))
    for record in memory:
        print(memory_line(record))


main = of_folder(report)
