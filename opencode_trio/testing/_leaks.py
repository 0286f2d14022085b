"""`assert_no_leaks`: see for yourself that a block has left nothing behind."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import attrs
import trio

from opencode_trio._process.environment import RUN_MARKER
from opencode_trio._process.scratch import SCRATCH_PREFIX
from opencode_trio.testing._model import ScriptedModel

SETTLE_S = 1.0
"""How long to wait for what is about to go away: the kernel may still be ending a process, and a
server may not have noticed yet that its client has left."""


PAUSE_S = 0.02


def assert_no_leaks(*, models: Iterable[ScriptedModel] = ()) -> LeakCheck:
    """Check that a block leaves nothing behind that was not there before it.

    That is, when the block is left, by whatever way, and at most a second later:

    * no process that descends from this one, or that a child of this library started (all of
      them inherit the variable ``OPENCODE_TRIO_RUN``), also when nobody has reaped it;
    * no scratch directory of this process;
    * no descriptor of this process, ``/proc/self/fd``;
    * no request at one of the `models` that still waits for its answer.

    Use it with ``with`` around a `trio.run`, or with ``async with`` inside of one.  Processes are
    looked for on Linux only, and of those that shed the variable (``env -i``) *and* their
    ancestors (a double fork) none is found: `opencode_trio` finds those, this check does not.

    Args:
        models: scripted models that run outside of the block.

    Raises:
        AssertionError: something was left; the text lists everything.  An error of the block
            itself is not replaced: it gets the list as a note.

    **Cancellation**: the check is made all the same, and takes a second at most.

    Example::

        async with assert_no_leaks(models=[model]):
            with trio.move_on_after(1):
                await client.async_run("go", workspace, run_cfg=model.run_config())
    """
    return LeakCheck(tuple(models))


@attrs.define
class LeakCheck:
    """What `assert_no_leaks` returns: a context manager, both sync and async."""

    _models: tuple[ScriptedModel, ...]
    _before: Snapshot | None = attrs.field(init=False, default=None)

    def __enter__(self) -> None:
        self._before = Snapshot.of(self._models)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        deadline = time.monotonic() + SETTLE_S
        while (leaks := self._leaks()) and time.monotonic() < deadline:
            time.sleep(PAUSE_S)
        _tell(leaks, error)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leaks: list[str] = []
        deadline = time.monotonic() + SETTLE_S  # the wall's: processes know no virtual time
        with trio.CancelScope(shield=True):
            while (leaks := self._leaks()) and time.monotonic() < deadline:
                # In a thread, because a virtual clock would make no pause at all of a sleep.
                await trio.to_thread.run_sync(time.sleep, PAUSE_S)
        _tell(leaks, error)

    def _leaks(self) -> list[str]:
        if self._before is None:
            raise RuntimeError("the check was left before it was entered")
        return list(self._before.leaks())


@attrs.frozen
class Snapshot:
    """What there was when a block began."""

    processes: frozenset[tuple[int, int]]
    scratches: frozenset[Path]
    descriptors: dict[int, str]
    open_requests: tuple[tuple[ScriptedModel, int], ...]

    @classmethod
    def of(cls, models: tuple[ScriptedModel, ...]) -> Snapshot:
        """Look around."""
        return cls(
            processes=frozenset(identities()),
            scratches=frozenset(_scratches()),
            descriptors=own_descriptors(),
            open_requests=tuple((model, model.open_requests) for model in models),
        )

    def leaks(self) -> Iterator[str]:
        """Tell what there is that was not there then."""
        yield from map(str, self._new_processes())
        for path in sorted(set(_scratches()) - self.scratches):
            yield f"directory {path}"
        for number, target in sorted(own_descriptors().items()):
            if self.descriptors.get(number) != target:
                yield f"descriptor {number} -> {target}"
        for model, before in self.open_requests:
            if model.open_requests > before:
                count = model.open_requests - before
                yield f"{count} open request{'s' * (count > 1)} at {model.base_url}"

    def _new_processes(self) -> Iterator[Process]:
        everything = {process.pid: process for process in processes()}
        # The value begins with the pid of the host: other programs may run agents meanwhile.
        mark = f"{RUN_MARKER}={os.getpid()}."
        for process in everything.values():
            if process.identity not in self.processes and (
                any(entry.startswith(mark) for entry in process.environ)
                or descends(process, os.getpid(), everything)
            ):
                yield process


def _scratches() -> Iterator[Path]:
    return Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}{os.getpid()}-*")


def _tell(leaks: list[str], error: BaseException | None) -> None:
    if not leaks:
        return
    text = "left behind:\n  " + "\n  ".join(leaks)
    # A cancellation ends at its scope, and a note on it with it; nobody would see that.
    if error is None or isinstance(error, trio.Cancelled):
        raise AssertionError(text)
    error.add_note(text)


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
