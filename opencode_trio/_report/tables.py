"""A report as text: how numbers are written, and the table of agents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from opencode_trio._report.figures import AgentReport, Figures
from opencode_trio._turn.budgets import Spending
from opencode_trio._turn.titles import one_line

NAME_WIDTH = 32
ERROR_WIDTH = 500
MAX_NAMES = 20
"""So many agents that failed alike are named."""


def seconds(number: float) -> str:
    """Write a length of time: ``0.4s``, ``12s``, ``2m05s``, ``1h02m``."""
    whole = round(number)
    if whole < 10:
        return f"{number:.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def dollars(spent: Spending) -> str:
    """Write a cost: ``?`` if it is not known, and ``≥`` before what is, if that is not all."""
    if not spent.cost_usd:
        return "?" if spent.unpriced_tokens else "$0"
    written = f"${spent.cost_usd:.2f}" if spent.cost_usd >= 1 else f"${spent.cost_usd:.4f}"
    return f"≥{written}" if spent.unpriced_tokens else written


COLUMNS: Sequence[tuple[str, Callable[[AgentReport], str]]] = (
    ("agent", lambda agent: one_line(agent.name, NAME_WIDTH)),
    ("status", lambda agent: agent.status),
    ("time", lambda agent: seconds(agent.elapsed_s)),
    ("steps", lambda agent: f"{agent.figures.steps}"),
    ("tools", lambda agent: _with_failed(agent.figures)),
    ("asks", lambda agent: _with_seconds(agent.figures.asks, agent.figures.asked_s)),
    ("retries", lambda agent: _with_seconds(agent.figures.retries, agent.figures.retried_s)),
    ("tokens", lambda agent: f"{agent.spent.tokens:,}"),
    ("cost", lambda agent: dollars(agent.spent)),
)
LEFT = {"agent", "status"}


def table(agents: Sequence[AgentReport], total: Sequence[str]) -> str:
    """Return a table, a line for each agent, and one for all.

    Args:
        agents: the agents.
        total: the cells of the last line.
    """
    head = [name for name, _ in COLUMNS]
    rows = [head, *([write(agent) for _, write in COLUMNS] for agent in agents), list(total)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def total_cells(elapsed_s: float, figures: Figures, spent: Spending) -> tuple[str, ...]:
    """Return the last line's cells."""
    return (
        "all",
        "",
        seconds(elapsed_s),
        f"{figures.steps}",
        _with_failed(figures),
        _with_seconds(figures.asks, figures.asked_s),
        _with_seconds(figures.retries, figures.retried_s),
        f"{spent.tokens:,}",
        dollars(spent),
    )


def alike(agents: Iterable[AgentReport]) -> list[tuple[str, list[AgentReport]]]:
    """Put those together that ended with the same error; before what was cancelled, what failed."""
    groups: dict[str, list[AgentReport]] = {}
    for agent in sorted(agents, key=lambda agent: agent.status != "failed"):
        if agent.error is not None:
            groups.setdefault(agent.error, []).append(agent)
    return list(groups.items())


def failures(agents: Iterable[AgentReport]) -> Iterator[str]:
    """Yield a line for each error: what it was, and whose."""
    for error, group in alike(agents):
        names = [one_line(agent.name, NAME_WIDTH) for agent in group[:MAX_NAMES]]
        more = f" and {len(group) - MAX_NAMES} more" if len(group) > MAX_NAMES else ""
        yield f"{', '.join(names)}{more}: {one_line(error, ERROR_WIDTH)}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.ljust(width) if name in LEFT else cell.rjust(width)
        for (name, _), cell, width in zip(COLUMNS, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _with_failed(figures: Figures) -> str:
    failed = f" ({figures.failed_tools} failed)" if figures.failed_tools else ""
    return f"{figures.tools}{failed}"


def _with_seconds(number: int, took_s: float) -> str:
    return f"{number} ({seconds(took_s)})" if number else "0"
