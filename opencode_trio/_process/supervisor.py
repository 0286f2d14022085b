"""Who starts a child, owns its family and ends it: the interface, and the policy of ending."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import attrs
import trio

from opencode_trio.results import Teardown


@attrs.frozen
class Graces:
    """How patient ending a family is; the one place where that is decided."""

    term_s: float = 0.5
    """From SIGTERM to SIGKILL.  opencode itself ends at once; half a second is for the tools it
    started, which are shells and builds with little to save."""
    kill_s: float = 5.0
    """From SIGKILL to giving up.  Only a process stuck in the kernel, or another user's,
    outlives SIGKILL."""
    keeper_s: float = 5.0
    """What the keeper may take beyond both, to reap and to remove the scratch directory."""

    @property
    def total_s(self) -> float:
        """The longest that ending a family can take, in seconds."""
        return self.term_s + self.kill_s + self.keeper_s


DEFAULT_GRACES = Graces()


@attrs.frozen
class Started:
    """A child that runs."""

    pid: int


@attrs.frozen
class NotStarted:
    """A child that does not, and why."""

    errno: int
    strerror: str
    filename: str | None = None


class Supervisor(Protocol):
    """Starts a child as the owner of its family, and ends that family."""

    command: list[str]
    """What to execute."""
    options: dict[str, Any]
    """Further options of `trio.lowlevel.open_process`."""

    async def started(self, process: trio.Process, /) -> Started | NotStarted:
        """Wait until the child runs, or is known not to."""
        ...

    def release(self) -> None:
        """Ask for the end of the family, without waiting."""

    async def end(self, process: trio.Process, /) -> Teardown:
        """End the family and wait until it has; bounded by the graces, called shielded."""
        ...

    def close(self) -> None:
        """Release what the keeper holds on this side."""


MakeSupervisor: TypeAlias = Callable[[Sequence[str], Path, Path, Graces], Supervisor]
"""Makes a keeper of a command line, a working directory, a scratch directory and the graces."""


class _Descriptor(Protocol):
    def fileno(self) -> int: ...


_not_for_forks: weakref.WeakSet[_Descriptor] = weakref.WeakSet()


def keep_from_forks(end: _Descriptor) -> None:
    """Take a descriptor away from processes that the host forks without executing another program.

    Such a copy would keep a pipe open, or a file locked, after the host has closed it, or died.
    """
    _not_for_forks.add(end)


def _take_from_fork() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for end in _not_for_forks:
        with contextlib.suppress(OSError, ValueError):  # it is closed
            # Replaced rather than closed: the number stays taken, so that nobody closes another
            # file by it.
            os.dup2(null, end.fileno(), inheritable=False)
    os.close(null)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_take_from_fork)
