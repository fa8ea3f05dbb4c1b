"""An HTML page of its own, that needs no other file."""

from collections.abc import Iterable, Mapping
from html import escape

from lab.drawing.palette import DARK, LIGHT, PICTURE, variables

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


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page."""
    style = (
        f":root {{ color-scheme: light dark; {variables(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}{PAGE}{PICTURE}"
    )
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{style}</style><h1>{escape(title)}</h1>",
    )
    return "\n".join([*head, *parts, "</html>"]) + "\n"


def versions_line(versions: Mapping[str, str]) -> str:
    """The programs and the machine that were measured, as the line below a page's title."""
    parts = (
        f"{versions['headwater']} {versions['revision']}",
        f"Linux {versions['kernel']}, {versions['cores']} cores",
        versions["nginx"],
        versions["curl"].split(" (")[0],
    )
    return f'<p class="soft">{escape(" · ".join(parts))}</p>'


def table(heads: Iterable[str], rows: Iterable[str]) -> list[str]:
    """A table with a line of heads; rows are HTML of their own."""
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return [f'<div class="scroll"><table class="heat"><tr>{cells}</tr>', *rows, "</table></div>"]
