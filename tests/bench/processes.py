"""What processes use, as /proc tells it (Linux)."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 2**20


def family(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            children.setdefault(int(_fields(stat)[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:  # grows while we walk it
        found += children.get(pid, [])
    return found


def parent(pid: int) -> int:
    """Return who started it, or adopted it."""
    return int(_fields(Path(f"/proc/{pid}/stat"))[1])


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = _fields(Path(f"/proc/{pid}/stat"))
    return (int(fields[11]) + int(fields[12])) / TICKS


def _fields(stat: Path) -> list[str]:
    # "pid (name) state parent ..."; the name may hold spaces and parentheses.
    return stat.read_text("utf-8", "replace").rpartition(")")[2].split()


@attrs.frozen
class Memory:
    """What processes hold, in bytes."""

    resident: int = 0
    """All pages; what several share counts once for each."""
    proportional: int = 0
    """What several share counts once."""
    private: int = 0
    """What they share with nobody."""

    def __add__(self, other: Memory) -> Memory:
        return Memory(
            self.resident + other.resident,
            self.proportional + other.proportional,
            self.private + other.private,
        )


def memory(pids: Iterable[int]) -> Memory:
    """Add up what processes hold; one that is gone holds nothing."""
    return sum(map(_memory_of, pids), Memory())


def _memory_of(pid: int) -> Memory:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:
        return Memory()
    kib = {
        name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)
    }
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return Memory(kib["Rss"] * 1024, kib["Pss"] * 1024, private * 1024)


PAUSE_S = 0.25
SHARE = 0.02
"""How much of one core looking may take: the kernel walks all pages for each look."""


class PeakWatch:
    """Looks, in a thread of its own, for the most memory that some processes hold together."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self.peak = Memory()
        """By proportional size."""
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = 0.0
        while not self._over.wait(pause):
            began = time.thread_time()
            self.peak = max(self.peak, memory(self._pids()), key=lambda held: held.proportional)
            pause = max(PAUSE_S, (time.thread_time() - began) / SHARE)
