"""Links that are emulated, by name: the cells of `compare.sh` and `friendliness.sh`.

    lab.sh cells list compare|friendliness [ARGUMENT...]     names of the cells that the script would run
    lab.sh cells compare CELL CONTENDER...                   what describes the cell, as NAME=VALUE lines
    lab.sh cells friendliness CELL SECONDS                   likewise

A cell is RTT-RATE-FAULT-QUEUE, such as 40ms-100mbit-clean-1bdp; RTT-RATE-object-SIZE fetches small
objects over the clean link with a queue of one bandwidth-delay product; RTT-RATE-OURSxCUBICS has flows
share such a link.
"""

import os
import re
from dataclasses import dataclass

from lab import LabError, UsageError
from lab.experiments import Compare, Friendliness
from lab.settings import parse, shown
from lab.traces import TRACES, path

RTTS, RATES, QUEUES = (1, 10, 40, 100, 300), (10, 100, 1000), (0.25, 1, 4)
# Four packets: the least queue that is emulated.
LEAST_QUEUE = 6000
# Rates of slow uplinks in Mbit/s, with a short queue as modems have; and jitter both ways in ms.
UPLINKS, UPLINK_QUEUE = (0.2, 0.5, 1, 2, 5), 30_000
JITTERS = (1, 5, 20)
# In every product of round trip, rate and queue.
EVERYWHERE = {
    "clean": "no fault",
    "loss0.1": "0.1 % lost",
    "loss1": "1 % lost",
    "reverse1": "1 % lost on the way back",
    "burst0.5": "0.5 % lost in bursts",
    "jitter": "0.3 ms jitter, reordering",
    "ecn": "ECN marks",
}
# At a few links.
UNEVEN = {
    "bursts": "bursts every 10 ms, both ways",
    **{name: f"the rate of the {name} trace" for name in TRACES},
    **{f"uplink{rate:g}": f"uplink of {rate:g} Mbit/s, 30 kB" for rate in UPLINKS},
    **{f"unordered{most}": f"{most} ms jitter both ways, reordering" for most in JITTERS},
    **{f"ordered{most}": f"{most} ms jitter both ways, in order" for most in JITTERS},
    "reverse2": "2 % lost on the way back",
    "corrupt0.2": "0.2 % damaged, both ways",
}
FAULTS = EVERYWHERE | UNEVEN
SIZES = ("1kB", "10kB", "100kB", "1MB")
USUAL = (
    *(f"40ms-100mbit-{fault}-1bdp" for fault in EVERYWHERE),
    *(f"40ms-100mbit-clean-{queue:g}bdp" for queue in (0.25, 4)),
    *(f"{rtt}ms-100mbit-clean-1bdp" for rtt in (100, 300)),
    "40ms-10mbit-clean-1bdp",
    "10ms-1000mbit-clean-1bdp",
)
FEW = (
    *(f"40ms-{trace.mbit}mbit-{name}-{queue}bdp" for name, trace in TRACES.items() for queue in (1, 4)),
    *(f"40ms-100mbit-{fault}-1bdp" for fault in UNEVEN if fault not in TRACES),
)
OBJECTS = tuple(f"{rtt}ms-100mbit-object-{size}" for rtt in (40, 100) for size in SIZES)
SHARED = (
    *(f"{rtt}ms-{rate}mbit-1x1" for rtt in (20, 100) for rate in (20, 100)),
    *(f"40ms-100mbit-{flows}" for flows in ("2x2", "4x4", "8x8", "4x0", "0x4")),
    *(f"20+80ms-100mbit-{flows}" for flows in ("2x0", "0x2")),
)
MAX_FLOWS = 64
CROWDS = tuple(f"40ms-{rate}mbit-{flows}x{flows}" for rate in (20, 100, 200) for flows in (4, 16, MAX_FLOWS))


def queue_bytes(rtt_ms: float, rate_mbit: float, bdp: float) -> int:
    """A queue of that part of the bandwidth-delay product, four packets at least."""
    return max(int(rtt_ms * rate_mbit * 125 * bdp), LEAST_QUEUE)


@dataclass(frozen=True)
class Cell:
    """A link, and how long a run over it takes: the warm-up, and the window whose bytes count."""

    name: str
    rtt: int
    rate: int
    fault: str
    queue: float
    size: str = ""

    @classmethod
    def parse(cls, name: str) -> "Cell":
        if match := re.fullmatch(r"(\d+)ms-(\d+)mbit-object-(\d+[kM]B)", name):
            return cls(name, int(match[1]), int(match[2]), "clean", 1, match[3])
        match = re.fullmatch(r"(\d+)ms-(\d+)mbit-([a-z0-9.]+)-([0-9.]+)bdp", name)
        if not match or match[3] not in FAULTS:
            raise LabError(f"no cell '{name}': see compare.sh --full --list")
        trace = TRACES.get(match[3])
        if trace and trace.mbit != int(match[2]):
            raise LabError(f"no cell '{name}': the rate of the {match[3]} trace is {trace.mbit} Mbit/s")
        return cls(name, int(match[1]), int(match[2]), match[3], float(match[4]))

    @property
    def queue_bytes(self) -> int:
        return queue_bytes(self.rtt, self.rate, self.queue)

    @property
    def by_chance(self) -> bool:
        """Where chance drops packets, a few losses must not decide."""
        return self.fault.startswith(("loss", "burst", "corrupt"))

    @property
    def by_trace(self) -> bool:
        """Where the rate varies, a window has a period of the trace."""
        return self.fault in TRACES

    @property
    def warm(self) -> float:
        return 0 if self.size else max(3 if self.by_chance else 1, self.rtt * 0.012)

    @property
    def window(self) -> float:
        if self.size:
            return self.rtt * 0.006 + 0.4
        if self.by_trace:
            return TRACES[self.fault].milliseconds / 1000
        return max(15 if self.by_chance else 2, self.rtt * 0.01)

    @property
    def link(self) -> list[str]:
        """Options of `headwater link`."""
        # In the bad state of bursts all is lost; it is left after 5 packets and entered after 995.
        faults = {
            "loss0.1": ["--ba", "loss=0.1%"],
            "loss1": ["--ba", "loss=1%"],
            "reverse1": ["--ab", "loss=1%"],
            "burst0.5": ["--ba", "burst=0.1005%/20%"],
            "jitter": ["--ba", "jitter=0.3ms,jitter-order=free"],
            "ecn": ["--ba", f"mark={self.queue_bytes // 4}b"],
        }
        faults["reverse2"] = ["--ab", "loss=2%"]
        faults["corrupt0.2"] = ["--corrupt", "0.2%"]
        faults["bursts"] = ["--aggregate", "10ms/64"]
        faults |= {name: ["--ba", f"rate-trace={path(name)}"] for name in TRACES}
        faults |= {f"uplink{rate:g}": ["--ab", f"rate={rate:g}mbit,queue={UPLINK_QUEUE}b"] for rate in UPLINKS}
        for most in JITTERS:
            faults[f"ordered{most}"] = ["--jitter", f"{most}ms"]
            faults[f"unordered{most}"] = ["--jitter", f"{most}ms", "--jitter-order", "free"]
        usual = ["--delay", f"{self.rtt / 2:g}ms", "--rate", f"{self.rate}mbit", "--queue", f"{self.queue_bytes}b"]
        return usual + faults.get(self.fault, [])

    def names(self, contenders: list[str]) -> list[str]:
        """Who takes part; objects are fetched from CUBIC and by two sorts of our client."""
        if not self.size:
            return contenders
        both = {"cubic": ["cubic"], "headwater": ["headwater", "remembered"]}
        return [name for contender in contenders for name in both.get(contender, [])]

    def parameters(self) -> dict[str, object]:
        """For records."""
        held: dict[str, object] = {"rtt_ms": self.rtt, "rate_mbit": self.rate, "fault": self.fault}
        held |= {"queue_bdp": self.queue, "queue_bytes": self.queue_bytes, "ecn": self.fault == "ecn"}
        held |= {"size": self.size} if self.size else {}
        return held | {"link_options": " ".join(self.link)}

    def described(self, contenders: list[str]) -> dict[str, object]:
        """For bash."""
        names = self.names(contenders)
        return {
            "cell": self.name,
            "rtt": self.rtt,
            "rate": self.rate,
            "size": self.size,
            "warm": round(self.warm, 3),
            "window": round(self.window, 3),
            "ecn": int(self.fault == "ecn"),
            "link": self.link,
            "names": names,
            "planned_ms": round((self.warm + self.window) * 1000),
        }


def every_cell() -> list[str]:
    """All names. A queue that the least one would replace by a cell's smaller brother is left out."""
    found = []
    for rtt in RTTS:
        for rate in RATES:
            for fault in EVERYWHERE:
                sizes = {queue_bytes(rtt, rate, queue): queue for queue in reversed(QUEUES)}
                found += [f"{rtt}ms-{rate}mbit-{fault}-{queue:g}bdp" for queue in sorted(sizes.values())]
    return found + list(FEW) + list(OBJECTS)


@dataclass(frozen=True)
class SharedLink:
    """Flows that share a link with a queue of one bandwidth-delay product, of the longest round trip."""

    name: str
    rtts: tuple[int, ...]
    rate: int
    ours: int
    cubics: int

    @classmethod
    def parse(cls, name: str) -> "SharedLink":
        match = re.fullmatch(r"(\d+(?:\+\d+)?)ms-(\d+)mbit-(\d+)x(\d+)", name)
        if not match or max(int(match[3]), int(match[4])) > MAX_FLOWS:
            raise LabError(f"no cell '{name}': see friendliness.sh --list")
        rtts = tuple(int(rtt) for rtt in match[1].split("+"))
        return cls(name, rtts, int(match[2]), int(match[3]), int(match[4]))

    @property
    def queue_bytes(self) -> int:
        return queue_bytes(self.rtts[-1], self.rate, 1)

    def described(self, seconds: int) -> dict[str, object]:
        """For bash; the first sixth of the seconds is warm-up."""
        return {
            "cell": self.name,
            "rtts": self.rtts,
            "rate": self.rate,
            "ours": self.ours,
            "cubics": self.cubics,
            "delay": f"{self.rtts[0] / 2:g}ms",
            "far_delay": f"{(self.rtts[-1] - self.rtts[0]) / 2:g}ms",
            # Two packets' time: see the head of friendliness.sh.
            "jitter": f"{24 / self.rate:g}ms",
            "queue_bytes": self.queue_bytes,
            "warm": round(seconds / 6, 3),
            "window": round(seconds * 5 / 6, 3),
        }


def matching(names: list[str], pattern: str) -> list[str]:
    found = [name for name in names if re.search(pattern, name)]
    if not found:
        raise LabError(f"no cell is like '{pattern}': see --list")
    return found


def chosen(script: str, words: list[str]) -> list[str]:
    if script == "friendliness":
        cells = parse(Friendliness, words, os.environ).cells
        return matching(list(dict.fromkeys([*SHARED, *CROWDS])), cells) if cells else list(SHARED)
    settings = parse(Compare, words, os.environ)
    if settings.cells:
        return matching(every_cell(), settings.cells)
    return every_cell() if settings.full else [*USUAL, *OBJECTS]


def main(words: list[str]) -> None:
    match words:
        case ["list", "compare" | "friendliness" as script, *rest]:
            print("\n".join(chosen(script, rest)))
            return
        case ["compare", cell, *contenders]:
            described = Cell.parse(cell).described(contenders)
        case ["friendliness", cell, seconds]:
            described = SharedLink.parse(cell).described(int(seconds))
        case _:
            raise UsageError
    for name, value in described.items():
        print(f"{name.upper()}={shown(value)}")
