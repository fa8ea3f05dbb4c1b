"""Drawing: axes without an empty third, labels that do not cover one another, well-formed pictures."""

import re
import unittest
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from typing import Any

from lab.drawing.axes import Logarithmic, apart, covering, covering_factors, lanes, text_width
from lab.drawing.charts import Guide, LineChart, Ranged, Series
from lab.drawing.palette import standalone
from lab.reports import failover, fleet


class Axes(unittest.TestCase):
    def test_no_third_of_an_axis_is_empty(self) -> None:
        rows = [[96.0, 91.0, 89.4], [1.0, 100.0], [59.0, 6.6], [0.0, 3.0], [1e-3, 2e-3]]
        for values in rows:
            scale = covering(values, 6)
            self.assertLess(scale.share(min(values)), 1 / 3, values)
            self.assertGreater(scale.share(max(values)), 2 / 3, values)

    def test_factors_begin_and_end_beside_the_values(self) -> None:
        for values in ([10.0, 473.0], [7.4, 14.0], [1.0, 1000.0]):
            scale = covering_factors(values)
            self.assertLess(scale.share(min(values)), 1 / 3, values)
            self.assertGreater(scale.share(max(values)), 2 / 3, values)
            self.assertGreaterEqual(len(scale.ticks), 2)

    def test_a_logarithmic_axis_keeps_its_ticks(self) -> None:
        self.assertEqual(Logarithmic(1, 512, [1, 4, 512]).ticks, [1, 4, 512])

    def test_labels_that_would_touch_are_left_out(self) -> None:
        self.assertEqual(apart([(0, 10), (8, 10), (30, 10)]), [0, 2])
        self.assertEqual(apart([(0, 10), (30, 10), (60, 10)]), [0, 1, 2])
        self.assertEqual(apart([]), [])

    def test_labels_that_would_touch_get_lanes(self) -> None:
        self.assertEqual(lanes([(0, 50), (20, 50), (60, 50), (80, 50)]), [0, 1, 0, 1])


def servers(count: int, rate: float) -> dict[str, Any]:
    samples = [[step / 4, step * rate * 1e6 / 32] for step in range(41)]
    return {f"server{n}": samples for n in range(1, count + 1)}


class Pictures(unittest.TestCase):
    def test_a_fleet_of_any_number_of_contenders(self) -> None:
        events = [[3.0, "kill -9 server3"], [3.2, "server3 is down"], [9.9, "the last event of all"]]
        for count in (1, 2, 4):
            contenders = [
                {
                    "name": f"contender <{n}>",
                    "outcome": "0 of 16 broken",
                    "passed": n > 0,
                    "events": events,
                    "servers": servers(4, 16),
                }
                for n in range(count)
            ]
            figures = {"title": "A fleet", "link": "one link of 200 Mbit/s", "contenders": contenders}
            picture = standalone(fleet.draw(figures))
            ElementTree.fromstring(picture)
            self.assertEqual(picture.count("contender &lt;"), count)
            self.assertEqual(picture.count("server3 is down"), count)
            self.assertIn("one link of 200 Mbit/s", picture)

    def test_labels_of_events_do_not_cover_one_another(self) -> None:
        events = [[at, f"event number {n}"] for n, at in enumerate((1.0, 1.1, 1.2, 9.8, 9.9))]
        contender = {"name": "a", "outcome": "b", "events": events, "servers": servers(2, 8)}
        figures = {"title": "A fleet", "contenders": [contender]}
        found = re.findall(r'<text x="([\d.]+)" y="(-\d+)">(event[^<]*)<', fleet.draw(figures))
        spans = sorted((float(y), float(x), float(x) + text_width(text)) for x, y, text in found)
        self.assertEqual(len(spans), len(events))
        for (y1, _, end), (y2, start, _) in pairwise(spans):
            self.assertTrue(y1 != y2 or end <= start, spans)
        self.assertLessEqual(max(end for _, _, end in spans), 840.1)

    def test_counters_become_servers(self) -> None:
        contender = {"counters": {"server1": "from1"}, "began_ms": 100_000, "ended_ms": 101_000}
        figures: dict[str, Any] = {"contenders": [contender]}
        samples = [{"time": 99.0 + n, "bytes": {"from1": 1000 + 10 * n}} for n in range(4)]
        fleet.fill(figures, samples)
        points = figures["contenders"][0]["servers"]["server1"]
        self.assertEqual([bytes_sent for _, bytes_sent in points][-1] - points[0][1], 10)
        self.assertEqual(points[0][0], 0.0)

    def test_a_failover(self) -> None:
        contender = {
            "name": "headwater get",
            "outcome": "complete",
            "completed": True,
            "killed_s": 1.0,
            "back_s": 1.5,
            "end_s": 4.0,
            "samples": [[n / 10, n * 1e5] for n in range(40)],
        }
        picture = standalone(failover.draw({"title": "A failover", "contenders": [contender, contender]}))
        ElementTree.fromstring(picture)

    def test_a_chart_shows_target_and_verdict(self) -> None:
        series = [Series("headwater", "headwater", [Ranged(1, 90, 89, 91), Ranged(64, 92, 91, 93)])]
        chart = LineChart(
            "A chart",
            "One link",
            Logarithmic(1, 64, [1, 64]),
            covering([89, 100], 5),
            "count",
            "Mbit/s",
            series,
            [Guide("target", [(1, 95), (64, 95)], "target")],
            "ratio: 0.94, at least 0.95: FAIL",
            False,
        ).draw()
        ElementTree.fromstring(standalone(chart))
        self.assertIn('class="target"', chart)
        self.assertIn('class="fail"', chart)


if __name__ == "__main__":
    unittest.main()
