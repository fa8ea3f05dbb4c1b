"""The page and the pictures of `paper.sh`."""

from collections.abc import Sequence
from html import escape

from lab.drawing.axes import Logarithmic, covering, covering_factors, thousands
from lab.drawing.charts import Guide, LineChart, Ranged, Series
from lab.drawing.page import document, table, versions_line
from lab.figures import number
from lab.reports.failover import draw
from lab.summaries.paper import LEAST_RATIO, NAMES, Point, Summary

LINK = "One link of 100 Mbit/s"
# The goodput of full packets of CUBIC at 100 Mbit/s.
FULL_MBIT = 96.5


def series(points: Sequence[Point], figure: str) -> list[Series]:
    found = []
    for name, title in NAMES.items():
        spreads = [(point.x, point.spread(name, figure)) for point in points]
        ranged = [Ranged(x, one.median, one.least, one.greatest) for x, one in spreads if one]
        found.append(Series(title, name, ranged))
    return [one for one in found if one.points]


def counts(points: Sequence[Point]) -> Logarithmic:
    """An axis for counts that grow by factors."""
    values = [float(point.x) for point in points]
    return Logarithmic(values[0], max(values[-1], values[0] * 2), values)


def values_of(held: Sequence[Series]) -> list[float]:
    return [value for one in held for value in one.values]


def memory_chart(title: str, subtitle: str, points: Sequence[Point], x_label: str) -> str:
    held = series(points, "server_mib")
    scale = covering_factors(values_of(held))
    return LineChart(title, subtitle, counts(points), scale, x_label, "MiB", held).draw()


def throughput_chart(points: Sequence[Point]) -> str:
    held = series(points, "goodput")
    ends = (points[0].x, points[-1].x)
    verdicts = [point.verdict for point in points if point.verdict]
    guides = [Guide("the link's rate", [(x, 100) for x in ends])]
    if verdicts:
        targets = [(point.x, point.spread("cubic", "goodput")) for point in points]
        path = [(x, LEAST_RATIO * one.median) for x, one in targets if one]
        guides.append(Guide(f"target with 64 and 512: {LEAST_RATIO} of CUBIC", path, "target"))
    return LineChart(
        "Goodput of all downloads at once",
        f"{LINK}, 10 ms and a queue of one bandwidth-delay product",
        counts(points),
        covering([*values_of(held), *(y for guide in guides for _, y in guide.points)], 6),
        "downloads at once",
        "Mbit/s",
        held,
        guides,
        "; ".join(map(str, verdicts)),
        all(verdict.passed for verdict in verdicts),
    ).draw()


def friendliness_chart(points: Sequence[Point], rtt: int) -> str:
    held = series(points, "goodput")
    fair = [(float(point.x), FULL_MBIT / (1 + point.x)) for point in points]
    return LineChart(
        "One download beside others of CUBIC",
        f"{LINK}, {rtt} ms and a queue of one bandwidth-delay product",
        counts(points),
        covering([*values_of(held), *(y for _, y in fair)], 6),
        "downloads of CUBIC beside it",
        "Mbit/s",
        held,
        [Guide("equal share", fair)],
    ).draw()


def failover_picture(summary: Summary) -> str:
    first = summary.failover[0].parameters
    return draw(
        {
            "title": f"{first['object_mib']} MiB, server killed and restarted",
            "link": f"One download at a time, a link of {first['rate_mbit']} Mbit/s",
            "contenders": [record.details for record in summary.failover],
        }
    )


def pictures(summary: Summary) -> dict[str, str]:
    """{file name: picture}; a name begins with its part."""
    made = {}
    if summary.memory:
        made["memory"] = memory_chart(
            "Memory of a server with idle connections",
            "Server processes, and for nginx the kernel's objects for the connections of one end",
            summary.memory,
            "idle connections",
        )
    if summary.throughput:
        made["throughput"] = throughput_chart(summary.throughput)
        made["throughput-memory"] = memory_chart(
            "Memory of a server with downloads at once",
            "Files are in the kernel's page cache alone: headwater serve --cache 0, nginx sendfile",
            summary.throughput,
            "downloads at once",
        )
    for rtt in sorted({point.rtt for point in summary.friendliness}):
        points = [point for point in summary.friendliness if point.rtt == rtt]
        made[f"friendliness-{rtt}ms"] = friendliness_chart(points, rtt)
    if summary.failover:
        made["failover"] = failover_picture(summary)
    return made


def medians(point: Point, figure: str) -> list[str]:
    """A column for each contender."""
    spreads = (point.spread(name, figure) for name in NAMES)
    return [number(one.median) if one else "" for one in spreads]


def columns(point: Point) -> list[str]:
    """One line of a part's table."""
    if point.part == "memory":
        return [thousands(point.x), *medians(point, "server_mib")]
    ratio = "" if point.ratio is None else f"{point.ratio:.2f}"
    busiest = f"{point.busiest * 100:.0f} %"
    if point.part == "friendliness":
        goodputs, others = medians(point, "goodput"), medians(point, "background")
        return [f"{point.rtt} ms", str(point.x), *goodputs, ratio, *others, busiest]
    verdict = "" if point.verdict is None else "pass" if point.verdict.passed else "FAIL"
    queued = point.spread("cubic", "queued")
    return [
        str(point.x),
        *medians(point, "goodput"),
        ratio,
        verdict,
        *medians(point, "served"),
        *medians(point, "server_mib"),
        number(queued.median / 1024) if queued else "",
        busiest,
    ]


HEADS = {
    "memory": ["idle connections", "headwater MiB", "nginx + kernel MiB"],
    "throughput": [
        "downloads",
        "headwater Mbit/s",
        "CUBIC Mbit/s",
        "ratio",
        f"target {LEAST_RATIO}",
        "served by us",
        "by nginx",
        "headwater MiB",
        "nginx + kernel MiB",
        "in send buffers MiB",
        "cores busy",
    ],
    "friendliness": [
        "round trip",
        "beside",
        "headwater Mbit/s",
        "CUBIC Mbit/s",
        "ratio",
        "others, beside us",
        "others, beside CUBIC",
        "cores busy",
    ],
}
TEXTS = {
    "memory": (
        "Memory and connections",
        "Resident memory of the server's processes; for the kernel's TCP also its own objects for the "
        "connections, of one end. Both axes grow by factors. Each point is a new server, whose connections "
        "have asked for one object and then stay.",
    ),
    "throughput": (
        "Throughput and clients",
        "All downloads begin together and share one link of 100 Mbit/s, 10 ms and a queue of one "
        "bandwidth-delay product. “Served” are the downloads that got any byte in the window that counts. "
        "Neither server keeps files in its own memory: ours runs with --cache 0, nginx sends from the page "
        "cache by sendfile. What the kernel's send buffers hold is in a column of its own for that reason.",
    ),
    "friendliness": (
        "Friendliness",
        "The goodput of one download, of ours or of CUBIC, beside others of CUBIC, which began a second "
        "before. The link has 100 Mbit/s and a queue of one bandwidth-delay product.",
    ),
    "failover": (
        "Failover",
        "The server's process is killed (SIGKILL) in the middle of a download and started again.",
    ),
}


def rows(points: Sequence[Point]) -> list[str]:
    out = []
    for point in points:
        missed = ' class="missed"' if point.verdict and not point.verdict.passed else ""
        cells = "".join(f"<td{missed}>{escape(text)}</td>" for text in columns(point))
        out.append(f"<tr>{cells}</tr>")
    return out


def page(summary: Summary, made: dict[str, str]) -> str:
    out = [
        versions_line(summary.versions),
        "<p>The experiments by which Trickles was evaluated (Shieh, Myers, Sirer: NSDI 2005), repeated with "
        "Headwater and this machine's kernel TCP.</p>",
    ]
    held = dict(summary.parts())
    for part, (title, text) in TEXTS.items():
        cards = [f'<div class="card">{picture}</div>' for name, picture in made.items() if name.split("-")[0] == part]
        if not cards:
            continue
        out.append(f'<h2>{title}</h2><p class="soft">{text}</p><div class="cards wide">')
        out += [*cards, "</div>"]
        if part in held:
            out += table(HEADS[part], rows(held[part]))
    versions = summary.versions
    out.append(
        "<h2>How it was measured</h2><p>Network namespaces on one machine; the link is emulated. Goodput is "
        "what reached the reader after a warm-up. The downloads of one contender run in one process. "
        f"Buffers of the kernel's TCP: receive {escape(versions['rmem'])}, send {escape(versions['wmem'])} "
        "bytes; that it used CUBIC was read from its sockets. Points are medians of rounds. Where the cores "
        "were busy all the time, with whatever the machine did besides, the figures say little about "
        "transports.</p>"
    )
    return document("The experiments of the Trickles paper", out)
