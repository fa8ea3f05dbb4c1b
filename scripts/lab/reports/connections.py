"""Draws what open connections cost servers, from the figures of `bench.sh connections`.

    lab.sh report connections FIGURES.json... PICTURE.svg

In: figures of `headwater bench connections`, whose layout is named in each, and those of idle
connections of the kernel's TCP. Out: the memory that each server has taken since the start.
"""

import json

from lab import UsageError
from lab.drawing.axes import Logarithmic, covering
from lab.drawing.charts import LineChart, Ranged, Series
from lab.drawing.palette import standalone


def points(pairs):
    """Megabytes above the first, by number of connections."""
    pairs = sorted(pairs)
    return [Ranged(count, *[max(kib - pairs[0][1], 0) / 1024] * 3) for count, kib in pairs]


def draw(figures):
    ours = [
        (step["connections"] + one.get("kept_besides", 0), step["server_rss_kib"])
        for one in figures
        if one.get("bench") == "connections"
        for step in one["peers"]
    ]
    # Half of what the sockets of both ends take belongs to the server.
    kernel = [
        (
            one["connections"],
            one["rss_after_kib"] - one["rss_before_kib"] + one["kernel_sockets_both_ends_kib"] / 2,
        )
        for one in figures
        if "kernel_sockets_both_ends_kib" in one
    ]
    # Layouts measure the same numbers; the most counts.
    series = [Series("headwater", "headwater", points(dict(sorted(ours)).items()))]
    if kernel:
        series.append(Series("nginx, kernel TCP", "cubic", points([(1, 0), *kernel])))
    counts = [point.x for one in series for point in one.points]
    y = covering([value for one in series for value in one.values], 5)
    return LineChart(
        "Memory of a server with open connections",
        "",
        Logarithmic(min(counts), max(counts)),
        y,
        "open connections",
        "MiB more than with the fewest",
        series,
    ).draw()


def main(words):
    if len(words) < 2:
        raise UsageError
    figures = []
    for name in words[:-1]:
        with open(name, encoding="utf-8") as source:
            figures.append(json.load(source))
    with open(words[-1], "w", encoding="utf-8") as target:
        target.write(standalone(draw(figures)))
