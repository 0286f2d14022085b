"""Who may run now: first come, first served, under a limit for all and one for each kind."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from itertools import count

import attrs
import trio

from opencode_trio.errors import OpenCodeConfigError


@attrs.frozen(eq=False)
class QueuePlace:
    """A place in the queue."""

    kind: str
    number: int
    granted: trio.Event = attrs.field(factory=trio.Event)


class FairLimiter:
    """Lets tasks in, in the order of their tickets.

    Two `trio.CapacityLimiter` in a row would do the same, but for two things: trio runs new tasks
    in a random order, and a waiter at the second would hold a place of the first.

    Args:
        limit: the most at once.
        limits: the most at once by kind; other kinds have no limit of their own.

    Raises:
        OpenCodeConfigError: a limit lets nobody in.
    """

    def __init__(self, limit: int, limits: Mapping[str, int]) -> None:
        for name, number in {"limit": limit, **limits}.items():
            if not number >= 1:
                raise OpenCodeConfigError(f"{name}: expected at least 1, got {number!r}")
        self._limit = limit
        self._limits = dict(limits)
        # One for each kind, quick to leave at its beginning as from its middle.
        self._queues: dict[str, OrderedDict[QueuePlace, None]] = {}
        self._numbers = count()
        self._inside: dict[QueuePlace, None] = {}
        self._kinds: Counter[str] = Counter()

    def queue(self, kind: str = "") -> QueuePlace:
        """Take a place in the queue."""
        ticket = QueuePlace(kind, next(self._numbers))
        self._queues.setdefault(kind, OrderedDict())[ticket] = None
        self._let_in()
        return ticket

    @asynccontextmanager
    async def passed(self, ticket: QueuePlace) -> AsyncGenerator[None]:
        """Wait until it is this ticket's turn; be inside for as long as the block takes.

        **Cancellation**: gives the place to the next.
        """
        try:
            await ticket.granted.wait()
            yield
        finally:
            self._leave(ticket)

    def _leave(self, ticket: QueuePlace) -> None:
        if ticket in self._inside:
            del self._inside[ticket]
            self._kinds[ticket.kind] -= 1
        else:
            self._unqueue(ticket)
        self._let_in()

    def _unqueue(self, ticket: QueuePlace) -> None:
        queue = self._queues[ticket.kind]
        del queue[ticket]
        if not queue:
            del self._queues[ticket.kind]

    def _let_in(self) -> None:
        while len(self._inside) < self._limit and (ticket := self._next()) is not None:
            self._unqueue(ticket)
            self._inside[ticket] = None
            self._kinds[ticket.kind] += 1
            ticket.granted.set()

    def _next(self) -> QueuePlace | None:
        """Return who has waited longest of those whose kind has room."""
        first = (
            next(iter(queue))
            for kind, queue in self._queues.items()
            if self._kinds[kind] < self._limits.get(kind, self._limit)
        )
        return min(first, key=lambda ticket: ticket.number, default=None)
