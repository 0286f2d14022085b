"""A worktree for each agent: apart from each other, and gone in the end."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from opencode_trio._swarm import worktrees as _worktree
from opencode_trio._swarm.worktrees import open_worktree
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.swarm import open_swarm
from swarming import World


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", repository, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "file").write_text("one\n")
    (path / ".gitignore").write_text("build\n")
    git(path, "init", "--quiet")
    git(path, "add", ".")
    git(path, "commit", "--quiet", "-m", "first")
    (path / "sub" / "file").write_text("not committed\n")
    return path


async def test_changes_are_told_and_nothing_is_left(repository: Path) -> None:
    diffs: list[str] = []
    async with open_worktree(str(repository), diffs.append) as directory:
        tree = Path(directory)
        assert (tree / "sub" / "file").read_text() == "one\n"
        (tree / "sub" / "file").write_text("two\n")
        (tree / "new").write_bytes(b"\xff\0binary")
        (tree / "build").write_text("ignored")
        assert len(git(repository, "worktree", "list").splitlines()) == 2
    assert not tree.parent.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert (repository / "sub" / "file").read_text() == "not committed\n"
    [diff] = diffs
    assert "build" not in diff
    git(repository, "checkout", "--quiet", ".")
    patch = repository.parent / "patch"
    patch.write_text(diff, errors="surrogateescape")
    git(repository, "apply", str(patch))
    assert (repository / "sub" / "file").read_text() == "two\n"
    assert (repository / "new").read_bytes() == b"\xff\0binary"


async def test_what_was_committed_there_counts(repository: Path) -> None:
    diffs: list[str] = []
    async with open_worktree(str(repository / "sub"), diffs.append) as directory:
        assert Path(directory).name == "sub"
        Path(directory, "file").write_text("two\n")
        git(Path(directory), "commit", "--quiet", "--all", "-m", "second")
    assert "+two" in diffs[0]


async def test_hooks_and_variables_of_an_outer_git_do_not_matter(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    async with open_worktree(str(repository), lambda _: None) as directory:
        assert Path(directory, "sub", "file").exists()


async def test_cancelled(repository: Path) -> None:
    diffs: list[str] = []
    with trio.move_on_after(0.5):
        async with open_worktree(str(repository), diffs.append) as directory:
            Path(directory, "new").write_text("new\n")
            await trio.sleep_forever()
    assert not Path(directory).exists()
    assert "+new" in diffs[0]
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_worktree(str(repository), diffs.append):
            pytest.fail("opened")
    assert len(git(repository, "worktree", "list").splitlines()) == 1


async def test_a_worktree_that_the_agent_destroyed(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_worktree(str(repository), lambda _: None) as directory:
        shutil.rmtree(directory)
    assert "is gone" in caplog.text
    assert not Path(directory).parent.exists()


def unreadable(directory: Path) -> None:
    (directory / ".git").unlink()


def with_an_empty_repository(directory: Path) -> None:
    git(directory, "init", "--quiet", "inner")


def with_a_repository(directory: Path) -> None:
    git(directory, "init", "--quiet", "inner")
    git(directory / "inner", "commit", "--quiet", "--allow-empty", "-m", "first")


@pytest.mark.parametrize("spoil", [unreadable, with_an_empty_repository, with_a_repository])
async def test_what_no_patch_can_tell_stays(
    repository: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    diffs: list[str] = []
    async with open_worktree(str(repository), diffs.append) as directory:
        tree = Path(directory)
        spoil(tree)
        (tree / "new").write_text("new\n")
    try:
        assert f"{tree} is in its diff, so it stays" in caplog.text
        assert (tree / "new").read_text() == "new\n"
        assert ["+new" in diff for diff in diffs] == ([] if spoil is unreadable else [True])
    finally:
        shutil.rmtree(tree.parent)


async def test_a_patch_is_one_whatever_the_configuration(repository: Path) -> None:
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "diff.x.textconv", "wc")
    (repository / ".git" / "info" / "attributes").write_text("* diff=x\n")
    git(repository, "checkout", "--quiet", ".")
    diffs: list[str] = []
    async with open_worktree(str(repository), diffs.append) as directory:
        Path(directory, "sub", "file").write_text("two\n")
        lock = git(Path(directory), "rev-parse", "--git-path", "index.lock").strip()
        Path(directory, lock).touch()  # of a git that was killed
    patch = repository.parent / "patch"
    patch.write_text(diffs[0])
    git(repository, "-c", "diff.noprefix=false", "apply", str(patch))
    assert (repository / "sub" / "file").read_text() == "two\n"


async def test_records_that_another_git_is_just_writing(repository: Path) -> None:
    """git reads the records of all worktrees, locks none, and fails at one that is not whole."""
    record = repository / ".git" / "worktrees" / "other"

    async def finish_soon() -> None:
        await trio.sleep(0.2)
        shutil.rmtree(record)

    def begin(nursery: trio.Nursery) -> None:
        record.mkdir(parents=True)
        (record / "gitdir").write_text("/nowhere/.git\n")
        (record / "commondir").touch()
        nursery.start_soon(finish_soon)

    async with trio.open_nursery() as nursery:
        begin(nursery)
        async with open_worktree(str(repository), lambda _: None):
            assert not record.exists()
            begin(nursery)
        assert not record.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


# --- what a program that was killed has left


HOST = """
import os, shutil, signal, subprocess, sys, time, trio
from pathlib import Path
from opencode_trio._swarm.worktrees import open_worktree

async def main(repository, act):
    async with open_worktree(repository, print) as tree:
        os.chdir(tree)
        exec(act)
        print(tree, flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


@pytest.fixture
def program(repository: Path) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], Path]]]:
    """Start programs that do something in a worktree, and stay."""
    with ExitStack() as stack:

        def start(act: str) -> tuple[subprocess.Popen[str], Path]:
            command = [sys.executable, "-c", HOST, str(repository), act]
            host = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(host.kill)
            assert host.stdout is not None
            return host, Path(host.stdout.readline().strip())

        yield start


Start = Callable[[str], tuple[subprocess.Popen[str], Path]]
FORK = """
if os.fork() == 0:
    signal.alarm(20)
    while os.path.exists(tree):
        time.sleep(0.01)
    os._exit(0)
"""
COMMIT = "subprocess.run(['git', 'commit', '-q', '--allow-empty', '-m', 'work'], check=True)"


@pytest.mark.parametrize(
    "act",
    [
        "Path('build').write_text('ignored')",
        "shutil.rmtree(tree)",
        "shutil.rmtree(Path(tree).parent)",
        "Path('../index').touch()",
        FORK,
    ],
)
async def test_a_killed_program_leaves_nothing_to_the_next(
    repository: Path, program: Start, caplog: pytest.LogCaptureFixture, act: str
) -> None:
    host, left = program(act)
    host.kill()
    host.wait()
    assert len(git(repository, "worktree", "list").splitlines()) == 2
    async with open_worktree(str(repository / "sub"), lambda _: None):
        assert len(git(repository, "worktree", "list").splitlines()) == 2
        assert not left.parent.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert list((repository / ".git" / "opencode-trio").iterdir()) == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("Path('new').write_text('new')", "changes that are not committed"),
        ("Path('sub/file').unlink()", "changes that are not committed"),
        (COMMIT, "new commits"),
        ("Path('.git').unlink()", "unknown changes"),
    ],
)
async def test_work_of_a_killed_program_stays_and_is_told(
    repository: Path, program: Start, caplog: pytest.LogCaptureFixture, act: str, words: str
) -> None:
    git(repository, "config", "status.showUntrackedFiles", "no")
    host, left = program(act)
    host.kill()
    host.wait()
    for _ in range(2):  # by each program, until somebody has seen to it
        caplog.clear()
        _worktree._searched.clear()
        async with open_worktree(str(repository), lambda _: None):
            assert left.is_dir()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert words in caplog.text
        assert str(left) in caplog.text
    shutil.rmtree(left.parent)
    _worktree._searched.clear()
    async with open_worktree(str(repository), lambda _: None):
        pass
    assert list((repository / ".git" / "opencode-trio").iterdir()) == []


WARDED_HOST = """
import os, sys, trio
from pathlib import Path
from opencode_trio._process.supervisor import Graces
from opencode_trio._process.child import open_child
from opencode_trio._process.scratch import make_scratch
from opencode_trio._swarm.worktrees import open_worktree

async def main(repository, cwd):
    how = {"scratch": make_scratch(), "graces": Graces(term_s=0.1, kill_s=0.1)}
    async with open_worktree(repository, print) as tree:
        os.chdir(tree)
        ACT
        cwd = Path(tree if cwd == "tree" else os.path.join(os.path.dirname(repository), cwd))
        async with open_child(["sleep", "60"], cwd=cwd, env=os.environ, **how) as child:
            print(tree, child._process.pid, flush=True)
            await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="wardens are Linux's")
@pytest.mark.parametrize("cwd", ["repository", "repository/sub", "tree"])
@pytest.mark.parametrize("act", ["", "Path('new').write_text('new')"])
def test_the_warden_of_a_killed_program_clears_its_worktrees(
    repository: Path, cwd: str, act: str
) -> None:
    program = WARDED_HOST.replace("ACT", act)
    command = [sys.executable, "-c", program, str(repository), cwd]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        left, warden = host.stdout.readline().split()
        host.kill()
    deadline = time.monotonic() + 100  # it ends a family, and starts a Python
    while Path("/proc", warden).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert Path(left).exists() is bool(act)
    assert len(git(repository, "worktree", "list").splitlines()) == (2 if act else 1)
    if act:
        shutil.rmtree(Path(left).parent)


async def test_worktrees_of_programs_that_live_are_theirs(repository: Path, program: Start) -> None:
    host, theirs = program("")
    async with open_worktree(str(repository), lambda _: None):
        _worktree._searched.clear()
        async with open_worktree(str(repository), lambda _: None):
            assert len(git(repository, "worktree", "list").splitlines()) == 4
            assert (theirs / "sub" / "file").exists()
    host.kill()
    host.wait()
    _worktree._searched.clear()
    async with open_worktree(str(repository), lambda _: None):
        assert not theirs.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"tree": "@", "commit": ""}'])
async def test_what_else_lies_where_worktrees_are_noted(
    repository: Path, tmp_path: Path, text: str
) -> None:
    (precious := tmp_path / "precious").mkdir()
    (note := repository / ".git" / "opencode-trio").mkdir()
    (note / "x.json").write_text(text.replace("@", str(precious / "not-there")))
    async with open_worktree(str(repository), lambda _: None):
        assert precious.exists()


async def test_where_there_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(OpenCodeConfigError, match="worktree"):
        async with open_worktree(str(tmp_path), lambda _: None):
            pytest.fail("opened")
    git(tmp_path, "init", "--quiet")
    with pytest.raises(OpenCodeConfigError, match="worktree"):
        async with open_worktree(str(tmp_path), lambda _: None):
            pytest.fail("opened")


async def test_no_worktree_is_made_where_opencode_cannot_work(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "feature%2Fx"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with pytest.raises(OpenCodeConfigError, match="rename the directory"):
        async with open_worktree(str(repository), lambda _: None):
            pytest.fail("opened")
    assert list(scratch.iterdir()) == []
    assert len(git(repository, "worktree", "list").splitlines()) == 1


async def test_agents_in_worktrees(repository: Path) -> None:
    async def write(session: Any, text: str) -> None:
        Path(session.directory, "answer").write_text(text)
        await trio.sleep(0.1)

    world = World()
    async with open_swarm(world.server(), workspace=repository, on_failure="collect") as swarm:
        for n in range(4):
            swarm.start_soon(write, f"answer {n}\n", worktree=True)
        swarm.start_soon(write, "no worktree\n")
        with pytest.raises(OpenCodeConfigError, match="is in no git repository"):
            swarm.start_soon(write, "", worktree=True, workspace=repository.parent)
    async with open_swarm(world.server(), on_failure="collect") as homeless:
        with pytest.raises(OpenCodeConfigError, match="needs a workspace"):
            homeless.start_soon(write, "", worktree=True)
    outcomes = swarm.outcomes()
    for n in range(4):
        assert f"+answer {n}\n" in (outcomes[n].diff or "")
    assert outcomes[4].diff is None
    assert (repository / "answer").read_text() == "no worktree\n"
    assert len(git(repository, "worktree", "list").splitlines()) == 1
