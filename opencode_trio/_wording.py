"""How a swarm's state reads: amounts, agents and totals, as text for a terminal or a log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, get_args

from opencode_trio._agent import OVER, AgentStatus
from opencode_trio._budget import Budget
from opencode_trio._forecast import forecast
from opencode_trio._updates import AgentSnapshot, SwarmSnapshot

Amount = TypeVar("Amount", int, float)

STATUSES: tuple[AgentStatus, ...] = get_args(AgentStatus)


def printable(text: str) -> str:
    """Return the first line, harmless."""
    return harmless(text.strip().partition("\n")[0])


def harmless(text: str) -> str:
    """Replace what is not printable: names and errors may hold a terminal's commands."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def duration(seconds: float) -> str:
    """Write ``4.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 59.95:  # which is written 60.0
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def dollars(amount: float) -> str:
    """Write ``$12.34``; of less than a dollar four digits."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.4f}"


def count_of(number: int) -> str:
    """Write ``9,999``, ``12.3k``, ``4.5M``."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:.1f}k" if number < 999_950 else f"{number / 1e6:.1f}M"


def doing(agent: AgentSnapshot) -> str:
    """Say what an agent is at, within its status; empty if there is nothing to say."""
    if agent.status == "failed":
        return printable(agent.error or "")
    if agent.status in OVER:
        return ""
    if agent.asks:
        return "asks a human"
    if agent.is_retrying:
        return "waits for the provider"
    return printable(agent.tool or "")


def totals(state: SwarmSnapshot, budget: Budget) -> list[str]:
    """Say how the whole swarm stands, and what is left to do."""
    return [
        _agents(state),
        _cost(state) + _of(budget.max_cost_usd, dollars),
        count_of(state.spent.tokens) + _of(budget.max_tokens, count_of) + " tokens",
        duration(state.elapsed_s),
        *_left(state),
    ]


def numbers(state: SwarmSnapshot, statuses: Iterable[AgentStatus] = STATUSES) -> str:
    """Write ``2 running, 1 failed``."""
    count = state.count
    return ", ".join(f"{count[status]} {status}" for status in statuses if count.get(status))


def _agents(state: SwarmSnapshot) -> str:
    number = len(state.agents)
    over = sum(agent.status in OVER for agent in state.agents)
    return f"{over} of {number} over" + (f" ({numbers(state)})" if number else "")


def _cost(state: SwarmSnapshot) -> str:
    at_least = "at least " if state.spent.unpriced_tokens else ""
    return at_least + dollars(state.spent.cost_usd)


def _of(limit: Amount | None, write: Callable[[Amount], str]) -> str:
    return "" if limit is None else f" of {write(limit)}"


def _left(state: SwarmSnapshot) -> list[str]:
    guess = forecast(state)
    if guess is None:
        return []
    cost = f" and {dollars(guess.cost_usd)}" if guess.cost_usd else ""
    return [f"about {duration(guess.seconds)}{cost} left"]
