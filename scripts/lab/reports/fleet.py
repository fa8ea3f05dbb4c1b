"""Draws what servers sent to a fleet of downloads over time, one panel a contender.

    lab.sh report fleet FIGURES.json PICTURE.svg [SAMPLES BEGAN_MS]

FIGURES.json:

    {"title": "One of four servers is killed under 16 downloads of each kind",
     "link": "All downloads run at once and share one link of 200 Mbit/s",
     "events": [[3.0, "kill -9 server3"], ...],
     "contenders": [
        {"name": "curl and nginx, kernel TCP (cubic)",
         "outcome": "4 of 16 broken",
         "passed": false,
         "servers": {"server1": [[0.0, 0], [0.1, 1048576], ...], ...}},
        ...]}

Times are seconds since the start of the downloads, beside bytes sent since then. `link` says in words
what all panels share; it is the picture's subtitle. `passed` may be left out or null: the outcome is
then neither green nor red. Any number of contenders is drawn, each with servers of its own.

With SAMPLES, lines of `lab.sh probe counters`, and BEGAN_MS, the Unix time in milliseconds at which the
downloads began, a contender may have `counters` instead of `servers`: {"server1": "udp-server1", ...}
names the counter of each server. FIGURES.json is written again with the `servers` made of them.
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


def draw(figures: dict[str, Any]) -> str:
    contenders = figures["contenders"]
    stacks = [stacked(contender["servers"]) for contender in contenders]
    points = [point for layers in stacks for layer in layers for point in layer.points]
    servers = list(dict.fromkeys(layer.server for layers in stacks for layer in layers))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(servers)}
    panels = Panels(
        title=figures["title"],
        subtitle=figures.get("link", ""),
        entries=[Entry(name, kind) for name, kind in colours.items()],
        x=Linear(max((x for x, _, _ in points), default=1.0) * 1.01, 12),
        y=Linear(max((above for _, _, above in points), default=1.0) * 1.05, 5),
        events=[Event(seconds, text) for seconds, text in figures["events"]],
        x_label="seconds since the start of the downloads",
    )
    boxes = panels.boxes(len(contenders))
    drawn = [
        Panel(one["name"], one["outcome"], shapes(layers, colours, box), one.get("passed"))
        for one, layers, box in zip(contenders, stacks, boxes)
    ]
    return panels.draw(drawn)


def series(samples: list[dict[str, Any]], counter: str, began: float) -> Samples:
    """Bytes that the counter has grown by since the first sample, by seconds since `began`."""
    zero = samples[0]["bytes"][counter]
    points = [(one["time"] - began, one["bytes"][counter] - zero) for one in samples]
    return [(round(seconds, 3), grown) for seconds, grown in points if seconds >= -BEFORE_S]


def fill(figures: dict[str, Any], samples: list[dict[str, Any]], began: float) -> None:
    """Puts `servers` in the place of the contenders' `counters`."""
    for contender in figures["contenders"]:
        if counters := contender.pop("counters", None):
            found = {name: series(samples, counter, began) for name, counter in counters.items()}
            contender["servers"] = found


def main(words: list[str]) -> None:
    match words:
        case [path, picture, *rest] if len(rest) in (0, 2):
            figures = json.loads(Path(path).read_text(encoding="utf-8"))
            if rest:
                lines = Path(rest[0]).read_text(encoding="utf-8").splitlines(keepends=True)
                samples = [json.loads(line) for line in lines if line.endswith("\n")]
                fill(figures, samples, int(rest[1]) / 1000)
                Path(path).write_text(json.dumps(figures) + "\n", encoding="utf-8")
            Path(picture).write_text(standalone(draw(figures)), encoding="utf-8")
        case _:
            raise UsageError
