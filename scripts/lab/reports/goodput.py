"""Reports what `goodput.sh` has measured.

    lab.sh report goodput DIR

Reads DIR/goodput.jsonl and prints medians of rounds, and how many times those of others ours is.
"""

from pathlib import Path

from lab.records import by, known_spread, last_run, read
from lab.reports import of_folder
from lab.tables import aligned


def report(folder: Path) -> None:
    records = last_run(read(folder / "goodput.jsonl"))
    spreads = {
        name: known_spread(held, "goodput") for name, held in by(records, lambda record: record.contender).items()
    }
    ours = spreads["headwater"].median
    rows = [[name, f"{held.median:.1f}", f"{ours / held.median:.3f}"] for name, held in spreads.items()]
    print(aligned([["contender", "median Mbit/s", "headwater is x times"], *rows]))
    last = records[-1]
    print(
        f"kernel TCP under curl: {last.versions['congestion_control']}; {last.round} rounds of "
        f"{last.parameters['object_mib']} MiB; {folder}/goodput.jsonl"
    )


main = of_folder(report)
