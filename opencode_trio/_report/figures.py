"""What one agent has done, in figures and spans."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from opencode_trio._report.recorder import AgentRecorder
from opencode_trio._report.spans import Span
from opencode_trio._swarm.agent import Agent, AgentStatus
from opencode_trio._turn.budgets import Spending
from opencode_trio._turn.titles import one_line

MAX_ERROR = 500
"""Characters of an error's message."""


@attrs.frozen(kw_only=True)
class Figures:
    """How often things happened, in whole session trees.  What goes on does not count yet."""

    steps: int = 0
    """Requests to the model."""
    tools: int = 0
    """Tool calls."""
    failed_tools: int = 0
    """Those of them that failed; a shell command that does not exit with 0, too."""
    asks: int = 0
    """Requests for permission, and questions."""
    asked_s: float = 0.0
    """Seconds that these waited for an answer, together."""
    retries: int = 0
    """How often a provider let an agent wait."""
    retried_s: float = 0.0
    """Seconds of that, together."""
    subagents: int = 0

    def __add__(self, other: Figures) -> Figures:
        mine, theirs = attrs.astuple(self), attrs.astuple(other)
        names = (field.name for field in attrs.fields(Figures))
        return Figures(**dict(zip(names, map(sum, zip(mine, theirs, strict=True)), strict=True)))


@attrs.frozen(kw_only=True)
class AgentReport:
    """What an agent has done."""

    number: int
    """Which of the swarm's it is, from 1."""
    name: str
    status: AgentStatus
    session_id: str | None = None
    """Its (last) session."""
    error: str | None = None
    """Why it failed, or was cancelled."""
    attempts: int = 0
    """How often it was begun."""
    elapsed_s: float = 0.0
    """Seconds since it was started, waiting for others not included."""
    spent: Spending = attrs.field(factory=Spending)
    figures: Figures = attrs.field(factory=Figures)
    spans: tuple[Span, ...] = attrs.field(default=(), repr=False)
    """What it did when, in the order of the starts."""


def report_of(agent: Agent, recorder: AgentRecorder) -> AgentReport:
    """Sum up what an agent has done."""
    error = agent.outcome.error if agent.outcome else None
    said = None if error is None else f"{type(error).__name__}: {one_line(str(error), MAX_ERROR)}"
    return AgentReport(
        number=agent.number,
        name=agent.name,
        status=agent.status,
        session_id=agent.session_id,
        error=said,
        attempts=agent.attempts,
        elapsed_s=agent.elapsed_s,
        spent=agent.spent,
        figures=figures_of(recorder),
        spans=(*recorder.spans(), *_end(agent.status, said, recorder)),
    )


def _end(status: AgentStatus, said: str | None, recorder: AgentRecorder) -> Iterator[Span]:
    """Yield the end of an agent that failed, if it did."""
    if status == "failed" and said is not None and recorder.ended_s is not None:
        at = recorder.ended_s
        yield Span(kind="error", title=one_line(said), start_s=at, end_s=at, is_failed=True)


def figures_of(recorder: AgentRecorder) -> Figures:
    """Count what is in a story."""
    return Figures(
        steps=recorder.counts["step"],
        tools=recorder.counts["tool"],
        failed_tools=recorder.failures["tool"],
        asks=recorder.counts["ask"],
        asked_s=recorder.seconds["ask"],
        retries=recorder.counts["retry"],
        retried_s=recorder.seconds["retry"],
        subagents=recorder.counts["subagent"],
    )
