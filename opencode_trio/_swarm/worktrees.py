"""A git worktree for one agent: made from what is committed, removed when the block is left."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from opencode_trio._checks import check_path
from opencode_trio._process.isolation import host_environment
from opencode_trio._process.scratch import no_temporary
from opencode_trio._swarm.worktree_claims import Claim, abandoned, make_claim
from opencode_trio._tasks import clear_away
from opencode_trio.errors import OpenCodeConfigError, OpenCodeError

_log = logging.getLogger("opencode_trio")

GOODBYE_S = 30.0
"""For reading the changes and removing the worktree; a second in a large repository, and more only
on a disk that does not answer."""

_QUIET = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
"""A checkout of ours is none that the repository's hooks know how to greet."""

_AS_APPLY_TAKES_IT = (
    "--binary",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)
"""A patch, whatever the user's own configuration of git makes of one."""

_INNER_REPOSITORY = re.compile(r"^diff --git a/(.*) b/.*\nnew file mode 160000$", re.MULTILINE)

_RACE = re.compile(r"failed to read .*/worktrees/.*/commondir")
"""git reads the records of all worktrees and locks none: it fails at one that another git is just
writing or removing."""

_WHATEVER_IS_IN_IT = ("--force", "--force")

_NOT_REGISTERED = "is not a working tree"
"""What git says of a worktree of which it has no record, or none any more."""

_PREFIX = "opencode-trio-worktree-"

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Before trying again; that other git needs a few milliseconds, more on a busy machine."""


def check_repository(directory: str | None) -> None:
    """Check that a directory can have worktrees, as far as a look tells.

    Raises:
        OpenCodeConfigError: none is given, or it is in no git repository.
    """
    if directory is None:
        raise OpenCodeConfigError("worktree: needs a workspace, in a git repository")
    path = Path(directory)
    if "GIT_DIR" not in os.environ and not any(
        os.path.lexists(folder / ".git") for folder in (path, *path.parents)
    ):
        raise OpenCodeConfigError(
            f"worktree: {directory!r} is in no git repository; run `git init` and commit there, or "
            "leave `worktree` out"
        )


@asynccontextmanager
async def open_worktree(directory: str, on_diff: Callable[[str], None]) -> AsyncGenerator[str]:
    """Check out what is committed beside the repository that a directory is in.

    Args:
        directory: in the repository, or below; changes that are not committed stay there.
        on_diff: told, when the block has been left, what was changed in the worktree, committed
            or not, as a patch that ``git apply`` takes.  Ignored files are left out.  With what no
            patch can tell, a repository of its own say, the worktree stays, and the log says where.

    Yields:
        The directory's counterpart in the worktree.

    Worktrees of programs that were killed are removed first, those that hold work excepted: each of
    these is named in the log, and stays.

    Raises:
        OpenCodeConfigError: it is in no repository, nothing is committed there, there is no room
            for a worktree, or opencode cannot work where worktrees are made.

    **Cancellation**: removes the worktree, shielded, in at most `GOODBYE_S` seconds.
    """
    commit = await _asked(directory, "rev-parse", "--verify", "HEAD")
    prefix = await _asked(directory, "rev-parse", "--show-prefix")
    common = _resolved(directory, await _asked(directory, "rev-parse", "--git-common-dir"))
    await _clear_abandoned(directory, common)
    claim = _claimed(Path(directory).name, common, commit)
    tree, parent = claim.tree, claim.tree.parent
    is_made = is_told = is_removed = False
    try:
        check_path(str(tree))
        await _git_worktree(directory, "add", "--quiet", "--detach", str(tree), commit)
        is_made = True
        (tree / prefix).mkdir(parents=True, exist_ok=True)  # git keeps no empty directories
        yield str(tree / prefix)
    finally:
        with trio.move_on_after(GOODBYE_S, shield=True) as scope:
            is_told = not is_made or await _tell_changes(tree, commit, parent / "index", on_diff)
            if is_told:
                is_removed = await _remove(directory, tree, *_WHATEVER_IS_IN_IT)
        if is_told:
            await clear_away(partial(shutil.rmtree, ignore_errors=True), parent)
        if is_removed:
            claim.drop()
        else:
            claim.leave()
        if scope.cancelled_caught:
            _log.error("git did not read and remove %s within %g s", tree, GOODBYE_S)


def _resolved(directory: str, path: str) -> Path:
    return Path(directory, path).resolve()


def _claimed(name: str, common: Path, commit: str) -> Claim:
    try:
        parent = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    except OSError as exc:
        raise no_temporary(exc) from exc
    try:
        return make_claim(common, parent / f"{name}-{parent.name[-8:]}", commit)
    except OSError as exc:
        parent.rmdir()
        raise OpenCodeConfigError(f"worktree: {common} cannot be written to: {exc}") from exc


_searched: set[Path] = set()
"""Repositories in which this program has looked for what others left."""


async def _clear_abandoned(directory: str, common: Path) -> None:
    """Remove the worktrees of programs that were killed, but for those that hold work."""
    if common in _searched:
        return
    _searched.add(common)
    for left in abandoned(common):
        is_cleared = False
        try:
            if not left.tree.parent.name.startswith(_PREFIX):
                continue  # not ours
            if (work := await _work_in(left)) is not None:
                _log.warning(
                    "a program that was killed has left a worktree with %s: %s; once you have taken "
                    "what you need, `git worktree remove --force` it",
                    work,
                    left.tree,
                )
            elif await _remove(directory, left.tree):  # git looks again
                is_cleared = _remove_parent(left.tree.parent)
        finally:
            if is_cleared:
                left.drop()
            else:
                left.leave()


async def _work_in(left: Claim) -> str | None:
    """Say what would be lost with a worktree; None if nothing."""
    tree = str(left.tree)
    if not await trio.Path(tree).is_dir():
        return None
    try:
        if (await _git(tree, "rev-parse", "HEAD")).strip() != left.commit:
            return "new commits"
        every = ("--porcelain", "--untracked-files=normal", "--ignore-submodules=none")
        if await _git(tree, "status", *every):
            return "changes that are not committed"
    except OpenCodeError as exc:
        return f"unknown changes ({exc})"
    return None


def _remove_parent(parent: Path) -> bool:
    # Piece by piece: that it is ours to remove is only written in a file.
    try:
        for name in ("index", "index.lock"):
            (parent / name).unlink(missing_ok=True)
        parent.rmdir()
    except FileNotFoundError:
        return True
    except OSError as exc:
        _log.warning("the directory %s could not be removed: %s", parent, exc)
        return False
    return True


async def _tell_changes(
    tree: Path, commit: str, index: Path, on_diff: Callable[[str], None]
) -> bool:
    """Read what was changed; say whether that was all of it."""
    if not await trio.Path(tree).is_dir():
        _log.warning("%s is gone, and with it what was changed in it", tree)
        return True
    problem: object = None
    # With an index of our own: the agent's may be locked by a git that was killed.
    env = {"GIT_INDEX_FILE": str(index)}
    try:
        await _git(str(tree), "read-tree", commit, env=env)
        try:
            # What is new must be known to git to be in the difference.
            await _git(str(tree), "add", "-A", "-N", "--ignore-errors", ".", env=env)
        except OpenCodeError as exc:
            problem = exc
        diff = await _git(str(tree), "diff", *_AS_APPLY_TAKES_IT, commit, env=env)
        on_diff(diff)
        if (inner := _INNER_REPOSITORY.search(diff)) is not None:
            problem = f"{inner[1]} is a repository of its own"
    except OpenCodeError as exc:
        problem = exc
    if problem is not None:
        _log.error("not all that was changed in %s is in its diff, so it stays: %s", tree, problem)
    return problem is None


async def _remove(directory: str, tree: Path, *options: str) -> bool:
    try:
        await _git_worktree(directory, "remove", *options, str(tree))
    except OpenCodeError as exc:
        if _NOT_REGISTERED not in str(exc):
            _log.warning("the worktree %s could not be removed: %s", tree, exc)
            return False
    return True


async def _asked(directory: str, *arguments: str) -> str:
    try:
        return (await _git(directory, *arguments)).removesuffix("\n")
    except OpenCodeError as exc:
        raise OpenCodeConfigError(f"worktree: of {directory!r} none can be made: {exc}") from exc


async def _git_worktree(directory: str, *arguments: str) -> str:
    for pause_s in _PAUSES_S:
        try:
            return await _git(directory, "worktree", *arguments)
        except OpenCodeError as exc:
            if not _RACE.search(str(exc)):
                raise
        await trio.sleep(pause_s)
    return await _git(directory, "worktree", *arguments)


async def _git(directory: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run git; a name or content that is no UTF-8 survives in the answer."""
    # Within a hook, say, these speak of another repository.
    host = host_environment()
    inherited = {name: value for name, value in host.items() if not name.startswith("GIT_")}
    try:
        done = await trio.run_process(
            ["git", "-C", directory, *_QUIET, *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**inherited, "LC_ALL": "C", **(env or {})},
        )
    except OSError as exc:
        raise OpenCodeError(f"git cannot be started: {exc}") from exc
    if done.returncode:
        what = done.stderr.decode(errors="replace").strip()
        raise OpenCodeError(f"git {arguments[0]}: {what or f'exit status {done.returncode}'}")
    return done.stdout.decode(errors="surrogateescape")


if __name__ == "__main__":  # what a warden becomes whose host was killed
    trio.run(_clear_abandoned, sys.argv[1], Path(sys.argv[1]))
