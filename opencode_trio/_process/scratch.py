"""Scratch directories: made of links to the host's files, removed without following one.

Blocking, and without trio: call it in a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from opencode_trio.errors import OpenCodeConfigError

_log = logging.getLogger("opencode_trio")

SCRATCH_PREFIX = "opencode-trio-"

# A family that is still dying may write into what is being removed.
_REMOVAL_ATTEMPTS = 5
_REMOVAL_PAUSE_S = 0.05


def unusable(place: str, problem: Exception) -> OpenCodeConfigError:
    """Say that a place for our files, or opencode's, is none."""
    return OpenCodeConfigError(f"{place}: cannot be used: {problem}")


_FULL = {errno.ENOSPC, errno.EDQUOT}

_SAYS_FULL = re.compile(r"ENOSPC|EDQUOT|disk is full|no space left on device", re.IGNORECASE)
"""Of Bun, of SQLite, and of programs that opencode starts."""


def is_short_of_space(stderr: str) -> bool:
    """Whether opencode complains that it cannot write its files for want of space."""
    return _SAYS_FULL.search(stderr) is not None


def shortage(stderr: str, scratch: Path) -> str:
    """Say where space is short, as the end of an error's text; empty if opencode has enough."""
    if not is_short_of_space(stderr):
        return ""
    return f": no space is left for its files (by default in {scratch.parent}; TMPDIR may name another)"


def no_temporary(problem: Exception) -> OpenCodeConfigError:
    """Say that the temporary directory cannot be used, and what decides where it is."""
    where = "" if tempfile.tempdir is None else f" {os.fsdecode(tempfile.tempdir)}"
    if getattr(problem, "errno", None) in _FULL:
        problem = OSError(f"no space is left on its device ({problem})")
    error = unusable(f"the temporary directory{where}", problem)
    return OpenCodeConfigError(f"{error}; TMPDIR may name another")


def make_scratch() -> Path:
    """Make a directory of mode 0700, named after this process, that nobody can foretell.

    Raises:
        OpenCodeConfigError: there is no room for it.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-"))
    except OSError as exc:
        raise no_temporary(exc) from exc


def remove_scratch(path: Path) -> None:
    """Remove a scratch directory, and nothing that its links lead to.

    It never raises: directories without write permission are opened up first, what is written
    meanwhile is removed too, and what stays after all is logged.
    """
    for attempt in range(_REMOVAL_ATTEMPTS):
        # The depth of what a child has written is its own choice.
        with contextlib.suppress(RecursionError):
            if attempt:
                _open_up(path)
                time.sleep(_REMOVAL_PAUSE_S)
            shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return
    _log.warning("the scratch directory %s could not be removed", path)


def _open_up(path: Path) -> None:
    """Let the owner list and change each directory of a tree, links not followed."""
    with contextlib.suppress(OSError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            return
        path.chmod(0o700)
        for entry in path.iterdir():
            _open_up(entry)


def mirror(host: Path, private: Path, *, leave_out: Collection[str]) -> None:
    """Make a private directory, with a link to each entry of the host's but those left out.

    What is there already and works stays as it is.  A host directory that is missing, or
    that we may not list, has no entries.
    """
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    here, there = Path(os.path.realpath(private)), Path(os.path.realpath(host))
    if here == there:
        return
    # A link to the directory that we are in would be a loop for all who walk the tree.
    loop = here.relative_to(there).parts[0] if here.is_relative_to(there) else None
    for entry in _entries(host):
        if entry.name not in leave_out and entry.name != loop:
            link(private / entry.name, entry)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def link(place: Path, target: Path) -> None:
    """Make a symbolic link, unless something is there that works."""
    try:
        place.symlink_to(target)
    except FileExistsError:
        if not place.exists():
            # In one step: another child may be using this directory.
            fresh = place.with_name(f".{place.name}.{os.urandom(16).hex()}")
            fresh.symlink_to(target)
            fresh.replace(place)
