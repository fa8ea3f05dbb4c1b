"""Points of `paper.sh`: medians of rounds, ratios to CUBIC, and the verdict on throughput."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lab.figures import Spread, Verdict
from lab.records import Record, by, known_spread, newest, spread

# Target: least ratio of our goodput to CUBIC's, with RATIO_COUNTS downloads at once.
LEAST_RATIO, RATIO_COUNTS = 0.95, (64, 512)
NAMES = {"headwater": "headwater", "cubic": "nginx, kernel TCP (CUBIC)"}


@dataclass(frozen=True)
class Point:
    """One number of connections, or one round trip with a number of flows beside; {contender: rounds}."""

    part: str
    x: int
    rtt: int
    contenders: Mapping[str, list[Record]]

    def spread(self, name: str, figure: str) -> Spread | None:
        """The rounds of a contender's figure; `server_mib` counts the kernel's objects as well."""
        records = self.contenders.get(name, [])
        if figure == "server_mib":
            return Spread.of((record.known("server") + record.known("kernel")) / 1024 for record in records)
        return spread(records, figure)

    @property
    def ratio(self) -> float | None:
        """Our goodput over CUBIC's."""
        if self.part == "memory" or len(self.contenders) < len(NAMES):
            return None
        ours, cubic = (known_spread(self.contenders[name], "goodput").median for name in NAMES)
        return ours / max(cubic, 1e-9)

    @property
    def verdict(self) -> Verdict | None:
        if self.part != "throughput" or self.x not in RATIO_COUNTS or self.ratio is None:
            return None
        return Verdict(f"ratio with {self.x}", self.ratio, least=LEAST_RATIO)

    @property
    def busiest(self) -> float:
        """The greatest share of the cores that anything took while a contender was measured."""
        return max(record.known("busy") for records in self.contenders.values() for record in records)


@dataclass(frozen=True)
class Summary:
    """The points of every part, and the newest failover of each contender."""

    versions: Mapping[str, str]
    memory: list[Point]
    throughput: list[Point]
    friendliness: list[Point]
    failover: list[Record]

    def parts(self) -> Iterator[tuple[str, list[Point]]]:
        """The parts that have points."""
        for name, points in (
            ("memory", self.memory),
            ("throughput", self.throughput),
            ("friendliness", self.friendliness),
        ):
            if points:
                yield name, points


def part_of(record: Record) -> str:
    return record.case.split(" ")[0]


def points(records: list[Record], part: str, x: Callable[[Record], int]) -> list[Point]:
    chosen = [record for record in records if part_of(record) == part]
    groups = by(chosen, lambda record: (int(record.parameters.get("rtt_ms", 0)), x(record)))
    return [
        Point(part, count, rtt, by(groups[rtt, count], lambda record: record.contender))
        for rtt, count in sorted(groups)
    ]


def summarise(records: list[Record]) -> Summary:
    held = newest(records)

    def connections(record: Record) -> int:
        return int(record.parameters["connections"])

    def background(record: Record) -> int:
        return int(record.parameters["background"])

    # The kernel's buffers are set in the testbeds whose links have delays.
    delayed = max(held, key=lambda record: (part_of(record) in ("throughput", "friendliness"), record.began))
    failover = {record.contender: record for record in held if part_of(record) == "failover"}
    return Summary(
        versions=delayed.versions,
        memory=points(held, "memory", connections),
        throughput=points(held, "throughput", connections),
        friendliness=points(held, "friendliness", background),
        failover=[failover[name] for name in NAMES if name in failover],
    )
