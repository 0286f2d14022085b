"""Swarms: agents with twists and limits of their own, some of them on servers that are killed."""

from __future__ import annotations

import math
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import attrs
import trio

from chaos.acts import AgentPlan, SwarmPlan
from chaos.check import Report
from chaos.ends import CANCELLED, end_of
from chaos.markers import prompt
from chaos.stage import Stage
from chaos.turns import conclude
from chaos.witness import Witness
from opencode_trio import Agent, AgentTask, Outcome, RunConfig, Swarm, open_swarm
from opencode_trio.events import Event


@attrs.define(eq=False)
class Show:
    """A swarm under way."""

    stage: Stage
    plan: SwarmPlan
    witnesses: dict[str, Witness] = attrs.field(factory=dict)
    swarm: Swarm | None = None
    label: str = ""
    """Of the server that it was given."""
    has_killed: bool = False
    began: float = attrs.field(factory=trio.current_time)

    @property
    def agents(self) -> tuple[AgentPlan, ...]:
        """The best of several is chosen among equals."""
        return self.plan.agents[:1] if self.plan.way == "best of" else self.plan.agents

    async def run(self, scope: trio.CancelScope) -> None:
        for agent in self.agents:
            take = agent.take
            self.stage.books.open(take.mark, take.plot)
            crash_at = int(take.at) if take.twist == "listener" else None
            self.witnesses[take.mark] = Witness(take.mark, take.plot, self.stage.complain, crash_at)
        try:
            await self._open()
        except* Exception as group:
            self._check_group(group)
        finally:
            for witness in self.witnesses.values():
                witness.is_over = True
            with trio.CancelScope(shield=True):
                await self._conclude(scope)

    async def _open(self) -> None:
        stage, plan = self.stage, self.plan
        source: Any = stage.client
        cfg = stage.config()
        if plan.place != "client":
            source = await stage.places[plan.place].current()
            self.label = stage.places[plan.place].label
            cfg = RunConfig(model=cfg.model)
        async with trio.open_nursery() as nursery:
            async with open_swarm(
                source,
                limit=plan.limit,
                on_failure="cancel" if plan.on_failure == "cancel" else "collect",
                max_cost_usd=plan.max_cost_usd,
                workspace=stage.workspace(0),
                run_cfg=cfg,
                on_event=self._see,
            ) as self.swarm:
                for seconds in plan.kills:
                    nursery.start_soon(self._kill, self.swarm, seconds)
                tasks = [self._task(agent, cfg) for agent in self.agents]
                await WAYS[plan.way](self, self.swarm, tasks, nursery)
            nursery.cancel_scope.cancel()

    def _task(self, agent: AgentPlan, cfg: RunConfig) -> AgentTask:
        take = agent.take
        options = take.plot.options
        more = {name: options[name] for name in ("model", "max_steps") if name in options}
        return AgentTask(
            prompt(take.mark),
            name=take.mark,
            run_cfg=attrs.evolve(cfg, **more),
            output=options.get("output"),
            timeout_s=take.at if take.twist == "time limit" else None,
            on_permission=self.witnesses[take.mark].answer,
            on_question=self.witnesses[take.mark].answer,
            restartable=agent.is_restartable,
            worktree=agent.has_worktree,
        )

    def _see(self, agent: Agent, event: Event) -> None:
        self.witnesses[agent.name].take(event)

    async def _kill(self, swarm: Swarm, seconds: float) -> None:
        await trio.sleep(seconds)
        pool: Any = swarm._runner.pool
        for slot in list(pool._slots.values()):
            if slot.server is not None and slot.server.pid is not None:
                self.has_killed = True
                self.stage.tally.count("gusts", "kill of a swarm's server")
                with suppress(ProcessLookupError):
                    os.kill(slot.server.pid, signal.SIGKILL)

    # --- the ways

    async def start(self, swarm: Swarm, tasks: list[AgentTask], nursery: trio.Nursery) -> None:
        for task, plan in zip(tasks, self.agents, strict=True):
            agent = swarm.start_soon(task)
            if plan.take.twist == "handle":
                nursery.start_soon(_cancel, agent, plan.take.at)

    async def map(self, swarm: Swarm, tasks: list[AgentTask], nursery: trio.Nursery) -> None:
        nursery.start_soon(self._cancel_by_name, swarm)
        values = await swarm.map(tasks)
        answers = [value.final_text for value in values]
        outcomes = [outcome.value for outcome in swarm.outcomes()]
        if answers != [value.final_text for value in outcomes if value is not None]:
            self.stage.complain(f"{self.agents[0].take.mark}: map gave {answers}, not {outcomes}")

    async def race(self, swarm: Swarm, tasks: list[AgentTask], nursery: trio.Nursery) -> None:
        nursery.start_soon(self._cancel_by_name, swarm)
        value = await swarm.race(*tasks)
        if not any(value is outcome.value for outcome in swarm.outcomes()):
            self.stage.complain(f"{self.agents[0].take.mark}: nobody's value won the race")

    async def best_of(self, swarm: Swarm, tasks: list[AgentTask], nursery: trio.Nursery) -> None:
        nursery.start_soon(self._cancel_by_name, swarm)
        await swarm.best_of(2, tasks[0], judge=lambda values: values[-1])

    async def _cancel_by_name(self, swarm: Swarm) -> None:
        await trio.lowlevel.checkpoint()  # until they have been started
        plans = {plan.take.mark: plan.take for plan in self.agents}
        async with trio.open_nursery() as nursery:
            for agent in swarm.agents:
                take = plans[agent.name]
                if take.twist == "handle":
                    nursery.start_soon(_cancel, agent, take.at)

    # --- afterwards

    def _check_group(self, group: BaseExceptionGroup[Exception]) -> None:
        if self.swarm is None:
            outcomes: list[Outcome] = []
        else:
            outcomes = self.swarm.outcomes()
        known = [outcome.error for outcome in outcomes]
        for error in _leaves(group):
            if not any(error is one for one in known):
                text = "".join(traceback.format_exception(error))
                self.stage.complain(
                    f"{self.agents[0].take.mark}: the swarm raised what no agent failed with: {text}"
                )

    async def _conclude(self, scope: trio.CancelScope) -> None:
        cut = scope.deadline if scope.cancel_called else None
        outcomes = self.swarm.outcomes() if self.swarm is not None else []
        if self.swarm is not None and len(outcomes) != len(self.swarm.agents):
            self.stage.complain(f"{self.agents[0].take.mark}: agents have no outcome")
        self.stage.tally.count("swarms", self.plan.way)
        for agent in self.agents:
            take = agent.take
            mine = [outcome for outcome in outcomes if outcome.name == take.mark]
            self.stage.tally.add("restarts", sum(max(0, one.attempts - 1) for one in mine))
            for outcome in mine:
                await conclude(self.stage, take, self._report(agent, outcome, mine, outcomes), cut)
            if not mine:
                self.stage.books.close(take.mark)
        if self.swarm is not None:
            self._check_spending(self.swarm, outcomes)

    def _report(
        self, agent: AgentPlan, outcome: Outcome, mine: list[Outcome], outcomes: list[Outcome]
    ) -> Report:
        take, plan = agent.take, self.plan
        witness = self.witnesses[take.mark]
        more: set[str] = set()
        if plan.max_cost_usd is not None:
            more.add("limit max_cost_usd")
        others_failed = any(o.status == "failed" for o in outcomes if o is not outcome)
        cancelled = plan.cut_at is not None or plan.way in {"race", "best of"}
        if cancelled or (plan.on_failure == "cancel" and others_failed) or plan.way == "map":
            more.add(CANCELLED)
        if self.has_killed and not agent.is_restartable:
            more.add("server")
        said = outcome.error or outcome.value
        assert said is not None
        end = CANCELLED if outcome.status == "cancelled" else end_of(said)
        error = "".join(traceback.format_exception(outcome.error)) if outcome.error else ""
        return Report(
            mark=take.mark,
            twist=take.twist,
            end=end,
            result=outcome.value or getattr(outcome.error, "partial", None) or outcome.partial,
            gusts=self.stage.weather.met(self.label, self.began, trio.current_time()),
            more_ends=frozenset(more),
            attempts=sum(one.attempts for one in mine),
            asks=witness.asks,
            foreign=frozenset(witness.foreign),
            error=error,
        )

    def _check_spending(self, swarm: Swarm, outcomes: list[Outcome]) -> None:
        prices, books = self.stage.model.prices, self.stage.books
        entries = [entry for agent in self.agents for entry in books.entries(agent.take.mark)]
        charged = sum(prices.cost_usd(entry.charged) for entry in entries if entry.charged)
        spent = swarm.spent.cost_usd
        whole = all(o.attempts == 1 and o.status == "completed" for o in outcomes)
        if spent > charged + 1e-9 or (whole and spent < charged - 1e-9):
            self.stage.complain(
                f"{self.agents[0].take.mark}: the swarm spent ${spent:.6f},"
                f" the model charged ${charged:.6f}"
            )


async def _cancel(agent: Agent, seconds: float) -> None:
    await trio.sleep(seconds)
    agent.cancel()


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


WAYS: Any = {"start": Show.start, "map": Show.map, "race": Show.race, "best of": Show.best_of}


async def swarm(stage: Stage, plan: SwarmPlan) -> None:
    """Play a swarm."""
    cut_at = math.inf if plan.cut_at is None else trio.current_time() + plan.cut_at
    with trio.CancelScope(deadline=cut_at) as scope:
        if plan.place == "client":
            async with stage.runs:
                await Show(stage, plan).run(scope)
        else:
            await Show(stage, plan).run(scope)
