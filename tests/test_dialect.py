"""A made-up line of opencode: if a turn runs on it, all that is of 1.x is behind the seam."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from opencode_trio._json import Json
from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.dialect import Dialect
from opencode_trio._protocol.values import Answer, Prompt, SessionRecord
from opencode_trio._server.connection import Connection
from opencode_trio._tasks import open_background
from opencode_trio.errors import OpenCodeCancelledError
from opencode_trio.events import (
    Event,
    MessageUpdated,
    PermissionAsked,
    SessionBusy,
    StepFinished,
    TextPart,
)
from opencode_trio.server import OpenCodeServer


def said(record: Json) -> Sequence[Event]:
    """Read ``{"who": "me" or "you", "n": number, "words": text}``."""
    ids: dict[str, Any] = {
        "session_id": "room",
        "raw": record,
        "message_id": f"line-{record['n']:05}",
    }
    if "may" in record:
        return (PermissionAsked(request_id="r", permission=record["may"], **ids),)
    if record["who"] == "me":
        return (MessageUpdated(role="user", **ids),)
    return (
        TextPart(part_id="words", text=record["words"], is_complete=True, **ids),
        StepFinished(part_id="step", reason="stop", cost=0.25, **ids),
        MessageUpdated(role="assistant", is_complete=True, finish="stop", cost=0.25, **ids),
    )


def say(prompt: Prompt) -> Call[Answer]:
    def read(record: Any) -> Answer:
        if not record:
            return Answer(is_cut_off=True)
        line = f"line-{record['n']:05}"
        return Answer(line, replies_to_prompt=True, events=said(record))

    body = {"line": prompt.message_id, "words": prompt.text}
    return Call("SAY", "/room", read, body=body, waits_for_agent=True)


class Lines:
    """Numbers lines; the answer to a line has the next number."""

    def __init__(self) -> None:
        self.numbers = count(2, 2)

    def saw(self, identifier: str, now_ms: float) -> None: ...

    def server_ms(self, now_ms: float) -> float:
        return now_ms

    def next(self, now_ms: float, randomness: bytes, *, after: str | None = None) -> str:
        return f"line-{next(self.numbers):05}"


class NoRules:
    async def apply(self, turn: Sequence[Json], agent: str | None) -> None: ...

    def with_answer_tool(self, turn: Sequence[Json]) -> list[Json]:
        return []


async def none_of(*_: Any, **__: Any) -> list[Any]:
    return []


def room(answer: object) -> SessionRecord:
    return SessionRecord("room", "/w", None, None, {})


def states(answer: Any) -> Mapping[str, Event]:
    return {"room": SessionBusy(session_id="room")} if answer else {}


REQUESTS: Any = SimpleNamespace(
    providers=lambda: Call("WAKE", "/", lambda answer: answer),
    create_session=lambda *, title, rules: Call("ENTER", "/room", room),
    children=lambda session: Call("LIST", "/room", lambda answer: []),
    working=lambda: Call("LOOK", "/room", states),
    open_asks=lambda: (),
    prompt=say,
    abort=lambda session: Call("HUSH", "/room", lambda answer: answer),
    reply_permission=lambda session, request, reply, message=None: Call(
        "NOD", f"/room/{reply}", lambda answer: answer
    ),
)
PARTS: Any = SimpleNamespace
MADE_UP = Dialect(
    name="made up",
    requests=REQUESTS,
    stream=PARTS(
        route=lambda: "/ears",
        read_record=said,
        server_id=lambda event: "",
        details=lambda event: event.raw,
    ),
    stored=PARTS(
        turn_messages=none_of, subagent_messages=none_of, leftovers=none_of, has_message=none_of
    ),
    diffs=PARTS(),
    rules=PARTS(
        rules_of=lambda cfg: [],
        check_taken=lambda record, rules: None,
        session_rules=lambda send, session, *, own, server: NoRules(),
    ),
    message_ids=Lines,
)


class Room:
    """A server of this line."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ears, self.mouth = trio.open_memory_channel[Json](100)
        self.may_answer = trio.Event()
        self.is_busy = self.is_hushed = False

    async def call(self, call: Call[Any]) -> Any:
        await trio.lowlevel.checkpoint()
        self.calls.append(f"{call.method} {call.path}")
        if call.method == "HUSH":
            self.is_hushed = True
            self.may_answer.set()
        if call.method != "SAY":
            return call.read(self.is_busy)
        self.is_busy = True
        number = int((call.body or {})["line"].removeprefix("line-"))
        self.ears.send_nowait({"who": "me", "n": number})
        await self.may_answer.wait()
        if self.is_hushed:
            self.is_busy = False
            return call.read({})
        answer = {"who": "you", "n": number + 1, "words": "Hello from elsewhere."}
        self.ears.send_nowait(answer)
        self.is_busy = False
        return call.read(answer)

    @asynccontextmanager
    async def open_events(self, path: str) -> AsyncIterator[Any]:
        assert path == "/ears"
        await trio.lowlevel.checkpoint()
        self.ears.send_nowait({"who": "me", "n": 0})
        yield self.mouth


@asynccontextmanager
async def talking(place: Room) -> AsyncIterator[OpenCodeServer]:
    async with open_background() as tasks:
        connection = Connection(place, MADE_UP, url="made up", tasks=tasks)
        tasks.start_soon(connection.event_stream.run)
        await connection.event_stream.wait_connected()
        yield OpenCodeServer(connection, workspace="/w", version="9.9.9")


async def test_a_turn(autojump_clock: trio.testing.MockClock) -> None:
    place = Room()
    async with talking(place) as server, server.open_session() as session:
        for _ in range(2):
            place.may_answer = trio.Event()
            async with session.stream("Hello?") as turn:
                await trio.sleep(1)
                place.may_answer.set()
                events = [event async for event in turn]
            assert turn.result.final_text == "Hello from elsewhere."
            assert (turn.result.stop_reason, turn.result.total_cost) == ("completed", 0.25)
            assert TextPart in map(type, events)
    assert place.calls == ["ENTER /room", "WAKE /", "SAY /room", "SAY /room"]


async def test_an_ask_and_an_abort(autojump_clock: trio.testing.MockClock) -> None:
    place = Room()
    async with (
        talking(place) as server,
        server.open_session(on_permission=lambda request: "once") as session,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            await trio.sleep(1)
            place.ears.send_nowait({"who": "you", "n": 3, "may": "leave"})
            await trio.sleep(1)
            assert place.calls[-1] == "NOD /room/once"
            await session.abort()

        nursery.start_soon(ask)
        with pytest.raises(OpenCodeCancelledError):
            await session.send("May you leave?")
    assert "HUSH /room" in place.calls
