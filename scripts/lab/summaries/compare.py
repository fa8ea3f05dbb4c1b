"""Cells of `compare.sh` and `friendliness.sh`: medians of rounds, ratios to CUBIC, and verdicts.

A ratio is our median over CUBIC's: of goodputs, or of the times that small objects take. Utilisation is
the goodput over the part of the link's rate that full packets could carry (see PAYLOAD).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.cells import FAULTS, SIZES, Cell, SharedLink
from lab.drawing.palette import CONTENDERS
from lab.figures import Spread, Verdict
from lab.records import Record, by, known_spread, newest, spread

# Bytes of the object in a full IPv4 packet of 1500: TCP with and without timestamps, and ours.
PAYLOAD = {"cubic": 1448, "reno": 1448, "bbr": 1448, "smoltcp": 1460, "headwater": 1442}
MTU = 1500

# Targets: least ratio to CUBIC in any cell, least utilisation without faults and with a queue of at
# least one bandwidth-delay product, least goodput with losses on the way back over that without.
LEAST_RATIO, LEAST_UTILISATION, LEAST_REVERSE = 0.95, 0.97, 0.90
# Greatest time for an object over CUBIC's: by a client never seen before, and by one that has kept an
# address token.
GREATEST_TIME = {
    "1kB": {"headwater": 0.60, "remembered": 0.60},
    "10kB": {"headwater": 1.02, "remembered": 0.60},
    "100kB": {"headwater": 1.02, "remembered": 0.80},
    "1MB": {"headwater": 1.02, "remembered": 0.95},
}
OBJECT_CLIENTS = {
    "cubic": "kernel TCP, CUBIC",
    "headwater": "headwater, never seen before",
    "remembered": "headwater, address token kept",
}
# p95 of the queueing delay, ours over CUBIC's; the histogram is no finer, and a delay below NO_QUEUE_MS
# is none.
MOST_QUEUE = 1.03
NO_QUEUE_MS = 1
# Share of n of ours beside n of CUBIC, and evenness among ours.
LEAST_SHARE, MOST_SHARE = 0.4, 0.6
LEAST_JAIN = 0.95


@dataclass(frozen=True)
class Transfers:
    """The rounds of one contender in a cell."""

    name: str
    records: list[Record]

    @property
    def goodput(self) -> Spread:
        return known_spread(self.records, "goodput")

    @property
    def utilisation(self) -> float:
        rate: float = self.records[0].parameters["rate_mbit"]
        return self.goodput.median / (rate * PAYLOAD[self.name] / MTU)

    @property
    def queue_p95(self) -> Spread | None:
        return spread(self.records, "queue_p95")

    @property
    def busy(self) -> float:
        return known_spread(self.records, "busy").greatest

    @property
    def device_drops(self) -> int:
        return int(sum(record.known("device_drops") for record in self.records))

    @property
    def run(self) -> int:
        return self.records[0].run


@dataclass(frozen=True)
class TransferCell:
    """One link and fault: who took part, and the verdicts."""

    cell: Cell
    contenders: Mapping[str, Transfers]
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.cell.name

    @property
    def ours(self) -> Transfers | None:
        return self.contenders.get("headwater")

    @property
    def cubic(self) -> Transfers | None:
        return self.contenders.get("cubic")

    @property
    def ratio(self) -> float | None:
        if not self.ours or not self.cubic:
            return None
        return self.ours.goodput.median / max(self.cubic.goodput.median, 1e-9)

    @property
    def ratio_rounds(self) -> list[float]:
        if not self.ours or not self.cubic:
            return []
        pairs = zip(self.ours.goodput.rounds, self.cubic.goodput.rounds)
        return [ours / max(cubic, 1e-9) for ours, cubic in pairs]

    @property
    def same_run(self) -> bool:
        return not self.ours or not self.cubic or self.ours.run == self.cubic.run

    def judge(self) -> None:
        """Adds the verdicts that need no other cell."""
        ours, cubic, ratio = self.ours, self.cubic, self.ratio
        if ours and cubic and ratio is not None:
            self.verdicts.append(Verdict("ratio", ratio, least=LEAST_RATIO))
            # A contender that leaves the link idle has no queue: no feat, and no measure for others.
            if ours.queue_p95 and cubic.queue_p95 and ratio <= 1 / LEAST_RATIO:
                ours_ms, cubic_ms = (max(one.median, NO_QUEUE_MS) for one in (ours.queue_p95, cubic.queue_p95))
                self.verdicts.append(Verdict("queue", ours_ms / cubic_ms, greatest=MOST_QUEUE))
        if ours and self.cell.fault == "ecn":
            drops = known_spread(ours.records, "drops").greatest
            self.verdicts.append(Verdict("drops", drops, greatest=0))
        if ours and self.cell.fault == "clean" and self.cell.queue >= 1:
            self.verdicts.append(Verdict("utilisation", ours.utilisation, least=LEAST_UTILISATION))

    def judge_reverse(self, cells: Mapping[str, "TransferCell"]) -> None:
        """Losses on the way back, against the cell that differs in nothing else."""
        clean = cells.get(self.name.replace("-reverse1-", "-clean-"))
        if self.cell.fault == "reverse1" and clean and clean.ours and self.ours:
            share = self.ours.goodput.median / max(clean.ours.goodput.median, 1e-9)
            self.verdicts.append(Verdict("reverse", share, least=LEAST_REVERSE))


@dataclass(frozen=True)
class ObjectCell:
    """One small object: times of each client in seconds, and ours over CUBIC's."""

    cell: Cell
    seconds: Mapping[str, Spread]

    @property
    def name(self) -> str:
        return self.cell.name

    @property
    def verdicts(self) -> list[Verdict]:
        cubic = self.seconds.get("cubic")
        if cubic is None:
            return []
        return [
            Verdict(name, self.seconds[name].median / cubic.median, greatest=greatest)
            for name, greatest in GREATEST_TIME[self.cell.size].items()
            if name in self.seconds
        ]


@dataclass(frozen=True)
class SharedCell:
    """Flows that shared a link: sums by kind, and Jain's index of all."""

    link: SharedLink
    rounds: list[list[Record]]
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.link.name

    @property
    def flows(self) -> list[Record]:
        """Those of the first round."""
        return self.rounds[0]

    @property
    def ours_share(self) -> Spread:
        return Spread(tuple(share_of("headwater", flows) for flows in self.rounds))

    @property
    def jain(self) -> Spread:
        return Spread(tuple(jain([flow.known("goodput") for flow in flows]) for flows in self.rounds))

    @property
    def total(self) -> Spread:
        return Spread(tuple(sum(flow.known("goodput") for flow in flows) for flows in self.rounds))

    @property
    def queue_p95(self) -> Spread:
        return Spread(tuple(flows[0].known("queue_p95") for flows in self.rounds))

    def judge(self, cells: Mapping[str, "SharedCell"]) -> None:
        """Halves beside as many of CUBIC; evenness among ours, with several round trips beside CUBIC's."""
        link = self.link
        if link.ours == link.cubics:
            share = self.ours_share.median
            self.verdicts.append(Verdict("share", share, least=LEAST_SHARE))
            self.verdicts.append(Verdict("others", share, greatest=MOST_SHARE))
        model = cells.get(f"{self.name.rsplit('-', 1)[0]}-0x{link.ours}")
        if link.cubics == 0 and (len(link.rtts) == 1 or model):
            least = model.jain.median if model and len(link.rtts) > 1 else LEAST_JAIN
            self.verdicts.append(Verdict("jain", self.jain.median, least=least))


def share_of(contender: str, flows: list[Record]) -> float:
    total = sum(flow.known("goodput") for flow in flows)
    ours = sum(flow.known("goodput") for flow in flows if flow.contender == contender)
    return ours / max(total, 1e-9)


def jain(values: list[float]) -> float:
    """Jain's fairness index: 1 if all are equal, 1/n if one has all."""
    return float(sum(values) ** 2 / max(len(values) * sum(value * value for value in values), 1e-9))


@dataclass(frozen=True)
class Summary:
    """All cells, in the order of the report."""

    versions: Mapping[str, str]
    transfers: list[TransferCell]
    objects: list[ObjectCell]
    shared: list[SharedCell]

    @property
    def cells(self) -> list[TransferCell | ObjectCell | SharedCell]:
        return [*self.transfers, *self.objects, *self.shared]

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for cell in self.cells for verdict in cell.verdicts]


def transfer_cells(records: list[Record]) -> list[TransferCell]:
    cells = {}
    for name, group in by(records, lambda record: record.case).items():
        parts = by(group, lambda record: record.contender)
        cells[name] = TransferCell(
            Cell.parse(name), {one: Transfers(one, parts[one]) for one in CONTENDERS if one in parts}
        )
    order = list(FAULTS)
    for one in cells.values():
        one.judge()
        one.judge_reverse(cells)

    def rank(one: TransferCell) -> tuple[int, int, int, float]:
        return one.cell.rate, one.cell.rtt, order.index(one.cell.fault), one.cell.queue

    return sorted(cells.values(), key=rank)


def object_cells(records: list[Record]) -> list[ObjectCell]:
    cells = []
    for name, group in by(records, lambda record: record.case).items():
        parts = by(group, lambda record: record.contender)
        seconds = {one: known_spread(parts[one], "time") for one in OBJECT_CLIENTS if one in parts}
        cells.append(ObjectCell(Cell.parse(name), seconds))
    return sorted(cells, key=lambda one: (one.cell.rate, one.cell.rtt, SIZES.index(one.cell.size)))


def shared_cells(records: list[Record]) -> list[SharedCell]:
    cells = {}
    for name, group in sorted(by(records, lambda record: record.case).items()):
        cells[name] = SharedCell(SharedLink.parse(name), list(by(group, lambda record: record.round).values()))
    for one in cells.values():
        one.judge(cells)
    return list(cells.values())


def summarise(records: list[Record]) -> Summary:
    held = newest(records)
    downloads = [record for record in held if record.experiment == "compare"]
    return Summary(
        versions=max(held, key=lambda record: record.began).versions,
        transfers=transfer_cells([record for record in downloads if "size" not in record.parameters]),
        objects=object_cells([record for record in downloads if "size" in record.parameters]),
        shared=shared_cells([record for record in held if record.experiment == "friendliness"]),
    )
