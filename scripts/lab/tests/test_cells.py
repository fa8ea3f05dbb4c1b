"""Cells: names, links and lengths of runs."""

import unittest

from lab import LabError
from lab.cells import FEW, OBJECTS, UNEVEN, USUAL, Cell, SharedLink, chosen, every_cell, queue_bytes


class Names(unittest.TestCase):
    def test_every_name_can_be_parsed(self) -> None:
        names = every_cell()
        self.assertEqual([Cell.parse(name).name for name in names], names)
        self.assertEqual(len(set(names)), len(names))

    def test_the_usual_ones_are_among_all(self) -> None:
        self.assertLessEqual({*USUAL, *OBJECTS}, set(every_cell()))

    def test_a_queue_that_the_least_one_replaces_is_left_out(self) -> None:
        self.assertEqual((queue_bytes(1, 10, 0.25), queue_bytes(1, 10, 4)), (6000, 6000))
        clean = [name for name in every_cell() if name.startswith("1ms-10mbit-clean")]
        self.assertEqual(clean, ["1ms-10mbit-clean-0.25bdp"])

    def test_uneven_links_are_among_all(self) -> None:
        self.assertEqual({Cell.parse(name).fault for name in FEW}, set(UNEVEN))
        self.assertLessEqual(set(FEW), set(every_cell()))

    def test_no_such_cell(self) -> None:
        for name in ("40ms-100mbit-rain-1bdp", "40ms-100mbit", "40ms-100mbit-lte-1bdp", "x"):
            with self.subTest(name), self.assertRaises(LabError):
                Cell.parse(name)
        with self.assertRaisesRegex(LabError, "no cell is like '9999ms'"):
            chosen("compare", ["--cells", "9999ms"])


class Links(unittest.TestCase):
    def test_a_cell_with_marks(self) -> None:
        cell = Cell.parse("40ms-100mbit-ecn-1bdp")
        queue = ["--queue", "500000b", "--ba", "mark=125000b"]
        self.assertEqual(cell.link, ["--delay", "20ms", "--rate", "100mbit", *queue])

    def test_uneven_links(self) -> None:
        rows = [
            ("40ms-10mbit-lte-4bdp", ["--ba", "rate-trace=scripts/traces/lte.trace"]),
            ("40ms-100mbit-uplink0.2-1bdp", ["--ab", "rate=0.2mbit,queue=30000b"]),
            ("40ms-100mbit-bursts-1bdp", ["--aggregate", "10ms/64"]),
            ("40ms-100mbit-ordered5-1bdp", ["--jitter", "5ms"]),
            ("40ms-100mbit-unordered20-1bdp", ["--jitter", "20ms", "--jitter-order", "free"]),
        ]
        for name, want in rows:
            self.assertEqual(Cell.parse(name).link[6:], want, name)

    def test_a_run_is_longer_where_chance_or_the_round_trip_asks_for_it(self) -> None:
        rows = [
            ("40ms-100mbit-clean-1bdp", 1, 2),
            ("300ms-100mbit-clean-1bdp", 3.6, 3),
            ("40ms-100mbit-loss1-1bdp", 3, 15),
            ("40ms-100mbit-object-1kB", 0, 0.64),
            ("40ms-10mbit-lte-1bdp", 1, 10),
        ]
        for name, warm, window in rows:
            cell = Cell.parse(name)
            self.assertEqual((round(cell.warm, 6), round(cell.window, 6)), (warm, window), name)

    def test_objects_are_fetched_by_two_sorts_of_client(self) -> None:
        cell = Cell.parse("40ms-100mbit-object-1kB")
        self.assertEqual(cell.names(["cubic", "bbr", "headwater"]), ["cubic", "headwater", "remembered"])

    def test_flows_with_two_round_trips(self) -> None:
        found = SharedLink.parse("20+80ms-100mbit-2x0").described(60)
        kept = {name: found[name] for name in ("delay", "far_delay", "queue_bytes", "warm", "window")}
        self.assertEqual(
            kept, {"delay": "10ms", "far_delay": "30ms", "queue_bytes": 1_000_000, "warm": 10, "window": 50}
        )

    def test_crowds_are_asked_for(self) -> None:
        self.assertEqual(len(chosen("friendliness", ["--cells", "x16$"])), 3)
        self.assertNotIn("40ms-20mbit-64x64", chosen("friendliness", []))
        self.assertEqual(SharedLink.parse("40ms-20mbit-64x64").cubics, 64)
        with self.assertRaises(LabError):
            SharedLink.parse("40ms-20mbit-65x1")


if __name__ == "__main__":
    unittest.main()
