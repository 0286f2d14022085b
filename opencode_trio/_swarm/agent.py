"""An agent of a swarm: its state and its outcome."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from typing import Any, Generic, Literal, cast, get_args

import attrs
import trio

from opencode_trio._swarm.task import AgentTask
from opencode_trio._tasks import TrioRun
from opencode_trio._turn.activity import Activity
from opencode_trio._turn.budgets import Account, Budget, ExceededLimit, Meter, Spending
from opencode_trio.errors import OpenCodeCancelledError, OpenCodeError
from opencode_trio.events import Event
from opencode_trio.results import RunResult, ValueT_co, is_result
from opencode_trio.session import Session

OutcomeStatus = Literal["completed", "failed", "cancelled"]
"""How an agent ended."""

AgentStatus = Literal["waiting", "starting", "running", OutcomeStatus]
"""``waiting`` for its turn among the others, ``starting`` while a server or a session is opened."""

OVER: frozenset[AgentStatus] = frozenset(get_args(OutcomeStatus))


@attrs.frozen(kw_only=True)
class Outcome(Generic[ValueT_co]):
    """The outcome of an agent.

    Generic over its value, as `Agent` is.
    """

    name: str
    status: OutcomeStatus
    value: ValueT_co | None = None
    """The `RunResult` of a prompt, or what the function returned; ``None`` if it did not."""
    error: Exception | None = None
    """Why there is no value."""
    session_id: str | None = None
    """Its (last) session."""
    partial: RunResult | None = None
    """The result of its last turn, complete or not."""
    diff: str | None = attrs.field(default=None, repr=False)
    """What it changed in its worktree, as ``git apply`` takes it; ``None`` if it had none."""
    spent: Spending = attrs.field(factory=Spending)
    attempts: int = 0
    """How often it was begun: 0 is never, more than 1 that servers ended under it."""
    duration_s: float = 0.0
    """Seconds from its start, waiting for others not included."""

    def unwrap(self) -> ValueT_co:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("ValueT_co", self.value)  # if it is None, that is what was returned


class Agent(Generic[ValueT_co]):
    """An agent of a swarm, from `Swarm.start_soon`.

    Generic over its value: the `RunResult` of a prompt, or what its function returns.
    """

    def __init__(self, number: int, task: AgentTask[ValueT_co], budget: Budget) -> None:
        self.number: int = number
        """Which of the swarm's agents it is, counted from 1."""
        self.task: AgentTask[ValueT_co] = task
        """What it does."""
        self.name: str = task.name or f"agent {number}"
        """What it is called."""
        self.budget: Budget = budget
        """What it may spend, within its swarm's."""
        self.session_id: str | None = None
        """Its session, once it has one."""
        self.outcome: Outcome[ValueT_co] | None = None
        """Its outcome, once it is over."""
        self.diff: str | None = None
        """What it changed in its worktree."""
        self.attempts: int = 0
        """How often it was begun."""
        self._scope = trio.CancelScope()
        self._run = TrioRun(of="this agent")
        self._status: AgentStatus = "waiting"
        self._partial: RunResult | None = None
        self._began = math.inf
        self._over = trio.Event()

    def __repr__(self) -> str:
        return f"<Agent {self.name!r}, {self._status}>"

    @property
    def status(self) -> AgentStatus:
        """Its state."""
        return self._status

    @property
    def spent(self) -> Spending:
        """What it has spent so far: its whole session tree, and the swarms it opened."""
        return self.budget.spent

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was started, waiting for others not included."""
        if self.outcome is not None:
            return self.outcome.duration_s
        return max(0.0, trio.current_time() - self._began)

    @property
    def partial(self) -> RunResult | None:
        """The result of its last turn, complete or not."""
        return self.outcome.partial if self.outcome else self._partial

    def cancel(self) -> None:
        """Cancel it: its turn is aborted.  Of no effect when it is over."""
        self._run.check()
        self._scope.cancel()

    async def wait(self) -> Outcome[ValueT_co]:
        """Wait until it is over; return its outcome.

        **Cancellation**: harmless to the agent.
        """
        self._run.check()
        await self._over.wait()
        # If its failure has cancelled us, too, that comes first.
        await trio.lowlevel.checkpoint()
        if self.outcome is None:
            raise AssertionError("an agent that is over has an outcome")
        return self.outcome

    async def result(self) -> ValueT_co:
        """Wait until it is over; return its value.

        Returns:
            The `RunResult` of a prompt, or what the function returned.

        Raises:
            OpenCodeCancelledError: it was cancelled.
            OpenCodeLimitError: a budget stopped it, or kept it from starting.
            Exception: whatever it failed with.

        **Cancellation**: harmless to the agent.
        """
        return (await self.wait()).unwrap()


class LiveAgent(Agent[ValueT_co]):
    """An agent as its swarm has it: told what happens to it.

    Args:
        number: which of the swarm's it is, from 1.
        task: what it should do.
        account: the swarm's.
        changed: called when there is something new to show.
        keep_events: whether its results keep their wire records.
    """

    # Type checkers ask for these again where they are set.
    attempts: int
    session_id: str | None
    diff: str | None
    outcome: Outcome[ValueT_co] | None

    def __init__(
        self,
        number: int,
        task: AgentTask[ValueT_co],
        *,
        account: Account,
        changed: Callable[[], None],
        keep_events: bool = False,
    ) -> None:
        self.account: Account = Account(
            max_cost_usd=task.max_cost_usd,
            max_tokens=task.max_tokens,
            parent=account,
            of=f"agent {task.name or f'agent {number}'!r}",
        )
        """Its budget."""
        super().__init__(number, task, self.account)
        self.scope: trio.CancelScope = self._scope
        """What it runs in."""
        self.activity: Activity = Activity()
        """What it is doing."""
        self.has_server: bool = False
        """Whether it got a server in this attempt."""
        self.is_touched: bool = False
        """Whether anything may have been sent that should not be sent twice."""
        self._changed = changed
        self._keep_events = keep_events
        self._meter = Meter(self.account.charge)
        self._excess: ExceededLimit | None = None

    def begin(self) -> None:
        """Know that it is its turn."""
        self._began = min(self._began, trio.current_time())
        self.attempts += 1
        self.has_server = False
        self._set("starting")

    def run_in(self, session: Session) -> None:
        """Know that it has a session and begins its work."""
        self.session_id = session.session_id
        self.is_touched = True
        self.activity.clear(asked=isinstance(self.task.work, str))
        self._set("running")

    def take(self, event: Event) -> None:
        """Take an event of its session tree."""
        before = self.spent
        self._meter.take(event)
        if self.activity.take(event) or self.spent is not before:
            self._changed()

    def settle(self, result: RunResult) -> None:
        """Take the result of one of its turns."""
        self._partial = result
        self.activity.clear()
        self._meter.settle(result)
        self._changed()

    def keep_diff(self, diff: str) -> None:
        """Take what it changed in its worktree."""
        self.diff = diff

    def stop(self, excess: ExceededLimit) -> None:
        """Stop it, because money is short."""
        self._excess = self._excess or excess
        self.scope.cancel()

    def complete(self, value: Any) -> None:
        """Know that it did what it should."""
        self._conclude("completed", value=self._kept(value))

    def fail(self, error: Exception) -> None:
        """Know that it failed."""
        self._conclude("failed", error=error)

    def end_stopped(self) -> None:
        """Know that it was cancelled: by its budget, or by somebody."""
        if self._excess is not None:
            stopped, excess = self.attempts > 0, self._excess
            self.fail(excess.stopped(self._partial) if stopped else excess.not_started())
        else:
            error = OpenCodeCancelledError("the agent was cancelled", partial=self._partial)
            self._conclude("cancelled", error=error)

    def _conclude(
        self, status: OutcomeStatus, *, value: Any = None, error: Exception | None = None
    ) -> None:
        if error is not None:
            where = f"session {self.session_id}" if self.session_id else "before it had a session"
            error.add_note(f"in agent {self.name!r}, {where}")
            if not self._keep_events:
                forget_frames(error)
        if isinstance(error, OpenCodeError):
            error.partial = self._kept(error.partial)
        self.outcome = Outcome(
            name=self.name,
            status=status,
            value=value,
            error=error,
            session_id=self.session_id,
            partial=self._kept(self._partial),
            diff=self.diff,
            spent=self.spent,
            attempts=self.attempts,
            duration_s=self.elapsed_s,
        )
        self._partial = None
        self._set(status)
        self._over.set()

    def _kept(self, value: Any) -> Any:
        if self._keep_events or not is_result(value):
            return value
        return attrs.evolve(value, events=[])

    def _set(self, status: AgentStatus) -> None:
        self._status = status
        self._changed()


def lighten(agent: Agent, outcome: Outcome[Any]) -> Outcome[Any]:
    """Forget what it did, once that is told; return how it ended, and what it spent."""
    agent.outcome = attrs.evolve(outcome, value=None, partial=None, diff=None)
    agent.diff = None
    return agent.outcome


def forget_frames(error: BaseException) -> None:
    """Empty the frames of an error's tracebacks, which would keep all that a turn was told."""
    seen: set[int] = set()
    at: list[BaseException | None] = [error]
    while at:
        one = at.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            at += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                at += cast("BaseExceptionGroup[BaseException]", one).exceptions
