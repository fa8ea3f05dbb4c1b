"""Summarises what compare.sh has measured: a table, summary.json and report.html.

    lab.sh report compare DIR

Reads DIR/results.jsonl, writes DIR/summary.json and DIR/report.html.

Of every cell and contender the newest run counts. Figures are medians of rounds, ranges go from the
least to the greatest round. A ratio is our median over CUBIC's: of goodputs, or of the times that
small objects take. Utilisation is the goodput over what
full packets could carry of the link's rate (see PAYLOAD).
"""

import json
import statistics
import sys
from html import escape
from pathlib import Path

from lab import UsageError
from lab.drawing.axes import polyline
from lab.drawing.charts import every, throughput
from lab.drawing.page import document, versions_line
from lab.drawing.palette import CONTENDERS
from lab.figures import number

FAULTS = {
    "clean": "no fault",
    "loss0.1": "0.1 % lost",
    "loss1": "1 % lost",
    "reverse1": "1 % lost on the way back",
    "burst0.5": "0.5 % lost in bursts",
    "jitter": "0.3 ms jitter, reordering",
    "ecn": "ECN marks",
}
# Bytes of the object in a full IPv4 packet of 1500: TCP with and without timestamps, and ours.
PAYLOAD = {"cubic": 1448, "reno": 1448, "bbr": 1448, "smoltcp": 1460, "headwater": 1442}
MTU = 1500

# Targets: least ratio to CUBIC in any cell, least utilisation without faults and with a queue of at
# least one bandwidth-delay product, least goodput with losses on the way back over that without.
LEAST_RATIO, LEAST_UTILISATION, LEAST_REVERSE = 0.95, 0.97, 0.90
# Greatest time for an object over CUBIC's: by a client never seen before, and by one that has kept an
# address token.
GREATEST_TIME = {
    "1kB": {"headwater": 0.60, "remembered": 0.60},
    "10kB": {"headwater": 1.02, "remembered": 0.60},
    "100kB": {"headwater": 1.02, "remembered": 0.80},
    "1MB": {"headwater": 1.02, "remembered": 0.95},
}
# p95 of the queueing delay, ours over CUBIC's; the histogram tells no closer, and a delay below the
# second is none.
MOST_QUEUE = 1.03
NO_QUEUE_MS = 1
# Share of n of ours beside n of CUBIC, and evenness among ours.
LEAST_SHARE, MOST_SHARE = 0.4, 0.6
LEAST_JAIN = 0.95
OBJECT_CLIENTS = {
    "cubic": "kernel TCP, CUBIC",
    "headwater": "headwater, never seen before",
    "remembered": "headwater, address token kept",
}
# A run in which the machine had fewer idle cores than this share says little about the transport.
MOST_BUSY = 0.9


def load(path):
    """{kind: {(cell, contender): [record, ...]}}, newest runs only."""
    kinds = {"transfer": {}, "object": {}, "shared": {}}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            held = kinds[record["kind"]].setdefault((record["cell"], record["contender"]), [])
            if held and held[0]["run"] != record["run"]:
                held.clear()
            held.append(record)
    return kinds


def spread(values):
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {
        "median": statistics.median(values),
        "least": min(values),
        "greatest": max(values),
        "rounds": values,
    }


def contender_summary(name, records):
    full = records[0]["rate_mbit"] * PAYLOAD[name] / MTU
    goodput = spread(record["goodput_mbit"] for record in records)
    return {
        "goodput_mbit": goodput,
        "goodput_from_start_mbit": spread(r["goodput_from_start_mbit"] for r in records),
        "utilisation": goodput["median"] / full,
        "queue_p50_ms": spread(record["queue_p50_ms"] for record in records),
        "queue_p95_ms": spread(record["queue_p95_ms"] for record in records),
        "drops": spread(record["drops"] for record in records),
        "device_drops": sum(record["device_drops"] for record in records),
        "marks": spread(record["marks"] for record in records),
        "retransmitted_packets": spread(record["retransmitted_packets"] for record in records),
        "busy": max(record["window"]["busy"] for record in records),
        "congestion_control": records[0]["congestion_control"],
        "run": records[0]["run"],
    }


def cell_summary(cell, by_name):
    """One cell: its parameters, its contenders, ratios and verdicts."""
    first = next(iter(by_name.values()))[0]
    result = {
        key: first[key] for key in ("cell", "rtt_ms", "rate_mbit", "fault", "queue_bdp", "queue_bytes", "ecn")
    }
    contenders = {name: contender_summary(name, by_name[name]) for name in CONTENDERS if name in by_name}
    result["contenders"] = contenders
    result["verdicts"] = {}
    ours, cubic = contenders.get("headwater"), contenders.get("cubic")
    if ours and cubic:
        ratio = ours["goodput_mbit"]["median"] / max(cubic["goodput_mbit"]["median"], 1e-9)
        result["ratio"] = ratio
        pairs = zip(ours["goodput_mbit"]["rounds"], cubic["goodput_mbit"]["rounds"])
        result["ratio_rounds"] = [a / max(b, 1e-9) for a, b in pairs]
        queues = [side["queue_p95_ms"]["median"] for side in (ours, cubic) if side["queue_p95_ms"]]
        if len(queues) == 2:
            result["queue_p95_difference_ms"] = queues[0] - queues[1]
        result["same_run"] = ours["run"] == cubic["run"]
        result["verdicts"]["ratio"] = verdict(ratio, LEAST_RATIO)
        # Who leaves the link idle has no queue: no feat, and no measure for others.
        if len(queues) == 2 and ratio <= 1 / LEAST_RATIO:
            ours_ms, cubic_ms = (max(queue, NO_QUEUE_MS) for queue in queues)
            result["verdicts"]["queue"] = at_most(ours_ms / cubic_ms, MOST_QUEUE)
    if ours and result["ecn"]:
        result["verdicts"]["drops"] = at_most(ours["drops"]["greatest"], 0)
    if ours and result["fault"] == "clean" and result["queue_bdp"] >= 1:
        result["verdicts"]["utilisation"] = verdict(ours["utilisation"], LEAST_UTILISATION)
    return result


def verdict(have, least):
    return {"have": have, "least": least, "pass": have >= least}


def at_most(have, greatest):
    return {"have": have, "greatest": greatest, "pass": have <= greatest}


def bound(verdict):
    """The target in words."""
    return f"at least {verdict['least']}" if "least" in verdict else f"at most {verdict['greatest']}"


def add_reverse_verdicts(cells):
    """Losses on the way back, against the cell that differs in nothing else."""
    for cell in cells.values():
        clean = cells.get(cell["cell"].replace("-reverse1-", "-clean-"))
        if cell["fault"] != "reverse1" or clean is None:
            continue
        both = [side["contenders"].get("headwater") for side in (cell, clean)]
        if all(both):
            share = both[0]["goodput_mbit"]["median"] / max(both[1]["goodput_mbit"]["median"], 1e-9)
            cell["verdicts"]["reverse"] = verdict(share, LEAST_REVERSE)


def by_cell_of(newest):
    by_cell = {}
    for (cell, contender), records in newest.items():
        by_cell.setdefault(cell, {})[contender] = records
    return by_cell


def object_summary(cell, by_name):
    """One object: times of each client in seconds, and ours over CUBIC's."""
    first = next(iter(by_name.values()))[0]
    result = {key: first[key] for key in ("cell", "rtt_ms", "rate_mbit", "size")}
    result["seconds"] = {
        name: spread(record["seconds"] for record in by_name[name])
        for name in OBJECT_CLIENTS
        if name in by_name
    }
    result["verdicts"] = {}
    cubic = result["seconds"].get("cubic")
    for name, greatest in GREATEST_TIME[result["size"]].items():
        if cubic and name in result["seconds"]:
            ratio = result["seconds"][name]["median"] / cubic["median"]
            result["verdicts"][name] = at_most(ratio, greatest)
    return result


def shared_summary(records):
    """Flows that shared a link: sums by kind, Jain's index of all, medians of rounds."""
    result = {key: records[0][key] for key in ("cell", "rate_mbit", "queue_bytes", "seconds")}
    result["flows"] = [
        {"contender": flow["contender"], "rtt_ms": flow["rtt_ms"], "goodput_mbit": flow["goodput_mbit"]}
        for flow in records[0]["flows"]
    ]
    result["ours_share"] = spread(share_of("headwater", record["flows"]) for record in records)
    result["jain"] = spread(jain([flow["goodput_mbit"] for flow in record["flows"]]) for record in records)
    result["total_mbit"] = spread(sum(flow["goodput_mbit"] for flow in record["flows"]) for record in records)
    result["queue_p95_ms"] = spread(record["queue_p95_ms"] for record in records)
    result["verdicts"] = {}
    return result


def add_shared_verdicts(cells):
    """Halves beside as many of CUBIC; evenness among ours, with several round trips beside CUBIC's."""
    for name, cell in cells.items():
        path, flows = name.rsplit("-", 1)
        ours, cubics = flows.split("x")
        if ours == cubics:
            share = cell["ours_share"]["median"]
            cell["verdicts"] = {"share": verdict(share, LEAST_SHARE), "others": at_most(share, MOST_SHARE)}
        if cubics != "0":
            continue
        alike = len({flow["rtt_ms"] for flow in cell["flows"]}) == 1
        model = cells.get(f"{path}-0x{ours}")
        if alike or model:
            least = LEAST_JAIN if alike else model["jain"]["median"]
            cell["verdicts"]["jain"] = verdict(cell["jain"]["median"], least)


def share_of(contender, flows):
    total = sum(flow["goodput_mbit"] for flow in flows)
    return sum(f["goodput_mbit"] for f in flows if f["contender"] == contender) / max(total, 1e-9)


def jain(values):
    """Jain's fairness index: 1 if all are equal, 1/n if one has all."""
    return sum(values) ** 2 / max(len(values) * sum(value * value for value in values), 1e-9)


def summarise(kinds):
    by_cell = by_cell_of(kinds["transfer"])
    objects = [object_summary(cell, by_name) for cell, by_name in by_cell_of(kinds["object"]).items()]
    sizes = list(GREATEST_TIME)
    objects.sort(key=lambda cell: (cell["rate_mbit"], cell["rtt_ms"], sizes.index(cell["size"])))
    cells = {cell: cell_summary(cell, by_name) for cell, by_name in by_cell.items()}
    add_reverse_verdicts(cells)
    order = list(FAULTS)
    ranked = sorted(
        cells.values(),
        key=lambda cell: (cell["rate_mbit"], cell["rtt_ms"], order.index(cell["fault"]), cell["queue_bdp"]),
    )
    shared = {cell: shared_summary(records) for (cell, _), records in sorted(kinds["shared"].items())}
    add_shared_verdicts(shared)
    all_cells = ranked + objects + list(shared.values())
    verdicts = [verdict for cell in all_cells for verdict in cell["verdicts"].values()]
    latest = max(
        (records[-1] for newest in kinds.values() for records in newest.values()),
        key=lambda record: record["began"],
    )
    return {
        "schema": 1,
        "payload_of_1500": PAYLOAD,
        "versions": latest["versions"],
        "passed": sum(verdict["pass"] for verdict in verdicts),
        "failed": sum(not verdict["pass"] for verdict in verdicts),
        "cells": ranked,
        "objects": objects,
        "shared": list(shared.values()),
    }


def median_of(figures):
    return None if figures is None else figures["median"]


def failures(cell):
    return "; ".join(
        f"{name} {v['have']:.3f}, {bound(v)}" for name, v in cell["verdicts"].items() if not v["pass"]
    )


def print_tables(summary):
    if summary["cells"]:
        print_transfers(summary)
    if summary["objects"]:
        print_objects(summary["objects"])
    if summary["shared"]:
        print_shared(summary["shared"])
    print(f"{summary['passed']} verdicts pass, {summary['failed']} fail")


def print_objects(objects):
    print(
        f"{'time of an object in ms':<34}{'cubic':>12}{'never seen':>12}{'remembered':>12}{'ratios':>16}  verdicts"
    )
    for cell in objects:
        times = [
            f"{cell['seconds'][name]['median'] * 1000:.1f}" if name in cell["seconds"] else ""
            for name in OBJECT_CLIENTS
        ]
        ratios = ", ".join(f"{v['have']:.2f}" for v in cell["verdicts"].values())
        print(
            f"{cell['cell']:<34}"
            + "".join(f"{t:>12}" for t in times)
            + f"{ratios:>16}  {failures(cell) or 'ok'}"
        )


def print_shared(shared):
    print(
        f"{'flows that share a link':<34}{'our share':>12}{'Jain':>8}{'total':>8}{'queue p95':>11}  Mbit/s each"
    )
    for cell in shared:
        each = ", ".join(f"{f['contender']} {number(f['goodput_mbit'])}" for f in cell["flows"])
        print(
            f"{cell['cell']:<34}{cell['ours_share']['median']:>12.2f}{cell['jain']['median']:>8.3f}"
            f"{number(cell['total_mbit']['median']):>8}{number(cell['queue_p95_ms']['median']):>11}  {each}"
            f"  {failures(cell) or ('ok' if cell['verdicts'] else '')}"
        )


def print_transfers(summary):
    names = [name for name in CONTENDERS if any(name in c["contenders"] for c in summary["cells"])]
    print(
        f"{'goodput in Mbit/s, queue p95 in ms':<34}"
        + "".join(f"{name:>18}" for name in names)
        + f"{'ratio':>8}  verdicts"
    )
    for cell in summary["cells"]:
        columns = []
        for name in names:
            figures = cell["contenders"].get(name)
            columns.append(
                ""
                if figures is None
                else f"{number(figures['goodput_mbit']['median'])} / "
                f"{number(median_of(figures['queue_p95_ms']))}"
            )
        ratio = f"{cell['ratio']:.2f}" if "ratio" in cell else ""
        said = failures(cell) or ("ok" if cell["verdicts"] else "")
        print(f"{cell['cell']:<34}" + "".join(f"{column:>18}" for column in columns) + f"{ratio:>8}  {said}")


def heat(ratio):
    """Background of a ratio: green above 1, red below, full colour at twice and half."""
    strength = min(abs(ratio - 1) if ratio >= 1 else 1 / max(ratio, 0.01) - 1, 1)
    colour = "--good" if ratio >= 1 else "--bad"
    return f"background: color-mix(in oklab, var({colour}) {strength * 62 + 4:.0f}%, var(--card))"


def details(cell):
    """What hovering over a cell tells."""
    lines = [cell["cell"]]
    for name, figures in cell["contenders"].items():
        goodput = figures["goodput_mbit"]
        lines.append(
            f"{CONTENDERS[name]}: {number(goodput['median'])} Mbit/s "
            f"({number(goodput['least'])}–{number(goodput['greatest'])}), queue p50 "
            f"{number(median_of(figures['queue_p50_ms']))} ms, p95 {number(median_of(figures['queue_p95_ms']))} ms, "
            f"{number(median_of(figures['drops']))} dropped"
        )
    if "ratio_rounds" in cell:
        lines.append("ratio in each round: " + ", ".join(f"{ratio:.2f}" for ratio in cell["ratio_rounds"]))
    for name, figures in cell["verdicts"].items():
        lines.append(
            f"{name}: {figures['have']:.3f}, {bound(figures)}: {'pass' if figures['pass'] else 'FAIL'}"
        )
    return "\n".join(lines)


def heat_table(cells):
    rows = sorted({(c["rate_mbit"], c["rtt_ms"], c["queue_bdp"]) for c in cells})
    faults = [fault for fault in FAULTS if any(c["fault"] == fault for c in cells)]
    at = {(c["rate_mbit"], c["rtt_ms"], c["queue_bdp"], c["fault"]): c for c in cells}
    out = ['<div class="scroll"><table class="heat"><tr><th>link</th>']
    out += [f"<th>{escape(FAULTS[fault])}</th>" for fault in faults]
    out.append("</tr>")
    for rate, rtt, queue in rows:
        out.append(f"<tr><th>{rate} Mbit/s, {rtt} ms, {queue:g} BDP</th>")
        for fault in faults:
            cell = at.get((rate, rtt, queue, fault))
            if cell is None or "ratio" not in cell:
                out.append("<td></td>")
                continue
            missed = any(not v["pass"] for v in cell["verdicts"].values())
            out.append(
                f'<td class="{"missed" if missed else ""}" style="{heat(cell["ratio"])}" title="{escape(details(cell))}">'
                f'<a href="#{cell["cell"]}">{cell["ratio"]:.2f}</a></td>'
            )
        out.append("</tr>")
    out.append("</table></div>")
    return out


def bars(cell):
    """Goodput by contender: a bar to the median, a line over the range; p95 of the queue as text."""
    left, width, step = 100, 204, 22
    top = max(cell["rate_mbit"], max(f["goodput_mbit"]["greatest"] for f in cell["contenders"].values()))
    height = step * len(cell["contenders"]) + 16
    out = [f'<svg viewBox="0 0 400 {height}" role="img"><title>goodput by contender</title>']
    for index, (name, figures) in enumerate(cell["contenders"].items()):
        y, goodput = index * step, figures["goodput_mbit"]
        x = {key: left + width * goodput[key] / top for key in ("least", "median", "greatest")}
        queue = number(median_of(figures["queue_p95_ms"]))
        out.append(
            f'<text x="{left - 6}" y="{y + 14}" text-anchor="end">{escape(CONTENDERS[name].replace("kernel TCP, ", ""))}</text>'
        )
        out.append(
            f'<rect class="track" x="{left}" y="{y + 4}" width="{width * cell["rate_mbit"] / top:.1f}" height="13" rx="2"/>'
        )
        out.append(
            f'<rect class="{name}" x="{left}" y="{y + 4}" width="{x["median"] - left:.1f}" height="13" rx="2"/>'
        )
        out.append(
            f'<line class="range" x1="{x["least"]:.1f}" x2="{x["greatest"]:.1f}" y1="{y + 10.5}" y2="{y + 10.5}"/>'
        )
        out.append(
            f'<text x="{left + width + 6}" y="{y + 14}">{number(goodput["median"])}<tspan class="soft"> · {queue} ms</tspan></text>'
        )
    out.append(
        f'<text class="soft" x="{left}" y="{height - 2}">Mbit/s of {cell["rate_mbit"]} · p95 of the queue</text></svg>'
    )
    return out


def curves(cell, newest):
    """Goodput over time since the start, of the last round, in steps of half a second or so."""
    series, seconds = {}, 0
    for name in cell["contenders"]:
        window = newest[cell["cell"], name][-1]["window"]
        tick = window["tick_seconds"]
        stride = max(1, round(cell["rtt_ms"] / 1000 / tick), 2)
        points = throughput(every(window["samples"], tick, stride))
        series[name] = points
        seconds = max(seconds, window["seconds"])
    left, width, height, top = 8, 384, 84, cell["rate_mbit"] * 1.15
    out = [
        f'<svg viewBox="0 0 400 {height + 16}" role="img"><title>goodput over time</title>'
        f'<line class="axis" x1="{left}" x2="{left + width}" y1="{height}" y2="{height}"/>'
    ]
    for name, points in series.items():
        out.append(
            polyline(
                [(left + width * t / seconds, height - height * min(v / top, 1)) for t, v in points], name
            )
        )
    warm = left + width * (
        1 - newest[cell["cell"], next(iter(series))][-1]["window"]["window_seconds"] / seconds
    )
    out.append(f'<line class="axis" x1="{warm:.1f}" x2="{warm:.1f}" y1="0" y2="{height}"/>')
    out.append(
        f'<text class="soft" x="{left}" y="{height + 13}">goodput over {seconds:.1f} s; what is right of the line counts</text></svg>'
    )
    return out


def card(cell, newest):
    said = [
        f'<span class="{"pass" if v["pass"] else "fail"}">{name} {v["have"]:.2f}</span>'
        for name, v in cell["verdicts"].items()
    ]
    if any(f["busy"] > MOST_BUSY for f in cell["contenders"].values()):
        said.append('<span class="fail">cores exhausted</span>')
    if any(f["device_drops"] for f in cell["contenders"].values()):
        said.append('<span class="fail">a TUN device dropped packets</span>')
    if cell.get("same_run") is False:
        said.append('<span class="soft">contenders of different runs</span>')
    return [
        f'<div class="card" id="{cell["cell"]}" title="{escape(details(cell))}">',
        f"<h3>{cell['rate_mbit']} Mbit/s, {cell['rtt_ms']} ms, {cell['queue_bdp']:g} BDP, {escape(FAULTS[cell['fault']])}</h3>",
        f"<p>{' · '.join(said)}</p>",
        *bars(cell),
        *curves(cell, newest),
        "</div>",
    ]


def object_table(objects):
    out = ['<div class="scroll"><table class="heat"><tr><th>link</th><th>object</th>']
    out += [f"<th>{escape(name)}</th>" for name in OBJECT_CLIENTS.values()]
    out.append("</tr>")
    for cell in objects:
        out.append(
            f'<tr id="{cell["cell"]}"><th>{cell["rate_mbit"]} Mbit/s, {cell["rtt_ms"]} ms</th><th>{cell["size"]}</th>'
        )
        for name in OBJECT_CLIENTS:
            seconds, verdict = cell["seconds"].get(name), cell["verdicts"].get(name)
            if seconds is None:
                out.append("<td></td>")
                continue
            hover = ", ".join(f"{value * 1000:.1f}" for value in seconds["rounds"]) + " ms"
            text, style, missed = f"{seconds['median'] * 1000:.1f} ms", "", ""
            if verdict:
                text += f"<br>× {verdict['have']:.2f}"
                style, missed = heat(1 / verdict["have"]), "" if verdict["pass"] else "missed"
                hover += f"; {bound(verdict)} of CUBIC's"
            out.append(f'<td class="{missed}" style="{style}" title="{escape(hover)}">{text}</td>')
        out.append("</tr>")
    out.append("</table></div>")
    return out


def shared_cards(summary, shared):
    """A picture for each: what each flow got, one bar a flow, and over time."""
    out = ['<div class="cards">']
    for cell in summary["shared"]:
        flows = shared[cell["cell"], "all"][0]["flows"]
        out.append(
            f'<div class="card" id="shared-{cell["cell"]}"><h3>{escape(cell["cell"])}</h3>'
            f'<p class="soft">our share {cell["ours_share"]["median"]:.2f} · Jain {cell["jain"]["median"]:.3f} · '
            f"queue p95 {number(cell['queue_p95_ms']['median'])} ms</p>"
        )
        out += flow_bars(flows, cell["rate_mbit"])
        out += flow_curves(flows, cell["rate_mbit"])
        out.append("</div>")
    out.append("</div>")
    return out


def flow_bars(flows, rate):
    left, width, step = 116, 210, 18
    most = max(flow["goodput_mbit"] for flow in flows)
    out = [f'<svg viewBox="0 0 400 {step * len(flows) + 4}" role="img"><title>goodput of each flow</title>']
    for index, flow in enumerate(sorted(flows, key=lambda flow: flow["contender"])):
        y, long = index * step, width * flow["goodput_mbit"] / max(most, rate / len(flows))
        out.append(
            f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{flow["contender"]} {flow["rtt_ms"]} ms</text>'
        )
        out.append(
            f'<rect class="{flow["contender"]}" x="{left}" y="{y + 4}" width="{long:.1f}" height="11" rx="2"/>'
        )
        out.append(f'<text x="{left + width + 6}" y="{y + 13}">{number(flow["goodput_mbit"])}</text>')
    fair = left + width * rate / len(flows) / max(most, rate / len(flows))
    out.append(f'<line class="range" x1="{fair:.1f}" x2="{fair:.1f}" y1="0" y2="{step * len(flows)}"/></svg>')
    return out


def flow_curves(flows, rate):
    """Goodput of each flow in steps of a second."""
    left, width, height = 8, 384, 84
    seconds = max(flow["window"]["seconds"] for flow in flows)
    out = [
        f'<svg viewBox="0 0 400 {height + 16}" role="img"><title>goodput over time</title>'
        f'<line class="axis" x1="{left}" x2="{left + width}" y1="{height}" y2="{height}"/>'
    ]
    for flow in flows:
        tick = flow["window"]["tick_seconds"]
        points = throughput(every(flow["window"]["samples"], tick, max(1, round(1 / tick))))
        out.append(
            polyline(
                [(left + width * t / seconds, height - height * min(v / rate, 1)) for t, v in points],
                flow["contender"],
            )
        )
    out.append(
        f'<text class="soft" x="{left}" y="{height + 13}">goodput over {seconds:.0f} s, up to {rate} Mbit/s</text></svg>'
    )
    return out


def html(summary, kinds):
    newest = kinds["transfer"]
    versions = summary["versions"]
    missed = [
        cell
        for cell in summary["cells"] + summary["objects"] + summary["shared"]
        if any(not v["pass"] for v in cell["verdicts"].values())
    ]
    out = [
        versions_line(versions),
        f'<p><span class="pass">{summary["passed"]} verdicts pass</span>, <span class="fail">{summary["failed"]} fail</span>. '
        f"Targets: goodput at least {LEAST_RATIO} of CUBIC's in every cell; utilisation at least {LEAST_UTILISATION} without faults "
        f"and with a queue of 1 BDP or more; with 1 % lost on the way back at least {LEAST_REVERSE} of the goodput without; "
        f"queueing delay (p95) no longer than CUBIC's where CUBIC does not leave the link idle; no drop where the queue marks; "
        f"n flows beside n of CUBIC {LEAST_SHARE} to {MOST_SHARE} of the sum; Jain's index among ours at least {LEAST_JAIN}, "
        f"with several round trips no less than CUBIC's.</p>",
        "<h2>Goodput, ours over CUBIC's</h2>",
        '<p class="soft">Medians of rounds; an outline marks a missed target; hover for details, click for the cell.</p>',
    ]
    out += heat_table(summary["cells"])
    if summary["objects"]:
        out.append(
            '<h2>Small objects</h2><p class="soft">Time of one object on a connection of its own, from the '
            "start of the transfer to its last byte, and that over CUBIC's.</p>"
        )
        out += object_table(summary["objects"])
    if missed:
        out.append("<h2>Missed targets</h2><ul>")
        for cell in missed:
            out.append(f'<li><a href="#{cell["cell"]}">{cell["cell"]}</a>: {failures(cell)}</li>')
        out.append("</ul>")
    if summary["shared"]:
        out.append('<h2>Flows that share a link</h2><p class="soft">The upright line is an equal share.</p>')
        out += shared_cards(summary, kinds["shared"])
    out.append(
        '<h2>Every cell</h2><p class="soft">Bars are medians, lines over them go from the least to the greatest round.</p><div class="cards">'
    )
    for cell in summary["cells"]:
        out += card(cell, newest)
    out.append("</div><h2>How it was measured</h2>")
    out.append(
        "<p>One download at a time over an emulated link, contenders in turn within a round. The first "
        "max(1 s, 12 RTT) of a run do not count; goodput is what reached the reader in the following "
        "max(2.5 s, 10 RTT), whatever had to be repeated for it, and the queue is that of the same time. "
        "Utilisation compares it with what full packets of 1500 bytes carry at the link's rate: "
        + ", ".join(f"{CONTENDERS[name]} {size}" for name, size in PAYLOAD.items())
        + " bytes each. "
        f"Buffers of the kernel's TCP: receive {escape(versions['rmem'])}, send {escape(versions['wmem'])} bytes; "
        "its congestion control was read from the sockets. smoltcp sends from a buffer of 1 MiB.</p>"
    )
    return document("Headwater beside TCP", out)


def report(folder):
    kinds = load(folder / "results.jsonl")
    if not any(kinds.values()):
        sys.exit(f"report: no results in {folder}")
    summary = summarise(kinds)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(html(summary, kinds), encoding="utf-8")
    print_tables(summary)
    print(f"{folder}/report.html, {folder}/summary.json")


def main(words):
    match words:
        case [folder]:
            report(Path(folder))
        case _:
            raise UsageError
