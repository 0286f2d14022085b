"""Processes that a test starts, found again by a mark among their arguments.

The mark is a number of seconds that nobody else sleeps, so `sleep` can carry it; no `env -i`, no
double fork, and no session of one's own sheds it.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def carrying(mark: str) -> list[int]:
    """Find the processes with a mark among their arguments; zombies have none."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def new_mark() -> str:
    return f"{random.randrange(10**7, 10**8)}.{random.randrange(10**6, 10**7)}"  # noqa: S311


def kill_carriers(mark: str) -> None:
    while pids := carrying(mark):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def marked() -> Iterator[str]:
    """Give a new mark, and end whoever carries it: one failure shall not lead to the next."""
    mark = new_mark()
    try:
        yield mark
    finally:
        kill_carriers(mark)
