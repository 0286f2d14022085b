"""Whose a worktree is: a file in the repository for each, locked for as long as its program lives.

A lock, not a pid: the kernel drops it with the program, and it holds across containers that share
a repository.  Blocking, and without trio.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import attrs

from opencode_trio._json import object_of, text_of
from opencode_trio._process.supervisor import keep_from_forks

if sys.platform != "win32":
    import fcntl

FOLDER = "opencode-trio"
"""Below the git directory that all worktrees of a repository have in common."""


@attrs.frozen
class Claim:
    """A worktree that this program owns."""

    tree: Path
    commit: str
    """What was checked out in it."""
    _file: TextIO
    _path: Path

    def drop(self) -> None:
        """Forget the worktree: it has been removed."""
        self._path.unlink(missing_ok=True)
        self._file.close()

    def leave(self) -> None:
        """Leave the worktree to the next program that uses the repository."""
        self._file.close()


def make_claim(common: Path, tree: Path, commit: str) -> Claim:
    """Claim a worktree that is about to be made.

    Args:
        common: the git directory that all worktrees have in common.
        tree: where it will be.
        commit: what will be checked out.

    Raises:
        OSError: the repository cannot be written to.
    """
    folder = common / FOLDER
    folder.mkdir(exist_ok=True)
    new, path = folder / f"{tree.name}.new", folder / f"{tree.name}.json"
    new.touch(mode=0o600, exist_ok=False)
    file = new.open("r+", encoding="utf-8")
    keep_from_forks(file)
    _is_locked_by_us(file)
    file.write(json.dumps({"tree": str(tree), "commit": commit}))
    file.flush()
    new.rename(path)  # only now: it is visible once it is locked and complete
    return Claim(tree, commit, file, path)


def abandoned(common: Path) -> Iterator[Claim]:
    """Take over the worktrees of programs that have ended without removing them."""
    for path in sorted((common / FOLDER).glob("*.json")):
        try:
            file = path.open(encoding="utf-8")
        except OSError:  # removed meanwhile, or another user's
            continue
        if (found := _taken_over(path, file)) is None:
            file.close()
        else:
            yield found


def _taken_over(path: Path, file: TextIO) -> Claim | None:
    if not _is_locked_by_us(file) or os.fstat(file.fileno()).st_nlink == 0:
        return None
    try:
        record = object_of(json.load(file))
    except ValueError:
        return None
    return Claim(Path(text_of(record, "tree")), text_of(record, "commit"), file, path)


def _is_locked_by_us(file: TextIO) -> bool:
    if sys.platform == "win32":  # nobody can be seen to have ended
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
