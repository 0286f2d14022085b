"""Where the questions of a turn wait for their answers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs
import trio

from opencode_trio._endpoints import Call
from opencode_trio.asks import (
    AskRequest,
    PermissionCallback,
    QuestionCallback,
    QuestionRequest,
    refusal,
    reply,
)
from opencode_trio.errors import OpenCodeError, OpenCodeServerError
from opencode_trio.events import Event, PermissionAsked, QuestionAsked

_log = logging.getLogger("opencode_trio")

T = TypeVar("T")

REFUSE_S = 5.0
"""For telling the server no while a turn is failing; the abort that follows says it again."""

GONE = frozenset({400, 404, 409})
"""What the server answers when a request has been answered already, or its turn has ended."""


@attrs.frozen
class Handlers:
    """Who answers."""

    on_permission: PermissionCallback | None = None
    on_question: QuestionCallback | None = None
    by_hand: bool = False
    """Whether asks without a handler wait for `Turn.answer`, rather than being refused."""

    def of(self, request: AskRequest) -> Callable[[Any], Any] | None:
        return self.on_question if isinstance(request, QuestionRequest) else self.on_permission


@attrs.define(eq=False)
class _Open:
    request: AskRequest
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class AskDesk:
    """Answers a turn's asks: by handlers, each in a task of its own, by hand, or with no.

    Args:
        call: sends a call to the server.
        tasks: where handlers run.
        handlers: who answers.
        crashed: told when a handler raised, or gave an impossible answer.
    """

    def __init__(
        self,
        call: Callable[[Call[Any]], Awaitable[Any]],
        tasks: trio.Nursery,
        handlers: Handlers,
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._call = call
        self._tasks = tasks
        self._handlers = handlers
        self._crashed = crashed
        self._open: dict[str, _Open] = {}
        self._known: set[str] = set()
        self.handler_tasks: set[trio.lowlevel.Task] = set()

    @property
    def pending(self) -> list[AskRequest]:
        """What waits for an answer, the oldest first."""
        return [entry.request for entry in self._open.values()]

    def knows(self, event: Event) -> bool:
        """Say whether an event asks what has been taken already: it may be told, and found, too."""
        if isinstance(event, PermissionAsked | QuestionAsked):
            return event.request_id in self._known
        return False

    def asked(self, request: AskRequest) -> None:
        """Take a request; no one may be taken twice."""
        self._known.add(request.request_id)
        entry = self._open[request.request_id] = _Open(request)
        if (handler := self._handlers.of(request)) is not None:
            self._tasks.start_soon(self._handle, entry, handler, name=handler)
        elif not self._handlers.by_hand:
            self._tasks.start_soon(self._refuse, entry)

    def settled(self, request_id: str) -> None:
        """Know that a request has been answered, by whomever."""
        self._known.add(request_id)
        if (entry := self._open.pop(request_id, None)) is not None:
            entry.scope.cancel()

    def close(self) -> None:
        """End all handlers: nobody waits for their answers any more."""
        for request_id in list(self._open):
            self.settled(request_id)

    async def answer(self, request_id: str, answer: object) -> None:
        """Answer by hand.

        Raises:
            KeyError: nothing of this id waits for an answer.
            OpenCodeConfigError: this is no possible answer; the request still waits.
        """
        entry = self._open[request_id]
        await self._send(reply(entry.request, answer))
        self.settled(request_id)

    @trio.lowlevel.enable_ki_protection
    async def _refuse(self, entry: _Open) -> None:
        _log.info("nobody is there to answer %r: refused", entry.request)
        try:
            await self._send(refusal(entry.request))
        except OpenCodeError as exc:
            self._crashed(exc)
        self.settled(entry.request.request_id)

    async def _handle(self, entry: _Open, handler: Callable[[Any], Any]) -> None:
        task = trio.lowlevel.current_task()
        self.handler_tasks.add(task)
        try:
            with entry.scope:
                answer = handler(entry.request)
                if inspect.isawaitable(answer):
                    answer = await answer
                await self._send(reply(entry.request, answer))
                self.settled(entry.request.request_id)
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - recorded, and raised to who awaits the turn
            self._crashed(error)
            with trio.move_on_after(REFUSE_S):
                await self._refuse(entry)
        finally:
            self.handler_tasks.discard(task)

    async def _send(self, call: Call[Any]) -> None:
        try:
            await self._call(call)
        except OpenCodeServerError as exc:
            if exc.status_code not in GONE:
                raise
            _log.info("an answer came too late: %s", exc)
