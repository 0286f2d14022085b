"""Servers in memory, for swarms under virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeServerError
from opencode_trio.events import Event, StepFinished, TokenUsage
from opencode_trio.results import RunResult

TURN_S = 1.0
COST_USD = 0.5
TOKENS = 100

Program = Callable[["FakeSession"], Awaitable[str]]


class FakeSession:
    """A session whose turns do what `World.programs` says of their prompt."""

    def __init__(self, server: FakeServer, number: int, directory: str | None, options: Any):
        self.server = server
        self.session_id = f"ses_{server.number}_{number}"
        self.directory = directory
        self.options = options
        self.steps = 0
        self.total_cost = 0.0

    def tell(self, event: Event) -> None:
        self.options["on_event"](event)

    def step(self, cost: float = COST_USD, tokens: int = TOKENS) -> None:
        self.steps += 1
        self.total_cost += cost
        self.tell(
            StepFinished(
                session_id=self.session_id,
                message_id=f"msg_{self.steps}",
                part_id=f"prt_{self.steps}",
                cost=cost,
                tokens=TokenUsage(total=tokens),
            )
        )

    async def send(self, prompt: str, *, output: Any = None) -> RunResult:
        world = self.server.world
        world.prompts.append(prompt)
        first, cost = self.steps, self.total_cost
        text = ""
        try:
            with self.server.mortal():
                text = await world.programs.get(prompt, answer)(self)
        finally:
            if not text:
                world.aborted.append(prompt)
            result = RunResult(
                final_text=text,
                session_id=self.session_id,
                turns=self.steps - first,
                total_cost=self.total_cost - cost,
                token_usage=TokenUsage(total=TOKENS * (self.steps - first)),
                events=[{"type": "a record"}],
            )
            self.options["on_result"](result)
        return result


async def answer(session: FakeSession) -> str:
    """Answer after a second and one step."""
    await trio.sleep(TURN_S)
    session.step()
    return "ok"


def after(seconds: float, text: str = "ok") -> Program:
    async def program(session: FakeSession) -> str:
        await trio.sleep(seconds)
        return text

    return program


def steps(number: int, cost: float = COST_USD) -> Program:
    """Take a second for each step."""

    async def program(session: FakeSession) -> str:
        for _ in range(number):
            await trio.sleep(TURN_S)
            session.step(cost)
        return "ok"

    return program


def failing(error: Exception, seconds: float = TURN_S) -> Program:
    async def program(session: FakeSession) -> str:
        await trio.sleep(seconds)
        raise error

    return program


class World:
    """What all the servers of a test have in common."""

    def __init__(self, **programs: Program) -> None:
        self.programs: dict[str, Program] = programs
        self.prompts: list[str] = []
        self.aborted: list[str] = []
        self.servers: list[FakeServer] = []
        self.stillborn = 0
        """How many servers have ended before they can be used."""

    def server(self, cfg: RunConfig | None = None, directory: str | None = None) -> Any:
        server = FakeServer(self, len(self.servers) + 1, cfg, directory)
        self.servers.append(server)
        server.has_ended = len(self.servers) <= self.stillborn
        return server

    @property
    def running(self) -> list[FakeServer]:
        return [server for server in self.servers if server.is_open and not server.has_ended]


class FakeServer:
    """What a swarm uses of an `OpenCodeServer`."""

    def __init__(self, world: World, number: int, cfg: RunConfig | None, directory: str | None):
        self.world = world
        self.number = number
        self.cfg = cfg
        self.started_in = directory
        self.pid = None
        self.has_ended = False
        self.is_open = True
        self.sessions: list[FakeSession] = []
        self.open_sessions = 0
        self.most_sessions = 0
        self._scopes: set[trio.CancelScope] = set()

    @asynccontextmanager
    async def open_session(
        self, workspace: str | None = None, **options: Any
    ) -> AsyncIterator[FakeSession]:
        await trio.lowlevel.checkpoint()
        self._check()
        session = FakeSession(self, len(self.sessions) + 1, workspace, options)
        self.sessions.append(session)
        self.open_sessions += 1
        self.most_sessions = max(self.most_sessions, self.open_sessions)
        try:
            yield session
        finally:
            self.open_sessions -= 1

    def die(self) -> None:
        self.has_ended = True
        for scope in self._scopes:
            scope.cancel()

    def mortal(self) -> _Mortal:
        return _Mortal(self)

    def _check(self) -> None:
        if self.has_ended:
            raise OpenCodeServerError("the server ended")


class _Mortal:
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.scope = trio.CancelScope()

    def __enter__(self) -> None:
        self.server._check()
        self.server._scopes.add(self.scope)
        self.scope.__enter__()

    def __exit__(self, *exc: Any) -> None:  # noqa: PYI036 - they are handed on, typed
        self.server._scopes.discard(self.scope)
        if self.scope.__exit__(*exc) and self.scope.cancelled_caught:
            raise OpenCodeServerError("the server ended")


class FakeClient:
    """Opens fake servers, two seconds each."""

    def __init__(self, world: World, failure: Exception | None = None) -> None:
        self.world = world
        self.failure = failure
        self.starts = 0

    @asynccontextmanager
    async def open_server(
        self, workspace: Any, *, run_cfg: RunConfig | None = None
    ) -> AsyncIterator[Any]:
        self.starts += 1
        await trio.sleep(2)
        if self.failure is not None:
            raise self.failure
        server = self.world.server(run_cfg, workspace)
        try:
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            server.is_open = False
