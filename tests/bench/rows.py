"""What was measured, as values: numbers, one for each round, and how they compare.  Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import attrs


def quantile(values: Sequence[float], share: float) -> float:
    """Return the least value that at least `share` of all do not exceed; for 0 the least.

    The median of an even number lies between the two in the middle, as everywhere.
    """
    if share == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _fixed(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table."""

    what: str = attrs.field(kw_only=False)
    """What was measured, in words."""
    unit: str = attrs.field(kw_only=False)
    """The unit of its values; empty for a count."""
    values: Sequence[float] = attrs.field(kw_only=False, converter=_fixed)
    """One for each round."""
    note: str = ""
    """How, in a few words."""
    share: float = 0.5
    """Which quantile of the values stands for them: 0.5 is the median, 1 the most."""
    beside: Row | None = None
    """What it is compared with, in the same rounds."""
    at_most: float | None = None
    """What the comparison (or, without one, the value) must not exceed."""
    at_least: float | None = None
    """What it must reach."""

    def compared(
        self, beside: Row, *, at_most: float | None = None, at_least: float | None = None
    ) -> Row:
        """Return the same row beside another."""
        return attrs.evolve(self, beside=beside, at_most=at_most, at_least=at_least)

    @property
    def value(self) -> float:
        """The number that stands for all rounds."""
        return quantile(self.values, self.share)

    @property
    def ratio(self) -> float | None:
        """How many times the other row.

        Medians are compared round by round, for what both have in common, the machine's mood
        above all, cancels out there; and the median of that counts.  Where there are no pairs,
        or something else than medians stands for the rows, what does is compared.
        """
        if self.beside is None:
            return None
        if self.share != 0.5 or len(self.values) != len(self.beside.values):
            return self.value / self.beside.value
        pairs = zip(self.values, self.beside.values, strict=True)
        return statistics.median(mine / other for mine, other in pairs)

    @property
    def is_kept(self) -> bool:
        """Whether it is within its bounds."""
        number = self.value if self.ratio is None else self.ratio
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= number <= high
