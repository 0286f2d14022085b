"""An opencode server in memory: streams that the test breaks, and answers that the test gives."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from opencode_trio._json import Json
from opencode_trio._protocol.calls import Call
from opencode_trio.errors import OpenCodeServerError

CONNECTED = {"payload": {"id": "evt_2029e77cb001MRwottcDQYxKWQ", "type": "server.connected"}}


def event(kind: str, **properties: Any) -> Json:
    return {"directory": "/w", "payload": {"type": kind, "properties": properties}}


def status(session: str, kind: str, **more: Any) -> Json:
    return event("session.status", sessionID=session, status={"type": kind, **more})


def created(session: str, parent: str | None = None, agent: str = "general") -> Json:
    info = {"id": session, "agent": agent, **({"parentID": parent} if parent else {})}
    return event("session.created", sessionID=session, info=info)


def user_message(session: str, message: str) -> Json:
    return event("message.updated", sessionID=session, info={"id": message, "role": "user"})


def assistant(
    session: str, message: str, parent: str, *, done: bool = True, cost: float = 0.5, **more: Any
) -> Json:
    """The record of an assistant message, as it is stored."""
    return {
        "id": message,
        "sessionID": session,
        "role": "assistant",
        "parentID": parent,
        "cost": cost if done else 0,
        "time": {"created": 1, **({"completed": 2} if done else {})},
        **({"finish": "stop"} if done and "error" not in more else {}),
        **more,
    }


def assistant_message(session: str, info: Json) -> Json:
    return event("message.updated", sessionID=session, info=info)


def part(session: str, message: str, identifier: str, kind: str, **more: Any) -> Json:
    body = {"id": identifier, "messageID": message, "sessionID": session, "type": kind, **more}
    return event("message.part.updated", sessionID=session, part=body)


def delta(session: str, message: str, identifier: str, text: str) -> Json:
    return event(
        "message.part.delta",
        sessionID=session,
        messageID=message,
        partID=identifier,
        field="text",
        delta=text,
    )


@attrs.define(eq=False)
class FakeServer:
    """Answers calls by its routes, and streams what the test sends."""

    routes: dict[str, Callable[..., Any]] = attrs.field(factory=dict)
    """By ``"METHOD /path"``, a pattern whose groups the function is called with, after the call."""
    calls: list[Call[Any]] = attrs.field(factory=list)
    connections: int = 0
    refuses: bool = False
    _stream: trio.MemorySendChannel[Json] | None = None

    async def call(self, call: Call[Any]) -> Any:
        await trio.lowlevel.checkpoint()
        self.calls.append(call)
        for pattern, answer in self.routes.items():
            if found := re.fullmatch(pattern, f"{call.method} {call.path}"):
                result = answer(call, *found.groups())
                if hasattr(result, "__await__"):
                    result = await result
                return call.read(result)
        raise OpenCodeServerError(f"{call.method} {call.path}: 404", status_code=404)

    def called(self, pattern: str) -> list[Call[Any]]:
        return [c for c in self.calls if re.fullmatch(pattern, f"{c.method} {c.path}")]

    @asynccontextmanager
    async def open_events(self, path: str) -> AsyncIterator[AsyncIterator[Json]]:
        await trio.lowlevel.checkpoint()
        assert path == "/global/event"
        self.connections += 1
        if self.refuses:
            raise OpenCodeServerError("refused")
        send, receive = trio.open_memory_channel[Json](10_000)
        self._stream = send
        send.send_nowait(CONNECTED)
        with send, receive:
            yield receive

    def say(self, *records: Json) -> None:
        """Send events."""
        assert self._stream is not None
        for record in records:
            self._stream.send_nowait(record)

    def hang_up(self) -> None:
        """End the stream, in good order."""
        assert self._stream is not None
        self._stream.close()
