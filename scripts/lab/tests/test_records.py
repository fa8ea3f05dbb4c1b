"""Records: lines that say what they were made of, and the choice of the newest."""

import json
import tempfile
import unittest
from pathlib import Path

from lab import LabError
from lab.records import Figure, Record, append, by, last_run, newest, read


def record(case: str = "a", contender: str = "headwater", run: int = 1, value: float = 1.0, round: int = 1) -> Record:
    figures = {"goodput": Figure(value, "Mbit/s"), "queue_p95": Figure(None, "ms")}
    return Record("compare", case, contender, run, 0.5, figures, round=round, parameters={"rtt_ms": 40})


class Lines(unittest.TestCase):
    def test_a_file_gives_back_what_was_added(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "out" / "results.jsonl"
            append(path, [record()])
            append(path, [record(case="b")])
            self.assertEqual(read(path), [record(), record(case="b")])

    def test_a_line_names_units(self) -> None:
        held = json.loads(record().line())
        self.assertEqual(held["figures"]["goodput"], {"value": 1.0, "unit": "Mbit/s"})

    def test_other_schemas_are_refused_with_their_line(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.jsonl"
            path.write_text(record().line() + '\n{"schema": 1, "kind": "transfer"}\n')
            with self.assertRaisesRegex(LabError, r"results\.jsonl, line 2: not a record of schema 2"):
                read(path)

    def test_a_missing_file_and_a_cut_line_are_named(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.jsonl"
            with self.assertRaisesRegex(LabError, "there are no records in"):
                read(path)
            path.write_text(record().line()[:-5])
            with self.assertRaisesRegex(LabError, "line 1"):
                read(path)

    def test_units_are_of_a_list(self) -> None:
        with self.assertRaisesRegex(LabError, "'Mbps' is not a unit"):
            Figure(1, "Mbps")

    def test_a_figure_that_must_be_there(self) -> None:
        self.assertIsNone(record().value("queue_p95"))
        with self.assertRaisesRegex(LabError, "has no 'queue_p95'"):
            record().known("queue_p95")


class Choice(unittest.TestCase):
    def test_the_newest_run_of_each_contender_counts(self) -> None:
        old = [record(run=1, round=1), record(run=1, round=2), record(run=1, contender="cubic")]
        new = [record(run=2, value=3.0)]
        self.assertEqual(newest([*old, *new]), [new[0], old[2]])

    def test_the_last_run_alone(self) -> None:
        self.assertEqual(last_run([record(run=1), record(run=2, case="b")]), [record(run=2, case="b")])

    def test_groups_keep_their_order(self) -> None:
        groups = by([record(case="b"), record(case="a"), record(case="b", run=2)], lambda one: one.case)
        self.assertEqual([(case, len(held)) for case, held in groups.items()], [("b", 2), ("a", 1)])


if __name__ == "__main__":
    unittest.main()
