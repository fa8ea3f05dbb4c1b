"""Summaries: ratios and verdicts at their bounds."""

import unittest
from typing import Any

from lab.cells import Cell
from lab.records import Figure, Record
from lab.summaries import compare, paper

CLEAN = "40ms-100mbit-clean-1bdp"
WINDOW = {"tick_seconds": 0.1, "samples": [0, 10, 20, 30], "seconds": 0.4, "window_seconds": 0.2}


def transfer(case: str, contender: str, goodput: float, queue: float = 20, drops: float = 0, run: int = 1) -> Record:
    figures = {
        "goodput": Figure(goodput, "Mbit/s"),
        "queue_p95": Figure(queue, "ms"),
        "drops": Figure(drops, "packets"),
        "busy": Figure(0.5, "share"),
        "device_drops": Figure(0, "packets"),
    }
    parameters: dict[str, Any] = {**Cell.parse(case).parameters(), "congestion_control": contender}
    return Record(
        "compare", case, contender, run, float(run), figures, parameters=parameters, details={"window": WINDOW}
    )


def timed(case: str, contender: str, seconds: float) -> Record:
    figures = {"time": Figure(seconds, "s")}
    return Record("compare", case, contender, 1, 1.0, figures, parameters=Cell.parse(case).parameters())


def flow(case: str, contender: str, goodput: float, round: int = 1) -> Record:
    figures = {"goodput": Figure(goodput, "Mbit/s"), "queue_p95": Figure(20, "ms")}
    parameters = {"rtt_ms": 20, "seconds": 60}
    return Record("friendliness", case, contender, 1, 1.0, figures, round=round, parameters=parameters)


def verdicts(*records: Record) -> dict[str, bool]:
    return {one.name: one.passed for one in compare.summarise(list(records)).verdicts}


class Transfers(unittest.TestCase):
    def test_ratio_and_utilisation_at_their_bounds(self) -> None:
        full = 100 * 1442 / 1500
        passing = verdicts(
            transfer(CLEAN, "headwater", full * 0.9701), transfer(CLEAN, "cubic", full * 0.9701 / 0.9501)
        )
        self.assertEqual(passing, {"ratio": True, "queue": True, "utilisation": True})
        failing = verdicts(
            transfer(CLEAN, "headwater", full * 0.9699), transfer(CLEAN, "cubic", full * 0.9699 / 0.9499)
        )
        self.assertEqual(failing, {"ratio": False, "queue": True, "utilisation": False})

    def test_the_queue_may_be_as_long_as_that_of_cubic(self) -> None:
        rows = [(20.6, 20.0, True), (20.7, 20.0, False), (0.9, 0.2, True), (1.1, 0.2, False)]
        for ours, cubic, passes in rows:
            found = verdicts(transfer(CLEAN, "headwater", 90, ours), transfer(CLEAN, "cubic", 90, cubic))
            self.assertEqual(found["queue"], passes, (ours, cubic))

    def test_an_idle_link_is_no_measure_of_a_queue(self) -> None:
        self.assertNotIn("queue", verdicts(transfer(CLEAN, "headwater", 90, 30), transfer(CLEAN, "cubic", 60, 1)))

    def test_no_drop_where_the_queue_marks(self) -> None:
        cell = "40ms-100mbit-ecn-1bdp"
        self.assertEqual(verdicts(transfer(cell, "headwater", 90, drops=1)), {"drops": False})

    def test_losses_on_the_way_back_against_none(self) -> None:
        reverse = "40ms-100mbit-reverse1-1bdp"
        found = verdicts(transfer(CLEAN, "headwater", 90), transfer(reverse, "headwater", 80.9))
        self.assertEqual(found, {"utilisation": False, "reverse": False})

    def test_the_newest_run_counts(self) -> None:
        records = [
            transfer(CLEAN, "headwater", 10),
            transfer(CLEAN, "cubic", 90, run=2),
            transfer(CLEAN, "headwater", 90, run=2),
        ]
        [cell] = compare.summarise(records).transfers
        self.assertEqual((cell.ratio, cell.same_run), (1.0, True))


class Objects(unittest.TestCase):
    def test_times_over_that_of_cubic(self) -> None:
        cell = "40ms-100mbit-object-10kB"
        records = [timed(cell, "cubic", 0.1), timed(cell, "headwater", 0.102), timed(cell, "remembered", 0.0601)]
        self.assertEqual(verdicts(*records), {"headwater": True, "remembered": False})


class Shared(unittest.TestCase):
    def test_half_of_the_link(self) -> None:
        cell = "20ms-20mbit-1x1"
        for ours, found in [(9, (True, True)), (7.9, (False, True)), (12.1, (True, False))]:
            held = verdicts(flow(cell, "headwater", ours), flow(cell, "cubic", 20 - ours))
            self.assertEqual((held["share"], held["others"]), found, ours)

    def test_rounds_are_kept_apart(self) -> None:
        cell = "20ms-20mbit-1x1"
        records = [
            flow(cell, name, value, n)
            for n, pair in enumerate([(10, 10), (4, 16)], 1)
            for name, value in zip(("headwater", "cubic"), pair)
        ]
        [shared] = compare.summarise(records).shared
        self.assertEqual(shared.ours_share.rounds, (0.5, 0.2))

    def test_several_round_trips_are_held_against_those_of_cubic(self) -> None:
        ours, cubic = "20+80ms-100mbit-2x0", "20+80ms-100mbit-0x2"
        records = [flow(ours, "headwater", value) for value in (60, 40)] + [
            flow(cubic, "cubic", value) for value in (70, 30)
        ]
        self.assertEqual(verdicts(*records), {"jain": True})
        self.assertEqual(verdicts(*records[:2]), {})

    def test_jain(self) -> None:
        self.assertEqual((compare.jain([5, 5, 5]), compare.jain([1, 0])), (1.0, 0.5))


class Paper(unittest.TestCase):
    def test_the_target_is_for_64_and_512(self) -> None:
        def record(count: int, contender: str, goodput: float) -> Record:
            names = {"goodput": "Mbit/s", "server": "KiB", "kernel": "KiB", "busy": "share"}
            figures = {name: Figure(goodput if name == "goodput" else 1, unit) for name, unit in names.items()}
            return Record(
                "paper", f"throughput {count}", contender, 1, 1.0, figures, parameters={"connections": count}
            )

        records = [record(count, *pair) for count in (16, 64) for pair in (("headwater", 90), ("cubic", 96))]
        points = paper.summarise(records).throughput
        self.assertEqual([point.verdict and point.verdict.passed for point in points], [None, False])


if __name__ == "__main__":
    unittest.main()
