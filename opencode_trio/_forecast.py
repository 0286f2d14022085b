"""What a swarm still needs, guessed from those of its agents that are done."""

from __future__ import annotations

import attrs

from opencode_trio._agent import OVER
from opencode_trio._updates import AgentSnapshot, SwarmSnapshot


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
