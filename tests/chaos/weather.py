"""The weather: what happened to which server, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import trio

AFTERMATH_S = 1.0
"""So long after it a gust can still be felt: connections that were broken are found broken."""


@attrs.define(eq=False)
class Blow:
    """A gust that has come."""

    name: str
    over: str | None
    """The label of the server that it came over; `None` for all of them."""
    began: float
    ended: float = math.inf


@attrs.define(eq=False)
class Weather:
    """Everything that has come."""

    note: Callable[[str], None]
    blows: list[Blow] = attrs.field(factory=list)

    @contextmanager
    def gust(self, name: str, over: str | None) -> Iterator[None]:
        """Note a gust that lasts as long as the block."""
        blow = self.strike(name, over)
        try:
            yield
        finally:
            blow.ended = trio.current_time() + AFTERMATH_S

    def strike(self, name: str, over: str | None) -> Blow:
        """Note a gust that nothing mends."""
        blow = Blow(name, over, trio.current_time())
        self.blows.append(blow)
        self.note(f"gust {name} over {over}")
        return blow

    def met(self, label: str, began: float, ended: float) -> frozenset[str]:
        """Name what a server met with in a time."""
        return frozenset(
            blow.name
            for blow in self.blows
            if blow.over in {label, None} and blow.began <= ended and blow.ended >= began
        )
