"""Progress as a live table in a terminal.  Needs rich, of the extra `progress`.

The table is put together here: a `rich.table.Table` of forty rows takes 40 ms to draw, four times
a second, and agents have better use for that time.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from opencode_trio._report.terminal_text import (
    count_of,
    doing,
    dollars,
    duration,
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
    "waiting": 2,
    "completed": 3,
    "cancelled": 3,
}
"""Which agents are shown when there is no room for all."""

FRAME_LINES = 7
"""What stands around the rows: the head, the agents left out, the totals (four lines when it is
narrow), and the line that the cursor is on."""

COLUMNS = (
    ("agent", 0),
    ("state", 9),
    ("steps", 5),
    ("doing", 0),
    ("tokens", 6),
    ("cost", 8),
    ("elapsed", 11),
)
"""The columns and their widths; 0 takes a share of what is left."""

AMOUNTS = frozenset({"steps", "tokens", "cost", "elapsed"})
"""The columns that are aligned on the right."""

OUR_ERRORS = re.compile(r"^OpenCode\w+Error: ")
"""What they say is enough, and room is scarce."""

GAP = "  "

LEAST = 15
"""For names and what agents do, together: a narrower terminal wraps the lines."""


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
    shown, hidden = choose(state.agents, rows)
    table = Text()
    if shown:
        # All names count, also of agents not shown: else the columns would move all the time.
        longest = max(cell_len(printable(agent.name)) for agent in state.agents)
        widths = widths_for(width, longest)
        head = ((name, "bold") for name, _ in COLUMNS)
        _add_row(table, head, widths)
        for agent in shown:
            _add_row(table, _cells(agent), widths)
    if hidden:
        table.append(f"and {len(hidden)} more: {numbers(SwarmSnapshot(agents=hidden))}\n", "dim")
    agents, *amounts = totals(state, budget)
    return table.append(f"{agents}\n").append(" \u00b7 ".join(amounts))


def widths_for(width: int, longest: int) -> list[int]:
    """Share a terminal's width among the columns.

    Args:
        width: the terminal's.
        longest: of the agents' names.
    """
    fixed = sum(size for _, size in COLUMNS if size) + len(GAP) * (len(COLUMNS) - 1)
    left = max(LEAST, width - fixed)
    agent = min(max(longest, len("agent")), left * 3 // 5)
    return [size or (agent if name == "agent" else left - agent) for name, size in COLUMNS]


def _add_row(table: Text, cells: Iterable[tuple[str, str]], widths: list[int]) -> None:
    for number, ((text, style), width) in enumerate(zip(cells, widths, strict=True)):
        cell = fitted(text, width, is_amount=COLUMNS[number][0] in AMOUNTS)
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
    """Choose whom to show, and whom not; both in the order of the start.

    Those that wait for their turn have nothing to show, and are counted in one line.
    """
    ready = [n for n, agent in enumerate(agents) if agent.status != "waiting"]
    shown = set(sorted(ready, key=lambda n: _rank(agents[n], n))[:rows])
    return (
        tuple(agent for n, agent in enumerate(agents) if n in shown),
        tuple(agent for n, agent in enumerate(agents) if n not in shown),
    )


def _rank(agent: AgentSnapshot, number: int) -> tuple[int, int]:
    # Of those that are over the latest, of the others those who were first.
    return RANKS[agent.status], -number if agent.status in OVER else number


def _cells(agent: AgentSnapshot) -> list[tuple[str, str]]:
    spent = (count_of(agent.spent.tokens), dollars(agent.spent.cost_usd))
    amounts = (f"{agent.steps}", *spent, duration(agent.elapsed_s))
    steps, *others = ((text if agent.attempts else "", "") for text in amounts)
    return [
        (printable(agent.name), ""),
        (agent.status, STYLES[agent.status]),
        steps,
        (OUR_ERRORS.sub("", doing(agent), count=1), _doing_style(agent)),
        *others,
    ]


def _doing_style(agent: AgentSnapshot) -> str:
    if agent.status == "failed":
        return "red"
    return "bold yellow" if agent.asks and agent.status not in OVER else ""
