"""The course of a turn: what is heard of it, who is asked meanwhile, and how it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.values import Answer, Attachment
from opencode_trio._server.connection import Connection, copy_of
from opencode_trio._session.abortable_request import AbortableRequest, bounded_end
from opencode_trio._session.event_buffer import EventBuffer
from opencode_trio._session.pending_asks import AskHandlers, PendingAsks, request_of
from opencode_trio._session.remote_turn import RemoteTurn
from opencode_trio._session.turn_reconciler import TurnReconciler, deleted
from opencode_trio._tasks import open_background
from opencode_trio._turn.ending import ANSWERED, PROVIDER_FAILED, RETURNED, error_of_end
from opencode_trio._turn.fold import TurnFold
from opencode_trio._turn.guards import TurnGuard, TurnLimits
from opencode_trio._turn.result import result_of
from opencode_trio._turn.state import TurnState
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
from opencode_trio.results import RunResult, StopReason

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
    call: Call[Answer]
    """What begins it; its answer ends it."""
    files: Sequence[Attachment] = ()
    """What goes with the prompt."""
    handlers: AskHandlers = attrs.field(factory=AskHandlers)
    limits: TurnLimits = attrs.field(factory=TurnLimits)
    fail_if_silent_s: float | None = None
    """The longest time without an event, while neither a human nor the provider is waited for."""
    listened_to: bool = True
    """Whether somebody reads the events."""
    on_event: Callable[[Event], None] | None = None
    """Told each event as it comes; must not wait."""


class RunningTurn:
    """A turn on its way.  Its reader knows it as a `Turn`."""

    def __init__(self, connection: Connection, plan: TurnPlan, tasks: trio.Nursery) -> None:
        self._connection = connection
        self._plan = plan
        self._tasks = tasks
        remote = RemoteTurn(connection, plan.root, plan.directory, plan.message_id)
        former = frozenset(remote.subagents)
        self._state = TurnState(plan.root, plan.message_id, TurnGuard(plan.limits), former)
        self._reconciler = TurnReconciler(remote, self._state, plan.call, plan.files)
        self.asks: PendingAsks = PendingAsks(remote, tasks, plan.handlers, self._fail)
        self.buffer: EventBuffer = EventBuffer()
        if not plan.listened_to:
            self.buffer.close()
        self._began = self._heard = trio.current_time()
        self._result: RunResult | None = None
        self._failure: BaseException | None = None
        self._failure_is_told = False
        self._stop_reason: StopReason | None = None
        self._settled = trio.Event()  # the outcome of the prompt is known
        self._told = trio.Event()  # the reader can be told the end
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
        return max([self.message_id, *self._state.answers])

    @property
    def request(self) -> AbortableRequest[Answer]:
        """What the agent does for it."""
        return self._reconciler.request

    @property
    def result(self) -> RunResult:
        """The result so far; in the end, the final one."""
        if self._result is not None:
            return self._result
        return self._result_of(self._state.fold)

    def check_run(self) -> None:
        """Check that the caller is in the turn's `trio.run`; see `Connection.check_run`."""
        self._connection.check_run()

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
        self._take(event, self._state.take)
        if not isinstance(event, TextDelta):
            self._reconciler.heard()

    def resumed(self) -> None:
        """Fill the gap that the stream has had."""
        self._reconciler.has_gap = True
        self._gaps += 1
        if self._gaps == 1:
            self._tasks.start_soon(self._resync)

    def lost(self, error: OpenCodeServerError) -> None:
        """Fail: nothing more can be heard."""
        self._fail(copy_of(error))

    def _take(self, event: Event, take: Callable[[Event, float], list[Event]]) -> None:
        if self.asks.knows(event):
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
        self.buffer.put(event)
        if self._plan.on_event is not None:
            try:
                self._plan.on_event(event)
            except Exception as exc:  # noqa: BLE001 - it is the user's, and ends this turn alone
                self._fail(exc)

    def _act_on(self, event: Event) -> None:
        match event:
            case PermissionAsked() | QuestionAsked():
                if not self._told.is_set():
                    self.asks.asked(request_of(event, self._state, self._connection))
            case (
                PermissionReplied(request_id=name)
                | QuestionReplied(request_id=name)
                | QuestionRejected(request_id=name)
            ):
                self.asks.settled(name)
            case SessionRetrying(attempt=1, message=said):
                _log.warning(PROVIDER_FAILED, self._state.provider or "of the model", said)
            case SessionDeleted(session_id=self._plan.root):
                # opencode does not always answer the prompt then.
                self._fail(deleted())

    # --- from the prompt to the end --------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Prompt, wait for the answer, and work out the result.  Raises nothing."""
        try:
            await self._run()
        finally:  # or the end would be waited for in vain
            self._settled.set()
        self._finish()

    async def _run(self) -> None:
        await self.request.run()
        try:
            answer = self.request.answer()
            await self._reconciler.settle(answer or Answer())
            if not self._reconciler.is_abandoned:
                await self._reconciler.check_is_there()
                self._reconciler.check_is_taken_up(answer or Answer())
            self._conclude(answer)
            if self._stop_reason not in RETURNED:
                await self._reconciler.clear_up()
        except OpenCodeError as exc:
            reason = await self._reconciler.true_reason(exc)
            self._stop_reason = self._stop_reason or "error"
            self._fail(reason)

    @trio.lowlevel.enable_ki_protection
    async def watch_silence(self, seconds: float) -> None:
        """Fail the turn when nothing has been heard for so long."""
        looked = trio.current_time()
        while not self._told.is_set():
            now = trio.current_time()
            stalled = now - looked > 2 * SILENCE_CHECK_S
            if self.asks.pending or self._state.retrying:
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
                with bounded_end(self.request.remote):
                    # Without its answer nobody knows what a server still does.
                    if not self._settled.is_set() or isinstance(self._failure, OpenCodeServerError):
                        await self.request.end()
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

    def _conclude(self, answer: Answer | None) -> None:
        fold = self._state.fold
        stop = fold.stop_reason or "incomplete"
        is_none = answer is None or answer.is_cut_off
        was_aborted = self._reconciler.is_abandoned or is_none
        if was_aborted and stop not in ANSWERED:
            stop = "cancelled"  # opencode does not always say so
        self._stop_reason = self._stop_reason or stop
        self._result = self._result_of(fold)
        failure = error_of_end(
            stop, fold.last_error, broken_off=_broken_off(), provider=self._state.provider
        )
        if failure is not None:
            self._fail(failure)

    @trio.lowlevel.enable_ki_protection
    async def _resync(self) -> None:
        while self._gaps and not self.request.over.is_set():
            gaps = self._gaps
            try:
                missed = await self._reconciler.missed(lambda: self.asks.pending)
            except OpenCodeError as exc:
                if await self.request.remote.is_deleted():
                    self._fail(deleted())
                    return
                _log.warning("could not read what the event stream missed: %s", exc)
                await trio.sleep(RESYNC_AGAIN_S)
                continue
            if not self.request.over.is_set():  # else all of it is read once more, and that counts
                for event in missed:
                    self._take(event, self._state.take_found)
            self._gaps -= gaps

    def _fail(self, error: BaseException) -> None:
        """Record what ended the turn; the first reason counts."""
        if self._failure is not None or self._reconciler.is_abandoned or self._told.is_set():
            return
        self._failure = error
        if isinstance(error, OpenCodeLimitError):
            self._stop_reason = "limit"
        if isinstance(error, OpenCodeError):
            error.partial = self.result
        self._finish()
        self._abandon()

    def _abandon(self) -> None:
        self._reconciler.is_abandoned = True
        self._abandoned.set()

    def _finish(self) -> None:
        self.buffer.close()
        self.asks.close()
        self._told.set()

    def _result_of(self, fold: TurnFold) -> RunResult:
        duration = trio.current_time() - self._began
        return result_of(fold, stop_reason=self._stop_reason, duration_s=duration)


def _broken_off() -> OpenCodeServerError:
    return OpenCodeServerError("the server ended the turn before it was complete")


@asynccontextmanager
async def open_running_turn(connection: Connection, plan: TurnPlan) -> AsyncGenerator[RunningTurn]:
    """Prompt; when the block is left, the server has finished with it.

    Raises:
        Exception: what failed the turn, if nobody in the block was told.

    **Cancellation**: aborts the turn and its subagents on the server, shielded, in at most
    `STOP_S` seconds.
    """
    async with open_background() as tasks:
        running = RunningTurn(connection, plan, tasks)
        with connection.event_stream.subscribed(plan.root, running):
            tasks.start_soon(running.run)
            tasks.start_soon(running.end_when_abandoned)
            if plan.fail_if_silent_s is not None:
                tasks.start_soon(running.watch_silence, plan.fail_if_silent_s)
            try:
                yield running
            finally:
                await running.stop()
        running.raise_untold()
