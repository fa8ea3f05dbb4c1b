"""Reports what `tcp-scale.sh` has measured.

    lab.sh report tcp-scale DIR

Reads DIR/tcp-scale.jsonl and prints medians of rounds, and how many times the cost with the fewest connections
each is.
"""

from pathlib import Path

from lab.records import by, known_spread, last_run, read
from lab.reports import of_folder
from lab.tables import aligned


def report(folder: Path) -> None:
    records = last_run(read(folder / "tcp-scale.jsonl"))
    spreads = {
        count: known_spread(held, "packet")
        for count, held in sorted(by(records, lambda record: record.parameters["connections"]).items())
    }
    least = next(iter(spreads.values())).median
    rows = [[str(count), f"{held.median:.0f}", f"{held.median / least:.3f}"] for count, held in spreads.items()]
    print(aligned([["connections", "ns a packet", "times the first"], *rows]))
    print(f"{records[-1].round} rounds; {folder}/tcp-scale.jsonl")


main = of_folder(report)
