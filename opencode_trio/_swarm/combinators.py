"""Agents that do something together: all of many, the first of several, the best of a few."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, TypeAlias, Unpack, cast, overload

import attrs
import trio

from opencode_trio._session.structured import OutputKind
from opencode_trio._swarm.agent import Agent, Outcome
from opencode_trio._swarm.snapshots import ChangeSignal
from opencode_trio._swarm.task import AgentOptions, AgentTask, Work, is_task
from opencode_trio.errors import OpenCodeConfigError, OpenCodeError
from opencode_trio.results import AnswerT, ArgsT, RunResult, ValueT, VerdictT
from opencode_trio.session import Session

Job: TypeAlias = Callable[[Session], Awaitable[ValueT]]
"""An async function that needs nothing but a session."""


class Combinators(ABC):
    """What a swarm can do with several agents at once."""

    _change_signal: ChangeSignal
    """Rings when an agent is over."""

    @abstractmethod
    def _start(self, task: AgentTask[ValueT], *, tolerated: bool = False) -> Agent[ValueT]:
        """Start an agent; if `tolerated`, its failure is none of the swarm."""

    @overload
    async def map(
        self,
        works: Iterable[str],
        *,
        output: OutputKind[AnswerT] | None = None,
        **options: Unpack[AgentOptions],
    ) -> list[RunResult[AnswerT]]: ...

    @overload
    async def map(
        self, works: Iterable[AgentTask[ValueT] | Job[ValueT]], **options: Unpack[AgentOptions]
    ) -> list[ValueT]: ...

    @overload
    async def map(
        self,
        works: Iterable[Work | AgentTask],
        *,
        output: OutputKind[Any] | None = None,
        **options: Unpack[AgentOptions],
    ) -> list[Any]: ...

    async def map(
        self,
        works: Iterable[Work | AgentTask],
        *,
        output: OutputKind[Any] | None = None,
        **options: Unpack[AgentOptions],
    ) -> list[Any]:
        """Do many things side by side; return their values, in the order of the input.

        Args:
            works: what to do; options of their own they have as `AgentTask`.
            output: of prompts: what their answers must match.
            **options: of all; see `AgentOptions`.

        Raises:
            ExceptionGroup: some failed, in a swarm that collects; the outcomes of the others are in
                `outcomes`.

        **Cancellation**: cancels these agents, and waits until they have stopped.
        """
        tasks = [task_of(work, (), output, options) for work in works]
        async with self._owned(tasks) as agents:
            outcomes = [await agent.wait() for agent in agents]
        _raise_failures(f"of {len(outcomes)} agents", outcomes)
        return [outcome.value for outcome in outcomes]

    @overload
    async def race(
        self,
        *works: str,
        accept: Callable[[RunResult[AnswerT]], bool] | None = None,
        output: OutputKind[AnswerT] | None = None,
        **options: Unpack[AgentOptions],
    ) -> RunResult[AnswerT]: ...

    @overload
    async def race(
        self,
        *works: AgentTask[ValueT] | Job[ValueT],
        accept: Callable[[ValueT], bool] | None = None,
        **options: Unpack[AgentOptions],
    ) -> ValueT: ...

    @overload
    async def race(
        self,
        *works: Work | AgentTask,
        accept: Callable[[Any], bool] | None = None,
        output: OutputKind[Any] | None = None,
        **options: Unpack[AgentOptions],
    ) -> Any: ...

    async def race(
        self,
        *works: Work | AgentTask,
        accept: Callable[[Any], bool] | None = None,
        output: OutputKind[Any] | None = None,
        **options: Unpack[AgentOptions],
    ) -> Any:
        """Return the first good value; the others are aborted.

        Failures of those who lose are no failures of the swarm.

        Args:
            *works: the contenders; options of their own they have as `AgentTask`.
            accept: says whether a value is good.
            output: of prompts: what their answers must match.
            **options: of all contenders.

        Raises:
            ExceptionGroup: none was good.

        **Cancellation**: as in `map`.
        """
        if not works:
            raise OpenCodeConfigError("race: expected at least one agent, got none")
        tasks = [task_of(work, (), output, options) for work in works]
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
        raise ExceptionGroup("no agent won the race", failures)

    @overload
    async def best_of(
        self,
        n: int,
        work: str,
        *,
        judge: Callable[[list[RunResult]], Awaitable[VerdictT]],
        output: OutputKind[Any] | None = None,
        **options: Unpack[AgentOptions],
    ) -> VerdictT: ...

    @overload
    async def best_of(
        self,
        n: int,
        work: str,
        *,
        judge: Callable[[list[RunResult]], VerdictT],
        output: OutputKind[Any] | None = None,
        **options: Unpack[AgentOptions],
    ) -> VerdictT: ...

    @overload
    async def best_of(
        self,
        n: int,
        work: AgentTask[ValueT] | Callable[[Session, *ArgsT], Awaitable[ValueT]],
        *args: *ArgsT,
        judge: Callable[[list[ValueT]], Awaitable[VerdictT]],
        **options: Unpack[AgentOptions],
    ) -> VerdictT: ...

    @overload
    async def best_of(
        self,
        n: int,
        work: AgentTask[ValueT] | Callable[[Session, *ArgsT], Awaitable[ValueT]],
        *args: *ArgsT,
        judge: Callable[[list[ValueT]], VerdictT],
        **options: Unpack[AgentOptions],
    ) -> VerdictT: ...

    async def best_of(  # type: ignore[misc]  # mypy cannot match *ArgsT with *Any
        self,
        n: int,
        work: Work | AgentTask,
        *args: Any,
        judge: Callable[[list[Any]], Any],
        output: OutputKind[Any] | None = None,
        **options: Unpack[AgentOptions],
    ) -> Any:
        """Do the same `n` times, and return what the judge chooses.

        Args:
            n: how often.
            work: what to do.
            *args: what a function gets beside the session.
            judge: gets the values there are, and returns what it makes of them; it may be async.
            output: of a prompt: what its answers must match.
            **options: see `AgentOptions`.

        Raises:
            ExceptionGroup: all failed.

        **Cancellation**: as in `map`.
        """
        task = task_of(work, args, output, options)
        async with self._owned([task] * n, tolerated=True) as agents:
            outcomes = [await agent.wait() for agent in agents]
        values = [outcome.value for outcome in outcomes if outcome.error is None]
        if not values:
            _raise_failures(f"of {n} agents", outcomes)
        chosen = judge(values)
        return await chosen if isawaitable(chosen) else chosen

    @asynccontextmanager
    async def _owned(
        self, tasks: Sequence[AgentTask], *, tolerated: bool = False
    ) -> AsyncGenerator[list[Agent]]:
        """Start agents that are over when the block has been left."""
        agents: list[Agent] = []
        try:
            agents.extend(self._start(task, tolerated=tolerated) for task in tasks)
            yield list(agents)
        finally:
            for agent in agents:
                agent.cancel()
            with trio.CancelScope(shield=True):  # bounded: an abort is
                for agent in agents:
                    await agent.wait()

    async def _next_over(self, agents: Sequence[Agent]) -> Agent:
        while True:
            heard = self._change_signal.rings
            for agent in agents:
                if agent.outcome is not None:
                    return agent
            await self._change_signal.wait(heard)


def task_of(
    work: Work | AgentTask,
    args: tuple[Any, ...],
    output: OutputKind[Any] | None,
    options: AgentOptions,
) -> AgentTask:
    """Return the task, with options over its own."""
    if not is_task(work):
        return AgentTask(cast("Work", work), args, output=output, **options)
    if args:
        raise OpenCodeConfigError("args: not with an AgentTask, which has its own")
    task = work if output is None else attrs.evolve(work, output=output)
    return attrs.evolve(task, **options)


def _unaccepted(outcome: Outcome, accept: Callable[[Any], bool] | None) -> OpenCodeError | None:
    if accept is None or accept(outcome.value):
        return None
    return OpenCodeError(
        f"`accept` turned down the value of {outcome.name!r}", partial=outcome.partial
    )


def _raise_failures(which: str, outcomes: Sequence[Outcome]) -> None:
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if errors:
        raise ExceptionGroup(f"{len(errors)} {which} failed", errors)
