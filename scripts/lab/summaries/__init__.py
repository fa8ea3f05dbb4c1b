"""Medians, ratios and verdicts of records; no text for people, no pictures."""

from collections.abc import Iterable
from typing import Any

from lab.figures import Verdict
from lab.records import Record, by, spread


def document(records: list[Record], verdicts: Iterable[tuple[str, Verdict]]) -> dict[str, Any]:
    """The content of `summary.json`: of each case the figures of its contenders, and all verdicts."""
    cases: dict[str, Any] = {}
    for case, held in by(records, lambda record: record.case).items():
        contenders = by(held, lambda record: record.contender)
        cases[case] = {"parameters": held[0].parameters} | {
            name: {
                figure: found.summary() | {"unit": rounds[0].figures[figure].unit}
                for figure in rounds[0].figures
                if (found := spread(rounds, figure))
            }
            for name, rounds in contenders.items()
        }
    judged = [{"case": case, "verdict": verdict.name, **verdict.summary()} for case, verdict in verdicts]
    return {"schema": 2, "versions": records[-1].versions, "cases": cases, "verdicts": judged}
