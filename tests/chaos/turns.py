"""Turns: how one is played, whatever is done to it, and brought to the checker."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import trio

from chaos.acts import Take
from chaos.check import Report, complaints
from chaos.ends import CANCELLED, LEFT, BodyError, SiblingError, end_of
from chaos.stage import Stage
from chaos.witness import BY_HAND, Witness
from opencode_trio import OpenCodeError, RunResult
from opencode_trio.events import Event, PermissionAsked, QuestionAsked

QUIET_S = 10.0
"""From the end of a turn until the model has no request of it any more.  It is milliseconds; the
machine may be busy."""

Stream: Any = trio.abc.ReceiveChannel[Event]


class Call:
    """Opens what a take plays in: a session's turn, or a run."""

    async def send(self, timeout_s: float | None) -> RunResult:
        """Play it to its end."""
        raise NotImplementedError

    def stream(self, timeout_s: float | None) -> Any:
        """Open it as a stream, whose ``result`` is final after the block."""
        raise NotImplementedError

    async def abort(self) -> None:
        """Have somebody else abort it."""
        raise NotImplementedError

    async def delete(self) -> None:
        """Have somebody else delete its session."""
        raise NotImplementedError


@attrs.define(eq=False)
class Player:
    """Plays one take.

    Args:
        stage: where.
        take: what.
        call: how.
        witness: sees it.
    """

    stage: Stage
    take: Take
    call: Call
    witness: Witness
    cut_short_at: float | None = None
    """When our own cancellation was, or would have been."""
    result: RunResult | None = None
    by_hand: bool = False
    """Whether the reader answers what is asked."""
    is_deleted: bool = False
    """Whether its session may have been deleted."""

    async def play(self) -> tuple[str, RunResult | None, str]:
        """Play it; return its end, its result or what there is of it, and its error in full."""
        self.stage.note(f"{self.take.mark} {self.take.plot_name}, {self.take.twist}: {self.call}")
        try:
            outcome = await TWISTS[self.take.twist](self)
        except Exception as exc:
            text = "".join(traceback.format_exception(exc))[-6000:]
            partial = exc.partial if isinstance(exc, OpenCodeError) else self.result
            return end_of(exc), partial, text
        if isinstance(outcome, str):
            return outcome, self.result, ""
        return end_of(outcome), outcome, ""

    async def run(self, timeout_s: float | None = None) -> RunResult | str:
        """Play it without a twist."""
        if not self.take.is_streamed:
            return await self.call.send(timeout_s)
        twist = self.take.twist
        number = 0
        stream = None
        try:
            async with self.call.stream(timeout_s) as stream:
                async for event in stream:
                    self.witness.see(event)
                    number += 1
                    if self.by_hand:
                        await self._answer(stream, event)
                    if twist in {"break", "body error"} and number >= self.take.at:
                        self.cut_short_at = trio.current_time()
                        if twist == "body error":
                            raise BodyError(self.take.mark)
                        break
                    if self.take.reader_s:
                        await trio.sleep(self.take.reader_s)
                else:
                    twist = "none"
        finally:
            self.result = stream.result if stream is not None else None
        assert stream is not None
        result: RunResult = stream.result
        return LEFT if twist == "break" else result

    async def _answer(self, stream: Any, event: Event) -> None:
        if isinstance(event, PermissionAsked | QuestionAsked):
            self.witness.asks += 1
            await stream.answer(event, BY_HAND[self.take.plot.handler](event))

    async def in_scope(self) -> RunResult | str:
        outcome: RunResult | str = CANCELLED
        self.cut_short_at = trio.current_time() + self.take.at
        with trio.CancelScope(deadline=self.cut_short_at) as scope:
            outcome = await self.run()
        return CANCELLED if scope.cancelled_caught else outcome

    async def in_time(self) -> RunResult | str:
        self.cut_short_at = trio.current_time() + self.take.at
        return await self.run(timeout_s=self.take.at)

    async def beside_a_sibling(self) -> RunResult | str:
        outcome: RunResult | str = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._crash)
                outcome = await self.run()
                nursery.cancel_scope.cancel()
        except* SiblingError:
            outcome = outcome or SiblingError.end
        except* Exception as group:  # it failed at the same moment, and that is its end
            raise group.exceptions[0] from None
        return outcome

    async def _crash(self) -> None:
        self.cut_short_at = trio.current_time() + self.take.at
        await trio.sleep(self.take.at)
        raise SiblingError(self.take.mark)

    async def among_others(self) -> RunResult | str:
        return await self._beside(self._be_aborted)

    async def without_session(self) -> RunResult | str:
        return await self._beside(self._be_deleted)

    async def _beside(self, other: Callable[[], Awaitable[None]]) -> RunResult | str:
        outcome: RunResult | str = ""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            try:
                outcome = await self.run()
            except Exception as exc:
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return outcome

    async def _be_aborted(self) -> None:
        await self.stage.books.account(self.take.mark).asked.wait()
        await trio.sleep(self.take.at)
        while True:
            with trio.CancelScope(shield=True):  # or it would hit the session's next turn
                await self.call.abort()
            await trio.sleep(1)

    async def _be_deleted(self) -> None:
        await self.stage.books.account(self.take.mark).asked.wait()
        await trio.sleep(self.take.at)
        self.is_deleted = True
        await self.call.delete()


TWISTS: Mapping[str, Callable[[Player], Awaitable[RunResult | str]]] = {
    "none": Player.run,
    "cancel scope": Player.in_scope,
    "time limit": Player.in_time,
    "break": Player.run,
    "body error": Player.run,
    "sibling": Player.beside_a_sibling,
    "listener": Player.run,
    "third party": Player.among_others,
    "deletion": Player.without_session,
}


async def conclude(stage: Stage, take: Take, report: Report, cut_short_at: float | None) -> None:
    """Wait until a turn is quiet, check it, and count it."""
    left = trio.current_time()
    with trio.move_on_after(QUIET_S, shield=True) as scope:
        while not stage.books.is_quiet(take.mark):
            await trio.sleep(0.01)
    if scope.cancelled_caught:
        stage.complain(f"{take.mark}: the model still answers {QUIET_S:g} s after its end")
    stage.books.close(take.mark)
    if cut_short_at is not None and report.end in CUT_SHORT:
        stage.tally.took("cancelled, until the call was left", left - cut_short_at)
        quiet = trio.current_time() - cut_short_at
        stage.tally.took("cancelled, until the model was quiet", quiet)
    entries = stage.books.entries(take.mark)
    for text in complaints(report, take.plot, entries, stage.model.prices):
        stage.complain(text)
    count(stage, take, report)


CUT_SHORT = {CANCELLED, LEFT, "timeout", "body", "sibling"}


def count(stage: Stage, take: Take, report: Report) -> None:
    """Count how a turn ended, for each thing that happened to it."""
    stage.tally.count("turns", report.end)
    stage.note(f"{take.mark} {take.plot_name}, {take.twist}: ended as {report.end}")
    for fault in (f"plot: {take.plot_name}", f"twist: {take.twist}", *_gusts(report)):
        stage.tally.end(fault, report.end)


def _gusts(report: Report) -> list[str]:
    return [f"gust: {name}" for name in sorted(report.gusts)]
