"""Probes: what can be tested without a namespace."""

import ipaddress
import math
import os
import random
import subprocess
import unittest

from lab import LabError
from lab.probes import capsules, faulty_dns, instructions, mmdb, open_flood, payload, syn_flood, window
from lab.reports import instructions as comparison
from lab.settings import ROOT


class Probes(unittest.TestCase):
    def test_a_count_takes_every_byte_of_a_pipe_until_its_end(self) -> None:
        reader, writer = os.pipe()
        os.write(writer, bytes(5000))
        os.close(writer)
        count = window.Count(reader)
        count.until(math.inf)
        self.assertEqual((count.bytes, count.ended), (5000, True))
        self.assertIsNotNone(count.first)

    def test_a_window_is_a_part_of_the_download(self) -> None:
        figures = window.measure(0.2, 0.3, ["cat", "/dev/zero"])
        counted, whole = (int(str(figures[name])) for name in ("window_bytes", "bytes"))
        self.assertTrue(0 <= counted <= whole, figures)

    def test_a_download_must_outlast_the_window(self) -> None:
        with self.assertRaisesRegex(LabError, "ended by itself, exit status 3"):
            window.measure(0, 60, ["sh", "-c", "exit 3"])

    def test_object_bytes_at_the_end_of_a_datagram(self) -> None:
        original = random.Random(1).randbytes(4000)
        self.assertEqual(payload.payload_bytes(b"header" + original[100:1500], original), 1400)
        self.assertEqual(payload.payload_bytes(bytes(40), original), 0)

    def test_every_sort_of_wrong_capsule_differs_or_is_a_replay(self) -> None:
        genuine = bytes(range(64))
        found = dict(capsules.variants(genuine, random.Random(1)))
        self.assertEqual([name for name, one in found.items() if one == genuine], ["replayed"])

    def test_a_faulty_server_has_the_fault_of_the_name(self) -> None:
        server = faulty_dns.Server({"*": ["10.0.0.1", "fd00::1"]})

        def replies(name: str, kind: int, over_tcp: bool = False) -> list[tuple[float, bytes]]:
            question = faulty_dns.wire_name(name) + kind.to_bytes(2, "big") + b"\0\1"
            query = faulty_dns.Query.parse(b"\x12\x34" + bytes(10) + question, over_tcp)
            return server.replies(query)

        ((after, usual),) = replies("Good.test", faulty_dns.A)
        self.assertEqual((after, usual[:2], usual[-4:]), (0, b"\x12\x34", bytes([10, 0, 0, 1])))
        self.assertIn(b"\4Good\4test\0", usual)
        self.assertEqual(replies("silent.test", faulty_dns.A), [])
        self.assertEqual([after for after, _ in replies("slow6-2000.test", faulty_dns.AAAA)], [2])
        self.assertEqual(replies("servfail.test", faulty_dns.A)[0][1][3] & 15, faulty_dns.SERVFAIL)
        self.assertNotEqual(replies("wrongid.test", faulty_dns.A)[0][1][:2], b"\x12\x34")
        self.assertIn(b"gOOD", replies("spelling.gOOD", faulty_dns.A, over_tcp=True)[0][1])
        self.assertTrue(replies("many.test", faulty_dns.A)[0][1][2] & 2)
        self.assertEqual(replies("many.test", faulty_dns.A, over_tcp=True)[0][1][7], 198)
        forged = replies("flood.test", faulty_dns.A)
        self.assertGreater(len(forged), 40)
        self.assertEqual(sum(one[:2] == b"\x12\x34" for _, one in forged), 1)

    def test_a_forged_open_is_one_of_the_transport(self) -> None:
        datagram = open_flood.open_datagram(7, "/a")
        self.assertEqual(len(datagram), open_flood.OPEN_BYTES)
        self.assertEqual(datagram[:14], bytes([0x10, 1, 0, 0, 0, 0, 0, 0, 0, 7, 5, 0xC0, 1, 0]))
        self.assertEqual(datagram[14:23], bytes([0, 0, 0, 0, 0, 0, 1, 0, 28]))
        self.assertTrue(datagram[23:].startswith(b"GET /a HTTP/1.1\r\n"))

    def test_a_forged_syn_has_a_sound_checksum(self) -> None:
        source, target = ipaddress.ip_address("10.0.0.1").packed, ipaddress.ip_address("10.0.0.2").packed
        packet = syn_flood.syn(source, target, 1024, 80, 7)
        tcp = packet[20:]
        pseudo = source + target + bytes([0, 6, 0, len(tcp)])
        self.assertEqual(syn_flood.checksum(pseudo + tcp), 0)
        self.assertEqual((packet[12:20], tcp[13]), (source + target, 2))

    def test_a_database_holds_longer_prefixes_in_shorter_ones(self) -> None:
        networks = [ipaddress.ip_network(prefix) for prefix in ("10.0.0.0/8", "10.1.0.0/16")]
        text = mmdb.database([(networks[0], "DE", "EU"), (networks[1], "JP", "AS")])
        self.assertIn(mmdb.MARKER, text)
        self.assertTrue(b"DE" in text and b"JP" in text)

    def test_callgrind_sums(self) -> None:
        self.assertEqual(instructions.collected("summary: 10\nx\ntotals: 12\n"), 12)
        self.assertEqual(instructions.collected(""), 0)

    def test_more_instructions_than_the_baseline(self) -> None:
        rows = comparison.rows({"a": 105, "b": 106, "c": 1}, {"a": 100, "b": 100})
        self.assertEqual([row[-1] for row in rows], ["", "TOO MANY", ""])


class CommandLine(unittest.TestCase):
    def run_lab(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([ROOT / "scripts/lab.sh", *words], capture_output=True, text=True)

    def test_a_probe_says_how_it_is_called(self) -> None:
        ran = self.run_lab("probe", "window")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("lab.sh probe window WARM SECONDS COMMAND...", ran.stderr)

    def test_an_unknown_name_is_answered_with_all(self) -> None:
        self.assertIn("'probe' is one of: backend-states, capsules", self.run_lab("probe", "none").stderr)


if __name__ == "__main__":
    unittest.main()
