"""The way of an agent: its place, its server, its session, its work, its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from opencode_trio._checks import StrPath
from opencode_trio._swarm.agent import Agent, LiveAgent
from opencode_trio._swarm.limiter import FairLimiter, QueuePlace
from opencode_trio._swarm.server_pool import ServerPool
from opencode_trio._swarm.task import AgentTask, do, settings_of
from opencode_trio._swarm.worktrees import open_worktree
from opencode_trio._tasks import time_limit
from opencode_trio._turn.budgets import inside
from opencode_trio.asks import PermissionCallback, QuestionCallback
from opencode_trio.config import RunConfig, split_model
from opencode_trio.errors import OpenCodeServerError
from opencode_trio.events import Event
from opencode_trio.results import RunResult, ValueT

_log = logging.getLogger("opencode_trio")

RESTARTS = 3
"""How often an agent is begun again because a server ended under it.  Once is an accident; an agent
that meets four dying servers may be what they die of."""


class Recorder(Protocol):
    """Keeps what an agent does, for the report."""

    def take(self, event: Event) -> None:
        """Take an event of its session tree."""

    def settle(self) -> None:
        """Know that a turn of its has ended."""


@attrs.frozen(kw_only=True)
class SwarmDefaults:
    """What the agents of a swarm have in common."""

    workspace: StrPath | None = None
    run_cfg: RunConfig | None = None
    on_permission: PermissionCallback | None = None
    on_question: QuestionCallback | None = None
    """These hold where an agent has none of its own."""
    keep_events: bool = False
    on_event: Callable[[Agent, Event], None] | None
    recorder_of: Callable[[int], Recorder]
    """What is kept of what they do."""

    def laid_under(self, task: AgentTask[ValueT]) -> AgentTask[ValueT]:
        """Fill in what a task leaves out."""
        names = ("workspace", "on_permission", "on_question")
        missing = {name: getattr(self, name) for name in names if getattr(task, name) is None}
        return attrs.evolve(task, run_cfg=settings_of(task, self.run_cfg), **missing)


@attrs.frozen
class AgentRunner:
    """Runs agents."""

    common: SwarmDefaults
    pool: ServerPool
    limiter: FairLimiter

    async def run(self, agent: LiveAgent, ticket: QueuePlace, directory: str | None) -> None:
        """Run an agent to its end, which is in its ``outcome``, whatever it is.

        **Cancellation**: aborts its turn.
        """
        try:
            with agent.account.watched(agent.stop), agent.scope:
                async with self.limiter.passed(ticket):
                    agent.complete(await self._work(agent, directory))
        except Exception as exc:  # noqa: BLE001 - in the outcome, for whom it concerns
            agent.fail(exc)
        finally:
            if agent.outcome is None:  # its scope is cancelled, or one around it
                agent.end_stopped()

    async def _work(self, agent: LiveAgent, directory: str | None) -> Any:
        if (refusal := agent.account.refusal()) is not None:
            raise refusal.not_started()
        while True:
            agent.begin()
            try:
                with inside(agent.account):
                    return await self._attempt(agent, directory)
            except OpenCodeServerError as exc:
                if not _may_begin_again(agent, exc):
                    raise
                _log.warning("beginning %r again: %s", agent.name, exc)

    async def _attempt(self, agent: LiveAgent, directory: str | None) -> Any:
        if not agent.task.worktree:
            return await self._do(agent, directory)
        if directory is None:
            raise AssertionError("a worktree without a workspace is refused when it is started")
        async with open_worktree(directory, agent.keep_diff) as tree:
            return await self._do(agent, tree)

    async def _do(self, agent: LiveAgent, directory: str | None) -> Any:
        task = agent.task
        async with self.pool.lease(task.run_cfg, directory) as server:
            agent.has_server = True
            async with server.open_session(
                directory,
                run_cfg=task.run_cfg,
                on_permission=task.on_permission,
                on_question=task.on_question,
                on_event=self._listener(agent),
                on_result=self._settler(agent),
            ) as session:
                agent.run_in(session)
                with time_limit(task.timeout_s, partial=lambda: agent.partial):
                    return await do(task, session)

    def _listener(self, agent: LiveAgent) -> Callable[[Event], None]:
        on_event = self.common.on_event
        recorder = self.common.recorder_of(agent.number)

        def listen(event: Event) -> None:
            recorder.take(event)
            agent.take(event)
            if on_event is not None:
                on_event(agent, event)

        return listen

    def _settler(self, agent: LiveAgent) -> Callable[[RunResult], None]:
        recorder = self.common.recorder_of(agent.number)

        def settle(result: RunResult) -> None:
            recorder.settle()
            agent.settle(result)

        return settle


def _may_begin_again(agent: LiveAgent, error: OpenCodeServerError) -> bool:
    # A server that could not be started, or answers with an error, would do so again.
    gone = agent.has_server and error.status_code is None
    safe = agent.task.restartable or not agent.is_touched
    return gone and safe and agent.attempts <= RESTARTS


def provider_of(task: AgentTask) -> str:
    """Return the provider that a task's model is of; empty if none is named."""
    model = task.run_cfg.model if task.run_cfg else None
    return split_model(model)["providerID"] if model else ""
