"""The one event stream of a server, and its many readers.

opencode keeps an unbounded queue for each client of its stream, sends no ids, and replays nothing.
So there is one reader, which never waits for anybody: it hands each event to the turn that it
belongs to, and that takes it at once.  When the stream breaks, or is silent for longer than its
heartbeat allows, it is opened again, and every turn is told that there is a gap to fill.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Protocol

import attrs
import trio

from opencode_trio._json import Json
from opencode_trio._protocol.dialect import Dialect, MessageIds
from opencode_trio._turn.session_tree import SessionTree
from opencode_trio.errors import OpenCodeServerError
from opencode_trio.events import (
    Event,
    InstanceDisposed,
    ServerConnected,
    ServerHeartbeat,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
)

_log = logging.getLogger("opencode_trio")

SILENCE_S = 30.0
"""The heartbeat comes every 10 s: three in a row missing is a dead connection."""

BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits between attempts; the last one is repeated.  The first are short because a turn may end
in the meantime."""

GIVE_UP_S = 60.0
"""An outage longer than this ends the turns that wait; the bus itself goes on trying."""

Records = AbstractAsyncContextManager[AsyncIterator[Json]]


class Subscriber(Protocol):
    """Who reads the events of one session tree.  None of these may wait, or raise."""

    def deliver(self, event: Event) -> None:
        """Take an event of the tree."""

    def resumed(self) -> None:
        """Know that events may have been missed, and that from now on they come again."""

    def lost(self, error: OpenCodeServerError) -> None:
        """Know that the stream has been gone for longer than a turn can wait."""


@attrs.define
class StreamCounts:
    """What has come so far."""

    events: int = 0
    connections: int = 0


class EventStream:
    """Reads a server's event stream and hands it out by session tree.

    Args:
        dialect: what the server speaks.
        open_events: opens the stream; raises `OpenCodeServerError` when it cannot, or breaks.
    """

    def __init__(self, dialect: Dialect, open_events: Callable[[str], Records]) -> None:
        self.tree: SessionTree = SessionTree()
        """Every session with a parent that the stream has told of."""
        self._ids: MessageIds = dialect.message_ids()
        self.counts: StreamCounts = StreamCounts()
        self.disposals: int = 0
        """How often the server has let go of a directory, and of what it had read there."""
        self.failure: OpenCodeServerError | None = None
        """Why the stream is not open at the moment, if it failed."""
        self._stream = dialect.stream
        self._open_events = open_events
        self._roots: dict[str, Subscriber] = {}
        self._strays: Callable[[Event], None] | None = None
        self._connected = trio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether events are coming at the moment."""
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Wait until the stream is open and its first event has come."""
        while not self.is_connected:
            await self._connected.wait()

    @property
    def server_ms(self) -> float:
        """The server's time, in milliseconds since the epoch, as far as known."""
        return self._ids.server_ms(time.time() * 1000)

    def new_message_id(self, *, after: str | None = None) -> str:
        """Make a message id by the server's clock, later than all before it and than `after`."""
        return self._ids.next(time.time() * 1000, secrets.token_bytes(32), after=after)

    def on_stray(self, take: Callable[[Event], None]) -> None:
        """Set who gets the events of sessions that belong to nobody known."""
        self._strays = take

    @contextmanager
    def subscribed(self, root: str, subscriber: Subscriber) -> Generator[None]:
        """Hand out the events of a session and all below it while the block runs."""
        if root in self._roots:
            raise RuntimeError(f"{root} has a reader already: one turn at a time")
        self._roots[root] = subscriber
        try:
            yield
        finally:
            del self._roots[root]

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until cancelled.  Failures are recorded and the stream is opened again."""
        attempt, down_since = 0, trio.current_time()
        while True:
            if await self._read():
                attempt, down_since = 0, trio.current_time()
            if trio.current_time() - down_since > GIVE_UP_S:
                self._give_up()
                down_since = trio.current_time()
            await trio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            attempt += 1

    async def _read(self) -> bool:
        """Read one connection to its end; say whether anything came."""
        heard = trio.current_time()
        with trio.CancelScope(deadline=heard + SILENCE_S) as alive:
            try:
                async with self._open_events(self._stream.route()) as records:
                    async for record in records:
                        now = trio.current_time()
                        if now > heard + SILENCE_S / 10:  # not each time: it has its price
                            heard, alive.deadline = now, now + SILENCE_S
                        if not self.is_connected:
                            self._connect()
                        self.take(record)
            except OpenCodeServerError as exc:
                self.failure = exc
        if alive.cancelled_caught:
            self.failure = OpenCodeServerError(f"no event in {SILENCE_S:g} s, not even a heartbeat")
        was_connected = self.is_connected
        if was_connected:
            _log.info("the event stream ended (%s); opening it again", self.failure or "EOF")
            self._connected = trio.Event()
        return was_connected

    def _connect(self) -> None:
        self.failure = None
        self.counts.connections += 1
        self._connected.set()
        if self.counts.connections > 1:
            self.disposals += 1  # it may be another server by now, which has read nothing yet
            for subscriber in list(self._roots.values()):
                subscriber.resumed()

    def _give_up(self) -> None:
        reason = self.failure or "it was closed again and again"
        self.fail(OpenCodeServerError(f"no event stream for {GIVE_UP_S:g} s: {reason}"))

    def fail(self, error: OpenCodeServerError) -> None:
        """End the turns that wait for events."""
        for subscriber in list(self._roots.values()):
            subscriber.lost(error)

    def take(self, record: Json) -> None:
        """Take one record of the stream."""
        for event in self._stream.read_record(record):
            self.counts.events += 1
            if (note := NOTES.get(type(event))) is not None:
                note(self, event)
            if event.session_id is not None and not self.dispatch(event):
                self._give_to_stray_handler(event)

    def note_time(self, event: ServerConnected | ServerHeartbeat) -> None:
        """Learn the server's time, from the id of an event of its own."""
        self._ids.saw(self._stream.server_id(event), time.time() * 1000)

    def note_parent(self, event: SessionCreated | SessionUpdated) -> None:
        """Learn whose subagent a session is."""
        if event.session_id is not None and event.parent_id is not None:
            self.tree.add(event.session_id, event.parent_id, event.agent)

    def note_end(self, event: SessionDeleted) -> None:
        """Forget a session."""
        if event.session_id is not None:
            self.tree.forget(event.session_id)

    def note_disposal(self, event: InstanceDisposed) -> None:
        """Know that what the server had read in a directory is gone."""
        del event  # of whichever directory
        self.disposals += 1

    def dispatch(self, event: Event) -> bool:
        """Give an event to the turn of its session tree; say whether there is one."""
        for at in self.tree.ancestors(event.session_id or ""):
            if (subscriber := self._roots.get(at)) is not None:
                subscriber.deliver(event)
                return True
        return False

    def _give_to_stray_handler(self, event: Event) -> None:
        is_known = event.session_id in self.tree
        if self._strays is not None and self._roots and not is_known:
            self._strays(event)


NOTES: Mapping[type[Event], Callable[[EventStream, Any], None]] = {
    ServerConnected: EventStream.note_time,
    ServerHeartbeat: EventStream.note_time,
    SessionCreated: EventStream.note_parent,
    SessionUpdated: EventStream.note_parent,
    SessionDeleted: EventStream.note_end,
    InstanceDisposed: EventStream.note_disposal,
}
"""What the bus itself learns from an event, before anybody gets it."""
