"""The permission requests and questions that a turn waits with, and what becomes of them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import trio

from opencode_trio._json import is_sequence
from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.dialect import Requests
from opencode_trio._server.connection import Connection
from opencode_trio._session.remote_turn import RemoteTurn
from opencode_trio._turn.state import TurnState
from opencode_trio.asks import (
    PERMISSION_ANSWERS,
    AskRequest,
    PermissionCallback,
    PermissionRequest,
    QuestionCallback,
    QuestionRequest,
    Reject,
)
from opencode_trio.errors import OpenCodeConfigError, OpenCodeError, OpenCodeServerError
from opencode_trio.events import Event, PermissionAsked, Question, QuestionAsked

_log = logging.getLogger("opencode_trio")


T = TypeVar("T")


REFUSE_S = 5.0
"""For telling the server no while a turn is failing; the abort that follows says it again."""


GONE = frozenset({400, 404, 409})
"""What the server answers when a request has been answered already, or its turn has ended."""


@attrs.frozen
class AskHandlers:
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


class PendingAsks:
    """Answers a turn's asks: by handlers, each in a task of its own, by hand, or with no.

    Args:
        remote: the turn on its server.
        tasks: where handlers run.
        handlers: who answers.
        crashed: told when a handler raised, or gave an impossible answer.
    """

    def __init__(
        self,
        remote: RemoteTurn,
        tasks: trio.Nursery,
        handlers: AskHandlers,
        crashed: Callable[[BaseException], None],
    ) -> None:
        self._send = remote.call
        self._requests = remote.connection.dialect.requests
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
            OpenCodeConfigError: the answer is invalid; the request still waits.
        """
        entry = self._open[request_id]
        await self._answer(reply(self._requests, entry.request, answer))
        self.settled(request_id)

    @trio.lowlevel.enable_ki_protection
    async def _refuse(self, entry: _Open) -> None:
        _log.info("nobody is there to answer %r: refused", entry.request)
        try:
            await self._answer(refusal(self._requests, entry.request))
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
                await self._answer(reply(self._requests, entry.request, answer))
                self.settled(entry.request.request_id)
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - recorded, and raised to who awaits the turn
            self._crashed(error)
            with trio.move_on_after(REFUSE_S):
                await self._refuse(entry)
        finally:
            self.handler_tasks.discard(task)

    async def _answer(self, call: Call[Any]) -> None:
        try:
            await self._send(call)
        except OpenCodeServerError as exc:
            if exc.status_code not in GONE:
                raise
            _log.info("an answer came too late: %s", exc)


def request_of(
    event: PermissionAsked | QuestionAsked, turn: TurnState, connection: Connection
) -> AskRequest:
    """Make the request that a handler gets.

    Args:
        event: what asks.
        turn: what is known of the turn, which names agents and tools.
        connection: its server, which knows whose subagent is who.
    """
    if isinstance(event, QuestionAsked):
        return QuestionRequest(**_common(event, turn, connection), questions=event.questions)
    return PermissionRequest(
        **_common(event, turn, connection),
        tool=turn.tools.get(event.call_id or "") or event.permission,
        permission=event.permission,
        patterns=event.patterns,
        always=event.always,
        metadata=event.metadata,
    )


def _common(
    event: PermissionAsked | QuestionAsked, turn: TurnState, connection: Connection
) -> dict[str, Any]:
    session = event.session_id or ""
    tree = connection.event_stream.tree
    return {
        "request_id": event.request_id,
        "session_id": session,
        "parent_id": None if session == turn.root else tree.parent_of(session),
        "depth": tree.depth(session, turn.root),
        "agent": turn.agents.get(session) or tree.agent_of(session),
        "raw": connection.dialect.stream.details(event),
    }


def refusal(requests: Requests, request: AskRequest) -> Call[Any]:
    """Build the call that says no."""
    if isinstance(request, QuestionRequest):
        return requests.reject_question(request.session_id, request.request_id)
    return requests.reply_permission(request.session_id, request.request_id, "reject")


def reply(requests: Requests, request: AskRequest, answer: object) -> Call[Any]:
    """Build the call that gives an answer.

    Raises:
        OpenCodeConfigError: it is not a valid answer to this request.
    """
    if isinstance(request, QuestionRequest):
        return _question_reply(requests, request, answer)
    return _permission_reply(requests, request, answer)


def _permission_reply(requests: Requests, request: AskRequest, answer: object) -> Call[Any]:
    if isinstance(answer, Reject):
        why = answer.why or None
        return requests.reply_permission(request.session_id, request.request_id, "reject", why)
    if isinstance(answer, str) and answer in PERMISSION_ANSWERS:
        return requests.reply_permission(request.session_id, request.request_id, answer)
    expected = ", ".join(map(repr, PERMISSION_ANSWERS))
    raise OpenCodeConfigError(
        f"on_permission answered {answer!r}; expected {expected} or Reject('why')"
    )


def _question_reply(requests: Requests, request: QuestionRequest, answer: object) -> Call[Any]:
    if answer is None or isinstance(answer, Reject):
        return requests.reject_question(request.session_id, request.request_id)
    answers = checked_answers(request.questions, answer)
    return requests.reply_question(request.session_id, request.request_id, answers)


def checked_answers(questions: Sequence[Question], answers: object) -> list[list[str]]:
    """Return the answers if they are possible ones.

    Raises:
        OpenCodeConfigError: they are not one list of labels for each question, name a label that
            is no option (where only options count), or several where one is wanted.
    """
    if not is_sequence(answers):
        raise OpenCodeConfigError(f"expected a list of labels per question, got {answers!r}")
    if len(answers) != len(questions):
        raise OpenCodeConfigError(f"{len(questions)} questions, but {len(answers)} answers")
    pairs = zip(questions, answers, strict=True)
    return [_checked_answer(question, labels) for question, labels in pairs]


def _checked_answer(question: Question, labels: object) -> list[str]:
    where = f"the answer to {question.header or question.question!r}"
    if not is_sequence(labels):
        raise OpenCodeConfigError(f"{where}: expected a list of labels, got {labels!r}")
    texts = [label for label in labels if isinstance(label, str)]
    if strange := [label for label in labels if not isinstance(label, str)]:
        raise OpenCodeConfigError(f"{where}: {strange[0]!r} is not a string")
    options = [option.label for option in question.options]
    unknown = [label for label in texts if label not in options]
    if unknown and options and not question.custom:
        raise OpenCodeConfigError(f"{where}: {unknown[0]!r} is not one of {options}")
    if len(texts) > 1 and not question.multiple:
        raise OpenCodeConfigError(f"{where}: expected one label, got {texts}")
    return texts
