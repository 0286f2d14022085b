"""A batch: the tasks of a file, done by a swarm, their results on disk as they come."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import trio

from opencode_trio._cli.result_file import ResultFile, record_of
from opencode_trio._cli.task_file import BatchTask
from opencode_trio._report.terminal_text import dollars
from opencode_trio._swarm.agent import Agent, Outcome, lighten
from opencode_trio._swarm.server_pool import Source
from opencode_trio._tasks import open_background
from opencode_trio._turn.budgets import Spending
from opencode_trio.swarm import Swarm, open_swarm

Show = Callable[[AbstractAsyncContextManager[Swarm]], AbstractAsyncContextManager[Swarm]]
"""Wraps a swarm in a display."""


@attrs.define(eq=False)
class Batch:
    """A run of a batch."""

    tasks: Sequence[BatchTask]
    results: ResultFile
    stop: Stop
    outcomes: dict[str, Outcome] = attrs.field(factory=dict[str, Outcome])
    """The outcomes of tasks, by their ids."""
    failure: OSError | None = None
    """Why results cannot be written any more; the tasks that ran then were cancelled."""

    async def run(self, source: Source, show: Show, options: Mapping[str, Any]) -> None:
        """Do all tasks that earlier runs have not completed.

        Args:
            source: as of `open_swarm`.
            show: shows the swarm.
            options: further ones of `open_swarm`.

        **Cancellation**: cancels what runs, and writes down the outcomes; `stop` does the same, and
        then returns.
        """
        if not self.left:
            return
        agents: list[tuple[BatchTask, Agent]] = []
        async with open_background() as recorders:
            try:
                with self.stop.scope:
                    async with show(open_swarm(source, on_failure="collect", **options)) as swarm:
                        for task in self.left:
                            agents.append((task, swarm.start_soon(task.agent)))
                            recorders.start_soon(self._record_when_over, *agents[-1])
            finally:
                for task, agent in agents:
                    self._record(task, agent)

    @property
    def left(self) -> list[BatchTask]:
        """The tasks that earlier runs have not completed."""
        return [task for task in self.tasks if task.task_id not in self.results.completed]

    @property
    def is_complete(self) -> bool:
        """Whether all tasks are completed now, in this run or in others."""
        number = sum(outcome.status == "completed" for outcome in self.outcomes.values())
        return number == len(self.left)

    def summary(self) -> str:
        """Say what this run has done."""
        outcomes = self.outcomes.values()
        count = Counter(o.status if o.attempts else "not started" for o in outcomes)
        count["not started"] += len(self.left) - len(outcomes)
        count["completed earlier"] = len(self.tasks) - len(self.left)
        parts = [f"{number} {what}" for what, number in sorted(count.items()) if number]
        spent = sum((outcome.spent for outcome in outcomes), Spending())
        return f"{len(self.tasks)} tasks: {', '.join(parts)}; {dollars(spent.cost_usd)} spent"

    async def _record_when_over(self, task: BatchTask, agent: Agent) -> None:
        await agent.wait()
        self._record(task, agent)

    def _record(self, task: BatchTask, agent: Agent) -> None:
        outcome = agent.outcome
        if outcome is None or task.task_id in self.outcomes:
            return
        self._append(task, outcome)
        self.outcomes[task.task_id] = lighten(agent, outcome)

    def _append(self, task: BatchTask, outcome: Outcome) -> None:
        # Those that were never begun, for a budget or a signal, are left for the next run.
        if outcome.attempts == 0 or self.failure is not None:
            return
        try:
            self.results.append(record_of(task, outcome))
        except OSError as exc:
            self.failure = exc
            self.stop.scope.cancel()


@attrs.define(eq=False)
class Stop:
    """What is cancelled when the program should stop."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Entered by what should stop."""
    reason: signal.Signals | None = None
    """Why the program should stop."""


@asynccontextmanager
async def open_stop() -> AsyncGenerator[Stop]:
    """For the length of the block, let signals cancel a scope rather than end the program.

    **Cancellation**: leaves the signals as they were.
    """
    stop = Stop()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_background() as tasks:
            tasks.start_soon(_listen, signals, stop)
            yield stop


async def _listen(signals: AsyncIterator[int], stop: Stop) -> None:
    async for number in signals:
        stop.reason = stop.reason or signal.Signals(number)
        stop.scope.cancel()
