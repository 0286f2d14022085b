"""How a swarm stands, for somebody to watch: the newest state, never a queue of old ones."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

import attrs
import trio

from opencode_trio._swarm.agent import OVER, AgentStatus, LiveAgent
from opencode_trio._tasks import TrioRun
from opencode_trio._turn.activity import TurnPhase
from opencode_trio._turn.budgets import Spending

PAUSES_PER_LOOK = 10
"""How much longer than a look at all agents the pause to the next one is, at least."""


AgentPhase = Literal["server", "session", TurnPhase]
"""What an agent is at, within its status.  ``starting``: it waits for a ``server`` to start, or
opens a ``session``.  ``running``: the model is ``waiting`` to say its first word, ``thinking``,
``writing``, or ``calling`` a tool; or no turn is open, ``idle``."""


@attrs.frozen(kw_only=True)
class AgentSnapshot:
    """How an agent stands."""

    name: str
    status: AgentStatus
    session_id: str | None = None
    tool: str | None = None
    """The tool that runs."""
    call: str = ""
    """That tool and what it is used on: ``bash: wc -l poem.txt``."""
    phase: AgentPhase = "idle"
    """What it is at while no tool runs."""
    asks: int = 0
    """How many of its requests wait for a human."""
    asked: str = ""
    """What the last of them asks."""
    is_retrying: bool = False
    """Whether it waits for a provider."""
    retry_in_s: float | None = None
    """Seconds until that is asked again, if it is known."""
    retry_reason: str = ""
    """What the provider said."""
    steps: int = 0
    """Requests to the model that were finished."""
    spent: Spending = attrs.field(factory=Spending)
    attempts: int = 0
    elapsed_s: float = 0.0
    """Seconds since it was started, waiting for others not included."""
    error: str | None = None
    """Why it failed."""


@attrs.frozen(kw_only=True)
class SwarmSnapshot:
    """How a swarm stands."""

    agents: tuple[AgentSnapshot, ...] = ()
    """In the order in which they were started."""
    spent: Spending = attrs.field(factory=Spending)
    elapsed_s: float = 0.0
    """Seconds since the swarm was opened."""

    @property
    def count(self) -> Mapping[AgentStatus, int]:
        """How many agents there are of each status."""
        return Counter(agent.status for agent in self.agents)

    @property
    def is_idle(self) -> bool:
        """Whether all agents that were started are over."""
        return all(agent.status in OVER for agent in self.agents)


def snapshot_of(agent: LiveAgent) -> AgentSnapshot:
    """Take down how an agent stands."""
    error = agent.outcome.error if agent.outcome else None
    activity = agent.activity
    retry = activity.retry
    return AgentSnapshot(
        name=agent.name,
        status=agent.status,
        session_id=agent.session_id,
        tool=activity.tool,
        call=activity.call,
        phase=_phase_of(agent),
        asks=activity.asks,
        asked=activity.asked,
        is_retrying=activity.is_retrying,
        retry_in_s=max(0.0, retry.next_at_s - time.time()) if retry and retry.next_at_s else None,
        retry_reason=retry.message if retry else "",
        steps=activity.steps,
        spent=agent.spent,
        attempts=agent.attempts,
        elapsed_s=agent.elapsed_s,
        error=None if error is None else f"{type(error).__name__}: {error}",
    )


def _phase_of(agent: LiveAgent) -> AgentPhase:
    if agent.status == "starting":
        return "session" if agent.has_server else "server"
    return agent.activity.phase


class ChangeSignal:
    """Tells any number of watchers that something has changed; who rings never waits."""

    def __init__(self) -> None:
        self.rings: int = 0
        self.is_closed: bool = False
        self._watchers = trio.lowlevel.ParkingLot()
        self._run = TrioRun(of="this swarm")

    def check_run(self) -> None:
        """Check that the caller is in its `trio.run`; see `TrioRun.check`."""
        self._run.check()

    def notify(self) -> None:
        """Say that there is something new."""
        self.rings += 1
        self._watchers.unpark_all()

    def close(self) -> None:
        """Say that nothing more will come."""
        self.is_closed = True
        self._watchers.unpark_all()

    async def wait(self, heard: int) -> None:
        """Wait until it has rung more often than `heard`, or is closed."""
        self._run.check()
        while self.rings == heard and not self.is_closed:
            await self._watchers.park()


class Updates(trio.abc.ReceiveChannel[SwarmSnapshot]):
    """A swarm's newest state, whenever it has changed.

    However slow the reader, nothing queues, and no agent waits: what was not read is out of date.
    It ends when the swarm's block has been left, after the last state.
    """

    def __init__(
        self, changed: ChangeSignal, look: Callable[[], SwarmSnapshot], every_s: float
    ) -> None:
        self._change_signal = changed
        self._look = look
        self._every_s = every_s
        self._heard = -1  # so that the first state comes at once
        self._next = -math.inf
        self._is_closed = False

    async def receive(self) -> SwarmSnapshot:
        """Wait until something is new, and for the time between two updates; return the state.

        Raises:
            trio.EndOfChannel: the swarm is over, and its last state was told.

        **Cancellation**: loses nothing.
        """
        if self._is_closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.checkpoint()
        await self._change_signal.wait(self._heard)
        if self._change_signal.rings == self._heard:
            raise trio.EndOfChannel
        if not self._change_signal.is_closed:
            await trio.sleep_until(self._next)
        self._heard = self._change_signal.rings
        began = trio.current_time()
        state = self._look()
        now = trio.current_time()
        # Of a very large swarm: what works in this thread must not wait for who watches it.
        self._next = now + max(self._every_s, PAUSES_PER_LOOK * (now - began))
        return state

    async def aclose(self) -> None:
        """Read no more."""
        self._is_closed = True
        await trio.lowlevel.checkpoint()


@attrs.frozen
class Forecast:
    """What is left to do.  A guess: as if all agents were alike."""

    seconds: float
    """Until the last agent is done."""
    cost_usd: float
    """US dollars, as far as prices are known."""


def forecast(state: SwarmSnapshot) -> Forecast | None:
    """Guess what is left; ``None`` while no agent is done, or when all are over."""
    left = [agent for agent in state.agents if agent.status not in OVER]
    done = [agent for agent in state.agents if agent.status == "completed"]
    if not done or not left:
        return None
    seconds = sum(agent.elapsed_s for agent in done) / len(done)
    dollars = sum(agent.spent.cost_usd for agent in done) / len(done)
    return Forecast(
        seconds=_seconds(left, seconds),
        cost_usd=sum(max(0.0, dollars - agent.spent.cost_usd) for agent in left),
    )


def _seconds(left: list[AgentSnapshot], each: float) -> float:
    """Guess how long they take together; as many at once as work now."""
    rests = [max(0.0, each - agent.elapsed_s) for agent in left]
    places = sum(agent.status != "waiting" for agent in left)
    return max(*rests, sum(rests) / max(1, places))
