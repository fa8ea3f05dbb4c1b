"""Draws the picture of a failover: throughput over time, one panel a contender.

    plot.py FIGURES.json PICTURE.svg

FIGURES.json: {"title", "contenders": [{"name", "outcome", "completed", "killed_s", "back_s",
"end_s", "samples": [[seconds, bytes received since the start], ...]}, ...]}; seconds count from
the start of each download.
"""

import json
import sys
from html import escape

from drawing import Box, Linear, frame, polyline, standalone, throughput

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP, BOTTOM = 860, 190, 70, 20, 84, 58, 56


def kind_of(contender):
    """The class of its colour."""
    return "headwater" if contender["completed"] else "cubic"


def panel(contender, points, box):
    kind = kind_of(contender)
    (killed, _), (back, _) = box.at(contender["killed_s"], 0), box.at(contender["back_s"], 0)
    out = [f'<rect class="down" x="{killed:.1f}" y="{box.top}" width="{back - killed:.1f}" height="{box.height}"/>']
    out += frame(box, "Mbit/s")
    if points:
        at = [box.at(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(at[0][0], box.bottom), *at, (at[-1][0], box.bottom)])
        out.append(f'<polygon class="area {kind}" points="{path}"/>')
        out.append(polyline(at, kind))
    end, _ = box.at(contender["end_s"], 0)
    out.append(f'<line class="dashed" x1="{end:.1f}" x2="{end:.1f}" y1="{box.top}" y2="{box.bottom}"/>')
    out.append(f'<text class="large" x="{box.left}" y="{box.top - 9}"><tspan class="name">{escape(contender["name"])}</tspan>'
               f' · {escape(contender["outcome"])}</text>')
    return out


def legend(x, y):
    return [
        f'<rect class="down" x="{x}" y="{y - 11}" width="22" height="14"/>',
        f'<text class="large" x="{x + 30}" y="{y}">server killed (−9), not yet back</text>',
        f'<line class="line headwater" x1="{x + 250}" x2="{x + 272}" y1="{y - 4}" y2="{y - 4}"/>',
        f'<text class="large" x="{x + 280}" y="{y}">download that completes</text>',
        f'<line class="line cubic" x1="{x + 450}" x2="{x + 472}" y1="{y - 4}" y2="{y - 4}"/>',
        f'<text class="large" x="{x + 480}" y="{y}">download that breaks</text>',
        f'<line class="dashed" x1="{x + 640}" x2="{x + 640}" y1="{y - 12}" y2="{y + 3}"/>',
        f'<text class="large" x="{x + 650}" y="{y}">its end</text>',
    ]


def draw(figures):
    """The picture, to stand in a page or on its own."""
    contenders = figures["contenders"]
    series = [throughput(c["samples"], c["end_s"] + 0.3) for c in contenders]
    x = Linear(max(max(c["end_s"], c["back_s"]) for c in contenders) * 1.03, 12)
    y = Linear(max((v for points in series for _, v in points), default=1.0) * 1.05, 5)
    height = TOP + len(contenders) * (PANEL + GAP) - GAP + BOTTOM
    out = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(figures["title"])}</title>',
        f'<text class="title" x="{LEFT}" y="28">{escape(figures["title"])}</text>',
    ]
    out += legend(LEFT, 50)
    for index, (contender, points) in enumerate(zip(contenders, series)):
        box = Box(LEFT, TOP + index * (PANEL + GAP), WIDTH - LEFT - RIGHT, PANEL, x, y)
        out += panel(contender, points, box)
    out.append(f'<text class="soft" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 14}"'
               ' text-anchor="middle">seconds since the start of the download</text></svg>')
    return "\n".join(out)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as source:
        picture = standalone(draw(json.load(source)))
    with open(sys.argv[2], "w", encoding="utf-8") as target:
        target.write(picture)
