"""Figures for people and for verdicts: medians with ranges, bounds, numbers with few digits."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


def number(value: float | None, digits: int = 3) -> str:
    """With at least `digits` significant digits, and never an exponent."""
    if value is None:
        return "–"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


@dataclass(frozen=True)
class Spread:
    """The rounds of one figure."""

    rounds: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """The spread of the values that there are, if any."""
        held = tuple(value for value in values if value is not None)
        return cls(held) if held else None

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def least(self) -> float:
        return min(self.rounds)

    @property
    def greatest(self) -> float:
        return max(self.rounds)

    def __str__(self) -> str:
        if self.least == self.greatest:
            return number(self.median)
        return f"{number(self.median)} [{number(self.least)}-{number(self.greatest)}]"

    def summary(self) -> dict[str, object]:
        """For `summary.json`."""
        return {"median": self.median, "least": self.least, "greatest": self.greatest, "rounds": list(self.rounds)}


@dataclass(frozen=True)
class Verdict:
    """A figure held against its bound: at least `least`, or at most `greatest`."""

    name: str
    have: float
    least: float | None = None
    greatest: float | None = None

    @property
    def passed(self) -> bool:
        enough = self.least is None or self.have >= self.least
        return enough and (self.greatest is None or self.have <= self.greatest)

    @property
    def bound(self) -> str:
        return f"at most {self.greatest:.4g}" if self.least is None else f"at least {self.least:.4g}"

    def __str__(self) -> str:
        return f"{self.name}: {self.have:.3f}, {self.bound}: {'pass' if self.passed else 'FAIL'}"

    def summary(self) -> dict[str, object]:
        """For `summary.json`."""
        bounds = {"least": self.least, "greatest": self.greatest}
        held = {name: value for name, value in bounds.items() if value is not None}
        return {"have": self.have, **held, "pass": self.passed}
