"""Measurements: from the output of programs to the figures of records."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

from lab import LabError, UsageError
from lab.measurements import Session, bench, compare, failover, failover_fleet, idle, make, paper, redirect_bench
from lab.records import Record, read


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def session(self, words: dict[str, str], **files: Any) -> Session:
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (self.folder / name.replace("_", "-")).write_text(text)
        return Session("test", self.folder, {"run": "7", **words})

    def values(self, record: Record) -> dict[str, float | None]:
        return {name: figure.value for name, figure in record.figures.items()}


class Lines(Scratch):
    def test_a_script_adds_lines(self) -> None:
        def kind(session: Session) -> list[Record]:
            return [session.record("case", session.word("contender"), {"time": (2.0, "s")})]

        results = self.folder / "out" / "results.jsonl"
        for name in ("a", "b"):
            make(
                "test",
                {"kind": kind},
                ["kind", str(self.folder), str(results), "run=7", f"contender={name}", "round=3"],
            )
        self.assertEqual([(one.contender, one.run, one.round) for one in read(results)], [("a", 7, 3), ("b", 7, 3)])

    def test_a_missing_word_is_named(self) -> None:
        with self.assertRaisesRegex(LabError, "needs contender=VALUE"):
            self.session({}).word("contender")
        with self.assertRaises(UsageError):
            make("test", {}, ["kind", ".", "results"])

    def test_a_figure_that_a_program_no_longer_prints_is_named(self) -> None:
        def kind(session: Session) -> list[Record]:
            return [session.record("case", "a", {"time": (session.json("stats")["seconds"], "s")})]

        self.session({}, stats={"duration": 1})
        with self.assertRaisesRegex(LabError, "test kind: the output of a program has no 'seconds'"):
            make("test", {"kind": kind}, ["kind", str(self.folder), str(self.folder / "results"), "run=7"])


class Compare(Scratch):
    def test_a_transfer(self) -> None:
        window = {"window_bytes": 25_000_000, "window_seconds": 2, "bytes": 30_000_000, "seconds": 3, "busy": 0.5}
        link = {"ba": {"sojourn": {"p50_us": 20_000, "p95_us": None}, "dropped": 3, "counters": {"marked": 0}}}
        words = {
            "cell": "40ms-100mbit-clean-1bdp",
            "contender": "cubic",
            "round": "2",
            "device": "auto",
            "device_drops": "0",
        }
        session = self.session(words, window=window, link_end=link, ss="ESTAB 0 0 cubic wscale:7 retrans:0/12 x")
        with contextlib.redirect_stderr(io.StringIO()) as progress:
            [record] = compare.transfer(session)
        self.assertEqual(progress.getvalue(), "40ms-100mbit-clean-1bdp round 2 cubic: 100 Mbit/s, queue p95 – ms\n")
        self.assertEqual((record.known("goodput"), record.known("goodput_from_start")), (100.0, 80.0))
        self.assertEqual((record.value("queue_p50"), record.value("queue_p95")), (20.0, None))
        self.assertEqual((record.known("retransmitted"), record.round), (12, 2))

    def test_another_congestion_control_is_refused(self) -> None:
        with self.assertRaisesRegex(LabError, "bbr was asked for, the kernel took 'cubic'"):
            compare.congestion_control("bbr", "x cubic y")
        self.assertEqual(compare.congestion_control("headwater", ""), "")


class Failover(unittest.TestCase):
    ROWS = ((9.9, 500), (10.0, 1000), (10.5, 101_000), (11.0, 101_500), (12.0, 102_000), (12.5, 300_000))

    def test_the_longest_time_without_progress(self) -> None:
        self.assertEqual(failover.longest_stall_ms(self.ROWS, 10.0, 13.0), 2000)
        self.assertEqual(failover.longest_stall_ms(self.ROWS, 10.0, 12.0), 500)
        self.assertEqual(failover.longest_stall_ms([], 0, 1), 0)

    def test_a_contender(self) -> None:
        times = {"start": 10.05, "killed": 10.5, "back": 11.0, "end": 12.5}
        found = failover.contender("get", self.ROWS, times, 0, True)
        self.assertEqual((found["completed"], found["killed_s"], found["end_s"]), (True, 0.45, 2.45))
        self.assertEqual(found["samples"][0], (-0.05, 0))  # type: ignore[index]
        self.assertEqual(failover.contender("curl", self.ROWS, times, 18, True)["outcome"], "broken, exit status 18")
        self.assertFalse(failover.contender("get", self.ROWS, times, 0, False)["completed"])


class Fleet(unittest.TestCase):
    def samples(self, *grown: float) -> list[dict[str, Any]]:
        """A counter that has grown at each of the times, looked at every half second."""
        return [{"time": t / 2, "bytes": {"c1": sum(at <= t / 2 for at in grown)}} for t in range(20)]

    def test_the_stall_that_ends_in_the_window(self) -> None:
        samples = self.samples(1, 2, 4.5, 5, 9)
        stats = {"1": {"by_server": {"3": 20, "1": 80}}}
        self.assertEqual(failover_fleet.stalls(samples, stats, 2.0, "3"), {"had": [2500.0], "others": []})
        self.assertEqual(failover_fleet.stalls(samples, stats, 2.0, "2"), {"had": [], "others": [2500.0]})
        self.assertEqual(failover_fleet.stalls(samples, stats, 9.0, "3"), {"had": [], "others": []})

    def test_quantiles(self) -> None:
        values = [float(value) for value in range(1, 101)]
        self.assertEqual([failover_fleet.quantile(values, part) for part in (0.5, 0.99, 1.0)], [50.0, 99.0, 100.0])
        self.assertIsNone(failover_fleet.quantile([], 0.5))

    def test_a_line_that_was_cut_short_is_left_out(self) -> None:
        self.assertEqual(failover_fleet.parsed(['{"time": 1}\n', '{"ti']), [{"time": 1}])


class Idle(unittest.TestCase):
    def test_the_first_answer_after_the_longest_silence(self) -> None:
        packets = [(0.0, "c"), (0.1, "s"), (9.0, "c"), (9.002, "s"), (9.1, "c")]
        silence, requests, answered = idle.resumption(packets, "c")
        self.assertEqual((round(silence, 3), requests, round(answered, 3)), (8.9, 1, 2.0))
        with self.assertRaisesRegex(LabError, "nothing was answered"):
            idle.resumption(packets[:3], "c")


class Others(Scratch):
    def test_bytes_in_the_buffers_of_sockets(self) -> None:
        line = "skmem:(r1024,rb131072,t0,tb46080,f2048,w3072,o0,bl0,d0) cubic"
        self.assertEqual(paper.queued_kib(f"{line}\n{line}"), 12.0)
        with self.assertRaises(LabError):
            paper.check_cubic(" bbr ")

    def test_queues_count_busy_cores(self) -> None:
        words = {"clients": "2", "bytes": "1000000", "before": "100 400", "after": "250 600"}
        [record] = bench.queues(self.session({**words, "contender": "one", "began": "1", "ended": "2"}))
        self.assertEqual(record.known("goodput"), 16.0)
        self.assertEqual(record.known("busy") / record.parameters["cores"], 0.75)

    def test_requests_are_a_record_for_each_round(self) -> None:
        held = {"per_second": 10.0, "completed": 5, "server_ns": 50_000, "latency": {"p50_us": 1, "p99_us": 2}}
        stats = {"peers": [{"peer": "transport", "rounds": [held, {**held, "completed": 0}]}]}
        records = bench.requests(self.session({"case": "requests"}, stats=stats))
        self.assertEqual([(one.round, one.value("server_cpu")) for one in records], [(1, 10.0), (2, None)])

    def test_what_dd_prints(self) -> None:
        words = {"case": "a", "contender": "dd-disk"}
        text = "1+0 records out\n64000000 bytes (64 MB, 61 MiB) copied, 0.512 s, 125 MB/s\n"
        [record] = bench.disk(self.session(words, dd=text))
        self.assertEqual(record.known("goodput"), 1000.0)
        with self.assertRaises(LabError):
            bench.disk(self.session(words, dd="dd: no such file"))

    def test_a_flood(self) -> None:
        flood = {"peers": [{"seconds": 2, "packets": 100, "own_ns": 5000}]}
        words = {"contender": "nft", "bytes": "200", "arrived": "80", "ran_ns": "0"}
        [record] = redirect_bench.flood(self.session(words, flood=flood))
        self.assertEqual((record.known("rate"), record.value("program"), record.known("flood")), (40.0, None, 50.0))


if __name__ == "__main__":
    unittest.main()
