"""The process table, as /proc shows it.  Where there is no /proc, it is empty."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Process(NamedTuple):
    """One process; its pid may be used again, but not with the same start."""

    pid: int
    parent: int
    state: str
    start: int
    command: str
    directory: str
    environ: frozenset[str]

    def __str__(self) -> str:
        """Tell what a person needs to find out who started it."""
        return (
            f"process {self.pid} (parent {self.parent}, state {self.state}): {self.command}"
            f" [in {self.directory or '?'}]"
        )

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process has."""
        return self.pid, self.start


def processes() -> Iterator[Process]:
    """Read the process table."""
    for path in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # "pid (name) state parent ..."; the name may hold spaces and parentheses.
            name, rest = (path / "stat").read_text(errors="replace").rsplit(")", 1)
            fields = rest.split()
            yield Process(
                pid=int(path.name),
                parent=int(fields[1]),
                state=fields[0],
                start=int(fields[19]),
                command=" ".join(_strings(path / "cmdline")) or name.partition("(")[2],
                directory=_link(path / "cwd"),
                environ=frozenset(_strings(path / "environ")),
            )


def identities() -> Iterator[tuple[int, int]]:
    """Read who there is, and no more: a tenth of the work of `processes`."""
    for path in PROC.glob("[0-9]*"):
        with suppress(OSError):
            fields = (path / "stat").read_text(errors="replace").rsplit(")", 1)[1].split()
            yield int(path.name), int(fields[19])


def descends(process: Process, root: int, everything: dict[int, Process]) -> bool:
    """Whether `root` is among a process's ancestors."""
    seen: set[int] = set()  # pids are used again while we read: no loop is impossible
    while process.parent in everything and process.parent not in seen:
        if process.parent == root:
            return True
        seen.add(process.parent)
        process = everything[process.parent]
    return False


def own_descriptors() -> dict[int, str]:
    """Return this process's open descriptors, and what each leads to."""
    folder = PROC / "self/fd"
    if not folder.exists():
        folder = Path("/dev/fd")
    found: dict[int, str] = {}
    for name in os.listdir(folder):  # noqa: PTH208 - a listing, not paths
        with suppress(OSError):  # the listing's own descriptor is closed again
            found[int(name)] = _target(folder / name)
    return found


def _target(path: Path) -> str:
    path.lstat()
    return _link(path) or "?"


def _strings(path: Path) -> list[str]:
    try:
        data = path.read_text(errors="replace")
    except OSError:  # another user's, or a zombie
        return []
    return data.rstrip("\0").split("\0") if data else []


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
