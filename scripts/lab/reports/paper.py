"""Reports what `paper.sh` has measured.

    lab.sh report paper DIR

Reads DIR/results.jsonl, prints tables, writes DIR/*.svg, DIR/summary.json and DIR/report.html. Of every
point and contender the newest run counts; of its rounds the median is drawn, and a bar from the least to
the greatest.
"""

import json
from pathlib import Path

from lab.drawing.palette import standalone
from lab.pages.paper import HEADS, columns, page, pictures
from lab.records import newest, read
from lab.reports import of_folder
from lab.summaries import document
from lab.summaries.paper import summarise
from lab.tables import aligned


def report(folder: Path) -> None:
    records = newest(read(folder / "results.jsonl"))
    summary = summarise(records)
    made = pictures(summary)
    for name, picture in made.items():
        (folder / f"{name}.svg").write_text(standalone(picture), encoding="utf-8")
    verdicts = [("throughput", point.verdict) for point in summary.throughput if point.verdict]
    text = json.dumps(document(records, verdicts), indent=1) + "\n"
    (folder / "summary.json").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(page(summary, made), encoding="utf-8")
    for part, points in summary.parts():
        print(f"\n{part}")
        print(aligned([HEADS[part], *map(columns, points)], right=True))
    if summary.failover:
        print("\nfailover")
        for record in summary.failover:
            print(f"{record.details['name']}: {record.details['outcome']}")
    print(f"\n{folder}/report.html, {folder}/summary.json and {len(made)} pictures")


main = of_folder(report)
