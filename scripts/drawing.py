"""What pictures and reports have in common: colours, scales, axes, line charts, pages.

A picture is SVG text without colours of its own: in a page (`document`) they come from the page, in
a file (`standalone`) from a style that goes with it. Both follow the viewer's light or dark scheme.
A series is {"name", "kind", "points": [(x, median, least, greatest), ...]}; its kind is the CSS class
that names the colour.
"""

import math
import re
from html import escape
from typing import NamedTuple

CONTENDERS = {
    "headwater": "headwater",
    "cubic": "kernel TCP, CUBIC",
    "reno": "kernel TCP, Reno",
    "bbr": "kernel TCP, BBR",
    "smoltcp": "smoltcp TCP",
}
LIGHT = {"page": "#ffffff", "card": "#f6f8fa", "text": "#1f2328", "soft": "#59636e", "edge": "#d1d9e0",
         "good": "#1a7f37", "bad": "#cf222e", "headwater": "#0969da", "cubic": "#bc4c00",
         "reno": "#8250df", "bbr": "#9a6700", "smoltcp": "#57606a"}
DARK = {"page": "#0d1117", "card": "#151b23", "text": "#e6edf3", "soft": "#9198a1", "edge": "#3d444d",
        "good": "#3fb950", "bad": "#f85149", "headwater": "#58a6ff", "cubic": "#f0883e",
        "reno": "#bc8cff", "bbr": "#d29922", "smoltcp": "#9198a1"}
PICTURE = """
svg text { font: 11px system-ui, sans-serif; fill: var(--text) } svg .soft { fill: var(--soft) }
svg .large { font-size: 13px } svg .title { font-size: 16px; font-weight: 600 } svg .name { font-weight: 600 }
.range { stroke: var(--text); stroke-width: 1.4 } .track { fill: var(--edge); fill-opacity: .45 }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round } .axis { stroke: var(--soft) }
.grid { stroke: var(--edge) } .dashed { stroke: var(--soft); stroke-dasharray: 5 4 }
.area { stroke: none; fill-opacity: .15 } .down { fill: var(--bad); fill-opacity: .16 }
.sheet { fill: var(--page) }
""" + "".join(f".{n} {{ fill: var(--{n}) }} .line.{n} {{ fill: none; stroke: var(--{n}) }}\n" for n in CONTENDERS)
PAGE = """
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 .25rem } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
p, li { max-width: 62rem } .soft { color: var(--soft) } .pass { color: var(--good) } .fail { color: var(--bad) }
.scroll { overflow-x: auto }
table { border-collapse: separate; border-spacing: 3px; font-variant-numeric: tabular-nums }
th { font-weight: 500; color: var(--soft); text-align: left; padding: .25rem .6rem; white-space: nowrap }
.heat td { min-width: 5.6rem; padding: .45rem .6rem; text-align: center; border-radius: 6px; background: var(--card) }
.heat a { color: inherit; text-decoration: none; display: block } .heat .missed { outline: 2px solid var(--bad) }
.cards { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(23rem, 1fr)) }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)) }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: .9rem 1rem }
.card:target { outline: 2px solid var(--headwater) }
.card h3 { font-size: .95rem; margin: 0 } .card p { margin: .15rem 0 .5rem; font-size: .85rem }
svg { display: block; width: 100%; height: auto }
"""


def variables(palette):
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


def document(title, parts):
    """A page of its own, that needs no other file."""
    style = (f":root {{ color-scheme: light dark; {variables(LIGHT)} }}\n"
             f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}{PAGE}{PICTURE}")
    head = ('<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title><style>{style}</style><h1>{escape(title)}</h1>")
    return "\n".join([*head, *parts, "</html>"]) + "\n"


def versions_line(versions):
    """What was measured, on what, as the line below a page's title."""
    return (f'<p class="soft">{escape(versions["headwater"])} {escape(versions["revision"])} · Linux {escape(versions["kernel"])}, '
            f'{versions["cores"]} cores · {escape(versions["nginx"])} · {escape(versions["curl"].split(" (")[0])}</p>')


def standalone(picture):
    """The picture as a file, in colours that viewers without CSS variables know."""
    def coloured(palette):
        return re.sub(r"var\(--(\w+)\)", lambda match: palette[match[1]], PICTURE)
    width, height = re.search(r'viewBox="0 0 (\S+) (\S+)"', picture).groups()
    style = f"<style>{coloured(LIGHT)}@media (prefers-color-scheme: dark) {{{coloured(DARK)}}}</style>"
    head, body = picture.split(">", 1)
    return (f'{head} xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{style}'
            f'<rect class="sheet" width="{width}" height="{height}"/>{body}\n')


def number(value, digits=3):
    """With so many significant digits, and never an exponent."""
    if value is None:
        return "–"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def nice_step(span, steps):
    """The smallest 1, 2, 5 times a power of ten that divides span into at most so many steps."""
    raw = max(span, 1e-9) / steps
    power = 10 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


class Linear:
    """From zero to `most`, with at most so many steps."""

    def __init__(self, most, steps):
        self.most = most
        step = nice_step(most, steps)
        self.ticks = [round(i * step, 6) for i in range(int(most / step + 0.001) + 1)]

    def share(self, value):
        return min(max(value, 0), self.most) / self.most


class Logarithmic:
    """From `least` to `most`, with the given ticks, or one at each power of ten."""

    def __init__(self, least, most, ticks=None):
        self.least, self.span = least, math.log(most / least)
        powers = range(math.ceil(math.log10(least) - 0.001), math.floor(math.log10(most) + 0.001) + 1)
        self.ticks = ticks or [10 ** power for power in powers]

    def share(self, value):
        return math.log(max(value, self.least) / self.least) / self.span


class Box(NamedTuple):
    """Where a diagram stands, in units of the picture, and what its axes are."""

    left: float
    top: float
    width: float
    height: float
    x: object
    y: object

    def at(self, x, y):
        """The point of the picture for a point of the diagram."""
        return self.left + self.width * self.x.share(x), self.bottom - self.height * self.y.share(y)

    @property
    def bottom(self):
        return self.top + self.height

    @property
    def right(self):
        return self.left + self.width


def thousands(value):
    return f"{value:,.0f}".replace(",", " ") if value >= 1000 else f"{value:g}"


def frame(box, y_label):
    """Grid, ticks and axes."""
    out = []
    for value in box.y.ticks:
        y = box.bottom - box.height * box.y.share(value)
        out.append(f'<line class="grid" x1="{box.left}" x2="{box.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="soft" x="{box.left - 8}" y="{y + 4:.1f}" text-anchor="end">{thousands(value)}</text>')
    for value in box.x.ticks:
        x = box.left + box.width * box.x.share(value)
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{box.bottom}" y2="{box.bottom + 5}"/>')
        out.append(f'<text class="soft" x="{x:.1f}" y="{box.bottom + 18}" text-anchor="middle">{thousands(value)}</text>')
    out.append(f'<line class="axis" x1="{box.left}" x2="{box.right}" y1="{box.bottom}" y2="{box.bottom}"/>')
    out.append(f'<line class="axis" x1="{box.left}" x2="{box.left}" y1="{box.top}" y2="{box.bottom}"/>')
    middle = box.top + box.height / 2
    out.append(f'<text class="soft" text-anchor="middle" transform="translate({box.left - 50} {middle}) rotate(-90)">{escape(y_label)}</text>')
    return out


def polyline(points, classes):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="line {classes}" points="{path}"/>'


def throughput(samples, end=math.inf):
    """Mbit/s between neighbouring samples (seconds, bytes), as (middle of the interval, value)."""
    return [((t0 + t1) / 2, (b1 - b0) * 8e-6 / (t1 - t0))
            for (t0, b0), (t1, b1) in zip(samples, samples[1:]) if t1 > t0 and t0 <= end]


def every(bytes_received, tick, stride):
    """Samples (seconds, bytes), one of `stride`, of what was received at each tick."""
    held = [0] + bytes_received
    return [(index * tick, held[index]) for index in range(0, len(held), stride)]


def line_chart(title, x, y, x_label, y_label, series):
    """Medians joined by lines, with a bar from least to greatest; a dashed series has no points."""
    width, height = 640, 360
    box = Box(70, 62, width - 95, height - 62 - 48, x, y)
    out = [f'<svg viewBox="0 0 {width} {height}" role="img"><title>{escape(title)}</title>',
           f'<text class="title" x="{box.left}" y="24">{escape(title)}</text>']
    out += frame(box, y_label)
    key = box.left
    for one in series:
        kind, dashed = one["kind"], one["kind"] == "dashed"
        at = [box.at(point[0], point[1]) for point in one["points"]]
        out.append(polyline(at, kind))
        for point, (left, top) in zip([] if dashed else one["points"], at):
            low, high = (box.at(point[0], value)[1] for value in point[2:])
            out.append(f'<line class="range" x1="{left:.1f}" x2="{left:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
            out.append(f'<circle class="{kind}" cx="{left:.1f}" cy="{top:.1f}" r="3.6"><title>'
                       f'{escape(one["name"])}, {thousands(point[0])}: {number(point[1], 4)}</title></circle>')
        out.append(f'<line class="line {kind}" x1="{key:.0f}" x2="{key + 22:.0f}" y1="42" y2="42"/>')
        out.append(f'<text x="{key + 28:.0f}" y="46">{escape(one["name"])}</text>')
        key += 52 + 6.2 * len(one["name"])
    out.append(f'<text class="soft" x="{box.left + box.width / 2}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text></svg>')
    return "\n".join(out)
