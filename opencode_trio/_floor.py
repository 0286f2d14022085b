"""Whose turn it is in a session: one at a time, in the order of asking."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import attrs
import trio

from opencode_trio._ask_desk import Handlers
from opencode_trio._course import Course, TurnPlan, open_course
from opencode_trio._endpoints import Call
from opencode_trio._ids import RANDOM_CHARACTERS
from opencode_trio._json import Json
from opencode_trio._options import TurnSettings
from opencode_trio._rulebook import Rulebook
from opencode_trio._stored import StoredTurn
from opencode_trio._turns import Turn
from opencode_trio._work import Work, carry_out
from opencode_trio.errors import OpenCodeCancelledError, OpenCodeConfigError
from opencode_trio.events import Event
from opencode_trio.results import RunResult

T = TypeVar("T")


@attrs.frozen
class Audience:
    """Who hears of a session's turns, and answers what is asked in them."""

    handlers: Handlers
    on_result: Callable[[RunResult], None]
    """Told of the result of each turn."""
    on_event: Callable[[Event], None] | None = None
    """Told each event."""


class Floor:
    """A session's work on its server.

    Args:
        stored: the session.
        rulebook: its rules.
        audience: of its turns.
    """

    def __init__(self, stored: StoredTurn, rulebook: Rulebook, audience: Audience) -> None:
        self.latest: str | None = None
        """The newest message that is known; what comes must have a later id."""
        self._stored = stored
        self._rulebook = rulebook
        self._audience = audience
        # Handed from waiter to waiter, in order; unlike a `Lock`, any task may release it.
        self._free = trio.Semaphore(1)
        self._holder: trio.lowlevel.Task | None = None
        self._course: Course | None = None
        self._work: Work[Any] | None = None
        self._preparing: trio.CancelScope | None = None

    @property
    def is_taken(self) -> bool:
        """Whether the agent has something to do."""
        return self._holder is not None

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator[None]:
        """Wait until it is free, and have it for the block.

        Raises:
            OpenCodeConfigError: it is the caller who has it.
        """
        self._stored.link.check_run()
        me = trio.lowlevel.current_task()
        inside = self._course is not None and me in self._course.desk.handler_tasks
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
        self, call: Callable[[str], Call[Json]], settings: TurnSettings, *, listen: bool
    ) -> AsyncGenerator[Turn]:
        """Take the floor for a turn; see `open_course`.

        Args:
            call: makes the prompt, of the id that its message shall have.
            settings: of the turn.
            listen: whether somebody reads the events.
        """
        async with self.taken():
            await self._prepare(settings)
            plan = self._plan(call, settings, listen=listen)
            course: Course | None = None
            try:
                async with open_course(self._stored.link, plan) as course:
                    self._course, self._work = course, course.work
                    yield Turn(course)
            finally:
                self._course = self._work = None
                if course is not None:  # else cancelled before it began
                    self.latest = course.latest_message_id
                    self._audience.on_result(course.result)

    async def _prepare(self, settings: TurnSettings) -> None:
        self._preparing = scope = trio.CancelScope()
        try:
            with scope:
                await self._stored.link.warm(self._stored.directory)
                await self._rulebook.open_at(settings.rules, settings.cfg.agent)
        finally:
            self._preparing = None
        if scope.cancel_called:
            raise OpenCodeCancelledError("the turn was aborted before it began")

    async def carry_out(self, call: Call[T], *, busy_s: float = math.inf) -> T:
        """Take the floor for a call that the agent works on; see `Work` and `_work.carry_out`."""
        async with self.taken():
            send = partial(self._stored.call, call)
            self._work = work = Work(self._stored, send, busy_s=busy_s)
            try:
                return await carry_out(work)
            finally:
                self._work = None

    async def abort(self) -> None:
        """Abort what the agent does, whoever began it.

        Raises:
            OpenCodeServerError: the server did not answer.
        """
        self._stored.link.check_run()
        if self._preparing is not None:
            self._preparing.cancel()
            await trio.lowlevel.checkpoint()
        elif self._work is not None:
            await self._work.abort()
        else:
            await self._stored.abort()

    def _plan(
        self, call: Callable[[str], Call[Json]], settings: TurnSettings, *, listen: bool
    ) -> TurnPlan:
        randomness = secrets.token_bytes(RANDOM_CHARACTERS)
        ids = self._stored.link.bus.ids
        message_id = ids.next(time.time() * 1000, randomness, after=self.latest)
        return TurnPlan(
            root=self._stored.root,
            directory=self._stored.directory,
            message_id=message_id,
            call=call(message_id),
            handlers=attrs.evolve(self._audience.handlers, by_hand=settings.by_hand),
            limits=settings.limits,
            fail_if_silent_s=settings.fail_if_silent_s,
            listened_to=listen,
            on_event=self._audience.on_event,
        )
