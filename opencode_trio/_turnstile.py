"""Who may run now: first come, first served, under a limit for all and one for each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from opencode_trio.errors import OpenCodeConfigError


@attrs.frozen(eq=False)
class Ticket:
    """A place in the queue."""

    kind: str
    granted: trio.Event = attrs.field(factory=trio.Event)


class Turnstile:
    """Lets tasks in, in the order of their tickets.

    Two `trio.CapacityLimiter` in a row would do the same, but for two things: trio runs new tasks
    in a random order, and whoever waits at the second would hold a place of the first.

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
        self._queue: dict[Ticket, None] = {}  # ordered, and quick to leave from the middle
        self._inside: dict[Ticket, None] = {}
        self._kinds: Counter[str] = Counter()

    def queue(self, kind: str = "") -> Ticket:
        """Take a place in the queue."""
        ticket = Ticket(kind)
        self._queue[ticket] = None
        self._let_in()
        return ticket

    @asynccontextmanager
    async def passed(self, ticket: Ticket) -> AsyncGenerator[None]:
        """Wait until it is this ticket's turn; be inside for as long as the block takes.

        **Cancellation**: gives the place to the next.
        """
        try:
            await ticket.granted.wait()
            yield
        finally:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        if ticket in self._inside:
            del self._inside[ticket]
            self._kinds[ticket.kind] -= 1
        else:
            del self._queue[ticket]
        self._let_in()

    def _let_in(self) -> None:
        if len(self._inside) == self._limit:
            return
        for ticket in list(self._queue):
            if self._kinds[ticket.kind] < self._limits.get(ticket.kind, self._limit):
                del self._queue[ticket]
                self._inside[ticket] = None
                self._kinds[ticket.kind] += 1
                ticket.granted.set()
            if len(self._inside) == self._limit:
                return
