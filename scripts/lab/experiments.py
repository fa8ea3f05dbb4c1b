"""The experiments and their settings: the one place of names, types, defaults and help.

The key of EXPERIMENTS is the name of the script in `scripts/` without its ending.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

from lab.settings import Experiment, setting

CONTENDERS = ("cubic", "reno", "bbr", "smoltcp", "headwater")
DEVICES = ("auto", "plain", "offload")
PAPER_PARTS = ("memory", "throughput", "friendliness", "failover")


def rounds(default: int, of: str = "", option: str = "") -> int:
    value: int = setting(default, f"rounds{of}; contenders take turns in each", option=option, least=1)
    return value


def out(default: str = "out", option: str = "") -> str:
    value: str = setting(default, "the directory of records, reports and pictures", option=option)
    return value


@dataclass(frozen=True)
class Bench(Experiment):
    parts: tuple[str, ...] = setting(
        ("requests", "throughput", "queues", "connections"),
        "what to measure",
        positional=True,
        choices=("requests", "throughput", "queues", "connections"),
    )
    rounds: int = rounds(5)
    seconds_each: int = setting(3, "seconds of each run of `requests` and `connections`", least=1)
    clients: int = setting(16, "clients at a time", least=1)
    rate: int = setting(1000, "requests that begin each second", least=1)
    sizes: tuple[int, ...] = setting((1, 10, 100), "sizes of objects in kB", least=1)
    object_mb: int = setting(400, "size of the large object in MB", least=1)
    queue_clients: int = setting(4, "downloads at once of `queues`", least=1)
    counts: tuple[int, ...] = setting((10, 1000, 100000, 500000), "open connections", least=1)
    kept: int = setting(500000, "connections that another process keeps besides; 0 for none", least=0)
    kernel_counts: tuple[int, ...] = setting((10, 1000, 10000), "idle connections of nginx", least=1)
    layouts: tuple[str, ...] = setting(
        ("two", "one"), "processors: all for both ends, or one for both", choices=("two", "one")
    )
    paths: tuple[str, ...] = setting(("router", "pair"), "paths of `throughput`", choices=("router", "pair"))
    links: tuple[str, ...] = setting(
        ("on", "off", "forwarding", "plain"),
        "offloads of the links of `throughput`",
        choices=("on", "off", "forwarding", "plain"),
    )
    out: str = out("out/bench")


@dataclass(frozen=True)
class Compare(Experiment):
    full: bool = setting(False, "every cell, and every contender", option="--full")
    list: bool = setting(False, "print the names of the cells that would run", option="--list")
    cells: str = setting("", "a regular expression: only such cells, of all there are", option="--cells")
    contenders: tuple[str, ...] = setting(
        (), "who takes part: all with --full, else cubic and headwater", option="--contenders", choices=CONTENDERS
    )
    rounds: int = rounds(3, " of every cell, of objects twice as many and one", "--rounds")
    device: str = setting("auto", "the device of our servers and clients", option="--device", choices=DEVICES)
    out: str = out("out/compare", "--out")

    @property
    def taking_part(self) -> tuple[str, ...]:
        return self.contenders or (CONTENDERS if self.full else ("cubic", "headwater"))

    def derived(self) -> dict[str, object]:
        return {"taking_part": self.taking_part}


@dataclass(frozen=True)
class Friendliness(Experiment):
    list: bool = setting(False, "print the names of the cells that would run", option="--list")
    cells: str = setting("", "a regular expression: only such cells", option="--cells")
    seconds_each: int = setting(60, "seconds of every run; the first sixth is warm-up", option="--seconds", least=6)
    rounds: int = rounds(1, " of every cell", "--rounds")
    out: str = out("out/compare", "--out")


@dataclass(frozen=True)
class Paper(Experiment):
    parts: tuple[str, ...] = setting(PAPER_PARTS, "the experiments", positional=True, choices=(*PAPER_PARTS, "all"))
    quick: bool = setting(False, "fewer points and shorter runs", option="--quick")
    rounds: int = rounds(1, " of throughput and friendliness", "--rounds")
    out: str = out("out/paper", "--out")

    @property
    def points(self) -> "PaperPoints":
        return PaperPoints.quick() if self.quick else PaperPoints()

    def derived(self) -> dict[str, object]:
        parts, points = PAPER_PARTS if "all" in self.parts else self.parts, self.points
        planned = sum(points.planned_s(part, self.rounds) for part in parts)
        return {"parts": parts, **vars(points), "planned_s": planned}


@dataclass(frozen=True)
class PaperPoints:
    """What `paper.sh` measures: numbers of connections, round trips, seconds, and a size."""

    idle: tuple[int, ...] = (1, 10, 100, 1000, 10000, 100000)
    active: tuple[int, ...] = (1, 4, 16, 64, 256, 512)
    beside: tuple[int, ...] = (1, 2, 4, 8, 16)
    rtts: tuple[int, ...] = (10, 40)
    warm: int = 3
    window: int = 6
    object_mb: int = 48

    @classmethod
    def quick(cls) -> "PaperPoints":
        return cls((1, 100, 10000), (4, 64, 512), (1, 4, 16), (10,), warm=2, window=3, object_mb=24)

    def planned_s(self, part: str, rounds: int) -> int:
        """About how many seconds a part takes."""
        each = self.warm + self.window + 2
        match part:
            case "memory":
                return sum(3 + count // 2200 for count in self.idle)
            case "throughput":
                return 3 + 2 * rounds * len(self.active) * each
            case "friendliness":
                return len(self.rtts) * (3 + 2 * rounds * len(self.beside) * (each + 1))
        return 6 + self.object_mb // 7


@dataclass(frozen=True)
class RedirectBench(Experiment):
    records: ClassVar[str] = "redirect-bench.jsonl"

    parts: tuple[str, ...] = setting(
        ("throughput", "memory"), "what to measure", positional=True, choices=("throughput", "memory")
    )
    rounds: int = rounds(5)
    seconds_each: int = setting(2, "seconds of each flood", least=1)
    sizes: tuple[int, ...] = setting((200, 1438), "sizes of IP packets in bytes", least=100, most=1500)
    connections: int = setting(1_000_000, "connections through the redirector", least=1)
    out: str = out()


@dataclass(frozen=True)
class FailoverFleet(Experiment):
    records: ClassVar[str] = "failover-fleet.jsonl"

    ways: tuple[str, ...] = setting(
        ("kill", "namespace", "silent"),
        "how a server is taken away",
        positional=True,
        choices=("kill", "namespace", "silent"),
    )
    # Each has an address of its own in 10.77.1.0/24.
    transfers: int = setting(200, "downloads by headwater get", least=1, most=250)
    downloads: int = setting(20, "downloads by curl", least=1)
    object_mib: int = setting(4, "size of each in MiB", least=1)
    rate: str = setting("200mbit", "rate of the link that all share, as tc writes it")
    buffer: str = setting("200ms", "its buffer, as tc writes it")
    out: str = out()


@dataclass(frozen=True)
class Goodput(Experiment):
    records: ClassVar[str] = "goodput.jsonl"

    rounds: int = rounds(5)
    object_mb: int = setting(400, "size of the object in MiB", least=1)
    out: str = out()


@dataclass(frozen=True)
class Memory(Experiment):
    records: ClassVar[str] = "memory.jsonl"

    connections: int = setting(100_000, "connections that never close", least=1)
    hostile: int = setting(0, "mutated packets afterwards", least=0)
    out: str = out()


@dataclass(frozen=True)
class Races(Experiment):
    records: ClassVar[str] = "races.jsonl"

    samples: int = setting(20, "of each way to connect", positional=True, least=1)
    races: int = setting(10000, "whose traces at the server are counted", least=100)
    out: str = out("out/races")


@dataclass(frozen=True)
class Idle(Experiment):
    records: ClassVar[str] = "idle.jsonl"

    # Continuations are good for 15 minutes.
    seconds_idle: int = setting(600, "seconds without a request", positional=True, least=1, most=850)
    out: str = out()


@dataclass(frozen=True)
class TcpScale(Experiment):
    records: ClassVar[str] = "tcp-scale.jsonl"

    rounds: int = rounds(5)
    few: int = setting(10, "connections to begin with", least=1)
    many: int = setting(10_000, "connections to compare with them", least=1)
    seconds_each: int = setting(5, "seconds of each measurement", option="--seconds", least=1)
    out: str = out()


@dataclass(frozen=True)
class LinkAccuracy(Experiment):
    records: ClassVar[str] = "link-accuracy.jsonl"

    seconds_each: int = setting(5, "seconds of each throughput", option="--seconds", least=1)
    out: str = out()


@dataclass(frozen=True)
class BenchCheck(Experiment):
    update: bool = setting(False, "write the baseline instead of comparing with it")
    cargo: str = setting("cargo", "the cargo to build with")


@dataclass(frozen=True)
class Demo(Experiment):
    object_mb: int = setting(300, "size of the large file in MiB", least=1)
    rate: str = setting("400mbit", "rate of the link, as tc writes it")
    out: str = out()


@dataclass(frozen=True)
class DemoFleet(Experiment):
    part: str = setting("failover", "which demo", positional=True, choices=("failover", "balance", "anycast"))
    downloads: int = setting(16, "downloads of each kind", least=1)
    out: str = out()


@dataclass(frozen=True)
class TestNetns(Experiment):
    chosen: tuple[str, ...] = setting((), "the scenarios; all by default", positional=True)
    list: bool = setting(False, "print the names of all scenarios", option="--list")
    object_mb: int = setting(1000, "size of the large objects in MB", least=1)
    transfers: int = setting(40, "downloads at once through redirectors", least=1)
    flood_rounds: int = setting(1, "downloads beside each flood of OPENs, and as many alone", least=1)
    flaps: int = setting(10, "of a route of an anycast site; 150 take a minute", least=1)
    seed: int = setting(-1, "of the random instants; drawn and printed by default", least=-1)
    keep_logs: bool = setting(False, "print the logs of scenarios that passed, too")

    def derived(self) -> dict[str, object]:
        return {"seed": self.seed if self.seed >= 0 else random.randrange(1 << 15)}


@dataclass(frozen=True)
class Testbed(Experiment):
    pass


EXPERIMENTS: dict[str, type[Experiment]] = {
    "bench": Bench,
    "bench-check": BenchCheck,
    "compare": Compare,
    "demo": Demo,
    "demo-fleet": DemoFleet,
    "failover-fleet": FailoverFleet,
    "friendliness": Friendliness,
    "goodput": Goodput,
    "idle": Idle,
    "races": Races,
    "link-accuracy": LinkAccuracy,
    "tcp-scale": TcpScale,
    "memory": Memory,
    "paper": Paper,
    "redirect-bench": RedirectBench,
    "test-netns": TestNetns,
    "testbed": Testbed,
}
