"""Agents that do something together: all of many, the first of several, the best of a few."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, Unpack

import attrs
import trio

from opencode_trio._agent import Agent, Outcome
from opencode_trio._task import AgentOptions, AgentTask, Work
from opencode_trio._updates import Bell
from opencode_trio.errors import OpenCodeConfigError, OpenCodeError


class Together(ABC):
    """What a swarm can do with several agents at once."""

    bell: Bell
    """Rings when an agent is over."""

    @abstractmethod
    def start(self, task: AgentTask, *, tolerated: bool = False) -> Agent:
        """Start an agent; if `tolerated`, its failure is none of the swarm."""

    async def map(
        self, works: Iterable[Work | AgentTask], **options: Unpack[AgentOptions]
    ) -> list[Any]:
        """Do many things side by side; return their values, in the order of the input.

        Raises:
            ExceptionGroup: some failed, in a swarm that collects; what came of the others is in
                `outcomes`.

        **Cancellation**: cancels these agents, and waits until they have stopped.
        """
        async with self._owned([task_of(work, (), options) for work in works]) as agents:
            outcomes = [await agent.wait() for agent in agents]
        _raise_failures(f"of {len(outcomes)} agents", outcomes)
        return [outcome.value for outcome in outcomes]

    async def race(
        self,
        *works: Work | AgentTask,
        accept: Callable[[Any], bool] | None = None,
        **options: Unpack[AgentOptions],
    ) -> Any:
        """Return the first good value; the others are aborted.

        Failures of those who lose are no failures of the swarm.

        Args:
            *works: the contenders; options of their own they have as `AgentTask`.
            accept: says whether a value is good.
            **options: of all contenders.

        Raises:
            ExceptionGroup: none was good.

        **Cancellation**: as in `map`.
        """
        if not works:
            raise OpenCodeConfigError("race: nobody takes part")
        tasks = [task_of(work, (), options) for work in works]
        failures: list[Exception] = []
        async with self._owned(tasks, tolerated=True) as agents:
            for _ in tasks:
                agent = await self._next_over(agents)
                agents.remove(agent)
                outcome = await agent.wait()
                failure = outcome.error or _unaccepted(outcome, accept)
                if failure is None:
                    return outcome.value
                failures.append(failure)
        raise ExceptionGroup("nobody won the race", failures)

    async def best_of(
        self,
        n: int,
        work: Work | AgentTask,
        *args: Any,
        judge: Callable[[list[Any]], Any | Awaitable[Any]],
        **options: Unpack[AgentOptions],
    ) -> Any:
        """Do the same `n` times, and return what the judge chooses.

        Args:
            n: how often.
            work: what to do.
            *args: what a function gets beside the session.
            judge: gets the values there are, and returns what it makes of them; it may be async.
            **options: see `AgentOptions`.

        Raises:
            ExceptionGroup: all failed.

        **Cancellation**: as in `map`.
        """
        async with self._owned([task_of(work, args, options)] * n, tolerated=True) as agents:
            outcomes = [await agent.wait() for agent in agents]
        values = [outcome.value for outcome in outcomes if outcome.error is None]
        if not values:
            _raise_failures(f"of {n} agents", outcomes)
        chosen = judge(values)
        return await chosen if isawaitable(chosen) else chosen

    @asynccontextmanager
    async def _owned(
        self, tasks: Sequence[AgentTask], *, tolerated: bool = False
    ) -> AsyncIterator[list[Agent]]:
        """Start agents that are over when the block has been left."""
        agents: list[Agent] = []
        try:
            agents.extend(self.start(task, tolerated=tolerated) for task in tasks)
            yield list(agents)
        finally:
            for agent in agents:
                agent.cancel()
            with trio.CancelScope(shield=True):  # bounded: an abort is
                for agent in agents:
                    await agent.wait()

    async def _next_over(self, agents: Sequence[Agent]) -> Agent:
        while True:
            heard = self.bell.rings
            for agent in agents:
                if agent.outcome is not None:
                    return agent
            await self.bell.wait(heard)


def task_of(work: Work | AgentTask, args: tuple[Any, ...], options: AgentOptions) -> AgentTask:
    """Return the task, with options over its own."""
    if not isinstance(work, AgentTask):
        return AgentTask(work, args, **options)
    if args:
        raise OpenCodeConfigError("args: an AgentTask has its own")
    return attrs.evolve(work, **options)


def _unaccepted(outcome: Outcome, accept: Callable[[Any], bool] | None) -> OpenCodeError | None:
    if accept is None or accept(outcome.value):
        return None
    return OpenCodeError(f"what {outcome.name!r} found was not accepted", partial=outcome.partial)


def _raise_failures(which: str, outcomes: Sequence[Outcome]) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise ExceptionGroup(f"{len(errors)} {which} failed", errors)
