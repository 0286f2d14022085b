"""What the soak counts, and how it tells."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator

import attrs


@attrs.define(eq=False)
class Tally:
    """Counts, by what is counted and of which kind."""

    counts: defaultdict[str, Counter[str]] = attrs.field(factory=lambda: defaultdict(Counter))
    ends: defaultdict[str, Counter[str]] = attrs.field(factory=lambda: defaultdict(Counter))
    """How turns ended, by what happened to them."""
    seconds: defaultdict[str, list[float]] = attrs.field(factory=lambda: defaultdict(list))

    def count(self, what: str, kind: str = "") -> None:
        """Count one."""
        self.counts[what][kind] += 1

    def add(self, what: str, number: int) -> None:
        """Count several."""
        self.counts[what][""] += number

    def end(self, fault: str, end: str) -> None:
        """Count how a turn ended that met this fault."""
        self.ends[fault][end] += 1

    def took(self, what: str, seconds: float) -> None:
        """Keep a length of time."""
        self.seconds[what].append(seconds)

    def lines(self) -> Iterator[str]:
        """Tell everything."""
        for what, counter in sorted(self.counts.items()):
            kinds = ", ".join(f"{kind} {n}" for kind, n in counter.most_common() if kind)
            yield f"{what}: {counter.total()}{f' ({kinds})' if kinds else ''}"
        for what, seconds in sorted(self.seconds.items()):
            middle, late = statistics.median(seconds), percentile(seconds, 0.99)
            yield (
                f"{what}: {len(seconds)}, p50 {middle:.2f} s, p99 {late:.2f} s,"
                f" longest {max(seconds):.2f} s"
            )
        yield f"{'fault':<34} {'met':>5}  ends"
        for fault, counter in sorted(self.ends.items()):
            ends = ", ".join(f"{end} {n}" for end, n in counter.most_common())
            yield f"{fault:<34} {counter.total():>5}  {ends}"


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
