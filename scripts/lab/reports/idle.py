"""Reports what `idle.sh` has measured.

    lab.sh report idle DIR

Reads DIR/idle.jsonl and prints the figures of the newest run.
"""

from pathlib import Path

from lab.figures import number
from lab.records import last_run, read
from lab.reports import of_folder


def report(folder: Path) -> None:
    for record in last_run(read(folder / "idle.jsonl")):
        for name, figure in record.figures.items():
            print(f"{name:<12} {number(figure.value)} {figure.unit}")


main = of_folder(report)
