"""Events on their way to one reader, who may be slow.

Putting them in never waits, because one socket feeds all readers of a server.
So a slow reader gets less, in an order that loses nothing that cannot be had again:

1. A delta is joined to the one before it, if that is of the same part and still here.
2. Beyond `LIMIT` events, the newest state of a part or message takes the place of its older one.
3. Beyond `HARD_LIMIT`, the oldest event that only *shows* something is dropped, and a `Diagnostic`
   of kind ``lagged`` says how many were.  What asks, ends or fails is never dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import attrs
import trio

from opencode_trio.events import (
    Diagnostic,
    Event,
    MessageUpdated,
    OtherPart,
    PartEvent,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
    ToolPart,
    UnknownEvent,
)

LIMIT = 256
"""A reader this far behind no longer reads along; about ten steps of an agent."""

HARD_LIMIT = 4096
"""Some megabytes of events, for a reader who has stopped reading."""

JOINED_CHARACTERS = 4096
"""How long a delta may grow by joining: what is dropped is dropped whole."""

_DROPPABLE = (
    TextPart,
    ReasoningPart,
    TextDelta,
    ReasoningDelta,
    ToolPart,
    OtherPart,
    MessageUpdated,
    UnknownEvent,
)
"""What only shows something: `messages()` tells it, too."""


_DELTAS = (TextDelta, ReasoningDelta)


class EventBuffer:
    """A bounded queue from a task that must not wait to one that may."""

    def __init__(self, limit: int = LIMIT, hard_limit: int = HARD_LIMIT) -> None:
        self._limit, self._hard_limit = limit, hard_limit
        self._events: OrderedDict[int, Event] = OrderedDict()
        self._droppable: OrderedDict[int, None] = OrderedDict()
        self._newest: dict[Hashable, int] = {}  # by what the event tells of
        self._count = 0
        self._pieces: list[str] = []  # of deltas that are joined to the newest event
        self._joined = 0  # how long that one is with them
        self._dropped = 0
        self._closed = False
        self._waiting = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add an event; a closed mailbox takes no more."""
        if self._closed or self._join(event):
            return
        if len(self._events) >= self._limit:
            self._make_room(event)
        self._append(event)
        self._waiting.unpark()

    def close(self) -> None:
        """Add nothing more; what is here can still be taken."""
        self._closed = True
        self._waiting.unpark_all()

    async def take(self) -> Event:
        """Take the next event.

        Raises:
            trio.EndOfChannel: it is closed, and empty.

        **Cancellation**: loses no event.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._events and not self._dropped:
            if self._closed:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise trio.EndOfChannel
            await self._waiting.park()
        event = self._next()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return event

    def _next(self) -> Event:
        if self._dropped:
            text = f"{self._dropped} events were dropped: they came faster than they were read"
            self._dropped = 0
            return Diagnostic(kind="lagged", text=text)
        return self._remove(next(iter(self._events)))

    def _append(self, event: Event) -> None:
        self._seal()
        self._count += 1
        self._events[self._count] = event
        self._joined = len(event.delta) if isinstance(event, _DELTAS) else 0
        if isinstance(event, _DROPPABLE):
            self._droppable[self._count] = None
        if (subject := _subject(event)) is not None:
            self._newest[subject] = self._count

    def _remove(self, number: int) -> Event:
        if number == self._count:
            self._seal()
        event = self._events.pop(number)
        self._droppable.pop(number, None)
        subject = _subject(event)
        if self._newest.get(subject) == number:
            del self._newest[subject]
        return event

    def _join(self, event: Event) -> bool:
        last = self._events.get(self._count)
        if not isinstance(event, _DELTAS) or not isinstance(last, _DELTAS):
            return False
        if type(last) is not type(event) or last.part_id != event.part_id:
            return False
        if self._joined > JOINED_CHARACTERS:
            return False
        self._pieces.append(event.delta)
        self._joined += len(event.delta)
        return True

    def _seal(self) -> None:
        """Join the pieces to the newest event; not one by one, which would copy them each time."""
        last = self._events.get(self._count)
        if self._pieces and isinstance(last, _DELTAS):
            text = "".join([last.delta, *self._pieces])
            self._events[self._count] = attrs.evolve(last, delta=text)
        self._pieces.clear()

    def _make_room(self, event: Event) -> None:
        older = self._newest.get(_subject(event))
        if older is not None:
            self._remove(older)
        elif len(self._events) >= self._hard_limit and self._droppable:
            self._remove(next(iter(self._droppable)))
            self._dropped += 1


def _subject(event: Event) -> Hashable:
    """Name what the event tells the whole state of; ``None`` if it is no such event."""
    match event:
        case TextDelta() | ReasoningDelta():
            return None
        case PartEvent(part_id=name) | MessageUpdated(message_id=name) if name is not None:
            return type(event), name
        case _:
            return None
