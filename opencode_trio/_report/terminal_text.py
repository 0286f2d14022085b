"""How a swarm's state reads: amounts, agents and totals, as text for a terminal or a log."""

from __future__ import annotations

import math
import os
import select
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO, TypeVar, get_args

import trio

from opencode_trio._swarm.agent import OVER, AgentStatus
from opencode_trio._swarm.snapshots import AgentPhase, AgentSnapshot, SwarmSnapshot, forecast
from opencode_trio._turn.budgets import Budget
from opencode_trio.asks import PermissionAnswer, PermissionRequest, Reject

Amount = TypeVar("Amount", int, float)


STATUSES: tuple[AgentStatus, ...] = get_args(AgentStatus)


PHASES: Mapping[AgentPhase, str] = {
    "server": "waiting for a server",
    "session": "opening a session",
    "idle": "no turn is open",
    "waiting": "waiting for the first token",
    "thinking": "thinking",
    "writing": "writing",
    "calling": "writing a tool call",
}


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
    if agent.status == "waiting" or agent.status in OVER:
        return ""
    if agent.asks:
        return printable(": ".join(filter(None, ["waiting for an answer", agent.asked])))
    if agent.is_retrying:
        return printable(": ".join(filter(None, [_retry(agent.retry_in_s), agent.retry_reason])))
    return printable(agent.call) or PHASES[agent.phase]


def is_passing(agent: AgentSnapshot) -> bool:
    """Whether what an agent is at is one of the short phases that follow one another."""
    if agent.status == "starting":
        return agent.phase == "session"
    return agent.status == "running" and not (agent.asks or agent.is_retrying or agent.call)


def _retry(seconds: float | None) -> str:
    return f"retrying in {math.ceil(seconds)} s" if seconds else "retrying"


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


ANSWERS: dict[str, PermissionAnswer] = {
    "o": "once",
    "once": "once",
    "a": "always",
    "always": "always",
    "r": "reject",
    "reject": "reject",
    "": "reject",
}
"""What may be typed; anything else refuses, and is the reason that the model is told."""


LOOK_S = 0.1
"""Between two looks whether the question still stands: its agent may have been cancelled."""


def question_of(request: PermissionRequest, name: str) -> str:
    """Return what the human is asked.  All of what shall be done is shown, every line."""
    what = "\n".join(f"    {line}" for text in request.patterns for line in text.splitlines())
    always = ", ".join(request.always) or "everything of the kind"
    return harmless(
        f"{name} wants permission: {request.permission or request.tool}\n{what}\n"
        f"  o: once   a: always ({always})   r: reject   or a reason to refuse: "
    )


def answer_of(line: str) -> PermissionAnswer:
    """Return what was answered."""
    text = line.strip()
    return ANSWERS.get(text.lower(), Reject(text))


def ask(question: str, stdin: TextIO, stdout: TextIO) -> str:
    """Ask, and return the line that is typed then.  For a thread of trio's.

    **Cancellation**: is noticed within `LOOK_S`.
    """
    _forget_typed(stdin)
    stdout.write(question)
    stdout.flush()
    fd = stdin.fileno()
    while not select.select([fd], [], [], LOOK_S)[0]:
        trio.from_thread.check_cancelled()
    return os.read(fd, 4096).decode(errors="replace")  # a terminal gives whole lines


def _forget_typed(stdin: TextIO) -> None:
    """What was typed before the question is no answer to it."""
    import termios  # noqa: PLC0415 - needed only where a human is asked

    termios.tcflush(stdin.fileno(), termios.TCIFLUSH)
