"""`open_swarm`: a nursery for agents."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias, Unpack, overload

import trio

from opencode_trio._checks import StrPath
from opencode_trio._report.recorder import SwarmRecorder
from opencode_trio._session.structured import OutputKind
from opencode_trio._swarm.agent import Agent, LiveAgent, Outcome
from opencode_trio._swarm.combinators import Combinators, task_of
from opencode_trio._swarm.limiter import FairLimiter, QueuePlace
from opencode_trio._swarm.runner import AgentRunner, SwarmDefaults, provider_of
from opencode_trio._swarm.server_pool import Source, open_pool
from opencode_trio._swarm.snapshots import ChangeSignal, SwarmSnapshot, Updates, snapshot_of
from opencode_trio._swarm.task import AgentOptions, AgentTask, Work
from opencode_trio._swarm.worktrees import check_repository
from opencode_trio._tasks import current_run, require_trio
from opencode_trio._turn.budgets import Account, Budget, Spending, inside, nested
from opencode_trio.asks import PermissionCallback, QuestionCallback
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.events import Event
from opencode_trio.report import Report, take_down
from opencode_trio.results import AnswerT, ArgsT, RunResult, ValueT
from opencode_trio.session import Session

_log = logging.getLogger("opencode_trio")

UPDATE_S = 0.1
"""Between two updates, unless asked otherwise: more a human cannot read."""


Refusal: TypeAlias = tuple[int, Exception]
"""The number of an agent that was not let in, and why."""


class Swarm(Combinators):
    """A nursery for agents; see `open_swarm`."""

    def __init__(
        self,
        runner: AgentRunner,
        history: SwarmRecorder,
        *,
        nursery: trio.Nursery,
        account: Account,
        change_signal: ChangeSignal,
        collects: bool,
        refused: list[Refusal],
    ) -> None:
        self.budget: Budget = account
        """What it may spend, and has spent."""
        self._runner = runner
        self._nursery = nursery
        self._account = account
        self._collects = collects
        self._refused = refused
        self._agents: list[LiveAgent] = []
        self._change_signal = change_signal
        self._history = history

    def __repr__(self) -> str:
        over = sum(agent.outcome is not None for agent in self._agents)
        return f"<Swarm, {over} of {len(self._agents)} agents are over>"

    # --- agents -------------------------------------------------------------------------------

    @overload
    def start_soon(
        self,
        work: str,
        *,
        output: OutputKind[AnswerT] | None = None,
        **options: Unpack[AgentOptions],
    ) -> Agent[RunResult[AnswerT]]: ...

    @overload
    def start_soon(
        self,
        work: AgentTask[ValueT] | Callable[[Session, *ArgsT], Awaitable[ValueT]],
        *args: *ArgsT,
        **options: Unpack[AgentOptions],
    ) -> Agent[ValueT]: ...

    def start_soon(  # type: ignore[misc]  # mypy cannot match *ArgsT with *Any
        self,
        work: Work | AgentTask,
        *args: Any,
        output: OutputKind[Any] | None = None,
        **options: Unpack[AgentOptions],
    ) -> Agent:
        """Start an agent, as soon as there is a place for it.

        Args:
            work: a prompt; or an async function, which gets a session and may do anything with it;
                or an `AgentTask`.
            *args: what the function gets beside the session.
            output: of a prompt: an attrs class or a JSON schema that the answer must match; see
                `Session.send`.
            **options: see `AgentOptions`.

        Returns:
            The agent, to be awaited, cancelled, or left alone.

        Raises:
            OpenCodeConfigError: an option is invalid.
        """
        return self._start(task_of(work, args, output, options))

    @property
    def agents(self) -> Sequence[Agent]:
        """All agents so far, in the order in which they were started."""
        return tuple(self._agents)

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of the agents that are over, in the order in which they were started."""
        return [agent.outcome for agent in self._agents if agent.outcome is not None]

    @property
    def spent(self) -> Spending:
        """What they have spent so far."""
        return self.budget.spent

    # --- to watch -------------------------------------------------------------------------------

    def snapshot(self) -> SwarmSnapshot:
        """Take a snapshot of the swarm."""
        return SwarmSnapshot(
            agents=tuple(map(snapshot_of, self._agents)),
            spent=self.spent,
            elapsed_s=self._history.elapsed_s,
        )

    def updates(self, *, every_s: float = UPDATE_S) -> trio.abc.ReceiveChannel[SwarmSnapshot]:
        """Watch it: iterate over its newest states.

        Args:
            every_s: at least so many seconds lie between two of them.
        """
        return Updates(self._change_signal, self.snapshot, every_s)

    def report(self) -> Report:
        """Report what was done so far: a table, JSON Lines, a picture; also after the block."""
        return take_down(self._agents, self._history, self.spent)

    # --- the way of an agent --------------------------------------------------------------------

    def _start(self, task: AgentTask[ValueT], *, tolerated: bool = False) -> Agent[ValueT]:
        """Start an agent whose failure may be no failure of the swarm."""
        self._change_signal.check_run()
        task = self._runner.common.laid_under(task)
        directory = self._runner.pool.directory(task.workspace)
        if task.worktree:
            check_repository(directory)

        def changed() -> None:
            recorder.set_status(agent.status)
            self._change_signal.notify()

        agent = LiveAgent(
            len(self._agents) + 1,
            task,
            account=self._account,
            changed=changed,
            keep_events=self._runner.common.keep_events,
        )
        recorder = self._history.add()  # only now: it is as long as the list of agents
        ticket = self._runner.limiter.queue(provider_of(task))
        self._nursery.start_soon(self._live, agent, ticket, directory, tolerated, name=agent.name)
        self._agents.append(agent)
        changed()
        return agent

    async def _live(
        self, agent: LiveAgent, ticket: QueuePlace, directory: str | None, tolerated: bool
    ) -> None:
        await self._runner.run(agent, ticket, directory)
        # No checkpoint from here on: who waits for the agent must find the swarm cancelled.
        if not tolerated and not self._collects:
            self._raise_failure(agent)

    def _raise_failure(self, agent: Agent) -> None:
        outcome = agent.outcome
        if outcome is None or outcome.error is None or outcome.status != "failed":
            return
        if outcome.attempts > 0:
            raise outcome.error
        # It was not let in, for a budget: those who are in may finish.
        self._refused.append((agent.number, outcome.error))


@asynccontextmanager
async def open_swarm(
    source: Source,
    *,
    limit: int = 16,
    per_provider: Mapping[str, int] | None = None,
    max_cost_usd: float | None = None,
    max_tokens: int | None = None,
    soft: float = 1.0,
    on_failure: Literal["cancel", "collect"] = "cancel",
    workspace: StrPath | None = None,
    run_cfg: RunConfig | None = None,
    on_permission: PermissionCallback | None = None,
    on_question: QuestionCallback | None = None,
    on_event: Callable[[Agent, Event], None] | None = None,
    keep_events: bool = False,
) -> AsyncGenerator[Swarm]:
    """Open a nursery for agents: leaving the block waits for all of them.

    An agent that starts others in its own swarm and waits for them keeps its place meanwhile;
    one that opens a swarm of its own does not get in its own way.

    Args:
        source: a client, which opens servers as needed: one for each configuration that cannot be
            shared, replaced when it is worn out or has crashed; or a server; or several, over
            which the agents are spread.
        limit: the most agents at once.
        per_provider: the most at once by provider, as the agents' ``run_cfg.model`` names it.
        max_cost_usd: the most US dollars, over all session trees; beyond, running agents are
            cancelled.  What opencode has no price for counts 0, see `Spending.unpriced_tokens`.
        max_tokens: the most tokens, likewise.
        soft: the share of these limits from which on no new agent is started.
        on_failure: ``cancel`` the others when an agent fails, as a nursery does; or ``collect``
            all outcomes and raise nothing for agents.
        workspace: the directory of agents that name none.
        run_cfg: the settings of agents that have none.
        on_permission: answers requests for permission; without it they are refused at once.
        on_question: answers questions, likewise.
        on_event: told each event of each agent; must not wait.  If it raises, that agent fails.
        keep_events: keep the wire's records in results; of many agents they are a lot.

    Raises:
        ExceptionGroup: as a nursery does: what agents failed with (each has a note that names the
            agent and its session), and what the block raised.
        OpenCodeConfigError: the workspace is not there, or an option is invalid.

    **Cancellation**: aborts all agents, and waits until they have stopped.
    """
    require_trio()
    if on_failure not in {"cancel", "collect"}:
        raise OpenCodeConfigError(f"on_failure: expected cancel or collect, got {on_failure!r}")
    history = SwarmRecorder(trio.current_time)
    common = SwarmDefaults(
        workspace=workspace,
        run_cfg=run_cfg,
        on_permission=on_permission,
        on_question=on_question,
        keep_events=keep_events,
        on_event=on_event,
        recorder_of=history.recorder,
    )
    limiter = FairLimiter(limit, per_provider or {})
    change_signal = ChangeSignal()
    refused: list[Refusal] = []
    async with open_pool(source) as pool:
        if workspace is not None:
            pool.directory(workspace)
        with (
            inside(nested(max_cost_usd, max_tokens, soft, of="the swarm")) as account,
            account.used_in(current_run()),
        ):
            try:
                async with trio.open_nursery() as nursery:
                    swarm = Swarm(
                        AgentRunner(common, pool, limiter),
                        history,
                        nursery=nursery,
                        account=account,
                        change_signal=change_signal,
                        collects=on_failure == "collect",
                        refused=refused,
                    )
                    yield swarm
            finally:
                history.close()
                change_signal.close()
                _warn_of_unpriced(account)
    _raise_refusals(refused)


def _raise_refusals(refused: Sequence[Refusal]) -> None:
    if refused:
        errors = [error for _, error in sorted(refused, key=lambda pair: pair[0])]
        raise ExceptionGroup("agents were not started", errors)


def _warn_of_unpriced(budget: Budget) -> None:
    if budget.max_cost_usd is not None and (unpriced := budget.spent.unpriced_tokens):
        _log.warning("max_cost_usd did not count %d tokens: their price is not known", unpriced)
