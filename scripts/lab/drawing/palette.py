"""Colours and styles of pictures and pages, in the light and in the dark scheme of the viewer.

A contender's name is the CSS class that gives it its colour.
"""

import re

CONTENDERS = {
    "headwater": "headwater",
    "cubic": "kernel TCP, CUBIC",
    "reno": "kernel TCP, Reno",
    "bbr": "kernel TCP, BBR",
    "smoltcp": "smoltcp TCP",
}
LIGHT = {
    "page": "#ffffff",
    "card": "#f6f8fa",
    "text": "#1f2328",
    "soft": "#59636e",
    "edge": "#d1d9e0",
    "good": "#1a7f37",
    "bad": "#cf222e",
    "headwater": "#0969da",
    "cubic": "#bc4c00",
    "reno": "#8250df",
    "bbr": "#9a6700",
    "smoltcp": "#57606a",
}
DARK = {
    "page": "#0d1117",
    "card": "#151b23",
    "text": "#e6edf3",
    "soft": "#9198a1",
    "edge": "#3d444d",
    "good": "#3fb950",
    "bad": "#f85149",
    "headwater": "#58a6ff",
    "cubic": "#f0883e",
    "reno": "#bc8cff",
    "bbr": "#d29922",
    "smoltcp": "#9198a1",
}
_CONTENDER_STYLES = "".join(
    f".{name} {{ fill: var(--{name}) }} .line.{name} {{ fill: none; stroke: var(--{name}) }}\n" for name in CONTENDERS
)
PICTURE = f"""
svg text {{ font: 11px system-ui, sans-serif; fill: var(--text) }} svg .soft {{ fill: var(--soft) }}
svg .large {{ font-size: 13px }} svg .title {{ font-size: 16px; font-weight: 600 }}
svg .name {{ font-weight: 600 }} svg .pass {{ fill: var(--good) }} svg .fail {{ fill: var(--bad) }}
.range {{ stroke: var(--text); stroke-width: 1.4 }} .track {{ fill: var(--edge); fill-opacity: .45 }}
.line {{ fill: none; stroke-width: 1.8; stroke-linejoin: round }} .axis {{ stroke: var(--soft) }}
.grid {{ stroke: var(--edge) }} .dashed {{ stroke: var(--soft); stroke-dasharray: 5 4 }}
.target {{ stroke: var(--good); stroke-width: 1.4; stroke-dasharray: 2 3 }}
.area {{ stroke: none; fill-opacity: .15 }} .down {{ fill: var(--bad); fill-opacity: .16 }}
.sheet {{ fill: var(--page) }}
{_CONTENDER_STYLES}"""


def variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def coloured(colours: dict[str, str]) -> str:
    """The style of pictures in colours that viewers without CSS variables know."""
    return re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], PICTURE)


def standalone(picture: str) -> str:
    """The picture as a file of its own."""
    found = re.search(r'viewBox="0 0 (\S+) (\S+)"', picture)
    assert found, "a picture begins with its viewBox"
    width, height = found.groups()
    dark = f"@media (prefers-color-scheme: dark) {{{coloured(DARK)}}}"
    head, body = picture.split(">", 1)
    return (
        f'{head} xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f"<style>{coloured(LIGHT)}{dark}</style>"
        f'<rect class="sheet" width="{width}" height="{height}"/>{body}\n'
    )
