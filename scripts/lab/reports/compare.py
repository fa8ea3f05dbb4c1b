"""Reports what `compare.sh` and `friendliness.sh` have measured.

    lab.sh report compare DIR

Reads DIR/results.jsonl, prints tables, writes DIR/summary.json and DIR/report.html. Of every cell and
contender the newest run counts. Figures are medians of rounds.
"""

import json
from pathlib import Path

from lab.drawing.palette import CONTENDERS
from lab.figures import Verdict, number
from lab.pages.compare import failures, median_of, page
from lab.records import newest, read
from lab.reports import of_folder
from lab.summaries import document
from lab.summaries.compare import OBJECT_CLIENTS, ObjectCell, SharedCell, Summary, TransferCell, summarise
from lab.tables import aligned


def outcome(verdicts: list[Verdict]) -> str:
    return failures(verdicts) or ("ok" if verdicts else "")


def transfer_table(cells: list[TransferCell]) -> list[list[str]]:
    names = [name for name in CONTENDERS if any(name in cell.contenders for cell in cells)]
    rows = [["goodput in Mbit/s / queue p95 in ms", *names, "ratio", "verdicts"]]
    for cell in cells:
        held = [cell.contenders.get(name) for name in names]
        columns = [f"{number(one.goodput.median)} / {median_of(one.queue_p95)}" if one else "" for one in held]
        ratio = "" if cell.ratio is None else f"{cell.ratio:.2f}"
        rows.append([cell.name, *columns, ratio, outcome(cell.verdicts)])
    return rows


def object_table(cells: list[ObjectCell]) -> list[list[str]]:
    rows = [["time of small objects in ms", *OBJECT_CLIENTS, "ratios", "verdicts"]]
    for cell in cells:
        held = [cell.seconds.get(name) for name in OBJECT_CLIENTS]
        times = [f"{one.median * 1000:.1f}" if one else "" for one in held]
        ratios = ", ".join(f"{verdict.have:.2f}" for verdict in cell.verdicts)
        rows.append([cell.name, *times, ratios, outcome(cell.verdicts)])
    return rows


def shared_table(cells: list[SharedCell]) -> list[list[str]]:
    rows = [["flows that share a link", "our share", "Jain", "total", "queue p95", "Mbit/s each", "verdicts"]]
    for cell in cells:
        each = ", ".join(f"{flow.contender} {number(flow.known('goodput'))}" for flow in cell.flows)
        figures = [
            f"{cell.ours_share.median:.2f}",
            f"{cell.jain.median:.3f}",
            number(cell.total.median),
            number(cell.queue_p95.median),
        ]
        rows.append([cell.name, *figures, each, outcome(cell.verdicts)])
    return rows


def tables(summary: Summary) -> list[str]:
    out = []
    if summary.transfers:
        out.append(aligned(transfer_table(summary.transfers)))
    if summary.objects:
        out.append(aligned(object_table(summary.objects)))
    if summary.shared:
        out.append(aligned(shared_table(summary.shared)))
    passed = sum(verdict.passed for verdict in summary.verdicts)
    return [*out, f"{passed} verdicts pass, {len(summary.verdicts) - passed} fail"]


def report(folder: Path) -> None:
    records = newest(read(folder / "results.jsonl"))
    summary = summarise(records)
    verdicts = [(cell.name, verdict) for cell in summary.cells for verdict in cell.verdicts]
    text = json.dumps(document(records, verdicts), indent=1) + "\n"
    (folder / "summary.json").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(page(summary), encoding="utf-8")
    print("\n\n".join(tables(summary)))
    print(f"{folder}/report.html, {folder}/summary.json")


main = of_folder(report)
