"""What an agent did, and when: spans of time, few enough to keep and to draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs

SpanKind = Literal[
    "waiting", "starting", "running", "subagent", "step", "tool", "ask", "retry", "error"
]
"""``waiting``, ``starting`` and ``running`` are the agent's status; a ``step`` is a request to the
model, its tools included; an ``ask`` waits for a human, a ``retry`` for a provider; an ``error`` is
a moment."""


FINER = 4
"""`thin` begins with so much less than what one of so many would have, were all alike."""


@attrs.frozen(kw_only=True)
class Span:
    """Something that took time."""

    kind: SpanKind
    title: str = ""
    """What it was, in a line."""
    start_s: float
    """Seconds since the swarm was opened."""
    end_s: float
    """Likewise; of what goes on, when it was looked at."""
    row: int = 0
    """0 is the agent itself; subagents that work side by side have rows of their own."""
    is_failed: bool = False
    is_open: bool = False
    """Whether it goes on."""
    count: int = 1
    """How many it stands for: of a long story, neighbours of one kind are kept as one."""
    cost_usd: float = 0.0
    """Of steps; a subagent has the sum of its steps."""
    tokens: int = 0
    """Likewise."""

    @property
    def length_s(self) -> float:
        """Seconds it took."""
        return self.end_s - self.start_s


@attrs.define
class OpenSpan:
    """A span that has no end yet."""

    kind: SpanKind
    start_s: float
    session: str | None = None
    title: str = ""
    row: int = 0
    cost_usd: float = 0.0
    tokens: int = 0

    def until(self, end_s: float, *, is_failed: bool = False, is_open: bool = False) -> Span:
        """Return it as a span."""
        return Span(
            kind=self.kind,
            title=self.title,
            start_s=self.start_s,
            end_s=end_s,
            row=self.row,
            is_failed=is_failed,
            is_open=is_open,
            cost_usd=self.cost_usd,
            tokens=self.tokens,
        )


def coarsen(spans: Iterable[Span], resolution_s: float) -> list[Span]:
    """Merge neighbours of one kind that together are shorter than a resolution.

    Returns:
        The spans, in the order of their starts.
    """
    merged: list[Span] = []
    latest: dict[tuple[SpanKind, int, bool], int] = {}
    for span in sorted(spans, key=lambda span: span.start_s):
        key = (span.kind, span.row, span.is_failed)
        at = latest.get(key)
        if at is not None and _is_blurred(merged[at], span, resolution_s):
            merged[at] = _merge(merged[at], span)
        else:
            latest[key] = len(merged)
            merged.append(span)
    return merged


def thin(spans: Iterable[Span], most: int) -> list[Span]:
    """Merge neighbours, the closest first, until there are at most so many.

    One of each kind and row remains, whatever is asked for.
    """
    kept = list(spans)
    if not kept:
        return kept
    extent = max(span.end_s for span in kept) - min(span.start_s for span in kept)
    resolution = extent / most / FINER or 1.0
    while len(kept) > most:
        kept = coarsen(kept, resolution)
        if resolution > extent:
            break
        resolution *= 2
    return kept


def _is_blurred(one: Span, next_one: Span, resolution_s: float) -> bool:
    return max(one.end_s, next_one.end_s) - one.start_s < resolution_s


def _merge(one: Span, other: Span) -> Span:
    return Span(
        kind=one.kind,
        title=one.title,
        start_s=one.start_s,
        end_s=max(one.end_s, other.end_s),
        row=one.row,
        is_failed=one.is_failed,
        is_open=one.is_open or other.is_open,
        count=one.count + other.count,
        cost_usd=one.cost_usd + other.cost_usd,
        tokens=one.tokens + other.tokens,
    )
