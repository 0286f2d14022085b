"""An agent in memory: a fake server whose agent answers when the test lets it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing

import fake_server as fake
from fake_server import FakeServer
from opencode_trio._json import Json
from opencode_trio._protocol.v1 import V1
from opencode_trio._server.connection import Connection
from opencode_trio._session.pending_asks import AskHandlers
from opencode_trio._tasks import open_background
from opencode_trio.asks import PermissionAnswer
from opencode_trio.config import RunConfig
from opencode_trio.errors import (
    OpenCodeServerError,
)
from opencode_trio.events import Event
from opencode_trio.server import OpenCodeServer
from opencode_trio.session import Session

ROOT = "ses_root"
ASK = {
    "id": "per_1",
    "sessionID": ROOT,
    "permission": "bash",
    "patterns": ["ls"],
    "metadata": {},
    "always": [],
}


@attrs.define(eq=False)
class Agent:
    """A fake agent in a fake server: it answers a prompt when the test lets it."""

    server: FakeServer = attrs.field(factory=FakeServer)
    prompts: list[str] = attrs.field(factory=list)
    messages: list[Json] = attrs.field(factory=list)
    busy: set[str] = attrs.field(factory=set)
    aborts: int = 0
    obeys: bool = True
    ids_begin_with: str = "msg_f"
    """With ``msg_0`` what it says sorts before all that we ask, as if its clock had been set back."""
    is_structured: bool = False
    """Whether its first prompt asked for a structured answer, which opencode cannot tell."""
    has_ended: bool = False
    _answer: trio.Event = attrs.field(factory=trio.Event)
    _error: Json | None = None

    def __attrs_post_init__(self) -> None:
        self.server.routes |= {
            r"POST /session/(\w+)/message": self.prompt,
            r"POST /session/(\w+)/abort": self.abort,
            r"GET /session/(\w+)/message": self.list_messages,
            r"GET /session/(\w+)/message/(\w+)": self.one_message,
            r"GET /session/(\w+)/children": lambda call, session: [],
            r"GET /session/status": lambda call: {s: {"type": "busy"} for s in self.busy},
            r"GET /config/providers": lambda call: {},
            r"GET /permission": lambda call: [],
            r"GET /question": lambda call: [],
            r"POST /permission/(\w+)/reply": lambda call, request: True,
        }

    async def prompt(self, call: Any, session: str) -> Json:
        message = call.body["messageID"]
        self.prompts.append(call.body["parts"][0]["text"])
        self.busy.add(session)
        self.messages.append({"info": {"id": message, "role": "user"}, "parts": []})
        self.server.say(fake.user_message(session, message), fake.status(session, "busy"))
        await self._answer.wait()
        self._answer = trio.Event()
        answer = self.message("answer to " + self.prompts[-1], message, self._error)
        self.messages.append(answer)
        for part in answer["parts"]:
            self.server.say(fake.event("message.part.updated", sessionID=session, part=part))
        self.server.say(fake.assistant_message(session, answer["info"]))
        self.busy.discard(session)
        return answer

    def message(self, text: str, parent: str, error: Json | None) -> Json:
        identifier = f"{self.ids_begin_with}{len(self.messages):011x}zz"
        more: dict[str, Any] = {"error": error} if error else {}
        info = fake.assistant(ROOT, identifier, parent, **more)
        ids = {"messageID": identifier, "sessionID": ROOT}
        step = {"type": "step-finish", "reason": "stop", "cost": 0.5, "id": "prt_s" + identifier}
        words = {"type": "text", "text": text, "id": "prt_t" + identifier, "time": {"end": 1}}
        return {"info": info, "parts": [ids | words] + ([] if error else [ids | step])}

    def list_messages(self, call: Any, session: str) -> list[Json]:
        limit = int(call.query.get("limit", len(self.messages)))
        if self.is_structured and limit >= len(self.messages):
            raise OpenCodeServerError("400, OutputFormatJsonSchema", status_code=400)
        return self.messages[max(0, len(self.messages) - limit) :]

    def one_message(self, call: Any, session: str, message: str) -> Json:
        for number, stored in enumerate(self.messages):
            if stored["info"]["id"] == message:
                if self.is_structured and number == 0:
                    raise OpenCodeServerError("400, OutputFormatJsonSchema", status_code=400)
                return stored
        raise OpenCodeServerError("404", status_code=404)

    async def abort(self, call: Any, session: str) -> bool:
        self.aborts += 1
        if self.obeys and session in self.busy:
            self.finish({"name": "MessageAbortedError", "data": {"message": "Aborted"}})
        return True

    def finish(self, error: Json | None = None) -> None:
        self._error = error
        self._answer.set()

    def end(self) -> None:
        self.has_ended = True


@attrs.define(eq=False)
class LateServer(FakeServer):
    """It answers and says nothing meanwhile, as when it has too much to do."""

    is_late: bool = False
    unsaid: list[Json] = attrs.field(factory=list)

    def say(self, *records: Json) -> None:
        if self.is_late:
            self.unsaid += records
        else:
            super().say(*records)

    async def catch_up(self, seconds: int) -> None:
        """Say the rest at last; before that, what concerns others."""
        for _ in range(seconds):
            await trio.sleep(0.9)
            super().say(fake.status("ses_other", "busy"))
        super().say(*self.unsaid)


def allow_and_note(asked: list[Any]) -> Callable[[Any], PermissionAnswer]:
    def allow(request: Any) -> PermissionAnswer:
        asked.append(request)
        return "once"

    return allow


@asynccontextmanager
async def talking(
    agent: Agent,
    handlers: AskHandlers | None = None,
    *,
    ours: bool = True,
    on_event: Callable[[Event], Any] | None = None,
) -> AsyncIterator[tuple[Session, Connection]]:
    async with open_background() as tasks:
        connection = Connection(
            agent.server,
            V1,
            url="fake",
            tasks=tasks,
            cfg=RunConfig() if ours else None,
            end=agent.end if ours else None,
        )
        tasks.start_soon(connection.event_stream.run)
        await connection.event_stream.wait_connected()
        agent.server.routes["GET /session/(\\w+)"] = lambda call, name: {
            "id": name,
            "directory": "/w",
        }
        server = OpenCodeServer(connection, workspace="/w", version="1.18.33")
        chosen = handlers or AskHandlers()
        async with server.open_session(
            session_id=ROOT,
            on_permission=chosen.on_permission,
            on_question=chosen.on_question,
            on_event=on_event,
        ) as session:
            yield session, connection


async def settled(seconds: float = 0.1) -> None:
    await trio.sleep(seconds)


async def hear_heartbeats(agent: Agent, seconds: int) -> None:
    for _ in range(seconds // 10):
        agent.server.say(fake.event("server.heartbeat"))
        await trio.sleep(10)
