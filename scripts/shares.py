"""Throughput by server over time: samples it from counters of nft, and draws it.

    shares.py sample TABLE INTERVAL_MS    prints a line of JSON, {"time", "bytes": {counter: bytes}}, of
                                          `table inet TABLE` of the namespace it runs in until SIGTERM
    shares.py draw FIGURES.json PICTURE.svg

FIGURES.json: {"title", "events": [[seconds, text], ...], "contenders": [{"name", "outcome", "servers":
{name: [[seconds, bytes since the start], ...]}}, ...]}.
"""

import json
import signal
import subprocess
import sys
import time
from html import escape

from drawing import Box, Linear, frame, standalone, throughput

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP, BOTTOM = 860, 190, 70, 20, 84, 58, 56
LEAST_INTERVAL_S = 0.2
# Classes of colours, one a server; a fifth server has the first one's again.
COLOURS = ("headwater", "cubic", "reno", "bbr", "smoltcp")


def sample(table, interval_s):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    due = time.monotonic()
    while True:
        before = time.time()
        listed = subprocess.run(["nft", "-j", "list", "counters", "table", "inet", table],
                                capture_output=True, check=True)
        counters = [one["counter"] for one in json.loads(listed.stdout)["nftables"] if "counter" in one]
        line = {"time": (before + time.time()) / 2, "bytes": {one["name"]: one["bytes"] for one in counters}}
        print(json.dumps(line), flush=True)
        due += interval_s
        time.sleep(max(0.0, due - time.monotonic()))


def thinned(samples):
    """Without those that come too soon after another: a sampler that had to wait catches up."""
    kept = samples[:1]
    for one in samples[1:]:
        if one[0] - kept[-1][0] >= LEAST_INTERVAL_S:
            kept.append(one)
    return kept


def stacked(servers):
    """Layers from the lowest up: (name, [(seconds, below, above), ...])."""
    rates = {name: throughput(thinned(samples)) for name, samples in servers.items()}
    count = min((len(points) for points in rates.values()), default=0)
    below, layers = [0.0] * count, []
    for name, points in rates.items():
        above = [low + value for low, (_, value) in zip(below, points)]
        layers.append((name, [(points[i][0], below[i], above[i]) for i in range(count)]))
        below = above
    return layers, max(below, default=1.0)


def panel(contender, layers, events, box):
    out = frame(box, "Mbit/s")
    for index, (name, points) in enumerate(layers):
        edge = [box.at(x, above) for x, _, above in points]
        edge += [box.at(x, low) for x, low, _ in reversed(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in edge)
        kind = COLOURS[index % len(COLOURS)]
        out.append(f'<polygon class="{kind}" fill-opacity=".75" points="{path}"><title>{escape(name)}</title></polygon>')
    for seconds, text in events:
        x, _ = box.at(seconds, 0)
        out.append(f'<line class="dashed" x1="{x:.1f}" x2="{x:.1f}" y1="{box.top}" y2="{box.bottom}"/>')
        out.append(f'<text x="{x + 4:.1f}" y="{box.top + 11}">{escape(text)}</text>')
    out.append(f'<text class="large" x="{box.left}" y="{box.top - 9}"><tspan class="name">{escape(contender["name"])}</tspan>'
               f' · {escape(contender["outcome"])}</text>')
    return out


def legend(names, x, y):
    out = []
    for index, name in enumerate(names):
        out.append(f'<rect class="{COLOURS[index % len(COLOURS)]}" x="{x}" y="{y - 11}" width="22" height="14"/>')
        out.append(f'<text class="large" x="{x + 30}" y="{y}">{escape(name)}</text>')
        x += 60 + 7 * len(name)
    return out


def draw(figures):
    contenders = figures["contenders"]
    stacks = [stacked(contender["servers"]) for contender in contenders]
    last = max((points[-1][0] for layers, _ in stacks for _, points in layers if points), default=1.0)
    x, y = Linear(last * 1.02, 12), Linear(max(most for _, most in stacks) * 1.05, 5)
    height = TOP + len(contenders) * (PANEL + GAP) - GAP + BOTTOM
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(figures["title"])}</title>',
           f'<text class="title" x="{LEFT}" y="28">{escape(figures["title"])}</text>']
    out += legend(contenders[0]["servers"], LEFT, 50)
    for index, (contender, (layers, _)) in enumerate(zip(contenders, stacks)):
        box = Box(LEFT, TOP + index * (PANEL + GAP), WIDTH - LEFT - RIGHT, PANEL, x, y)
        out += panel(contender, layers, figures["events"], box)
    out.append(f'<text class="soft" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 14}"'
               ' text-anchor="middle">seconds since the start of the downloads</text></svg>')
    return "\n".join(out)


if sys.argv[1] == "sample":
    sample(sys.argv[2], int(sys.argv[3]) / 1000)
else:
    with open(sys.argv[2], encoding="utf-8") as source:
        picture = standalone(draw(json.load(source)))
    with open(sys.argv[3], "w", encoding="utf-8") as target:
        target.write(picture)
