"""One stream, many readers: who gets what, and what happens when it breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from fake_server import FakeServer, created, delta, event, status
from opencode_trio._protocol.v1 import V1
from opencode_trio._server.event_stream import GIVE_UP_S, SILENCE_S, EventStream
from opencode_trio._session.event_buffer import JOINED_CHARACTERS, EventBuffer
from opencode_trio._tasks import open_background
from opencode_trio.errors import OpenCodeServerError
from opencode_trio.events import (
    Diagnostic,
    ErrorReported,
    Event,
    SessionBusy,
    SessionCreated,
    SessionIdle,
    TextDelta,
    TextPart,
)


@attrs.define(eq=False)
class Reader:
    """Writes down what it is told."""

    events: list[Event] = attrs.field(factory=list)
    gaps: int = 0
    errors: list[OpenCodeServerError] = attrs.field(factory=list)

    def deliver(self, item: Event) -> None:
        self.events.append(item)

    def resumed(self) -> None:
        self.gaps += 1

    def lost(self, error: OpenCodeServerError) -> None:
        self.errors.append(error)


@asynccontextmanager
async def running(server: FakeServer) -> AsyncIterator[EventStream]:
    event_stream = EventStream(V1, server.open_events)
    async with open_background() as tasks:
        tasks.start_soon(event_stream.run)
        if not server.refuses:
            await event_stream.wait_connected()
        yield event_stream


async def test_events_go_to_the_session_tree_that_they_are_of():
    server = FakeServer()
    one, two = Reader(), Reader()
    async with running(server) as event_stream:
        with event_stream.subscribed("ses_1", one), event_stream.subscribed("ses_2", two):
            server.say(
                status("ses_1", "busy"),
                created("ses_1a", "ses_1"),
                created("ses_1b", "ses_1a"),
                status("ses_1b", "idle"),
                status("ses_2", "busy"),
                status("ses_9", "busy"),
                event("file.edited", file="x"),
                {"payload": {"type": "sync", "properties": {"sessionID": "ses_1"}}},
            )
            await trio.testing.wait_all_tasks_blocked()
            with (
                pytest.raises(RuntimeError, match="one turn at a time"),
                event_stream.subscribed("ses_1", two),
            ):
                pass
        server.say(status("ses_1", "idle"))
        await trio.testing.wait_all_tasks_blocked()
    assert [type(e) for e in one.events] == [
        SessionBusy,
        SessionCreated,
        SessionCreated,
        SessionIdle,
    ]
    assert [type(e) for e in two.events] == [SessionBusy]
    assert event_stream.tree.depth("ses_1b", "ses_1") == 2
    assert event_stream.tree.descendants("ses_1") == ["ses_1b", "ses_1a"]


async def test_strays_are_handed_over_to_whoever_looks_after_them():
    server = FakeServer()
    strays: list[Event] = []
    async with running(server) as event_stream:
        event_stream.on_stray(strays.append)
        with event_stream.subscribed("ses_1", Reader()):
            server.say(status("ses_9", "busy"), status("ses_1", "busy"))
            await trio.testing.wait_all_tasks_blocked()
    assert [e.session_id for e in strays] == ["ses_9"]


async def test_a_stream_that_ends_is_opened_again_and_readers_are_told(
    autojump_clock: trio.testing.MockClock,
):
    server = FakeServer()
    reader = Reader()
    async with running(server) as event_stream:
        with event_stream.subscribed("ses_1", reader):
            assert reader.gaps == 0
            server.hang_up()
            await trio.sleep(1)
            assert (server.connections, reader.gaps) == (2, 1)
            server.say(status("ses_1", "busy"))
            await trio.sleep(1)
            assert len(reader.events) == 1
    assert event_stream.counts.connections == 2


async def test_a_silent_stream_is_dead(autojump_clock: trio.testing.MockClock):
    server = FakeServer()
    reader = Reader()
    async with running(server) as event_stream:
        with event_stream.subscribed("ses_1", reader):
            for _ in range(10):
                await trio.sleep(SILENCE_S / 3)
                server.say(event("server.heartbeat"))
            assert server.connections == 1
            await trio.sleep(SILENCE_S + 1)
            assert (server.connections, reader.gaps) == (2, 1)
            assert event_stream.is_connected


async def test_an_outage_ends_turns_but_not_the_bus(autojump_clock: trio.testing.MockClock):
    server = FakeServer()
    reader = Reader()
    async with running(server) as event_stream:
        with event_stream.subscribed("ses_1", reader):
            server.refuses = True
            server.hang_up()
            await trio.sleep(GIVE_UP_S / 2)
            assert (reader.errors, event_stream.is_connected) == ([], False)
            await trio.sleep(GIVE_UP_S)
            assert len(reader.errors) == 1
            assert "refused" in str(reader.errors[0])
            # Attempts slow down: about one in five seconds.
            assert 15 < server.connections < 40
            server.refuses = False
            await trio.sleep(10)
            assert (event_stream.is_connected, reader.gaps) == (True, 1)


# --- a reader's mailbox ------------------------------------------------------------------


def text(part: str, value: str) -> TextPart:
    return TextPart(session_id="ses_1", part_id=part, text=value)


def piece(part: str, value: str) -> TextDelta:
    return TextDelta(session_id="ses_1", part_id=part, delta=value)


async def drained(box: EventBuffer) -> list[Event]:
    box.close()
    found = []
    with suppress(trio.EndOfChannel):
        while True:
            found.append(await box.take())
    return found


async def test_deltas_that_nobody_reads_are_joined():
    box = EventBuffer()
    for letter in "abc":
        box.put(piece("p", letter))
    box.put(piece("q", "x"))
    box.put(piece("p", "d"))
    assert [(e.part_id, e.delta) for e in await drained(box)] == [
        ("p", "abc"),
        ("q", "x"),
        ("p", "d"),
    ]


async def test_a_slow_reader_gets_portions():
    """One delta of a whole answer would come only when the answer is over."""
    box = EventBuffer()
    letters = "x" * (2 * JOINED_CHARACTERS)
    for letter in letters:
        box.put(piece("p", letter))
    lengths = [len(event.delta) for event in await drained(box) if isinstance(event, TextDelta)]
    assert sum(lengths) == len(letters)
    assert max(lengths) == JOINED_CHARACTERS + 1


@given(st.lists(st.sampled_from(["p", "q", "event", "take"]), max_size=40))
async def test_joining_loses_no_letter_and_keeps_the_order(moves: list[str]):
    box = EventBuffer()
    put: list[tuple[str, int]] = []
    taken: list[Event] = []
    for number, move in enumerate(moves):
        if move == "take" and len(box):
            taken.append(await box.take())
        elif move == "event":
            box.put(SessionIdle(session_id="ses_1"))
        elif move != "take":
            put.append((move, number))
            box.put(piece(move, f"{number} "))
    taken += await drained(box)
    deltas = [event for event in taken if isinstance(event, TextDelta)]
    told = [(event.part_id, int(n)) for event in deltas for n in event.delta.split()]
    assert told == put
    assert sum(isinstance(event, SessionIdle) for event in taken) == moves.count("event")


async def test_beyond_the_limit_newer_states_replace_older_ones():
    box = EventBuffer(limit=3)
    for number in range(100):
        box.put(text("p", str(number)))
        box.put(text("q", str(number)))
    box.put(SessionIdle(session_id="ses_1"))
    found = await drained(box)
    assert len(found) <= 4
    assert found[-3:-1] == [text("p", "99"), text("q", "99")]
    assert found[-1] == SessionIdle(session_id="ses_1")


async def test_what_shows_is_dropped_before_what_asks_or_ends():
    box = EventBuffer(limit=5, hard_limit=10)
    for number in range(50):
        box.put(text(f"p{number}", "x"))
        box.put(ErrorReported(session_id="ses_1"))
    lag, *rest = await drained(box)
    assert lag == Diagnostic(kind="lagged", text=lag.text)
    assert "50 events" in str(lag)
    assert rest == [ErrorReported(session_id="ses_1")] * 50


async def test_taking_can_be_cancelled_without_loss():
    box = EventBuffer()
    with trio.CancelScope() as scope:
        scope.cancel()
        box.put(text("p", "x"))
        await box.take()
    assert scope.cancelled_caught
    assert await box.take() == text("p", "x")
    with trio.move_on_after(0.01):
        await box.take()
    box.put(text("p", "y"))
    assert await box.take() == text("p", "y")


async def test_a_delta_on_the_wire():
    reader = Reader()
    server = FakeServer()
    async with running(server) as event_stream:
        with event_stream.subscribed("ses_1", reader):
            server.say(delta("ses_1", "msg_1", "prt_1", "hi"))
            await trio.testing.wait_all_tasks_blocked()
    assert isinstance(reader.events[0], TextDelta)
