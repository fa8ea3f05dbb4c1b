"""The command line: `python3 -m lab ROOM NAME ARGUMENT...` calls `main` of one module.

Modules are imported when they are called, so that a probe starts as fast as a program of its own.
"""

import importlib
import sys
from pathlib import Path

from lab import LabError, UsageError

ROOMS = {"probe": "probes", "record": "measurements", "report": "reports"}
ALONE = ("settings", "cells", "traces")


def names(room: str) -> list[str]:
    """The modules of a room, as they are called."""
    folder = Path(__file__).parent / ROOMS[room]
    return sorted(path.stem.replace("_", "-") for path in folder.glob("[!_]*.py"))


def run(words: list[str]) -> None:
    match words:
        case [name, *rest] if name in ALONE:
            module = importlib.import_module(f"lab.{name}")
        case [room, name, *rest] if room in ROOMS and name in names(room):
            module = importlib.import_module(f"lab.{ROOMS[room]}.{name.replace('-', '_')}")
        case [room, *_] if room in ROOMS:
            raise LabError(f"'{room}' is one of: {', '.join(names(room))}")
        case _:
            raise LabError(f"the first word is one of: {', '.join([*ALONE, *ROOMS])}")
    try:
        module.main(rest)
    except UsageError:
        sys.exit(module.__doc__)


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except LabError as error:
        sys.exit(f"lab: {error}")
