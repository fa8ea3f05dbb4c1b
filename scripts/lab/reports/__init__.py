"""Tables, pages and pictures of what was measured; each reads records or figures from files."""

from collections.abc import Callable
from pathlib import Path

from lab import UsageError


def of_folder(report: Callable[[Path], None]) -> Callable[[list[str]], None]:
    """The `main` of a report on the records in a directory."""

    def main(words: list[str]) -> None:
        match words:
            case [folder]:
                report(Path(folder))
            case _:
                raise UsageError

    return main
