"""`Report`: what a swarm has done, as a table, as JSON Lines, and as a picture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from opencode_trio._report.figures import AgentReport, Figures, report_of
from opencode_trio._report.page import page
from opencode_trio._report.recorder import SwarmRecorder
from opencode_trio._report.tables import failures, table, total_cells
from opencode_trio._swarm.agent import Agent
from opencode_trio._turn.budgets import Spending


@attrs.frozen(kw_only=True)
class Report:
    """What a swarm has done until it was asked.

    To keep one is to write it to a file:

        Path("swarm.html").write_text(swarm.report().html(), "utf-8")
    """

    agents: tuple[AgentReport, ...] = attrs.field(repr=False)
    """In the order in which they were started."""
    spent: Spending
    """By all together."""
    elapsed_s: float
    """Seconds from when the swarm was opened until now, or until its block was left."""
    taken_at: datetime
    """When it was asked."""

    @property
    def figures(self) -> Figures:
        """How often things happened, in all agents."""
        return sum((agent.figures for agent in self.agents), Figures())

    def table(self) -> str:
        """Return a table for a terminal: a line for each agent, one for all, how many, and errors."""
        count = Counter(agent.status for agent in self.agents)
        counted = ", ".join(f"{number} {status}" for status, number in count.items())
        total = total_cells(self.elapsed_s, self.figures, self.spent)
        lines = [table(self.agents, total), counted or "no agents", *failures(self.agents)]
        return "".join(f"{line}\n" for line in lines)

    def jsonl(self) -> str:
        """Return JSON Lines: first the swarm, then each agent and, after it, its spans.

        Each line is an object whose ``type`` is ``swarm``, ``agent`` or ``span``; its other keys
        are the attributes of `Report`, `AgentReport` and `Span`.  A span's ``agent`` is the number
        of the agent.
        """
        return "".join(f"{json.dumps(record)}\n" for record in self._records())

    def html(self) -> str:
        """Return a page for a browser: agents as lanes over time, one file that needs no other."""
        return page(
            self.agents,
            elapsed_s=self.elapsed_s,
            figures=self.figures,
            spent=self.spent,
            taken_at=self.taken_at,
        )

    def _records(self) -> Iterator[dict[str, Any]]:
        yield {
            "type": "swarm",
            "taken_at": self.taken_at.isoformat(),
            "elapsed_s": self.elapsed_s,
            "agents": len(self.agents),
            "spent": attrs.asdict(self.spent),
            "figures": attrs.asdict(self.figures),
        }
        for agent in self.agents:
            record = attrs.asdict(agent)
            spans = record.pop("spans")
            yield {"type": "agent", **record}
            yield from ({"type": "span", "agent": agent.number, **span} for span in spans)


def take_down(agents: Sequence[Agent], history: SwarmRecorder, spent: Spending) -> Report:
    """Return what agents have done so far."""
    return Report(
        agents=tuple(map(report_of, agents, history.recorders)),
        spent=spent,
        elapsed_s=history.elapsed_s,
        taken_at=datetime.now(UTC),
    )
