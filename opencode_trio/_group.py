"""Where there is no child subreaper (macOS, BSD): a process group, and a look at who descends.

Weaker than a warden, in three ways that nothing in user space can mend:

* a descendant that left the group *and* lost its parent before the end (a double fork) is
  not found;
* what the child leaves behind when it ends by itself is found only inside its group;
* nobody ends the family when the host itself is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import trio

from opencode_trio._keeper import Graces, Started
from opencode_trio.results import Teardown

PAUSE_S = 0.05
"""Between two looks at the process table; a look costs ten milliseconds."""


class Person(NamedTuple):
    """A process; its start is part of its identity, because pids are used again."""

    pid: int
    started: str


class GroupKeeper:
    """Keeps a family together by its process group and its lines of descent."""

    def __init__(self, argv: Sequence[str], cwd: Path, _scratch: Path, graces: Graces) -> None:
        self.command = list(argv)
        self.options = {"cwd": cwd, "start_new_session": True}
        self._graces = graces
        self._leader = 0
        self._family: set[Person] = set()

    async def started(self, process: trio.Process) -> Started:
        """Return at once: what kept the child from starting has been raised by its start."""
        self._leader = process.pid
        return Started(process.pid)

    def let_go(self) -> None:
        """Ask the group to end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, signal.SIGTERM)

    async def end(self, process: trio.Process) -> Teardown:
        """Ask all who can be found, then kill them, while the graces last."""
        self._leader = process.pid
        terminated = await self._tell(signal.SIGTERM, self._graces.term_s)
        killed = await self._tell(signal.SIGKILL, self._graces.kill_s)
        await process.wait()
        survivors = tuple(person.pid for person in await self._alive())
        return Teardown(terminated=terminated, killed=killed, survivors=survivors, is_certain=False)

    def close(self) -> None:
        """Hold nothing."""

    async def _tell(self, number: signal.Signals, grace_s: float) -> int:
        """Signal everybody once, newcomers too, until nobody is left or the grace is over."""
        told: set[Person] = set()
        with trio.move_on_after(grace_s):
            while left := await self._alive():
                for person in left - told:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(person.pid, number)
                        os.kill(person.pid, signal.SIGCONT)  # the stopped hear nothing else
                told |= left
                await trio.sleep(PAUSE_S)
        return len(told)

    async def _alive(self) -> set[Person]:
        """Return who is left of the family, those included who joined it since."""
        command = ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat=,lstart="]
        # A session of its own: Ctrl+C in a terminal would end this, too.
        table = await trio.run_process(command, capture_stdout=True, start_new_session=True)
        alive = set(self._members(table.stdout.decode(errors="replace")))
        self._family |= alive
        return alive

    def _members(self, table: str) -> Iterator[Person]:
        children: dict[int, list[Person]] = {}
        found: list[Person] = []
        for line in table.splitlines():
            pid, parent, group, state, started = line.split(None, 4)
            if state.startswith("Z"):
                continue  # dead; whoever is its parent reaps it
            person = Person(int(pid), started)
            children.setdefault(int(parent), []).append(person)
            if self._leader in (person.pid, int(group)) or person in self._family:
                found.append(person)
        for person in found:  # grows while we walk it
            found += children.pop(person.pid, [])
        return iter(found)
