"""The queue of what a session's agent is to do: one turn or call at a time, in order."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import attrs
import trio

from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.dialect import SessionRules
from opencode_trio._protocol.values import Answer, Attachment, SessionRecord
from opencode_trio._server.connection import Connection
from opencode_trio._session.abortable_request import AbortableRequest, run_to_answer
from opencode_trio._session.pending_asks import AskHandlers
from opencode_trio._session.remote_turn import RemoteTurn
from opencode_trio._session.running_turn import RunningTurn, TurnPlan, open_running_turn
from opencode_trio._session.settings import TurnSettings
from opencode_trio._session.turn import Turn
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeCancelledError, OpenCodeConfigError
from opencode_trio.events import Event
from opencode_trio.results import RunResult

T = TypeVar("T")


@attrs.frozen
class TurnListeners:
    """Who hears of a session's turns, and answers what is asked in them."""

    handlers: AskHandlers
    on_result: Callable[[RunResult], None]
    """Told of the result of each turn."""
    on_event: Callable[[Event], None] | None = None
    """Told each event."""


class TurnQueue:
    """What a session's agent works on, and who waits for it.

    Args:
        remote: the session on its server.
        rules: its permission rules.
        listeners: who is told of its turns.
    """

    def __init__(self, remote: RemoteTurn, rules: SessionRules, listeners: TurnListeners) -> None:
        self.latest: str | None = None
        """The newest message that is known; what comes must have a later id."""
        self._remote = remote
        self._rules = rules
        self._listeners = listeners
        # Handed from waiter to waiter, in order; unlike a `Lock`, any task may release it.
        self._free = trio.Semaphore(1)
        self._holder: trio.lowlevel.Task | None = None
        self._running: RunningTurn | None = None
        self._request: AbortableRequest[Any] | None = None
        self._preparing: trio.CancelScope | None = None

    @property
    def is_taken(self) -> bool:
        """Whether the agent has something to do."""
        return self._holder is not None

    @asynccontextmanager
    async def exclusive(self) -> AsyncGenerator[None]:
        """Wait until it is free, and have it for the block.

        Raises:
            OpenCodeConfigError: it is the caller who has it.
        """
        self._remote.connection.check_run()
        me = trio.lowlevel.current_task()
        inside = self._running is not None and me in self._running.asks.handler_tasks
        if me is self._holder or inside:
            raise OpenCodeConfigError(
                "this call would wait for itself: it is made inside a running turn of the same "
                "session; leave that turn first, or use another session"
            )
        async with self._free:
            self._holder = me
            try:
                yield
            finally:
                self._holder = None

    @asynccontextmanager
    async def turn(
        self,
        call: Callable[[str], Call[Answer]],
        settings: TurnSettings,
        *,
        files: Sequence[Attachment] = (),
        listen: bool,
    ) -> AsyncGenerator[Turn]:
        """Take the floor for a turn; see `open_running_turn`.

        Args:
            call: makes the prompt, given the id of its message.
            settings: of the turn.
            files: what goes with the prompt.
            listen: whether somebody reads the events.
        """
        async with self.exclusive():
            await self._prepare(settings)
            plan = self._plan(call, settings, files=files, listen=listen)
            running: RunningTurn | None = None
            try:
                async with open_running_turn(self._remote.connection, plan) as running:
                    self._running, self._request = running, running.request
                    yield Turn(running)
            finally:
                self._running = self._request = None
                if running is not None:  # else cancelled before it began
                    self.latest = running.latest_message_id
                    self._listeners.on_result(running.result)

    async def _prepare(self, settings: TurnSettings) -> None:
        self._preparing = scope = trio.CancelScope()
        try:
            with scope:
                await self._remote.connection.warm(self._remote.directory)
                await self._rules.apply(settings.rules, settings.cfg.agent)
        finally:
            self._preparing = None
        if scope.cancel_called:
            raise OpenCodeCancelledError("the turn was aborted before it began")

    async def run_to_answer(self, call: Call[T], *, busy_s: float = math.inf) -> T:
        """Take the floor for a call that the agent works on; see `AbortableRequest`."""
        async with self.exclusive():
            send = partial(self._remote.call, call)
            self._request = request = AbortableRequest(self._remote, send, busy_s=busy_s)
            try:
                return await run_to_answer(request)
            finally:
                self._request = None

    async def abort(self) -> None:
        """Abort what the agent does, no matter who began it.

        Raises:
            OpenCodeServerError: the server did not answer.
        """
        self._remote.connection.check_run()
        if self._preparing is not None:
            self._preparing.cancel()
            await trio.lowlevel.checkpoint()
        elif self._request is not None:
            await self._request.abort()
        else:
            await self._remote.abort()

    def _plan(
        self,
        call: Callable[[str], Call[Answer]],
        settings: TurnSettings,
        *,
        files: Sequence[Attachment],
        listen: bool,
    ) -> TurnPlan:
        message_id = self._remote.connection.event_stream.new_message_id(after=self.latest)
        return TurnPlan(
            root=self._remote.root,
            directory=self._remote.directory,
            message_id=message_id,
            call=call(message_id),
            files=files,
            handlers=attrs.evolve(self._listeners.handlers, by_hand=settings.by_hand),
            limits=settings.limits,
            fail_if_silent_s=settings.fail_if_silent_s,
            listened_to=listen,
            on_event=self._listeners.on_event,
        )


@attrs.frozen
class SessionPlan:
    """What a session is made of."""

    connection: Connection
    record: SessionRecord
    cfg: RunConfig
    rules: SessionRules
    listeners: TurnListeners
