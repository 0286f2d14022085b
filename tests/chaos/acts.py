"""Acts: what can be on the schedule, as values."""

from __future__ import annotations

from random import Random
from typing import TypeAlias

import attrs

from chaos.plots import PLOTS, Plot


@attrs.frozen
class Take:
    """One turn."""

    mark: str
    plot_name: str
    seed: str
    twist: str = "none"
    at: float = 0.0
    """When the twist comes: seconds, or the number of an event."""
    is_streamed: bool = False
    reader_s: float = 0.0
    """How long the reader of a stream takes over each event."""

    @property
    def plot(self) -> Plot:
        """What the model does in it."""
        return PLOTS[self.plot_name](self.mark, Random(f"{self.seed} {self.mark}"))


@attrs.frozen
class Conversation:
    """Turns of one session, one after the other."""

    number: int
    place: str
    """The server: ``calm``, ``mortal``, ``remote``, or ``own`` for an `OpenCodeSession`."""
    workspace: int
    takes: tuple[Take, ...]
    cut_at: float | None = None
    """Seconds until all of it is cancelled, whatever it is at."""
    kill_at: float | None = None
    """Seconds until its server is killed, if that is its own."""
    is_attended: bool = True
    """Whether there are handlers; else the reader of a stream answers, or nobody."""


@attrs.frozen
class Crowd:
    """Turns of one session, all asked for at once."""

    number: int
    place: str
    takes: tuple[Take, ...]


@attrs.frozen
class Freeze:
    """A turn that is cancelled when its server has been stopped for good."""

    number: int
    take: Take


@attrs.frozen
class SingleRun:
    """An ``opencode run``."""

    number: int
    take: Take
    log: str = "none"
    """What becomes of its log file, see `runs.LOGS`."""
    kill_at: float | None = None
    """Seconds until its process is killed."""
    stop_at: float | None = None
    """Seconds until its process is stopped for a moment."""


@attrs.frozen
class AgentPlan:
    """An agent of a swarm."""

    take: Take
    is_restartable: bool = False
    has_worktree: bool = False


@attrs.frozen
class SwarmPlan:
    """A swarm."""

    number: int
    place: str
    """Where its servers come from: ``client``, ``calm``, ``mortal`` or ``remote``."""
    agents: tuple[AgentPlan, ...]
    way: str = "start"
    """``start``, ``map``, ``race`` or ``best of``."""
    limit: int = 16
    on_failure: str = "collect"
    max_cost_usd: float | None = None
    kills: tuple[float, ...] = ()
    """Seconds until its servers are killed, again and again."""
    cut_at: float | None = None


@attrs.frozen
class Gust:
    """Something that happens to a server from outside."""

    number: int
    name: str
    place: str
    seconds: float = 0.0


Act: TypeAlias = Conversation | Crowd | Freeze | SingleRun | SwarmPlan | Gust
