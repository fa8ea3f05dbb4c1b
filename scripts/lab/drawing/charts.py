"""Line charts, and stacks of panels over time.

Every chart says in its subtitle what its series or panels have in common; a target is a dotted line.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

from lab.drawing.axes import Box, Linear, Point, Scale, frame, lanes, polyline, text_width, thousands
from lab.figures import number


class Ranged(NamedTuple):
    """A point of a series: the median of its rounds, with the least and the greatest."""

    x: float
    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Series:
    """Medians joined by lines; `kind` is the CSS class that gives the colour."""

    name: str
    kind: str
    points: Sequence[Ranged]

    @property
    def values(self) -> list[float]:
        return [value for point in self.points for value in point[1:]]


@dataclass(frozen=True)
class Guide:
    """A line to hold the series against: the link's rate or an equal share (dashed), or a target."""

    name: str
    points: Sequence[Point]
    kind: str = "dashed"


class Entry(NamedTuple):
    """What a legend says about one colour: a swatch of `shape` ("rect" or "line")."""

    name: str
    kind: str
    shape: str = "rect"


SWATCH = 22


def legend(entries: Sequence[Entry], x: float, y: float, right: float) -> tuple[list[str], float]:
    """Swatches with names from (x, y) on, and the y of the last line; wraps before `right`."""
    out: list[str] = []
    at = x
    for name, kind, shape in entries:
        width = SWATCH + 8 + text_width(name, 12)
        if at > x and at + width > right:
            at, y = x, y + 18
        if shape == "rect":
            out.append(f'<rect class="{kind}" x="{at:.0f}" y="{y - 11}" width="{SWATCH}" height="14"/>')
        else:
            end = at + SWATCH
            out.append(f'<line class="{kind}" x1="{at:.0f}" x2="{end:.0f}" y1="{y - 4}" y2="{y - 4}"/>')
        out.append(f'<text x="{at + SWATCH + 8:.0f}" y="{y}" style="font-size:12px">{escape(name)}</text>')
        at += width + 18
    return out, y


def head(title: str, subtitle: str, left: float) -> list[str]:
    """Title and subtitle at the top of a picture."""
    out = [f'<text class="title" x="{left}" y="24">{escape(title)}</text>']
    if subtitle:
        out.append(f'<text class="soft" x="{left}" y="42">{escape(subtitle)}</text>')
    return out


@dataclass(frozen=True)
class LineChart:
    """Series over one axis, with guides behind them and a verdict below the title."""

    title: str
    subtitle: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    series: Sequence[Series]
    guides: Sequence[Guide] = ()
    verdict: str = ""
    passed: bool = True

    WIDTH = 640
    LEFT = 70

    def draw(self) -> str:
        right = self.WIDTH - 25
        entries = [Entry(one.name, f"line {one.kind}", "line") for one in self.series]
        entries += [Entry(one.name, one.kind, "line") for one in self.guides]
        y: float = 42 + (18 if self.subtitle else 0)
        out = head(self.title, self.subtitle, self.LEFT)
        if self.verdict:
            kind = "pass" if self.passed else "fail"
            out.append(f'<text class="{kind}" x="{self.LEFT}" y="{y}">{escape(self.verdict)}</text>')
            y += 18
        keys, y = legend(entries, self.LEFT, y, right)
        box = Box(self.LEFT, y + 16, right - self.LEFT, 250, self.x, self.y)
        out += keys + frame(box, self.y_label)
        for guide in self.guides:
            (x1, y1), *_ = at = [box.at(*point) for point in guide.points]
            path = " ".join(f"L{x:.1f} {y:.1f}" for x, y in at[1:])
            out.append(f'<path class="{guide.kind}" fill="none" d="M{x1:.1f} {y1:.1f} {path}"/>')
        for one in self.series:
            out += self.drawn(one, box)
        height = box.bottom + 48
        middle = (box.left + box.right) / 2
        label = f'<text class="soft" x="{middle}" y="{height - 8}" text-anchor="middle">{escape(self.x_label)}</text>'
        start = f'<svg viewBox="0 0 {self.WIDTH} {height:g}" role="img"><title>{escape(self.title)}</title>'
        return "\n".join([start, *out, f"{label}</svg>"])

    def drawn(self, one: Series, box: Box) -> list[str]:
        """Line, ranges and points of a series."""
        out = [polyline([box.at(point.x, point.median) for point in one.points], one.kind)]
        for point in one.points:
            x, y = box.at(point.x, point.median)
            low, high = (box.at(point.x, value)[1] for value in (point.least, point.greatest))
            hover = f"{one.name}, {thousands(point.x)}: {number(point.median, 4)}"
            out.append(f'<line class="range" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
            out.append(
                f'<circle class="{one.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.6"><title>{escape(hover)}</title></circle>'
            )
        return out


@dataclass(frozen=True)
class Event:
    """An instant that a panel marks."""

    seconds: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One contender of a picture over time, with the shapes drawn into its box."""

    name: str
    outcome: str
    shapes: list[str] = field(default_factory=list)
    passed: bool | None = None
    events: Sequence[Event] = ()


@dataclass(frozen=True)
class Panels:
    """Panels one below the other that share both scales; each is labelled with contender and outcome."""

    title: str
    subtitle: str
    entries: Sequence[Entry]
    x: Linear
    y: Linear
    x_label: str
    y_label: str = "Mbit/s"

    WIDTH = 860
    LEFT, RIGHT = 70, 840
    PANEL = 190

    def labels(self, events: Sequence[Event]) -> tuple[list[str], int]:
        """The events' labels above a panel whose top is at zero, and how many lanes they take."""
        places = []
        for event in events:
            x = self.LEFT + (self.RIGHT - self.LEFT) * self.x.share(event.seconds)
            width = text_width(event.text)
            places.append((min(x, self.RIGHT - width), width))
        order = sorted(range(len(places)), key=lambda index: places[index])
        lane_of = dict(zip(order, lanes([places[index] for index in order])))
        most = max(lane_of.values(), default=-1) + 1
        out = [
            f'<text x="{places[index][0]:.1f}" y="{-4 - 13 * lane_of[index]}">{escape(event.text)}</text>'
            for index, event in enumerate(events)
        ]
        return out, most

    def boxes(self, events: Sequence[Sequence[Event]]) -> list[Box]:
        """Where the panels with these events are, from the top."""
        _, y = legend(self.entries, self.LEFT, self._legend_y, self.RIGHT)
        above = 22 + 13 * self._lanes(events)
        step = above + self.PANEL + 34
        tops = [y + 14 + above + index * step for index in range(len(events))]
        return [Box(self.LEFT, top, self.RIGHT - self.LEFT, self.PANEL, self.x, self.y) for top in tops]

    def _lanes(self, events: Sequence[Sequence[Event]]) -> int:
        """The most lanes of labels that a panel needs; all panels have room for as many."""
        return max((self.labels(of_panel)[1] for of_panel in events), default=0)

    @property
    def _legend_y(self) -> float:
        return 66 if self.subtitle else 48

    def draw(self, panels: Sequence[Panel]) -> str:
        keys, _ = legend(self.entries, self.LEFT, self._legend_y, self.RIGHT)
        out = head(self.title, self.subtitle, self.LEFT) + keys
        events = [panel.events for panel in panels]
        boxes, count_of_lanes = self.boxes(events), self._lanes(events)
        for panel, box in zip(panels, boxes):
            texts, _ = self.labels(panel.events)
            out += frame(box, self.y_label) + panel.shapes
            for event in panel.events:
                x, _ = box.at(event.seconds, 0)
                high = box.top - 2
                out.append(f'<line class="dashed" x1="{x:.1f}" x2="{x:.1f}" y1="{high}" y2="{box.bottom}"/>')
            out.append(f'<g transform="translate(0 {box.top})">{"".join(texts)}</g>')
            kind = {None: "", True: ' class="pass"', False: ' class="fail"'}[panel.passed]
            y = box.top - 9 - 13 * count_of_lanes
            out.append(
                f'<text class="large" x="{box.left}" y="{y}"><tspan class="name">{escape(panel.name)}</tspan>'
                f" · <tspan{kind}>{escape(panel.outcome)}</tspan></text>"
            )
        height = boxes[-1].bottom + 52
        middle = (self.LEFT + self.RIGHT) / 2
        label = f'<text class="soft" x="{middle}" y="{height - 12}" text-anchor="middle">{escape(self.x_label)}</text>'
        start = f'<svg viewBox="0 0 {self.WIDTH} {height:g}" role="img"><title>{escape(self.title)}</title>'
        return "\n".join([start, *out, f"{label}</svg>"])


def throughput(samples: Sequence[tuple[float, float]], end: float = math.inf) -> list[Point]:
    """Mbit/s between neighbouring samples (seconds, bytes), as (middle of the interval, value)."""
    return [
        ((t0 + t1) / 2, (b1 - b0) * 8e-6 / (t1 - t0))
        for (t0, b0), (t1, b1) in itertools.pairwise(samples)
        if t1 > t0 and t0 <= end
    ]


def every(bytes_received: Sequence[int], tick: float, stride: int) -> list[tuple[float, float]]:
    """Samples (seconds, bytes), one of `stride`, of the bytes received at each tick."""
    held = [0, *bytes_received]
    return [(index * tick, held[index]) for index in range(0, len(held), stride)]
