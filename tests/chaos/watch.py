"""Watching: that nothing hangs, and that nothing is left when a round is over."""

from __future__ import annotations

import ctypes
import gc
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import attrs
import trio

from bounded_run import task_tree
from chaos.stage import NAP_S
from opencode_trio._process.child import Child
from opencode_trio._run.run import Run
from opencode_trio._server.connection import Connection
from opencode_trio._session.event_buffer import EventBuffer
from opencode_trio._session.turn import Turn
from opencode_trio._swarm.agent import Agent
from opencode_trio._swarm.server_pool import resident_bytes
from opencode_trio.session import Session
from opencode_trio.testing import assert_no_leaks

BOUND_S = 240.0
"""The longest that an activity may take.  Each takes seconds; a muted event stream half a minute;
and the machine may be busy with other things."""

LOOK_S = 0.5

GROWTH_MIB = 80
"""By how much this process may grow after its second round: the interpreter's own hoards."""

OWNED = (Agent, Child, Connection, EventBuffer, Run, Session, Turn)
"""What must be gone when the blocks that own it are."""


@attrs.define(eq=False)
class Watch:
    """Knows who is on stage, and since when."""

    complain: Callable[[str], None]
    give_up: Callable[[], None]
    on_stage: dict[str, float] = attrs.field(factory=dict)
    slowest_loop_s: float = 0.0

    @contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """Watch an activity."""
        self.on_stage[name] = trio.current_time()
        try:
            yield
        finally:
            del self.on_stage[name]

    async def run(self) -> None:
        """Look again and again; print all tasks when an activity hangs."""
        while True:
            before = trio.current_time()
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            self.slowest_loop_s = max(self.slowest_loop_s, now - before - LOOK_S)
            late = [name for name, began in self.on_stage.items() if now - began > BOUND_S]
            if late:
                self.complain(f"not over after {BOUND_S:g} s: {late}\n{task_tree()}")
                self.give_up()
                return


@asynccontextmanager
async def leaving_nothing(complain: Callable[[str], None]) -> AsyncIterator[None]:
    """Complain of what a round leaves behind."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    try:
        async with assert_no_leaks():
            yield
    except AssertionError as exc:
        complain(str(exc))
    nappers = _nappers()
    if nappers:
        complain(f"processes of the agents' are left: {nappers}")
    with trio.CancelScope(shield=True):
        # Threads of trio's cache, and callbacks of generators, have their last word.
        await trio.sleep(0.2)
    left = trio.lowlevel.current_statistics().tasks_living - tasks
    if left > 0:
        complain(f"{left} tasks are left:\n{task_tree()}")
    gc.collect()
    kept = Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, OWNED))
    if kept:
        complain(f"objects are kept alive: {dict(kept)}")


def _nappers() -> list[str]:
    """Find those who sleep on the agents' behalf, however they have detached themselves."""
    nap = f"{NAP_S:.7f}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if nap in (words := path.read_bytes()):
                found.append(f"{path.parent.name}: {words.decode().split(chr(0))}")
    return found


def resident_mib() -> float:
    """Measure this process, without what its allocator merely keeps."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident_bytes(os.getpid()) / 2**20
