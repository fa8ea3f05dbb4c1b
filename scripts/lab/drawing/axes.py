"""Scales, ticks and frames of diagrams, and labels that do not overlap.

A diagram is a `Box` in the units of its picture, with one scale for each axis. Functions return lists
of SVG elements.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple, Protocol

Point = tuple[float, float]

# Mean width of a letter, as a part of the font's size: more than any usual sans-serif font takes.
LETTER = 0.57
# Between labels that stand side by side.
GAP = 6.0


def text_width(text: str, size: float = 11) -> float:
    return len(text) * size * LETTER


class Scale(Protocol):
    """An axis: which values have ticks, and where a value is, from 0 to 1."""

    @property
    def ticks(self) -> Sequence[float]: ...

    def share(self, value: float) -> float: ...


def nice_step(span: float, steps: int) -> float:
    """The smallest 1, 2, 5 times a power of ten that divides span into at most `steps` steps."""
    raw = max(span, 1e-9) / steps
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


class Linear:
    """From `least` to `most`, with at most `steps` steps."""

    def __init__(self, most: float, steps: int, least: float = 0) -> None:
        self.least, self.most = least, max(most, least + 1e-9)
        step = nice_step(self.most - least, steps)
        first, last = math.ceil(least / step - 0.001), math.floor(self.most / step + 0.001)
        self.ticks = [round(index * step, 6) for index in range(first, last + 1)]

    def share(self, value: float) -> float:
        return (min(max(value, self.least), self.most) - self.least) / (self.most - self.least)


class Logarithmic:
    """From `least` to `most`, with the given ticks, or one at 1, 2 and 5 times each power of ten."""

    def __init__(self, least: float, most: float, ticks: Sequence[float] = ()) -> None:
        self.least, self.span = least, math.log(max(most, least * 1.001) / least)
        powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
        every = [round(m * 10.0**power, 6) for power in powers for m in (1, 2, 5)]
        self.ticks = ticks or [tick for tick in every if least * 0.999 <= tick <= most * 1.001]

    def share(self, value: float) -> float:
        return math.log(max(value, self.least) / self.least) / self.span


def covering(values: Iterable[float], steps: int) -> Linear:
    """A linear scale for all values, from zero unless a third of it would then be empty."""
    held = list(values) or [0.0, 1.0]
    least, most = min(held), max(held)
    margin = max(most - least, most * 0.02, 1e-9) * 0.15
    if least <= most / 3:
        return Linear(most * 1.05, steps, min(least, 0))
    step = nice_step(most - least + 2 * margin, steps)
    return Linear(most + margin, steps, max(math.floor((least - margin) / step) * step, 0))


def covering_factors(values: Iterable[float]) -> Logarithmic:
    """A logarithmic scale for all values, from and to 1, 2 or 5 times a power of ten."""
    held = [value for value in values if value > 0] or [1.0, 10.0]
    least, most = min(held) * 0.98, max(held) * 1.02
    marks = [m * 10.0**power for power in range(-9, 13) for m in (1, 2, 5)]
    below = max(mark for mark in marks if mark <= least)
    above = min(mark for mark in marks if mark >= most)
    return Logarithmic(below, above)


class Box(NamedTuple):
    """Where a diagram is, in units of the picture, and its axes."""

    left: float
    top: float
    width: float
    height: float
    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> Point:
        """The point of the picture for a point of the diagram."""
        return self.left + self.width * self.x.share(x), self.bottom - self.height * self.y.share(y)

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def right(self) -> float:
        return self.left + self.width


def thousands(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 1000 else f"{value:g}"


def apart(places: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the labels (middle, width) that can be drawn beside one another, first and last first."""
    order = [0, len(places) - 1, *range(1, len(places) - 1)] if len(places) > 1 else [0] * len(places)
    chosen: list[int] = []
    for index in order:
        middle, width = places[index]
        distances = ((abs(middle - places[other][0]), places[other][1]) for other in chosen)
        if all(distance >= (width + beside) / 2 + GAP for distance, beside in distances):
            chosen.append(index)
    return sorted(chosen)


def lanes(places: Sequence[tuple[float, float]]) -> list[int]:
    """The lane, from 0 up, of each label (left, width), so that none covers another."""
    ends: list[float] = []
    found = []
    for left, width in places:
        lane = next((index for index, end in enumerate(ends) if end + GAP <= left), len(ends))
        ends[lane : lane + 1] = [left + width]
        found.append(lane)
    return found


def frame(box: Box, y_label: str) -> list[str]:
    """Grid, ticks and axes."""
    out = []
    middles = [(box.bottom - box.height * box.y.share(value), 11.0) for value in box.y.ticks]
    for index, (y, _) in enumerate(middles):
        out.append(f'<line class="grid" x1="{box.left}" x2="{box.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if index in apart(middles):
            label = thousands(box.y.ticks[index])
            out.append(f'<text class="soft" x="{box.left - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    at = [box.left + box.width * box.x.share(value) for value in box.x.ticks]
    labels = [thousands(value) for value in box.x.ticks]
    shown = apart([(x, text_width(label)) for x, label in zip(at, labels)])
    for index, (x, label) in enumerate(zip(at, labels)):
        end = box.bottom + 5
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{box.bottom}" y2="{end}"/>')
        if index in shown:
            out.append(f'<text class="soft" x="{x:.1f}" y="{end + 13}" text-anchor="middle">{label}</text>')
    for x2, y1 in ((box.right, box.bottom), (box.left, box.top)):
        out.append(f'<line class="axis" x1="{box.left}" x2="{x2}" y1="{y1}" y2="{box.bottom}"/>')
    turn = f"translate({box.left - 50} {box.top + box.height / 2}) rotate(-90)"
    out.append(f'<text class="soft" text-anchor="middle" transform="{turn}">{escape(y_label)}</text>')
    return out


def polyline(points: Iterable[Point], classes: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="line {classes}" points="{path}"/>'


def polygon(points: Iterable[Point], classes: str, inner: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon class="{classes}" points="{path}">{inner}</polygon>'
