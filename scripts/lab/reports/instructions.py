"""Holds counted instructions against a baseline.

    lab.sh report instructions NOW.json BASELINE.json

Both are of `lab.sh probe instructions`. Prints a table; fails if a case takes over MOST_PERCENT more. Counts
depend on the compiler, which both files name.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lab import LabError, UsageError
from lab.tables import aligned

MOST_PERCENT = 5


def growth(before: int, now: int) -> float:
    """Percent more than before."""
    return 100 * (now - before) / before


def rows(now: dict[str, int], baseline: dict[str, int]) -> list[list[str]]:
    out = []
    for case, count in now.items():
        before = baseline.get(case)
        if before is None:
            out.append([case, "-", str(count), "new", ""])
            continue
        percent = growth(before, count)
        out.append([case, str(before), str(count), f"{percent:.1f}", "TOO MANY" if percent > MOST_PERCENT else ""])
    return out


def report(now: dict[str, Any], baseline: dict[str, Any]) -> None:
    if now["rustc"] != baseline["rustc"]:
        print(f"note: baseline of rustc {baseline['rustc']}, this is {now['rustc']}", file=sys.stderr)
    table = rows(now["cases"], baseline["cases"])
    print(aligned([["case", "baseline", "now", "percent", ""], *table]))
    if worse := [row[0] for row in table if row[-1]]:
        raise LabError(
            f"over {MOST_PERCENT} percent more instructions in {', '.join(worse)}: look for the cause, or "
            "accept it with UPDATE=1"
        )


def main(words: list[str]) -> None:
    match words:
        case [now, baseline]:
            report(*(json.loads(Path(path).read_text(encoding="utf-8")) for path in (now, baseline)))
        case _:
            raise UsageError
