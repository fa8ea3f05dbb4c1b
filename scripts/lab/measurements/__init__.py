"""Makes records of what programs and probes have left in a script's scratch directory.

    lab.sh record EXPERIMENT KIND SCRATCH RESULTS NAME=VALUE...

adds lines to RESULTS. A module is an experiment; each of its kinds is a function of a `Session`, which
returns the records. `scripts/lib/settings.sh` has the bash function `record`.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import LabError, UsageError
from lab.records import Figure, Record, append

Kind = Callable[["Session"], list[Record]]


@dataclass(frozen=True)
class Session:
    """What a script hands over: its scratch directory, and names with values."""

    experiment: str
    scratch: Path
    words: Mapping[str, str]

    def word(self, name: str) -> str:
        if name not in self.words:
            raise LabError(f"a record of {self.experiment} needs {name}=VALUE")
        return self.words[name]

    def number(self, name: str) -> float:
        return float(self.word(name))

    def count(self, name: str) -> int:
        return int(self.word(name))

    def text(self, name: str) -> str:
        """The content of a file in the scratch directory; nothing if there is none."""
        path = self.scratch / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def json(self, name: str) -> Any:
        """The JSON of a file in the scratch directory; None if there is none."""
        text = self.text(name)
        return json.loads(text) if text.strip() else None

    def record(
        self, case: str, contender: str, figures: Mapping[str, tuple[float | None, str]], **more: Any
    ) -> Record:
        """A record with what all of this script's have."""
        return Record(
            experiment=self.experiment,
            case=case,
            contender=contender,
            run=self.count("run"),
            began=float(self.words.get("began", time.time())),
            round=int(more.pop("round", self.words.get("round", 1))),
            layout=more.pop("layout", self.words.get("layout", "")),
            load=round(os.getloadavg()[0], 2),
            figures={name: Figure(*figure) for name, figure in figures.items()},
            versions=self.json("versions") or {},
            **more,
        )


def mbits(size: float, seconds: float) -> float:
    return size * 8e-6 / max(seconds, 1e-9)


def make(experiment: str, kinds: Mapping[str, Kind], words: list[str]) -> None:
    """The `main` of a module of kinds: adds the records, and prints what a kind has said of them."""
    match words:
        case [kind, scratch, results, *pairs] if kind in kinds and all("=" in pair for pair in pairs):
            session = Session(experiment, Path(scratch), dict(pair.split("=", 1) for pair in pairs))
            try:
                append(Path(results), kinds[kind](session))
            except KeyError as error:
                raise LabError(f"{experiment} {kind}: the output of a program has no {error}") from error
        case _:
            raise UsageError
