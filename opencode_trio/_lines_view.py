"""Progress as lines, for logs and pipes: one for each change."""

from __future__ import annotations

from typing import TextIO

from opencode_trio._agent import OVER
from opencode_trio._budget import Budget
from opencode_trio._updates import AgentSnapshot, SwarmSnapshot
from opencode_trio._wording import doing, dollars, duration, printable, totals


class LinesView:
    """Writes a line when an agent's status changes, or what it is at, and the totals in the end.

    Args:
        file: where to.
        budget: the swarm's.
    """

    def __init__(self, file: TextIO, budget: Budget) -> None:
        self._file = file
        self._budget = budget
        self._told: list[tuple[str, str]] = []
        self._last = SwarmSnapshot()

    def show(self, state: SwarmSnapshot) -> None:
        """Write what has changed since the last state."""
        self._last = state
        for number, agent in enumerate(state.agents):
            if number == len(self._told):
                self._told.append(("waiting", ""))  # that goes without saying
            now = (agent.status, doing(agent))
            # That a tool has ended is no news; the next one, or the end, soon comes.
            if now[0] != self._told[number][0] or now[1] not in {"", self._told[number][1]}:
                self._told[number] = now
                self._write(_line(agent), state)
        self._file.flush()

    def pause(self) -> None:
        """Leave the terminal to somebody else."""
        self._file.flush()

    def close(self) -> None:
        """Write the totals."""
        self._write("; ".join(totals(self._last, self._budget)), self._last)
        self._file.flush()

    def _write(self, text: str, state: SwarmSnapshot) -> None:
        self._file.write(f"[{duration(state.elapsed_s)}] {text}\n")


def _line(agent: AgentSnapshot) -> str:
    what = f"{printable(agent.name)}: {agent.status}"
    if text := doing(agent):
        what += f": {text}"
    if agent.status in OVER and agent.attempts:
        what += f" ({duration(agent.elapsed_s)}, {dollars(agent.spent.cost_usd)})"
    return what
