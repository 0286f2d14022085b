"""See what a swarm does, while it does it.

In a terminal this is a live table, which needs rich: `pip install 'opencode-trio[progress]'`.
Where there is no terminal it is a line for each change, and needs nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol, TextIO

import attrs
import trio

from opencode_trio._report.terminal_text import (
    answer_of,
    ask,
    doing,
    dollars,
    duration,
    is_passing,
    printable,
    question_of,
    totals,
)
from opencode_trio._swarm.agent import OVER, AgentStatus
from opencode_trio._swarm.snapshots import AgentSnapshot, SwarmSnapshot
from opencode_trio._tasks import current_run, open_background
from opencode_trio._turn.budgets import Budget
from opencode_trio.asks import PermissionAnswer, PermissionRequest, Reject
from opencode_trio.swarm import Swarm

_log = logging.getLogger("opencode_trio")


EVERY_S = 0.25
"""Between two pictures.  Faster is restless, and each costs the machine some milliseconds."""


TICK_S = 1.0
"""Between two pictures when nothing happens: the time goes on, and one sees that it does."""


GOODBYE_S = 2.0
"""For the last picture.  A terminal that does not take it by then is stopped (Ctrl+S)."""


class View(Protocol):
    """Shows states; its calls may block, and come from other threads, one at a time."""

    def show(self, state: SwarmSnapshot) -> None:
        """Show a state."""

    def pause(self) -> None:
        """Leave the terminal to somebody else, until the next state."""

    def close(self) -> None:
        """Leave the terminal as it should be."""


@asynccontextmanager
async def show_progress(
    opening: AbstractAsyncContextManager[Swarm],
    *,
    file: TextIO | None = None,
    is_live: bool | None = None,
    every_s: float = EVERY_S,
) -> AsyncGenerator[Swarm]:
    """Open a swarm, and show what it does to its end.

    It goes around: ``async with show_progress(open_swarm(client, limit=16)) as swarm``.  Drawing
    happens in a thread and skips states that it comes too late for: no agent ever waits for a slow
    terminal.

    Args:
        opening: what `open_swarm` returned.
        file: where to show it; by default `sys.stdout`.
        is_live: whether as a table rather than as lines; by default if `file` is a terminal.
        every_s: at least so many seconds lie between two pictures.

    Raises:
        ImportError: a table is wanted, and the extra `progress` is not installed.

    What the swarm's block raises comes out unchanged.

    **Cancellation**: cancels the swarm, shows how that ends, and leaves the terminal as it was.
    """
    out = sys.stdout if file is None else file
    view_of = _load_table() if (is_terminal(out) if is_live is None else is_live) else LinesView
    async with (
        open_background() as tasks,
        _shown(opening, tasks, out, view_of, every_s) as swarm,
    ):
        yield swarm


@asynccontextmanager
async def _shown(
    opening: AbstractAsyncContextManager[Swarm],
    tasks: trio.Nursery,
    out: TextIO,
    view_of: Callable[[TextIO, Budget], View],
    every_s: float,
) -> AsyncGenerator[Swarm]:
    display: _Display | None = None
    try:
        async with opening as swarm:
            display = _Display(swarm, view_of(out, swarm.budget), out, every_s)
            _displays.append(display)
            tasks.start_soon(display.run)
            yield swarm
    finally:
        if display is not None:
            _displays.remove(display)
            with trio.move_on_after(GOODBYE_S, shield=True):
                await display.over.wait()


@attrs.define(eq=False)
class _Display:
    """Shows a swarm's updates to their end."""

    swarm: Swarm
    view: View
    out: TextIO
    every_s: float
    run_in: object = attrs.field(factory=current_run)
    over: trio.Event = attrs.field(factory=trio.Event)
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    async def run(self) -> None:
        """Show them.  Raises nothing: agents do not fail because nobody can watch them."""
        try:
            await self._show_all()
        finally:
            self.over.set()

    async def ask(self, request: PermissionRequest) -> PermissionAnswer:
        """Ask the human; while they think, nothing is drawn."""
        agents = self.swarm.snapshot().agents
        names = {agent.session_id: agent.name for agent in agents}
        name = names.get(request.session_id, request.agent or "an agent")
        question = question_of(request, name)
        # Not abandoned when cancelled: the thread sees that, and then reads no more.
        line = await trio.to_thread.run_sync(self._ask, question, limiter=self._threads)
        return answer_of(line)

    def _ask(self, question: str) -> str:
        self.view.pause()
        return ask(question, sys.stdin, self.out)

    async def _show_all(self) -> None:
        try:
            updates = self.swarm.updates(every_s=self.every_s)
            with suppress(trio.EndOfChannel):
                while True:
                    await self._in_thread(self._draw, await self._next(updates))
        except Exception as exc:  # noqa: BLE001 - the terminal is gone, for example
            _log.warning("progress is shown no longer: %r", exc)
        with suppress(Exception):
            await self._in_thread(self.view.close)

    async def _next(self, updates: trio.abc.ReceiveChannel[SwarmSnapshot]) -> SwarmSnapshot:
        with trio.move_on_after(TICK_S):
            return await updates.receive()
        return self.swarm.snapshot()

    def _draw(self, state: SwarmSnapshot) -> None:
        self.view.show(state)
        if self.over.is_set():  # the terminal has come back when nobody waited for it any more
            self.view.close()

    async def _in_thread(self, function: Callable[..., None], *args: object) -> None:
        # A thread of its own: those that all share may be busy, and this one may hang.
        await trio.to_thread.run_sync(
            function, *args, limiter=self._threads, abandon_on_cancel=True
        )


_displays: list[_Display] = []
"""Those that are shown now.  Not in a context variable: who is told that an agent asks may be a
task that is older than the display.  And a process has one terminal."""


async def ask_in_terminal(request: PermissionRequest) -> PermissionAnswer:
    """Ask the human at the terminal: an ``on_permission`` for swarms that `show_progress` shows.

    One question is asked at a time.  Where there is no terminal, or nothing is shown, it refuses.

    **Cancellation**: withdraws the question.
    """
    here = [display for display in _displays if display.run_in is current_run()]
    if not here or not sys.stdin.isatty():
        await trio.lowlevel.checkpoint()
        return Reject("nobody is there to ask")
    return await here[-1].ask(request)


def is_terminal(file: TextIO) -> bool:
    """Whether a table can be drawn there."""
    return file.isatty() and os.environ.get("TERM") != "dumb"


def _load_table() -> Callable[[TextIO, Budget], View]:
    try:
        from opencode_trio._report.table_view import TableView  # noqa: PLC0415 - its extra is needed now
    except ImportError as error:
        raise ImportError(
            "the live table needs a package that is not installed:"
            " pip install 'opencode-trio[progress]', or ask for lines: is_live=False",
            name=error.name,
        ) from error
    return TableView


PATIENCE_S = 5.0
"""So long must a phase of a turn last to get a line: each step has some, and most pass at once."""


@attrs.define
class _Told:
    """What was written of an agent, and since when it is at what it is at."""

    status: AgentStatus = "waiting"  # that goes without saying
    doing: str = ""
    now: str = ""
    since_s: float = 0.0


class LinesView:
    """Writes a line when an agent's status changes, or what it is at, and the totals in the end.

    Thinking, writing and waiting for the model are told when they last.

    Args:
        file: where to.
        budget: the swarm's.
    """

    def __init__(self, file: TextIO, budget: Budget) -> None:
        self._file = file
        self._budget = budget
        self._told: list[_Told] = []
        self._last = SwarmSnapshot()

    def show(self, state: SwarmSnapshot) -> None:
        """Write what has changed since the last state."""
        self._last = state
        for number, agent in enumerate(state.agents):
            if number == len(self._told):
                self._told.append(_Told())
            if self._is_news(agent, self._told[number], state.elapsed_s):
                self._write(_line(agent, self._told[number].doing), state)
        self._file.flush()

    def _is_news(self, agent: AgentSnapshot, told: _Told, now_s: float) -> bool:
        # Without the countdown to the next try, which changes all the time.
        now = doing(attrs.evolve(agent, retry_in_s=None))
        if now != told.now:
            told.now, told.since_s = now, now_s
        passes = is_passing(agent) and now_s - told.since_s < PATIENCE_S
        what = "" if passes else now
        # That a tool has ended is no news; the next one, or the end, soon comes.
        is_news = agent.status != told.status or what not in {"", told.doing}
        if is_news:
            told.status, told.doing = agent.status, what
        return is_news

    def pause(self) -> None:
        """Leave the terminal to somebody else."""
        self._file.flush()

    def close(self) -> None:
        """Write the totals."""
        self._write("; ".join(totals(self._last, self._budget)), self._last)
        self._file.flush()

    def _write(self, text: str, state: SwarmSnapshot) -> None:
        self._file.write(f"[{duration(state.elapsed_s)}] {text}\n")


def _line(agent: AgentSnapshot, told: str) -> str:
    what = f"{printable(agent.name)}: {agent.status}"
    if told:
        what += f": {doing(agent)}"
    if agent.status in OVER and agent.attempts:
        what += f" ({duration(agent.elapsed_s)}, {dollars(agent.spent.cost_usd)})"
    return what
