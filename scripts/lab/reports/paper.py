"""Draws what paper.sh has measured: pictures, a page and tables.

    lab.sh report paper DIR

Reads DIR/results.jsonl, writes DIR/*.svg, DIR/summary.json and DIR/report.html.

Of every point and contender the newest run counts; of its rounds the median is drawn, and a bar from
the least to the greatest.
"""

import json
import statistics
import sys
from html import escape
from pathlib import Path

from lab import UsageError
from lab.drawing.axes import Logarithmic, covering, covering_factors, thousands
from lab.drawing.charts import Guide, LineChart, Ranged, Series
from lab.drawing.page import document, versions_line
from lab.drawing.palette import standalone
from lab.figures import number
from lab.reports.failover import draw

# Target: least ratio of our goodput to CUBIC's, with so many downloads at once.
LEAST_RATIO, RATIO_COUNTS = 0.95, (64, 512)
# What tells the points of an experiment apart.
POINT = {
    "memory": lambda record: record["connections"],
    "throughput": lambda record: record["connections"],
    "friendliness": lambda record: (record["rtt_ms"], record["background"]),
    "failover": lambda record: 0,
}
NAMES = {"headwater": "headwater", "cubic": "nginx, kernel TCP (CUBIC)"}


def load(path):
    """{kind: {point: {contender: [record, ...]}}}, newest runs only."""
    kinds = {kind: {} for kind in POINT}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            kind = record["kind"]
            held = kinds[kind].setdefault(POINT[kind](record), {}).setdefault(record["contender"], [])
            if held and held[0]["run"] != record["run"]:
                held.clear()
            held.append(record)
    return {kind: dict(sorted(points.items())) for kind, points in kinds.items()}


def spread(records, value):
    values = [value(record) for record in records]
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def server_mib(record):
    """Resident memory and the kernel's objects for the connections."""
    return (record.get("rss_after_kib", record.get("rss_kib")) + record["kernel_kib"]) / 1024


FIGURES = {
    "memory": {"server_mib": server_mib},
    "throughput": {
        "goodput_mbit": lambda record: record["goodput_mbit"],
        "server_mib": server_mib,
        "queued_mib": lambda record: record["queued_kib"] / 1024,
        "served": lambda record: record["served"],
        "queue_p95_ms": lambda record: record["queue_p95_ms"],
        "busy": lambda record: record["busy"],
    },
    "friendliness": {
        "goodput_mbit": lambda record: record["goodput_mbit"],
        "background_mbit": lambda record: record["background_mbit"],
        "queue_p95_ms": lambda record: record["queue_p95_ms"],
        "busy": lambda record: record["busy"],
    },
}


def summarise(kinds):
    """Per experiment a list of points, each with the figures of its contenders, and ratios."""
    summary = {}
    for kind, figures in FIGURES.items():
        summary[kind] = []
        for point, by_name in kinds[kind].items():
            row = {"point": point}
            for name, records in by_name.items():
                row[name] = {figure: spread(records, value) for figure, value in figures.items()}
            if kind != "memory" and len(by_name) == len(NAMES):
                ours, cubic = (row[name]["goodput_mbit"]["median"] for name in NAMES)
                row["ratio"] = ours / max(cubic, 1e-9)
            if kind == "throughput" and point in RATIO_COUNTS and "ratio" in row:
                row["pass"] = row["ratio"] >= LEAST_RATIO
            summary[kind].append(row)
    summary["failover"] = [
        {key: value for key, value in records[-1].items() if key not in ("samples", "versions")}
        for records in kinds["failover"].get(0, {}).values()
    ]
    return summary


def lines(rows, figure, x=lambda point: point):
    """The series of a chart."""
    return [
        Series(
            title,
            name,
            [
                Ranged(x(row["point"]), *(row[name][figure][key] for key in ("median", "least", "greatest")))
                for row in rows
                if name in row
            ],
        )
        for name, title in NAMES.items()
    ]


def counts(rows, x=lambda point: point):
    """An axis for counts that grow by factors."""
    values = [x(row["point"]) for row in rows]
    return Logarithmic(values[0], max(values[-1], values[0] * 2), values)


def values_of(series):
    return [value for one in series for value in one.values]


def memory_chart(title, subtitle, rows, x_label):
    series = lines(rows, "server_mib")
    y = covering_factors(values_of(series))
    return LineChart(title, subtitle, counts(rows), y, x_label, "MiB", series).draw()


def throughput_chart(rows):
    axis = counts(rows)
    full = [(value, 100) for value in (rows[0]["point"], rows[-1]["point"])]
    series = lines(rows, "goodput_mbit")
    return LineChart(
        "Goodput of all downloads at once",
        "One link of 100 Mbit/s, 10 ms, a queue of one BDP",
        axis,
        covering([*values_of(series), 100], 6),
        "downloads at once",
        "Mbit/s",
        series,
        [Guide("link", full)],
    ).draw()


def friendliness_chart(rows, rtt):
    rows = [row for row in rows if row["point"][0] == rtt]

    def count(point):
        return point[1]

    series = lines(rows, "goodput_mbit", count)
    fair = [(count(row["point"]), 96.5 / (1 + count(row["point"]))) for row in rows]
    return LineChart(
        "One download beside others of CUBIC",
        f"One link of 100 Mbit/s, {rtt} ms, a queue of one BDP",
        counts(rows, count),
        covering(values_of(series) + [value for _, value in fair], 6),
        "downloads of CUBIC beside it",
        "Mbit/s",
        series,
        [Guide("equal share", fair)],
    ).draw()


def charts(summary, kinds):
    """{file name: picture}"""
    made = {}
    if summary["memory"]:
        made["memory"] = memory_chart(
            "Memory of a server with idle connections", "", summary["memory"], "idle connections"
        )
    if summary["throughput"]:
        made["throughput"] = throughput_chart(summary["throughput"])
        made["throughput-memory"] = memory_chart(
            "Memory of a server with downloads at once", "", summary["throughput"], "downloads at once"
        )
    for rtt in sorted({row["point"][0] for row in summary["friendliness"]}):
        made[f"friendliness-{rtt}ms"] = friendliness_chart(summary["friendliness"], rtt)
    if summary["failover"]:
        newest = [records[-1] for records in kinds["failover"][0].values()]
        made["failover"] = draw(
            {
                "title": f"{newest[0]['object_mib']} MiB at {newest[0]['rate_mbit']} Mbit/s, server killed and restarted",
                "contenders": sorted(newest, key=lambda record: list(NAMES).index(record["contender"])),
            }
        )
    return made


def median(row, name, figure, digits=3):
    return number(row[name][figure]["median"], digits) if name in row else ""


def busiest(row):
    """The greatest share of the cores that anything took while a contender was measured."""
    return f"{max(row[name]['busy']['greatest'] for name in NAMES if name in row) * 100:.0f} %"


def columns(kind, row):
    """One line of an experiment's table."""
    point, ratio = row["point"], f"{row['ratio']:.2f}" if "ratio" in row else ""
    match kind:
        case "memory":
            return [thousands(point), *(median(row, name, "server_mib") for name in NAMES)]
        case "throughput":
            target = {True: "pass", False: "FAIL", None: ""}[row.get("pass")]
            return [
                str(point),
                *(median(row, name, "goodput_mbit") for name in NAMES),
                ratio,
                target,
                *(median(row, name, "served") for name in NAMES),
                *(median(row, name, "server_mib") for name in NAMES),
                median(row, "cubic", "queued_mib"),
                busiest(row),
            ]
        case "friendliness":
            return [
                f"{point[0]} ms",
                str(point[1]),
                *(median(row, name, "goodput_mbit") for name in NAMES),
                ratio,
                *(median(row, name, "background_mbit") for name in NAMES),
                busiest(row),
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


def print_tables(summary):
    for kind, heads in HEADS.items():
        if summary[kind]:
            print(f"\n{kind}\n" + "  ".join(heads))
            for row in summary[kind]:
                print("  ".join(f"{text:>{len(head)}}" for text, head in zip(columns(kind, row), heads)))
    if summary["failover"]:
        print("\nfailover")
        for row in summary["failover"]:
            print(f"{row['name']}: {row['outcome']}")


TEXTS = {
    "memory": (
        "Memory and connections",
        "Resident memory of the server's processes; for the kernel's TCP also its own objects "
        "for the connections, of one end. Both axes grow by factors. Each point is a new server, whose connections have "
        "asked for one object and then stay.",
    ),
    "throughput": (
        "Throughput and clients",
        "All downloads begin together and share one link of 100 Mbit/s, 10 ms and a queue of "
        "one bandwidth-delay product. “Served” are the downloads that got any byte in the time that counts. What the "
        "kernel's send buffers hold is not in its memory here, but in a column of its own: with sendfile it is the page "
        "cache's.",
    ),
    "friendliness": (
        "Friendliness",
        "The goodput of one download, of ours or of CUBIC, beside so many of CUBIC, which began a "
        "second before. The link has 100 Mbit/s and a queue of one bandwidth-delay product.",
    ),
    "failover": (
        "Failover",
        "The server's process is killed (SIGKILL) in the middle of a download and started again.",
    ),
}


def table(kind, rows):
    out = [
        '<div class="scroll"><table class="heat"><tr>',
        *(f"<th>{escape(head)}</th>" for head in HEADS[kind]),
        "</tr>",
    ]
    for row in rows:
        missed = ' class="missed"' if row.get("pass") is False else ""
        out.append(
            "<tr>" + "".join(f"<td{missed}>{escape(text)}</td>" for text in columns(kind, row)) + "</tr>"
        )
    return [*out, "</table></div>"]


def page(summary, made, versions):
    out = [
        versions_line(versions),
        "<p>The experiments by which Trickles was evaluated (Shieh, Myers, Sirer: NSDI 2005), repeated with Headwater and "
        "this machine's kernel TCP.</p>",
    ]
    for kind, (title, text) in TEXTS.items():
        if not summary[kind]:
            continue
        out.append(f'<h2>{title}</h2><p class="soft">{text}</p><div class="cards wide">')
        out += [
            f'<div class="card">{picture}</div>'
            for name, picture in made.items()
            if name.split("-")[0] == kind
        ]
        out.append("</div>")
        out += table(kind, summary[kind]) if kind in HEADS else []
    out.append(
        "<h2>How it was measured</h2><p>Network namespaces on one machine; the link is emulated. Goodput is what reached "
        "the reader, counted after a start that does not count. The downloads of one contender run in one process. "
        f"Buffers of the kernel's TCP: receive {escape(versions['rmem'])}, send {escape(versions['wmem'])} bytes; that it "
        "used CUBIC was read from its sockets. Points are medians of rounds. Where the cores were busy all the time, with "
        "whatever the machine did besides, the figures say little about transports.</p>"
    )
    return document("The experiments of the Trickles paper", out)


def report(folder):
    kinds = load(folder / "results.jsonl")
    summary = summarise(kinds)
    records = [
        record
        for points in kinds.values()
        for names in points.values()
        for held in names.values()
        for record in held
    ]
    if not records:
        sys.exit(f"paper: no results in {folder}")
    # The kernel's buffers are set in the testbeds whose links have delays.
    versions = max(
        records, key=lambda record: (record["kind"] in ("throughput", "friendliness"), record["began"])
    )["versions"]
    made = charts(summary, kinds)
    for name, picture in made.items():
        (folder / f"{name}.svg").write_text(standalone(picture), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(page(summary, made, versions), encoding="utf-8")
    print_tables(summary)
    print(f"\n{folder}/report.html, {folder}/summary.json and {len(made)} pictures")


def main(words):
    match words:
        case [folder]:
            report(Path(folder))
        case _:
            raise UsageError
