"""Draws the demo's picture: throughput over time, one panel a contender, as a self-contained SVG.

    plot.py FIGURES.json PICTURE.svg

FIGURES.json: {"title", "contenders": [{"name", "outcome", "completed", "killed_s", "back_s",
"end_s", "samples": [[seconds, bytes received since the start], ...]}, ...]}; seconds count from
the start of each download. Colours follow the viewer's light or dark scheme.
"""

import json
import math
import sys
from xml.sax.saxutils import escape

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP, BOTTOM = 860, 190, 70, 20, 84, 58, 56
STYLE = """
.page { fill: #ffffff } text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 } .name { font-weight: 600 }
.grid { stroke: #d9dee3; stroke-width: 1 } .axis { stroke: #59636e; stroke-width: 1 }
.tick { fill: #59636e; font-size: 12px }
.down { fill: #d1242f; fill-opacity: 0.14 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.good { stroke: #0969da } .bad { stroke: #bc4c00 }
.area { stroke: none; fill-opacity: 0.15 } .area.good { fill: #0969da } .area.bad { fill: #bc4c00 }
.mark { stroke: #59636e; stroke-width: 1; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #e6edf3 } .tick { fill: #9198a1 }
.grid { stroke: #30363d } .axis, .mark { stroke: #9198a1 }
.down { fill: #ff7b72; fill-opacity: 0.22 }
.good { stroke: #58a6ff } .bad { stroke: #f0883e }
.area.good { fill: #58a6ff } .area.bad { fill: #f0883e } }
"""


def nice_step(span, steps):
    """The smallest 1, 2, 5 times a power of ten that divides span into at most so many steps."""
    raw = max(span, 1e-9) / steps
    power = 10 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


def throughput(samples, end):
    """Mbit/s between neighbouring samples, as (middle of the interval, value)."""
    points = []
    for (t0, b0), (t1, b1) in zip(samples, samples[1:]):
        if t1 > t0 and t0 <= end + 0.3:
            points.append(((t0 + t1) / 2, (b1 - b0) * 8e-6 / (t1 - t0)))
    return points


def panel(contender, points, top, x_of, y_of, x_ticks, y_ticks):
    out = []
    bottom, right = top + PANEL, WIDTH - RIGHT
    kind = "good" if contender["completed"] else "bad"
    killed, back = x_of(contender["killed_s"]), x_of(contender["back_s"])
    out.append(f'<rect class="down" x="{killed:.1f}" y="{top}" width="{back - killed:.1f}" height="{PANEL}"/>')
    for value in y_ticks:
        y = bottom - y_of(value)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in x_ticks:
        x = x_of(value)
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{value:g}</text>')
    path = " ".join(f"{x_of(t):.1f},{bottom - y_of(v):.1f}" for t, v in points)
    if points:
        first, last = x_of(points[0][0]), x_of(points[-1][0])
        out.append(f'<polygon class="area {kind}" points="{first:.1f},{bottom} {path} {last:.1f},{bottom}"/>')
        out.append(f'<polyline class="line {kind}" points="{path}"/>')
    end = x_of(contender["end_s"])
    out.append(f'<line class="mark" x1="{end:.1f}" x2="{end:.1f}" y1="{top}" y2="{bottom}"/>')
    out.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    out.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{top}" y2="{bottom}"/>')
    out.append(f'<text x="{LEFT}" y="{top - 9}"><tspan class="name">{escape(contender["name"])}</tspan>'
               f' · {escape(contender["outcome"])}</text>')
    middle = top + PANEL / 2
    out.append(f'<text class="tick" text-anchor="middle" transform="translate(20 {middle}) rotate(-90)">Mbit/s</text>')
    return out


def legend(x, y):
    return [
        f'<rect class="down" x="{x}" y="{y - 11}" width="22" height="14"/>',
        f'<text x="{x + 30}" y="{y}">server killed (−9), not yet back</text>',
        f'<line class="line good" x1="{x + 250}" x2="{x + 272}" y1="{y - 4}" y2="{y - 4}"/>',
        f'<text x="{x + 280}" y="{y}">download that completes</text>',
        f'<line class="line bad" x1="{x + 450}" x2="{x + 472}" y1="{y - 4}" y2="{y - 4}"/>',
        f'<text x="{x + 480}" y="{y}">download that breaks</text>',
        f'<line class="mark" x1="{x + 640}" x2="{x + 640}" y1="{y - 12}" y2="{y + 3}"/>',
        f'<text x="{x + 650}" y="{y}">its end</text>',
    ]


def draw(figures):
    contenders = figures["contenders"]
    series = [throughput(c["samples"], c["end_s"]) for c in contenders]
    x_max = max(max(c["end_s"], c["back_s"]) for c in contenders) * 1.03
    y_max = max((v for points in series for _, v in points), default=1.0) * 1.05
    x_step, y_step = nice_step(x_max, 12), nice_step(y_max, 5)
    height = TOP + len(contenders) * (PANEL + GAP) - GAP + BOTTOM

    def x_of(seconds):
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(seconds, 0), x_max) / x_max

    def y_of(mbits):
        return PANEL * max(mbits, 0) / y_max

    x_ticks = [round(i * x_step, 6) for i in range(int(x_max / x_step) + 1)]
    y_ticks = [round(i * y_step, 6) for i in range(int(y_max / y_step) + 1)]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(figures['title'])}</title><style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="28">{escape(figures["title"])}</text>',
    ]
    out += legend(LEFT, 50)
    for index, (contender, points) in enumerate(zip(contenders, series)):
        top = TOP + index * (PANEL + GAP)
        out += panel(contender, points, top, x_of, y_of, x_ticks, y_ticks)
    out.append(f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 14}"'
               ' text-anchor="middle">seconds since the start of the download</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


with open(sys.argv[1], encoding="utf-8") as source:
    picture = draw(json.load(source))
with open(sys.argv[2], "w", encoding="utf-8") as target:
    target.write(picture)
