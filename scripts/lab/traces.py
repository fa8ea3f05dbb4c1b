"""Traces of rates for `headwater link --rate-trace`, in the format of mahimahi, from a seed.

    lab.sh traces lte|wifi     prints scripts/traces/NAME.trace

Each line is a time in milliseconds at which 1500 bytes may leave. Both are drawn, not recorded: `lte`
has a rate that wanders within a factor of 16, a transmission in most milliseconds, and two handovers;
`wifi` has bursts at irregular intervals, whose size follows the rate and the wait, as the channel is
shared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lab import UsageError

FOLDER = Path("scripts/traces")
OPPORTUNITY_BITS = 12000
STEPS = (0.8, 1.0, 1.25)
LEAST_RATE, MOST_RATE = 0.25, 4.0


def wander(rate: float, random: Random) -> float:
    """The next value of a rate; the products are the same on every machine."""
    return min(max(rate * STEPS[int(random.random() * len(STEPS))], LEAST_RATE), MOST_RATE)


def lte(milliseconds: int, random: Random) -> list[float]:
    """The share of each millisecond: the rate changes every 20 ms, and nothing leaves in two handovers."""
    shares, rate = [0.0], 1.0
    handovers = {int(milliseconds * part) for part in (0.35, 0.8)}
    silent = 0
    for now in range(1, milliseconds + 1):
        if now % 20 == 0:
            rate = wander(rate, random)
        if now in handovers:
            silent = 60 + int(random.random() * 200)
        silent = max(silent - 1, 0)
        idle = silent or random.random() < 0.2
        shares.append(0.0 if idle else rate)
    return shares


def wifi(milliseconds: int, random: Random) -> list[float]:
    """The share of each millisecond: a burst every 2 to 10 ms, and one of 20 waits up to 50 ms longer."""
    shares, rate, now = [0.0] * (milliseconds + 1), 1.0, 0
    while True:
        wait = 2 + int(random.random() * 9)
        if random.random() < 0.05:
            wait += int(random.random() * 50)
        now += wait
        if now > milliseconds:
            return shares
        rate = wander(rate, random)
        shares[now] = rate * min(wait, 12)


@dataclass(frozen=True)
class Trace:
    """A trace, its mean rate and its length."""

    seed: int
    mbit: int
    milliseconds: int
    shares: Callable[[int, Random], list[float]]

    def times(self) -> list[int]:
        """One for each opportunity; the last is the length of the trace."""
        shares = self.shares(self.milliseconds, Random(self.seed))
        count = self.mbit * 1000 * self.milliseconds // OPPORTUNITY_BITS
        found: list[int] = []
        total, passed = sum(shares), 0.0
        for now, share in enumerate(shares):
            passed += share
            due = int(passed / total * (count - 1))
            found += [now] * (due - len(found))
        return [*found, *[self.milliseconds] * (count - len(found))]


TRACES = {"lte": Trace(1, 10, 10000, lte), "wifi": Trace(2, 40, 4000, wifi)}


def path(name: str) -> Path:
    """The file of a trace, from the top of the repository."""
    return FOLDER / f"{name}.trace"


def text(name: str) -> str:
    return "".join(f"{time}\n" for time in TRACES[name].times())


def main(words: list[str]) -> None:
    match words:
        case [name] if name in TRACES:
            print(text(name), end="")
        case _:
            raise UsageError
