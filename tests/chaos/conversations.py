"""Conversations: a session and its turns, one after the other."""

from __future__ import annotations

import math
import os
import signal
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio

from chaos.acts import Conversation, Take
from chaos.check import Report
from chaos.ends import CANCELLED, end_of
from chaos.markers import prompt
from chaos.stage import Place, Stage
from chaos.turns import Call, Player, conclude
from chaos.witness import Witness
from opencode_trio import OpenCodeError, OpenCodeSession, RunConfig, RunResult, Session
from opencode_trio._protocol.v1.routes import delete_session
from opencode_trio._tasks import open_background
from opencode_trio.events import Event


@attrs.define(eq=False)
class Cast:
    """The handlers of a session; each turn has a witness of its own."""

    witness: Witness | None = None

    def take(self, event: Event) -> None:
        if self.witness is not None:
            self.witness.take(event)

    async def answer(self, request: Any) -> Any:
        assert self.witness is not None
        return await self.witness.answer(request)


@attrs.frozen
class Turn(Call):
    """A turn of a session."""

    session: Session
    take: Take = attrs.field(repr=False)
    place: Place | None = attrs.field(repr=lambda place: place.label if place else "own")
    by_hand: bool = False

    async def send(self, timeout_s: float | None) -> RunResult:
        options = self.take.plot.options
        return await self.session.send(prompt(self.take.mark), timeout_s=timeout_s, **options)

    def stream(self, timeout_s: float | None) -> Any:
        options: Any = {**self.take.plot.options, "answer_by_hand": self.by_hand}
        return self.session.stream(prompt(self.take.mark), timeout_s=timeout_s, **options)

    async def abort(self) -> None:
        base = self.place.base if self.place else None
        if base is None:
            await self.session.abort()
            return
        with suppress(OpenCodeError):  # it has been killed
            await base.request("POST", f"/session/{self.session.session_id}/abort")

    async def delete(self) -> None:
        call = delete_session(self.session.session_id)
        base = self.place.base if self.place else None
        link = self.session._connection if base is None else base._connection
        with suppress(OpenCodeError):  # it has been killed
            await link.call(call, self.session.directory)


@attrs.define(eq=False)
class Talk:
    """A conversation under way."""

    stage: Stage
    plan: Conversation
    scope: trio.CancelScope
    cast: Cast = attrs.field(factory=Cast)
    label: str = ""
    """Of its server."""

    async def run(self) -> None:
        began = trio.current_time()
        try:
            async with self.opened() as (session, place):
                began = math.inf
                for take in self.plan.takes:
                    if not await self.play(session, place, take):
                        return
        except trio.Cancelled:
            if began < math.inf:
                await self.fail_to_open(began, CANCELLED, "")
            raise
        except OpenCodeError as exc:
            if began == math.inf:
                raise
            await self.fail_to_open(began, end_of(exc), "".join(traceback.format_exception(exc)))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Session, Place | None]]:
        stage, plan = self.stage, self.plan
        workspace = stage.workspace(plan.workspace)
        handler = self.cast.answer if plan.is_attended else None
        if plan.place == "own":
            async with (
                stage.runs,
                OpenCodeSession(
                    stage.client,
                    workspace,
                    run_cfg=stage.config(),
                    on_permission=handler,
                    on_question=handler,
                ) as own,
                open_background() as tasks,
            ):
                self.label = f"own {plan.number}"
                if plan.kill_at is not None:
                    tasks.start_soon(self._kill, own, plan.kill_at)
                yield own, None
            return
        place = stage.places[plan.place]
        server = await place.current()
        self.label = place.label
        model = f"scripted/{stage.model.model_id}"
        async with server.open_session(
            workspace,
            # A server that somebody else runs: what it was started with is not known.
            run_cfg=RunConfig(model=model) if plan.place == "remote" else None,
            on_permission=handler,
            on_question=handler,
            on_event=self.cast.take,
        ) as session:
            yield session, place

    async def play(self, session: Session, place: Place | None, take: Take) -> bool:
        """Play a turn; say whether the session is there for the next one."""
        stage, began = self.stage, trio.current_time()
        stage.books.open(take.mark, take.plot)
        crash_at = int(take.at) if take.twist == "listener" else None
        witness = Witness(take.mark, take.plot, stage.complain, crash_at)
        self.cast.witness = witness
        by_hand = take.is_streamed and not self.plan.is_attended
        turn = Turn(session, take, place, by_hand)
        player = Player(stage, take, turn, witness, by_hand=by_hand)
        end, result, error = CANCELLED, None, ""
        try:
            end, result, error = await player.play()
        finally:  # also when all of it is cancelled
            witness.is_over = True
            report = Report(
                mark=take.mark,
                twist=take.twist,
                end=end,
                result=result or player.result,
                gusts=self.gusts(began),
                more_ends=self.more_ends(),
                asks=witness.asks if by_hand or self.plan.is_attended else None,
                foreign=frozenset(witness.foreign),
                error=error,
            )
            cut = player.cut_short_at
            if self.scope.cancel_called and trio.current_time() >= self.scope.deadline:
                cut = self.scope.deadline
            with trio.CancelScope(shield=True):
                await conclude(stage, take, report, cut)
        return end not in {"server", "server 404"} and not player.is_deleted

    async def _kill(self, own: OpenCodeSession, seconds: float) -> None:
        await trio.sleep(seconds)
        self.stage.weather.strike("kill", self.label)
        with suppress(ProcessLookupError):
            os.kill(own._connection.pid or 0, signal.SIGKILL)

    async def fail_to_open(self, began: float, end: str, error: str) -> None:
        take = self.plan.takes[0]
        self.stage.books.open(take.mark, take.plot)
        report = Report(
            mark=take.mark,
            twist="none",
            end=end,
            gusts=self.gusts(began),
            more_ends=self.more_ends(),
            has_begun=False,
            error=error,
        )
        with trio.CancelScope(shield=True):
            await conclude(self.stage, take, report, None)

    def gusts(self, began: float) -> frozenset[str]:
        return self.stage.weather.met(self.label, began, trio.current_time())

    def more_ends(self) -> frozenset[str]:
        return frozenset() if self.plan.cut_at is None else frozenset({CANCELLED})


async def converse(stage: Stage, plan: Conversation) -> None:
    """Play a conversation."""
    cut_at = math.inf if plan.cut_at is None else trio.current_time() + plan.cut_at
    with trio.CancelScope(deadline=cut_at) as scope:
        await Talk(stage, plan, scope).run()
