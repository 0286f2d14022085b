"""The course of a turn: what is heard of it, who is asked meanwhile, and how it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from opencode_trio._ask_desk import AskDesk, Handlers
from opencode_trio._asked import request_of
from opencode_trio._background import open_background
from opencode_trio._endpoints import Call
from opencode_trio._exchange import Exchange, deleted
from opencode_trio._fold import TurnFold
from opencode_trio._json import Json
from opencode_trio._link import Link, copied
from opencode_trio._live import LiveTurn
from opencode_trio._mailbox import Mailbox
from opencode_trio._reconcile import is_cut_off
from opencode_trio._stored import StoredTurn
from opencode_trio._tree_guard import Limits, TreeGuard
from opencode_trio._turn import ANSWERED, RETURNED, StopReason
from opencode_trio._verdict import PROVIDER_FAILED, verdict
from opencode_trio._work import Work, ended_in_time
from opencode_trio.errors import OpenCodeError, OpenCodeLimitError, OpenCodeServerError
from opencode_trio.events import (
    Event,
    PermissionAsked,
    PermissionReplied,
    QuestionAsked,
    QuestionRejected,
    QuestionReplied,
    SessionDeleted,
    SessionRetrying,
    TextDelta,
)
from opencode_trio.results import RunResult, result_of

_log = logging.getLogger("opencode_trio")

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


class Course:
    """A turn on its way.  Its reader knows it as a `Turn`."""

    def __init__(self, link: Link, plan: TurnPlan, tasks: trio.Nursery) -> None:
        self._link = link
        self._plan = plan
        self._tasks = tasks
        stored = StoredTurn(link, plan.root, plan.directory, plan.message_id)
        former = frozenset(stored.subagents)
        self._live = LiveTurn(plan.root, plan.message_id, TreeGuard(plan.limits), former)
        self._exchange = Exchange(stored, self._live, plan.call)
        self.desk: AskDesk = AskDesk(stored.call, tasks, plan.handlers, self._fail)
        self.mailbox: Mailbox = Mailbox()
        if not plan.listened_to:
            self.mailbox.close()
        self._began = self._heard = trio.current_time()
        self._result: RunResult | None = None
        self._failure: BaseException | None = None
        self._failure_is_told = False
        self._stop_reason: StopReason | None = None
        self._settled = trio.Event()  # it is known what came of the prompt
        self._told = trio.Event()  # whoever waits can be told the end
        self._gaps: int = 0  # of the stream, that are being filled
        self._abandoned = trio.Event()  # nobody wants what the agent still does
        self._ended = trio.Event()  # the server has finished with it

    @property
    def message_id(self) -> str:
        """The id of the user's message."""
        return self._plan.message_id

    @property
    def latest_message_id(self) -> str:
        """The newest message that the session is known to have."""
        return max([self.message_id, *self._live.answers])

    @property
    def work(self) -> Work[Json]:
        """What the agent does for it."""
        return self._exchange.work

    @property
    def result(self) -> RunResult:
        """The result so far; in the end, the final one."""
        if self._result is not None:
            return self._result
        return self._result_of(self._live.fold)

    def check_run(self) -> None:
        """Check that the caller is in the turn's `trio.run`; see `Link.check_run`."""
        self._link.check_run()

    async def wait_told(self) -> None:
        """Wait for the end, and raise what failed the turn."""
        await self._told.wait()
        if self._failure is not None:
            self._failure_is_told = True
            raise self._failure

    # --- for the bus; none of these waits ---------------------------------------------------

    def deliver(self, event: Event) -> None:
        """Take an event of the session's tree."""
        self._heard = trio.current_time()
        self._take(event, self._live.take)
        if not isinstance(event, TextDelta):
            self._exchange.heard()

    def resumed(self) -> None:
        """Fill the gap that the stream has had."""
        self._exchange.has_gap = True
        self._gaps += 1
        if self._gaps == 1:
            self._tasks.start_soon(self._resync)

    def lost(self, error: OpenCodeServerError) -> None:
        """Fail: nothing more can be heard."""
        self._fail(copied(error))

    def _take(self, event: Event, take: Callable[[Event, float], list[Event]]) -> None:
        if self.desk.knows(event):
            return
        excess: OpenCodeLimitError | None = None
        try:
            shown = take(event, time.time())
        except OpenCodeLimitError as exc:
            shown, excess = [event], exc
        if isinstance(event, PermissionAsked | QuestionAsked):
            shown = [event]  # also of a turn that is not yet known to have begun: it is to answer
        for item in shown:
            self._show(item)
        if excess is not None:
            self._fail(excess)
        if not isinstance(event, TextDelta):  # nine in ten are, and settle nothing
            self._act_on(event)

    def _show(self, event: Event) -> None:
        self.mailbox.put(event)
        if self._plan.on_event is not None:
            try:
                self._plan.on_event(event)
            except Exception as exc:  # noqa: BLE001 - it is the user's, and ends this turn alone
                self._fail(exc)

    def _act_on(self, event: Event) -> None:
        match event:
            case PermissionAsked() | QuestionAsked():
                if not self._told.is_set():
                    self.desk.asked(request_of(event, self._live, self._link.bus.tree))
            case (
                PermissionReplied(request_id=name)
                | QuestionReplied(request_id=name)
                | QuestionRejected(request_id=name)
            ):
                self.desk.settled(name)
            case SessionRetrying(attempt=1, message=said):
                _log.warning(PROVIDER_FAILED, self._live.provider or "of the model", said)
            case SessionDeleted(session_id=self._plan.root):
                # opencode does not always answer the prompt then.
                self._fail(deleted())

    # --- from the prompt to the end --------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Prompt, wait for the answer, and find out what came of it.  Raises nothing."""
        try:
            await self._run()
        finally:  # or the end would be waited for in vain
            self._settled.set()
        self._finish()

    async def _run(self) -> None:
        await self.work.run()
        try:
            answer = self.work.answer()
            await self._exchange.settle(answer or {})
            if not self._exchange.is_left:
                await self._exchange.check_is_there()
                self._exchange.check_is_taken_up(answer or {})
            self._conclude(answer)
            if self._stop_reason not in RETURNED:
                await self._exchange.clear_up()
        except OpenCodeError as exc:
            reason = await self._exchange.true_reason(exc)
            self._stop_reason = self._stop_reason or "error"
            self._fail(reason)

    @trio.lowlevel.enable_ki_protection
    async def watch_silence(self, seconds: float) -> None:
        """Fail the turn when nothing has been heard for so long."""
        looked = trio.current_time()
        while not self._told.is_set():
            now = trio.current_time()
            stalled = now - looked > 2 * SILENCE_CHECK_S
            if self.desk.pending or self._live.retrying:
                self._heard = now
            elif stalled:  # by this program, not by the agent: what was told meanwhile comes now
                self._heard += now - looked
            looked = now
            left = self._heard + seconds - now
            if left <= 0:
                text = f"stopped: no event of the turn arrived for {seconds:g} s (fail_if_silent)"
                self._fail(OpenCodeLimitError(text, limit="fail_if_silent", allowed=seconds))
                return
            await trio.sleep(min(max(left, 0), SILENCE_CHECK_S))

    @trio.lowlevel.enable_ki_protection
    async def end_when_abandoned(self) -> None:
        """End the turn on the server once it has failed, however slowly it is read, or is left.

        What has not been answered is aborted.  A server of ours that does not obey is ended.
        """
        try:
            await self._abandoned.wait()
        finally:  # also when another of the turn's tasks has crashed: `stop` waits for this one
            try:
                with ended_in_time(self.work.stored):
                    # Without its answer nobody knows what a server still does.
                    if not self._settled.is_set() or isinstance(self._failure, OpenCodeServerError):
                        await self.work.end()
                        await self._settled.wait()
            finally:
                self._ended.set()

    async def stop(self) -> None:
        """Leave the turn, and wait until the server has finished with it; shielded, and bounded."""
        self._abandon()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        self._finish()
        if isinstance(self._failure, OpenCodeError):
            self._failure.partial = self.result

    def raise_untold(self) -> None:
        """Raise what ended the turn, if nobody has been told."""
        if self._failure is not None and not self._failure_is_told:
            raise self._failure

    def _conclude(self, answer: Json | None) -> None:
        fold = self._live.fold
        stop = fold.stop_reason or "incomplete"
        is_none = answer is None or is_cut_off(answer, self.message_id)
        was_aborted = self._exchange.is_left or is_none
        if was_aborted and stop not in ANSWERED:
            stop = "cancelled"  # opencode does not always say so
        self._stop_reason = self._stop_reason or stop
        self._result = self._result_of(fold)
        failure = verdict(
            stop, fold.last_error, broken_off=_broken_off(), provider=self._live.provider
        )
        if failure is not None:
            self._fail(failure)

    @trio.lowlevel.enable_ki_protection
    async def _resync(self) -> None:
        while self._gaps and not self.work.over.is_set():
            gaps = self._gaps
            try:
                missed = await self._exchange.missed(lambda: self.desk.pending)
            except OpenCodeError as exc:
                if await self.work.stored.is_deleted():
                    self._fail(deleted())
                    return
                _log.warning("could not read what the event stream missed: %s", exc)
                await trio.sleep(RESYNC_AGAIN_S)
                continue
            if not self.work.over.is_set():  # else all of it is read once more, and that counts
                for event in missed:
                    self._take(event, self._live.take_found)
            self._gaps -= gaps

    def _fail(self, error: BaseException) -> None:
        """Record what ended the turn; the first reason counts."""
        if self._failure is not None or self._exchange.is_left or self._told.is_set():
            return
        self._failure = error
        if isinstance(error, OpenCodeLimitError):
            self._stop_reason = "limit"
        if isinstance(error, OpenCodeError):
            error.partial = self.result
        self._finish()
        self._abandon()

    def _abandon(self) -> None:
        self._exchange.is_left = True
        self._abandoned.set()

    def _finish(self) -> None:
        self.mailbox.close()
        self.desk.close()
        self._told.set()

    def _result_of(self, fold: TurnFold) -> RunResult:
        duration = trio.current_time() - self._began
        return result_of(fold, stop_reason=self._stop_reason, duration_s=duration)


def _broken_off() -> OpenCodeServerError:
    return OpenCodeServerError("the server ended the turn before it was complete")


@asynccontextmanager
async def open_course(link: Link, plan: TurnPlan) -> AsyncGenerator[Course]:
    """Prompt; when the block is left, the server has finished with it.

    Raises:
        Exception: what failed the turn, if nobody in the block was told.

    **Cancellation**: aborts the turn and its subagents on the server, shielded, in at most
    `STOP_S` seconds.
    """
    async with open_background() as tasks:
        course = Course(link, plan, tasks)
        with link.bus.subscribed(plan.root, course):
            tasks.start_soon(course.run)
            tasks.start_soon(course.end_when_abandoned)
            if plan.fail_if_silent_s is not None:
                tasks.start_soon(course.watch_silence, plan.fail_if_silent_s)
            try:
                yield course
            finally:
                await course.stop()
        course.raise_untold()
