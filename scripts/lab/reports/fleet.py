"""Draws what servers sent to a fleet of downloads over time, one panel a contender.

    lab.sh report fleet FIGURES.json PICTURE.svg [SAMPLES]

FIGURES.json:

    {"title": "One of four servers is killed under 16 downloads",
     "link": "Each alone, one after another, over one link of 200 Mbit/s",
     "contenders": [
        {"name": "curl and nginx, kernel TCP (cubic)",
         "outcome": "4 of 16 broken",
         "passed": false,
         "events": [[1.5, "kill -9 server3"], ...],
         "servers": {"server1": [[0.0, 0], [0.1, 1048576], ...], ...}},
        ...]}

Times are seconds since the start of the contender's downloads, beside bytes sent since then. `link` says
in words what all panels share; it is the picture's subtitle. `passed` may be left out or null: the
outcome is then neither green nor red. Any number of contenders is drawn, each with servers of its own.

With SAMPLES, lines of `lab.sh probe counters`, a contender may have `counters` instead of `servers`:
{"server1": "from1", ...} names the counter of each server, and `began_ms` and `ended_ms`, Unix times in
milliseconds, the time that the contender had. FIGURES.json is written again with the `servers` made of
them.
"""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from lab import UsageError
from lab.drawing.axes import Box, Linear, Point, polygon
from lab.drawing.charts import Entry, Event, Panel, Panels, throughput
from lab.drawing.palette import CONTENDERS, standalone

LEAST_INTERVAL_S = 0.2
# Samples from this long before the downloads are drawn.
BEFORE_S = 0.2
# Classes of colours, one a server; a sixth server has the first one's again.
COLOURS = tuple(CONTENDERS)

Samples = list[Point]


@dataclass(frozen=True)
class Layer:
    """Mbit/s of one server on top of those of the servers before it: (seconds, below, above)."""

    server: str
    points: list[tuple[float, float, float]]


def thinned(samples: Samples) -> Samples:
    """Without those that come too soon after another: a sampler that had to wait catches up."""
    kept = samples[:1]
    for one in samples[1:]:
        if one[0] - kept[-1][0] >= LEAST_INTERVAL_S:
            kept.append(one)
    return kept


def stacked(servers: dict[str, Samples]) -> list[Layer]:
    """Layers from the lowest up."""
    rates = {name: throughput(thinned(samples)) for name, samples in servers.items()}
    count = min((len(points) for points in rates.values()), default=0)
    below, layers = [0.0] * count, []
    for name, points in rates.items():
        above = [low + value for low, (_, value) in zip(below, points)]
        layers.append(Layer(name, [(points[i][0], below[i], above[i]) for i in range(count)]))
        below = above
    return layers


def shapes(layers: list[Layer], colours: dict[str, str], box: Box) -> list[str]:
    out = []
    for layer in layers:
        edge = [box.at(x, above) for x, _, above in layer.points]
        edge += [box.at(x, below) for x, below, _ in reversed(layer.points)]
        out.append(polygon(edge, colours[layer.server], f"<title>{escape(layer.server)}</title>"))
    return out


def end_of(points: list[tuple[float, float, float]], most: float, events: list[list[Event]]) -> float:
    """When the last event has been and the last bytes have come: next to nothing does while a client
    waits for a server that is gone, until it gives up."""
    marked = [event.seconds for of_contender in events for event in of_contender]
    return max([x for x, below, above in points if above - below > most / 100] + marked, default=1.0)


def draw(figures: dict[str, Any]) -> str:
    contenders = figures["contenders"]
    stacks = [stacked(contender["servers"]) for contender in contenders]
    points = [point for layers in stacks for layer in layers for point in layer.points]
    most = max((above for _, _, above in points), default=1.0)
    servers = list(dict.fromkeys(layer.server for layers in stacks for layer in layers))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(servers)}
    events = [[Event(seconds, text) for seconds, text in one["events"]] for one in contenders]
    panels = Panels(
        title=figures["title"],
        subtitle=figures.get("link", ""),
        entries=[Entry(name, kind) for name, kind in colours.items()],
        x=Linear(end_of(points, most, events) * 1.03, 12),
        y=Linear(most * 1.05, 5),
        x_label="seconds since the start of the contender's downloads",
    )
    drawn = [
        Panel(one["name"], one["outcome"], shapes(layers, colours, box), one.get("passed"), marked)
        for one, layers, box, marked in zip(contenders, stacks, panels.boxes(events), events)
    ]
    return panels.draw(drawn)


def series(samples: list[dict[str, Any]], counter: str, began: float, ended: float) -> Samples:
    """Bytes that the counter has grown by since the first sample, by seconds since `began`."""
    during = [one for one in samples if began - BEFORE_S <= one["time"] <= ended]
    zero = during[0]["bytes"][counter] if during else 0
    return [(round(one["time"] - began, 3), one["bytes"][counter] - zero) for one in during]


def fill(figures: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """Puts `servers` in the place of the contenders' `counters`."""
    for contender in figures["contenders"]:
        if counters := contender.pop("counters", None):
            span = contender["began_ms"] / 1000, contender["ended_ms"] / 1000
            found = {name: series(samples, counter, *span) for name, counter in counters.items()}
            contender["servers"] = found


def main(words: list[str]) -> None:
    match words:
        case [path, picture, *rest] if len(rest) < 2:
            figures = json.loads(Path(path).read_text(encoding="utf-8"))
            if rest:
                lines = Path(rest[0]).read_text(encoding="utf-8").splitlines(keepends=True)
                samples = [json.loads(line) for line in lines if line.endswith("\n")]
                fill(figures, samples)
                Path(path).write_text(json.dumps(figures) + "\n", encoding="utf-8")
            Path(picture).write_text(standalone(draw(figures)), encoding="utf-8")
        case _:
            raise UsageError
