"""Traces: the files are those of the generator, and `headwater link` can play them."""

import unittest

from lab.traces import TRACES, path, text

MOST_BYTES = 100_000


class Files(unittest.TestCase):
    def test_the_generator_made_them(self) -> None:
        for name in TRACES:
            held = path(name).read_text()
            self.assertEqual(held, text(name), f"run: scripts/lab.sh traces {name} >{path(name)}")
            self.assertLess(len(held), MOST_BYTES)

    def test_their_mean_rate_and_length(self) -> None:
        for name, trace in TRACES.items():
            times = trace.times()
            self.assertEqual(times, sorted(times), name)
            self.assertEqual(times[-1], trace.milliseconds, name)
            self.assertAlmostEqual(len(times) * 12 / trace.milliseconds, trace.mbit, 2, name)
            self.assertGreater(len(set(times)), 100, name)


if __name__ == "__main__":
    unittest.main()
