"""`Turn`: one prompt and everything that comes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import chain, count
from typing import Any

import attrs
import trio

from opencode_trio._ask_desk import AskDesk, Handlers
from opencode_trio._background import open_background
from opencode_trio._bus_wire import message_events
from opencode_trio._endpoints import Call
from opencode_trio._fold import TurnFold
from opencode_trio._json import Json, object_of, text_of
from opencode_trio._link import Link, copied
from opencode_trio._live import LiveTurn
from opencode_trio._mailbox import Mailbox
from opencode_trio._reconcile import settle
from opencode_trio._stored import StoredTurn, is_whole_turn
from opencode_trio._tree_guard import Limits, TreeGuard
from opencode_trio._turn import ANSWERED, RETURNED, StopReason
from opencode_trio._verdict import turn_error, verdict
from opencode_trio.asks import AskRequest, PermissionRequest, QuestionRequest
from opencode_trio.errors import OpenCodeError, OpenCodeLimitError, OpenCodeServerError
from opencode_trio.events import (
    Event,
    PermissionAsked,
    PermissionReplied,
    QuestionAsked,
    QuestionRejected,
    QuestionReplied,
    SessionDeleted,
    TextDelta,
)
from opencode_trio.results import RunResult, result_of

_log = logging.getLogger("opencode_trio")

CATCH_UP_S = 5.0
"""How long the stream may lag behind the answer.  It is milliseconds, unless the server has more to do
than it can: it answers first, then, and tells later, in order.  Less than `STOP_S`, for who leaves
meanwhile waits for this."""

DRY_S = 1.0
"""A stream that has told nothing of anybody for so long does not lag.  It is broken, and what it would
have told is read from what is stored, which costs a busy server more than the wait."""

STOP_S = 10.0
"""From the abort of a turn to the end of a server that does not obey.  It takes a tenth of a second,
and up to half a minute only when the server itself is stuck."""

ABORT_AGAIN_S = 0.25
"""An abort can overtake the prompt that it shall abort, and then does nothing: say it again."""

UNANSWERED_S = 1.0
"""How long a session must be idle before a prompt that was aborted is taken to be over without an
answer: releases before 1.14 give none when they are aborted in the midst of a tool."""

PROMPT_ATTEMPTS = 3
"""A prompt that has not arrived is sent again, under the same id."""

ARRIVES_S = 0.2
"""What is on its way when a connection breaks is stored after this, or never."""

RESYNC_AGAIN_S = 1.0
"""Between attempts to read what a broken stream has missed: an ask may be among it."""

SILENCE_CHECK_S = 1.0
"""How late the end of a wait for a human or a provider may be noticed."""


@attrs.frozen
class TurnPlan:
    """Everything that one turn needs, as values."""

    root: str
    """The session."""
    directory: str
    message_id: str
    """The user's message, which begins the turn."""
    call: Call[Json]
    """What begins it; its answer ends it."""
    handlers: Handlers = attrs.field(factory=Handlers)
    limits: Limits = attrs.field(factory=Limits)
    fail_if_silent_s: float | None = None
    """The longest time without an event, while neither a human nor the provider is waited for."""
    listened_to: bool = True
    """Whether somebody reads the events."""
    on_event: Callable[[Event], None] | None = None
    """Told each event as it comes; must not wait."""


class Turn(trio.abc.ReceiveChannel[Event]):
    """A running turn: its events as they come, and its result.

    Iterate over it, or `wait` for its end.  A reader who is slow loses no text and holds up nobody:
    what has not been read is joined, and in the end dropped (see `Diagnostic` of kind ``lagged``).
    """

    def __init__(self, link: Link, plan: TurnPlan, tasks: trio.Nursery) -> None:
        self._link = link
        self._plan = plan
        self._tasks = tasks
        self._live = LiveTurn(plan.root, plan.message_id, TreeGuard(plan.limits))
        self._stored = StoredTurn(link, plan.root, plan.directory, plan.message_id)
        self._desk = AskDesk(self._stored.call, tasks, plan.handlers, self._fail)
        self._mailbox = Mailbox()
        if not plan.listened_to:
            self._mailbox.close()
        self._began = self._heard = trio.current_time()
        self._result: RunResult | None = None
        self._failure: BaseException | None = None
        self._failure_is_told = False
        self._stop_reason: StopReason | None = None
        self._had_gap = False
        self._is_left = False
        self._prompting = trio.CancelScope()
        self._answered = trio.Event()  # the prompt has its answer
        self._settled = trio.Event()  # and it is known what came of it
        self._told = trio.Event()  # whoever waits can be told the end
        self._moved = trio.Event()  # replaced with each event that may end a wait

    # --- for the user ---------------------------------------------------------------------

    @property
    def result(self) -> RunResult:
        """The result so far; after the block, the final one."""
        if self._result is not None:
            return self._result
        return self._result_of(self._live.fold)

    @property
    def message_id(self) -> str:
        """The id of the user's message."""
        return self._plan.message_id

    @property
    def pending_asks(self) -> list[AskRequest]:
        """What waits for an answer, the oldest first."""
        return self._desk.pending

    @property
    def latest_message_id(self) -> str:
        """The newest message that the session is known to have."""
        return max([self.message_id, *self._live.answers])

    def is_handled_by(self, task: trio.lowlevel.Task) -> bool:
        """Say whether a task answers one of the turn's asks."""
        return task in self._desk.handler_tasks

    def result_at_timeout(self) -> RunResult:
        """Return the result of a turn whose time was up."""
        return attrs.evolve(self.result, stop_reason="timeout")

    async def receive(self) -> Event:
        """Return the next event.

        Raises:
            trio.EndOfChannel: the turn is over, and its result is complete.
            OpenCodeTurnError: the model or its provider failed.
            OpenCodeLimitError: a guard ended the turn.
            OpenCodeServerError: the server failed, or went away.
            OpenCodeCancelledError: somebody aborted the turn.
            Exception: whatever a handler raised.

        **Cancellation**: loses no event.
        """
        try:
            return await self._mailbox.take()
        except trio.EndOfChannel:
            await self._told.wait()
            self._raise_failure()
            raise

    async def wait(self) -> RunResult:
        """Wait for the end of the turn; return its result.

        Raises:
            OpenCodeError: as in `receive`.

        **Cancellation**: harmless; leaving the turn's block is what aborts it.
        """
        await self._told.wait()
        self._raise_failure()
        return self.result

    async def answer(self, ask: PermissionAsked | QuestionAsked | AskRequest, answer: Any) -> None:
        """Answer a request for permission, or a question, by hand.

        Args:
            ask: the event that asked, or one of `pending_asks`.
            answer: as a handler would give it.

        Raises:
            OpenCodeConfigError: this is no possible answer; the request still waits.
            KeyError: it does not wait for an answer (any more).
        """
        await self._desk.answer(ask.request_id, answer)

    async def aclose(self) -> None:
        """Read no more events.  Leaving the turn's block ends it."""
        self._mailbox.close()
        await trio.lowlevel.checkpoint()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._failure_is_told = True
            raise self._failure

    # --- for the bus; none of these waits ---------------------------------------------------

    def deliver(self, event: Event) -> None:
        """Take an event of the session's tree."""
        self._heard = trio.current_time()
        try:
            shown = self._live.take(event, time.time())
        except OpenCodeLimitError as exc:
            shown = [event]
            self._fail(exc)
        for item in shown:
            self._show(item)
        if not isinstance(event, TextDelta):  # nine in ten are, and settle nothing
            self._act_on(event)
            self._moved.set()
            self._moved = trio.Event()

    def resumed(self) -> None:
        """Fill the gap that the stream has had."""
        self._had_gap = True
        self._tasks.start_soon(self._resync)

    def lost(self, error: OpenCodeServerError) -> None:
        """Fail: nothing more can be heard."""
        self._fail(copied(error))

    def _show(self, event: Event) -> None:
        self._mailbox.put(event)
        if self._plan.on_event is not None:
            try:
                self._plan.on_event(event)
            except Exception as exc:  # noqa: BLE001 - it is the user's, and ends this turn alone
                self._fail(exc)

    def _act_on(self, event: Event) -> None:
        match event:
            case PermissionAsked() | QuestionAsked():
                if not self._told.is_set():
                    self._desk.asked(self._request(event))
            case (
                PermissionReplied(request_id=name)
                | QuestionReplied(request_id=name)
                | QuestionRejected(request_id=name)
            ):
                self._desk.settled(name)
            case SessionDeleted(session_id=self._plan.root):
                # opencode does not always answer the prompt then.
                self._fail(OpenCodeServerError("somebody deleted the session", status_code=404))

    def _request(self, event: PermissionAsked | QuestionAsked) -> AskRequest:
        tree = self._link.bus.tree
        session = event.session_id or ""
        common: dict[str, Any] = {
            "request_id": event.request_id,
            "session_id": session,
            "parent_id": None if session == self._plan.root else tree.parent_of(session),
            "depth": tree.depth(session, self._plan.root),
            "agent": self._live.agents.get(session) or tree.agent_of(session),
            "raw": object_of((object_of(event.raw.get("payload")) or event.raw).get("properties")),
        }
        if isinstance(event, QuestionAsked):
            return QuestionRequest(**common, questions=event.questions)
        return PermissionRequest(
            **common,
            tool=self._live.tools.get(event.call_id or "") or event.permission,
            permission=event.permission,
            patterns=event.patterns,
            always=event.always,
            metadata=event.metadata,
        )

    # --- the way of a turn -------------------------------------------------------------------

    async def run(self) -> None:
        """Prompt, wait for the answer, and find out what came of it.  Raises nothing."""
        try:
            answer: Json = {}
            with self._prompting:
                answer = await self._ask()
            self._answered.set()
            await self._conclude(answer)
        except OpenCodeServerError as exc:
            self._answered.set()
            await self._explain(exc)
        self._settled.set()
        self._finish()

    async def watch_silence(self, seconds: float) -> None:
        """Fail the turn when nothing has been heard for so long."""
        while not self._told.is_set():
            if self._desk.pending or self._live.retrying:
                self._heard = trio.current_time()
            left = self._heard + seconds - trio.current_time()
            if left <= 0:
                text = f"nothing was heard of the turn for fail_if_silent={seconds:g} s"
                self._fail(OpenCodeLimitError(text, limit="fail_if_silent", allowed=seconds))
            await trio.sleep(min(max(left, 0), SILENCE_CHECK_S))

    async def stop(self) -> None:
        """End the turn on the server and wait until it has; shielded, and bounded.

        What has not been answered is aborted.  A server of ours that does not obey is ended.
        """
        self._is_left = True
        with trio.move_on_after(STOP_S, shield=True) as scope:
            if not self._settled.is_set():
                await self._abort()
        if scope.cancelled_caught:
            self._link.condemn(f"it did not abort {self._plan.root} within {STOP_S:g} s")
        self._finish()
        if isinstance(self._failure, OpenCodeError):
            self._failure.partial = self.result

    def raise_untold(self) -> None:
        """Raise what ended the turn, if nobody has been told."""
        if not self._failure_is_told:
            self._raise_failure()

    async def _ask(self) -> Json:
        for attempt in count(1):
            try:
                return await self._stored.call(self._plan.call)
            except OpenCodeServerError as exc:
                if exc.status_code is not None or self._link.failure is not None:
                    raise
                # Only the connection has broken, on its long way through a proxy for example.
                _log.warning("lost the answer, looking after the turn instead: %s", exc)
                await trio.sleep(ARRIVES_S)
                await self._stored.wait_idle()
                if await self._stored.exists():
                    break
                if attempt == PROMPT_ATTEMPTS:
                    raise
        self._had_gap = True
        return {}

    async def _conclude(self, answer: Json) -> None:
        await self._catch_up(answer)
        if self._had_gap:
            await self._stored.find_subagents()
        known = self._live.answers
        whole = not self._had_gap and is_whole_turn(answer, self.message_id, known)
        turn = [answer] if whole else await self._stored.messages(len(known))
        subagents = await self._stored.subagent_messages()
        fold = self._live.fold
        settle(fold, turn, subagents)
        stop = fold.stop_reason or "incomplete"
        if self._is_left and stop not in ANSWERED:
            stop = "cancelled"  # some releases do not say so
        self._stop_reason = self._stop_reason or stop
        self._result = self._result_of(fold)
        if stop not in RETURNED:
            await self._stored.forget_compactions(len(known))
        if (failure := verdict(stop, fold.last_error, broken_off=_broken_off())) is not None:
            self._fail(failure)

    async def _explain(self, error: OpenCodeServerError) -> None:
        """Fail with the true reason, which for a prompt that cannot run only the stream tells."""
        refused = error.status_code is not None and self._link.bus.is_connected
        if refused:
            with trio.move_on_after(DRY_S):
                while not self._live.errors:
                    await self._moved.wait()
        self._stop_reason = self._stop_reason or "error"
        self._fail(turn_error(self._live.errors[-1]) if refused and self._live.errors else error)

    async def _catch_up(self, answer: Json) -> None:
        """Wait until the stream has told what the answer tells."""
        message = text_of(object_of(answer.get("info")), "id")
        if message <= self.message_id:
            return  # aborted before the agent said anything: this is of a former turn
        with trio.move_on_after(DRY_S if self._is_left else CATCH_UP_S):
            while message not in self._live.complete and await self._hears():
                pass
        # What it has not told of the answer, it may not have told of subagents either.
        self._had_gap = self._had_gap or message not in self._live.complete

    async def _hears(self) -> bool:
        """Wait for an event of the turn; say whether the stream tells of anything at all."""
        bus = self._link.bus
        told = bus.counts.events
        with trio.move_on_after(DRY_S if bus.is_connected else 0):
            await self._moved.wait()
        return bus.counts.events > told

    async def _resync(self) -> None:
        while not self._told.is_set():
            try:
                await self._read_missed()
            except OpenCodeServerError as exc:
                _log.warning("could not read what the event stream missed: %s", exc)
                await trio.sleep(RESYNC_AGAIN_S)
            else:
                return

    async def _read_missed(self) -> None:
        await self._stored.find_subagents()
        subagents = await self._stored.subagent_messages()
        turn = await self._stored.messages()
        asks = await self._stored.asks()
        self._live.has_begun = self._live.has_begun or bool(turn)
        for message in [*chain.from_iterable(subagents.values()), *turn]:
            for event in message_events(message):
                self._live.fold.fold(event)
                self._mailbox.put(event)
        for ask in asks:
            self._mailbox.put(ask)
            self._act_on(ask)

    async def _abort(self) -> None:
        idle_until = trio.current_time() + UNANSWERED_S
        while not self._answered.is_set() and self._link.failure is None:
            await self._stored.abort()
            if not (self._live.has_begun and await self._stored.is_idle()):
                idle_until = trio.current_time() + UNANSWERED_S
            elif trio.current_time() > idle_until:
                self._prompting.cancel()
            with trio.move_on_after(ABORT_AGAIN_S):
                await self._answered.wait()
        if self._link.failure is None:
            await self._stored.wait_idle(abort=True)
            await self._settled.wait()

    def _fail(self, error: BaseException) -> None:
        """Record what ended the turn; the first reason counts."""
        if self._failure is not None or self._is_left or self._told.is_set():
            return
        self._failure = error
        if isinstance(error, OpenCodeLimitError):
            self._stop_reason = "limit"
        if isinstance(error, OpenCodeError):
            error.partial = self.result
        self._finish()

    def _finish(self) -> None:
        self._mailbox.close()
        self._desk.close()
        self._told.set()

    def _result_of(self, fold: TurnFold) -> RunResult:
        duration = trio.current_time() - self._began
        return result_of(fold, stop_reason=self._stop_reason, duration_s=duration)


def _broken_off() -> OpenCodeServerError:
    return OpenCodeServerError("the server ended the turn in the middle of it")


@asynccontextmanager
async def open_turn(link: Link, plan: TurnPlan) -> AsyncGenerator[Turn]:
    """Prompt; when the block is left, the server has finished with it.

    Raises:
        Exception: what failed the turn, if nobody in the block was told.

    **Cancellation**: aborts the turn and its subagents on the server, shielded, in at most
    `STOP_S` seconds.
    """
    async with open_background() as tasks:
        turn = Turn(link, plan, tasks)
        with link.bus.subscribed(plan.root, turn):
            tasks.start_soon(turn.run)
            if plan.fail_if_silent_s is not None:
                tasks.start_soon(turn.watch_silence, plan.fail_if_silent_s)
            try:
                yield turn
            finally:
                await turn.stop()
        turn.raise_untold()
