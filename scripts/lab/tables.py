"""Tables of text for the terminal."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[object]], right: bool = False) -> str:
    """Columns as wide as they must be, ranged left or right."""
    lines = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines)]
    out = []
    for line in lines:
        cells = (cell.rjust(width) if right else cell.ljust(width) for cell, width in zip(line, widths))
        out.append("  ".join(cells).rstrip())
    return "\n".join(out)
