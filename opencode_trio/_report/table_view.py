"""Progress as a live table in a terminal.  Needs rich, of the extra `progress`.

The table is put together here: a `rich.table.Table` of forty rows takes 40 ms to draw, four times
a second, and agents have better use for that time.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from opencode_trio._report.tables import MAX_NAMES, seconds
from opencode_trio._report.terminal_text import (
    count_of,
    doing,
    dollars,
    is_passing,
    numbers,
    printable,
    totals,
)
from opencode_trio._swarm.agent import OVER, AgentStatus
from opencode_trio._swarm.snapshots import AgentSnapshot, SwarmSnapshot
from opencode_trio._turn.budgets import Budget

STYLES: dict[AgentStatus, str] = {
    "waiting": "dim",
    "starting": "cyan",
    "running": "bold cyan",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
}

RANKS: dict[AgentStatus, int] = {
    "running": 0,
    "starting": 0,
    "failed": 1,
    "completed": 2,
    "cancelled": 2,
}
"""Which agents are shown when there is no room for all.  Those that wait have one line together."""

FRAME_LINES = 8
"""What stands around the rows: the head, the agents that wait, those left out, the totals (four
lines when it is narrow), and the line that the cursor is on."""

COLUMNS = {
    "agent": 0,
    "state": 9,
    "doing": 0,
    "steps": 5,
    "tokens": 6,
    "cost": 8,
    "elapsed": 7,
}
"""The columns and their widths; 0 takes a share of what is left."""

DISPENSABLE = ("tokens", "steps", "cost")
"""The columns that a narrow terminal does without, in this order."""

AMOUNTS = frozenset({"steps", "tokens", "cost", "elapsed"})
"""The columns that are aligned on the right."""

OUR_ERRORS = re.compile(r"^OpenCode\w+Error: ")
"""What they say is enough, and room is scarce."""

GAP = "  "

LEAST = 36
"""For names and what agents do, together; columns are left out for it."""


class TableView:
    """Draws the swarm's state over the last one.

    Args:
        file: the terminal.
        budget: the swarm's.
    """

    def __init__(self, file: TextIO, budget: Budget) -> None:
        self._budget = budget
        self._console = Console(file=file, force_terminal=True, highlight=False)
        self._live = self._new_live()

    def show(self, state: SwarmSnapshot) -> None:
        """Draw a state."""
        if not self._live.is_started:
            self._live.start()
            # rich hides the cursor.  Left visible, it is not lost when the program is killed.
            self._console.show_cursor(show=True)
        size = self._console.size
        rows = max(1, size.height - FRAME_LINES)
        self._live.update(picture(state, self._budget, rows, size.width), refresh=True)

    def pause(self) -> None:
        """Leave the terminal to somebody else; the next state is drawn below."""
        self._live.stop()
        self._live = self._new_live()

    def close(self) -> None:
        """Leave the last state standing."""
        self._live.stop()

    def _new_live(self) -> Live:
        # What the program prints meanwhile goes above the table.
        is_ours = self._console.file is sys.stdout
        return Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=is_ours,
            redirect_stderr=is_ours,
        )


def picture(state: SwarmSnapshot, budget: Budget, rows: int, width: int) -> Text:
    """Return the table, of so many agents, and the totals."""
    waiting = [agent for agent in state.agents if agent.status == "waiting"]
    begun = tuple(agent for agent in state.agents if agent.status != "waiting")
    shown, hidden = choose(begun, rows)
    table = Text()
    if shown:
        # All names count, also of agents not shown: else the columns would move all the time.
        longest = max(cell_len(printable(agent.name)) for agent in state.agents)
        widths = widths_for(width, longest)
        _add_row(table, {name: (name, "bold") for name in widths}, widths)
        for agent in shown:
            _add_row(table, _cells(agent), widths)
    if hidden:
        more = f"and {len(hidden)} more: {numbers(SwarmSnapshot(agents=hidden))}"
        table.append(f"{fitted(more, width, is_amount=False)}\n", "dim")
    if waiting:
        names = ", ".join(printable(agent.name) for agent in waiting[:MAX_NAMES])
        line = fitted(f"{len(waiting)} waiting: {names}", width, is_amount=False)
        table.append(f"{line}\n", STYLES["waiting"])
    agents, *amounts = totals(state, budget)
    return table.append(f"{agents}\n").append(" \u00b7 ".join(amounts))


def widths_for(width: int, longest: int) -> dict[str, int]:
    """Share a terminal's width among the columns that it has room for.

    Args:
        width: the terminal's.
        longest: of the agents' names.
    """
    kept = dict(COLUMNS)
    for name in DISPENSABLE:
        if _left(kept, width) < LEAST:
            del kept[name]
    left = max(LEAST // 2, _left(kept, width))
    agent = min(max(longest, len("agent")), left * 2 // 5)
    return kept | {"agent": agent, "doing": left - agent}


def _left(columns: Mapping[str, int], width: int) -> int:
    return width - sum(columns.values()) - len(GAP) * (len(columns) - 1)


def _add_row(table: Text, cells: Mapping[str, tuple[str, str]], widths: Mapping[str, int]) -> None:
    for number, (name, width) in enumerate(widths.items()):
        text, style = cells[name]
        cell = fitted(text, width, is_amount=name in AMOUNTS)
        table.append(GAP if number else "").append(cell, style)
    table.append("\n")


def fitted(text: str, width: int, *, is_amount: bool) -> str:
    """Cut or fill a text to so many columns of the terminal; some characters take two."""
    if cell_len(text) > width:
        text = set_cell_size(text, width - 1) + "\N{HORIZONTAL ELLIPSIS}"
    padding = " " * (width - cell_len(text))
    return padding + text if is_amount else text + padding


def choose(
    agents: tuple[AgentSnapshot, ...], rows: int
) -> tuple[tuple[AgentSnapshot, ...], tuple[AgentSnapshot, ...]]:
    """Choose whom to show, and whom not; both in the order of the start."""
    ranked = sorted(range(len(agents)), key=lambda n: _rank(agents[n], n))
    shown = set(ranked[:rows])
    return (
        tuple(agent for n, agent in enumerate(agents) if n in shown),
        tuple(agent for n, agent in enumerate(agents) if n not in shown),
    )


def _rank(agent: AgentSnapshot, number: int) -> tuple[int, int]:
    # Of those that are over the latest, of the others those who were first.
    return RANKS[agent.status], -number if agent.status in OVER else number


def _cells(agent: AgentSnapshot) -> dict[str, tuple[str, str]]:
    return {
        "agent": (printable(agent.name), ""),
        "state": (agent.status, STYLES[agent.status]),
        "doing": (OUR_ERRORS.sub("", doing(agent), count=1), _doing_style(agent)),
        "steps": (f"{agent.steps}", ""),
        "tokens": (count_of(agent.spent.tokens), ""),
        "cost": (dollars(agent.spent.cost_usd), ""),
        "elapsed": (seconds(agent.elapsed_s), ""),
    }


def _doing_style(agent: AgentSnapshot) -> str:
    if agent.status == "failed":
        return "red"
    if agent.status in OVER:
        return ""
    if agent.asks:
        return "bold yellow"
    return "yellow" if agent.is_retrying else "dim" * is_passing(agent)
