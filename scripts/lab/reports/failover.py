"""Draws a failover: throughput over time of a download whose server dies, one panel a contender.

    lab.sh report failover FIGURES.json PICTURE.svg

FIGURES.json: {"title", "link", "contenders": [{"name", "outcome", "completed", "killed_s", "back_s",
"end_s", "samples": [[seconds, bytes received since the start], ...]}, ...]}; seconds count from
the start of each download. `link` says in words which link the downloads had; it may be left out.
"""

import json
from pathlib import Path
from typing import Any

from lab import UsageError
from lab.drawing.axes import Box, Linear, Point, polygon, polyline
from lab.drawing.charts import Entry, Panel, Panels, throughput
from lab.drawing.palette import standalone

LEGEND = (
    Entry("server killed (−9), not yet back", "down"),
    Entry("download that completes", "line headwater", "line"),
    Entry("download that breaks", "line cubic", "line"),
    Entry("its end", "dashed", "line"),
)


def shapes(contender: dict[str, Any], points: list[Point], box: Box) -> list[str]:
    kind = "headwater" if contender["completed"] else "cubic"
    killed, back, end = (box.at(contender[name], 0)[0] for name in ("killed_s", "back_s", "end_s"))
    span = f'x="{killed:.1f}" width="{back - killed:.1f}"'
    out = [f'<rect class="down" {span} y="{box.top}" height="{box.height}"/>']
    if points:
        at = [box.at(*point) for point in points]
        out.append(polygon([(at[0][0], box.bottom), *at, (at[-1][0], box.bottom)], f"area {kind}"))
        out.append(polyline(at, kind))
    ends = f'y1="{box.top}" y2="{box.bottom}"'
    out.append(f'<line class="dashed" x1="{end:.1f}" x2="{end:.1f}" {ends}/>')
    return out


def draw(figures: dict[str, Any]) -> str:
    """The picture, for a page or for a file of its own."""
    contenders = figures["contenders"]
    series = [throughput(one["samples"], one["end_s"] + 0.3) for one in contenders]
    last = max(max(one["end_s"], one["back_s"]) for one in contenders)
    most = max((value for points in series for _, value in points), default=1.0)
    panels = Panels(
        title=figures["title"],
        subtitle=figures.get("link", ""),
        entries=LEGEND,
        x=Linear(last * 1.03, 12),
        y=Linear(most * 1.05, 5),
        x_label="seconds since the start of the download",
    )
    drawn = [
        Panel(one["name"], one["outcome"], shapes(one, points, box), one["completed"])
        for one, points, box in zip(contenders, series, panels.boxes([()] * len(contenders)))
    ]
    return panels.draw(drawn)


def main(words: list[str]) -> None:
    match words:
        case [figures, picture]:
            drawn = draw(json.loads(Path(figures).read_text(encoding="utf-8")))
            Path(picture).write_text(standalone(drawn), encoding="utf-8")
        case _:
            raise UsageError
