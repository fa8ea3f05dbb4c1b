"""The record of a measurement: one schema for every experiment, as JSON lines.

A line is one measurement of one contender:

    {"schema": 2, "experiment": "compare", "case": "40ms-100mbit-clean-1bdp", "contender": "cubic",
     "layout": "", "round": 1, "run": 1700000000, "began": 1700000003.25, "load": 0.4,
     "parameters": {"rtt_ms": 40, "rate_mbit": 100, ...},
     "figures": {"goodput": {"value": 95.2, "unit": "Mbit/s"}, ...},
     "details": {...}, "versions": {"headwater": "headwater 0.1.0", "kernel": "6.1.0", ...}}

`case` names the conditions, `parameters` has them one by one; `layout` is how processes are spread over
processors, where that differs. All records of one call of a script have the same `run`. `details` holds
what programs and probes have printed, for figures that nobody has asked for yet. A script only adds
lines; a report takes the newest run of every case and contender.
"""

import dataclasses
import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lab import LabError
from lab.figures import Spread

SCHEMA = 2
UNITS = frozenset(
    [
        "Mbit/s",
        "Gbit/s",
        "1/s",
        "s",
        "ms",
        "us",
        "ns",
        "KiB",
        "bytes",
        "packets",
        "connections",
        "share",
        "count",
        "cores",
    ]
)

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Figure:
    """A number with its unit; a number that could not be had is None."""

    value: float | None
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise LabError(f"'{self.unit}' is not a unit of records: {', '.join(sorted(UNITS))}")


@dataclass(frozen=True)
class Record:
    """One measurement of one contender."""

    experiment: str
    case: str
    contender: str
    run: int
    began: float
    figures: Mapping[str, Figure]
    round: int = 1
    layout: str = ""
    load: float = 0.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """The figure's number, or None if the record has no such figure."""
        figure = self.figures.get(name)
        return None if figure is None else figure.value

    def known(self, name: str) -> float:
        """The number of a figure that every such record has."""
        value = self.value(name)
        if value is None:
            raise LabError(f"the record of {self.case}, {self.contender}, has no '{name}'")
        return value

    def line(self) -> str:
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)})

    @classmethod
    def parse(cls, line: str) -> "Record":
        held = json.loads(line)
        if held.pop("schema", None) != SCHEMA:
            raise LabError(f"not a record of schema {SCHEMA}: move the file away, and measure again")
        try:
            held["figures"] = {name: Figure(**figure) for name, figure in held["figures"].items()}
            return cls(**held)
        except (KeyError, TypeError) as error:
            raise LabError(f"not a record: {error}") from None


def append(path: Path, records: Iterable[Record]) -> None:
    """Adds lines to a file, which is made with its directory if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        for record in records:
            lines.write(record.line() + "\n")


def read(path: Path) -> list[Record]:
    """All records of a file, the oldest first."""
    records = []
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LabError(f"there are no records in {path}: measure first") from None
    for index, line in enumerate(text.splitlines(), 1):
        try:
            records.append(Record.parse(line))
        except (LabError, json.JSONDecodeError) as error:
            raise LabError(f"{path}, line {index}: {error}") from None
    return records


def newest(records: Iterable[Record]) -> list[Record]:
    """Of every experiment, case, contender and layout the records of its newest run."""
    held: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        group = held.setdefault((record.experiment, record.case, record.contender, record.layout), [])
        if group and group[0].run != record.run:
            group.clear()
        group.append(record)
    return [record for group in held.values() for record in group]


def last_run(records: Iterable[Record]) -> list[Record]:
    """The records of the newest run."""
    held = list(records)
    run = max((record.run for record in held), default=0)
    return [record for record in held if record.run == run]


def by(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """Groups of records, in the order of their first ones."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def spread(records: Iterable[Record], name: str) -> Spread | None:
    """The rounds of a figure."""
    return Spread.of(record.value(name) for record in records)


def known_spread(records: Iterable[Record], name: str) -> Spread:
    """The rounds of a figure that every such record has."""
    return Spread(tuple(record.known(name) for record in records))
