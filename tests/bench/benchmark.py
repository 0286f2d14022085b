"""The common shape of all benchmarks: what one is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import attrs

from bench.rows import Row

T = TypeVar("T")


@attrs.frozen
class Setup:
    """What a benchmark needs to know."""

    binary: str
    """The opencode to measure with."""
    rival: str | None = None
    """A Python that has `py-opencode-wrapper`; without one it is left out."""
    scale: float = 1.0
    """Which part of all rounds and agents: for trying things out; figures of less than 1 are none."""
    say: Callable[[str], None] = print
    """Shows how it goes."""

    def scaled(self, count: int, *, least: int = 1) -> int:
        """Return how many there shall be of what there are `count` of in earnest."""
        return max(least, round(count * self.scale))


@attrs.frozen
class Benchmark:
    """One thing to measure."""

    measures: str
    """What, in a sentence."""
    run: Callable[[Setup], Sequence[Row]]
    """Measures."""


def in_turns(ways: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """Give each way once a round, in every other round backwards.

    A machine's mood changes, and what runs second may find things warm, or worn.
    """
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            yield number + 1, way
