"""The page of `compare.sh` and `friendliness.sh`: what each cell measured, and which targets it missed."""

from collections.abc import Mapping
from html import escape

from lab.cells import FAULTS
from lab.drawing.axes import polyline
from lab.drawing.charts import every, throughput
from lab.drawing.page import document, table, versions_line
from lab.drawing.palette import CONTENDERS
from lab.figures import Spread, Verdict, number
from lab.records import Record
from lab.summaries.compare import (
    LEAST_JAIN,
    LEAST_RATIO,
    LEAST_REVERSE,
    LEAST_SHARE,
    LEAST_UTILISATION,
    MOST_SHARE,
    OBJECT_CLIENTS,
    PAYLOAD,
    ObjectCell,
    SharedCell,
    Summary,
    TransferCell,
    Transfers,
)

# A run in which the machine had fewer idle cores than this share says little about the transport.
MOST_BUSY = 0.9


def median_of(one: Spread | None) -> str:
    return number(one.median if one else None)


def failures(verdicts: list[Verdict]) -> str:
    """The verdicts that missed their targets, with figure and bound."""
    return ", ".join(f"{one.name} {one.have:.3f}, not {one.bound}" for one in verdicts if not one.passed)


def heat(ratio: float) -> str:
    """Background of a ratio: green above 1, red below, full colour at twice and half."""
    strength = min(abs(ratio - 1) if ratio >= 1 else 1 / max(ratio, 0.01) - 1, 1)
    colour = "--good" if ratio >= 1 else "--bad"
    return f"background: color-mix(in oklab, var({colour}) {strength * 62 + 4:.0f}%, var(--card))"


def td(content: str, *, style: str = "", hover: str = "", missed: bool = False) -> str:
    kind = "missed" if missed else ""
    return f'<td class="{kind}" style="{style}" title="{escape(hover)}">{content}</td>'


def details(cell: TransferCell) -> str:
    """The text that appears over a cell."""
    lines = [cell.name]
    for name, one in cell.contenders.items():
        queue_p50 = Spread.of(record.value("queue_p50") for record in one.records)
        drops = Spread.of(record.value("drops") for record in one.records)
        lines.append(
            f"{CONTENDERS[name]}: {one.goodput} Mbit/s, queue p50 {median_of(queue_p50)} ms, "
            f"p95 {median_of(one.queue_p95)} ms, {median_of(drops)} dropped"
        )
    if cell.ratio_rounds:
        lines.append("ratio in each round: " + ", ".join(f"{ratio:.2f}" for ratio in cell.ratio_rounds))
    return "\n".join([*lines, *map(str, cell.verdicts)])


def heat_table(cells: list[TransferCell]) -> list[str]:
    at = {(one.cell.rate, one.cell.rtt, one.cell.queue, one.cell.fault): one for one in cells}
    links = sorted({key[:3] for key in at})
    faults = [fault for fault in FAULTS if any(one.cell.fault == fault for one in cells)]
    rows = []
    for rate, rtt, queue in links:
        row = f"<tr><th>{rate} Mbit/s, {rtt} ms, {queue:g} BDP</th>"
        for fault in faults:
            one = at.get((rate, rtt, queue, fault))
            if one is None or one.ratio is None:
                row += "<td></td>"
                continue
            link = f'<a href="#{one.name}">{one.ratio:.2f}</a>'
            missed = any(not verdict.passed for verdict in one.verdicts)
            row += td(link, style=heat(one.ratio), hover=details(one), missed=missed)
        rows.append(row + "</tr>")
    return table(["link", *(FAULTS[fault] for fault in faults)], rows)


def bars(cell: TransferCell) -> list[str]:
    """Goodput by contender: a bar to the median, a line over the range; p95 of the queue as text."""
    left, width, step, rate = 100, 204, 22, cell.cell.rate
    most = max([rate, *(one.goodput.greatest for one in cell.contenders.values())])
    height = step * len(cell.contenders) + 16
    out = [f'<svg viewBox="0 0 400 {height}" role="img"><title>goodput by contender</title>']
    for index, (name, one) in enumerate(cell.contenders.items()):
        y, goodput = index * step, one.goodput
        x1, x, x2 = (left + width * value / most for value in (goodput.least, goodput.median, goodput.greatest))
        label = escape(CONTENDERS[name].replace("kernel TCP, ", ""))
        bar = f'y="{y + 4}" height="13" rx="2"'
        out.append(f'<text x="{left - 6}" y="{y + 14}" text-anchor="end">{label}</text>')
        out.append(f'<rect class="track" x="{left}" width="{width * rate / most:.1f}" {bar}/>')
        out.append(f'<rect class="{name}" x="{left}" width="{x - left:.1f}" {bar}/>')
        out.append(f'<line class="range" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y + 10.5}" y2="{y + 10.5}"/>')
        queue = f'<tspan class="soft"> · {median_of(one.queue_p95)} ms</tspan>'
        out.append(f'<text x="{left + width + 6}" y="{y + 14}">{number(goodput.median)}{queue}</text>')
    text = f"Mbit/s of {rate} · p95 of the queue"
    if cell.ratio is not None and cell.cubic:
        x = left + width * cell.cubic.goodput.median * LEAST_RATIO / most
        out.append(f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 14}"/>')
        text += f" · dotted: target, {LEAST_RATIO} of CUBIC"
    out.append(f'<text class="soft" x="8" y="{height - 2}">{text}</text></svg>')
    return out


def plot(
    series: list[tuple[str, list[tuple[float, float]]]], seconds: float, most: float, text: str, count_from: float = 0
) -> list[str]:
    """Small curves (kind, [(seconds, Mbit/s)]) over time up to `most`, and a line where counting begins."""
    left, width, height = 8, 384, 84
    out = [f'<svg viewBox="0 0 400 {height + 16}" role="img"><title>goodput over time</title>']
    out.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{height}" y2="{height}"/>')
    for kind, points in series:
        at = [(left + width * t / seconds, height - height * min(value / most, 1)) for t, value in points]
        out.append(polyline(at, kind))
    if count_from > 0:
        x = left + width * count_from / seconds
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>')
    out.append(f'<text class="soft" x="{left}" y="{height + 13}">{text}</text></svg>')
    return out


def rates(record: Record, seconds: float) -> list[tuple[float, float]]:
    """Mbit/s over time, in steps of `seconds` or two samples."""
    window = record.details["window"]
    tick: float = window["tick_seconds"]
    return throughput(every(window["samples"], tick, max(1, round(seconds / tick))))


def curves(cell: TransferCell) -> list[str]:
    """Goodput over time since the start, of the last round."""
    last = {name: one.records[-1] for name, one in cell.contenders.items()}
    step = max(cell.cell.rtt / 1000, 0.2)
    series = [(name, rates(record, step)) for name, record in last.items()]
    windows = [record.details["window"] for record in last.values()]
    seconds = max(window["seconds"] for window in windows)
    text = f"goodput over {seconds:.1f} s; right of the line is the window that counts"
    return plot(series, seconds, cell.cell.rate * 1.15, text, seconds - windows[0]["window_seconds"])


def warnings(cell: TransferCell) -> list[str]:
    """Why the cell's figures may say little about the transports."""
    held: list[Transfers] = list(cell.contenders.values())
    out = []
    if any(one.busy > MOST_BUSY for one in held):
        out.append('<span class="fail">cores exhausted</span>')
    if any(one.device_drops for one in held):
        out.append('<span class="fail">a TUN device dropped packets</span>')
    if not cell.same_run:
        out.append('<span class="soft">contenders of different runs</span>')
    return out


def card(cell: TransferCell) -> list[str]:
    spoken = [
        f'<span class="{"pass" if one.passed else "fail"}" title="{one.bound}">{one.name} {one.have:.2f}</span>'
        for one in cell.verdicts
    ]
    link = f"{cell.cell.rate} Mbit/s, {cell.cell.rtt} ms, {cell.cell.queue:g} BDP, {FAULTS[cell.cell.fault]}"
    return [
        f'<div class="card" id="{cell.name}" title="{escape(details(cell))}">',
        f"<h3>{escape(link)}</h3>",
        f"<p>{' · '.join([*spoken, *warnings(cell)])}</p>",
        *bars(cell),
        *curves(cell),
        "</div>",
    ]


def object_table(cells: list[ObjectCell]) -> list[str]:
    rows = []
    for cell in cells:
        verdicts = {one.name: one for one in cell.verdicts}
        row = f'<tr id="{cell.name}"><th>{cell.cell.rate} Mbit/s, {cell.cell.rtt} ms</th><th>{cell.cell.size}</th>'
        for name in OBJECT_CLIENTS:
            seconds, verdict = cell.seconds.get(name), verdicts.get(name)
            if seconds is None:
                row += "<td></td>"
                continue
            hover = ", ".join(f"{value * 1000:.1f}" for value in seconds.rounds) + " ms"
            text = f"{seconds.median * 1000:.1f} ms"
            if verdict is None:
                row += td(text, hover=hover)
                continue
            text += f"<br>× {verdict.have:.2f}"
            hover += f"; {verdict.bound} of CUBIC's"
            row += td(text, style=heat(1 / verdict.have), hover=hover, missed=not verdict.passed)
        rows.append(row + "</tr>")
    return table(["link", "object", *OBJECT_CLIENTS.values()], rows)


def flow_bars(cell: SharedCell) -> list[str]:
    """Goodput of each flow; the upright line is an equal share."""
    left, width, step, count = 116, 210, 18, len(cell.flows)
    share = cell.link.rate / count
    most = max([share, *(flow.known("goodput") for flow in cell.flows)])
    out = [f'<svg viewBox="0 0 400 {step * count + 4}" role="img"><title>goodput of each flow</title>']
    for index, flow in enumerate(sorted(cell.flows, key=lambda flow: flow.contender)):
        y, goodput, kind = index * step, flow.known("goodput"), flow.contender
        label = f"{kind} {flow.parameters['rtt_ms']} ms"
        long = width * goodput / most
        out.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{label}</text>')
        out.append(f'<rect class="{kind}" x="{left}" y="{y + 4}" width="{long:.1f}" height="11" rx="2"/>')
        out.append(f'<text x="{left + width + 6}" y="{y + 13}">{number(goodput)}</text>')
    x = left + width * share / most
    out.append(f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{step * count}"/></svg>')
    return out


def shared_cards(cells: list[SharedCell]) -> list[str]:
    """For each cell what each flow got, one bar a flow, and over time."""
    out = ['<div class="cards">']
    for cell in cells:
        seconds = max(flow.details["window"]["seconds"] for flow in cell.flows)
        series = [(flow.contender, rates(flow, 1)) for flow in cell.flows]
        spoken = " · ".join(
            f'<span class="{"pass" if one.passed else "fail"}">{escape(str(one))}</span>' for one in cell.verdicts
        )
        out.append(f'<div class="card" id="{cell.name}"><h3>{escape(cell.name)}</h3>')
        out.append(
            f'<p class="soft">our share {cell.ours_share.median:.2f} · Jain {cell.jain.median:.3f} · '
            f"queue p95 {number(cell.queue_p95.median)} ms</p><p>{spoken}</p>"
        )
        out += flow_bars(cell)
        out += plot(series, seconds, cell.link.rate, f"goodput over {seconds:.0f} s, up to {cell.link.rate} Mbit/s")
        out.append("</div>")
    return [*out, "</div>"]


def introduction(summary: Summary) -> list[str]:
    passed = sum(verdict.passed for verdict in summary.verdicts)
    failed = len(summary.verdicts) - passed
    return [
        versions_line(summary.versions),
        f'<p><span class="pass">{passed} verdicts pass</span>, <span class="fail">{failed} fail</span>. '
        f"Targets: goodput at least {LEAST_RATIO} of CUBIC's in every cell; utilisation at least "
        f"{LEAST_UTILISATION} without faults and with a queue of 1 BDP or more; with 1 % lost on the way back "
        f"at least {LEAST_REVERSE} of the goodput without; queueing delay (p95) no longer than CUBIC's where "
        "CUBIC does not leave the link idle; no drop where the queue marks; n flows beside n of CUBIC "
        f"{LEAST_SHARE} to {MOST_SHARE} of the sum; Jain's index among ours at least {LEAST_JAIN}, with several "
        "round trips no less than CUBIC's.</p>",
    ]


def method(versions: Mapping[str, str]) -> list[str]:
    payloads = ", ".join(f"{CONTENDERS[name]} {size}" for name, size in PAYLOAD.items())
    return [
        "<h2>How it was measured</h2>",
        "<p>One download at a time over an emulated link, contenders in turn within a round. The first "
        "max(1 s, 12 RTT) of a run are warm-up; goodput is what reached the reader in the following "
        "max(2.5 s, 10 RTT), whatever had to be repeated for it, and the queue is that of the same time. "
        "Utilisation compares it with what full packets of 1500 bytes carry at the link's rate: "
        f"{payloads} bytes each. Buffers of the kernel's TCP: receive {escape(versions['rmem'])}, send "
        f"{escape(versions['wmem'])} bytes; its congestion control was read from the sockets. smoltcp sends "
        "from a buffer of 1 MiB.</p>",
    ]


def page(summary: Summary) -> str:
    out = introduction(summary)
    if summary.transfers:
        out.append("<h2>Goodput, ours over CUBIC's</h2>")
        out.append(
            '<p class="soft">Medians of rounds; an outline marks a missed target; hover for details, '
            "click for the cell.</p>"
        )
        out += heat_table(summary.transfers)
    if summary.objects:
        out.append(
            '<h2>Small objects</h2><p class="soft">Time of one object on a connection of its own, from the '
            "start of the transfer to its last byte, and that over CUBIC's.</p>"
        )
        out += object_table(summary.objects)
    if missed := [cell for cell in summary.cells if failures(cell.verdicts)]:
        items = (f'<li><a href="#{cell.name}">{cell.name}</a>: {failures(cell.verdicts)}</li>' for cell in missed)
        out += ["<h2>Missed targets</h2><ul>", *items, "</ul>"]
    if summary.shared:
        out.append('<h2>Flows that share a link</h2><p class="soft">The dotted line is an equal share.</p>')
        out += shared_cards(summary.shared)
    if summary.transfers:
        out.append(
            '<h2>Every cell</h2><p class="soft">Bars are medians, lines over them go from the least to the '
            'greatest round.</p><div class="cards">'
        )
        for cell in summary.transfers:
            out += card(cell)
        out.append("</div>")
    return document("Headwater beside TCP", [*out, *method(summary.versions)])
