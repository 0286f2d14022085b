"""`open_child` on small real processes: how they start, how they end, and that nobody is left.

Everything here is run with each keeper.  What the warden itself does is in test_warden.py.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

import opencode_trio
from families import carrying, marked
from opencode_trio._process import supervisors as _warden_host
from opencode_trio._process.child import STDERR_TAIL_BYTES, Child, open_child
from opencode_trio._process.environment import RUN_MARKER
from opencode_trio._process.output import DRAIN_S, Output, Pipe, Spool
from opencode_trio._process.scratch import SCRATCH_PREFIX, make_scratch
from opencode_trio._process.supervisor import Graces, MakeSupervisor, Started
from opencode_trio._process.supervisors import GroupSupervisor, WardenSupervisor
from opencode_trio._run.run import RunPlan, open_run
from opencode_trio.errors import (
    OpenCodeBinaryNotFoundError,
    OpenCodeConfigError,
    OpenCodeError,
    OpenCodeProcessError,
)
from opencode_trio.results import Teardown
from opencode_trio.testing import assert_no_leaks

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

SUPERVISORS: dict[str, MakeSupervisor] = {"warden": WardenSupervisor, "group": GroupSupervisor}
# A family as each keeper can promise to find it; @ is the mark.
FAMILY = {
    "warden": "(setsid sh -c 'sleep @ & sleep @' &) ; env -i setsid sleep @ &",
    "group": "(sleep @ &); sleep @ &",
}
DEAF = "trap '' TERM; sleep @ & sleep @ & echo ready; wait; while true; do sleep @; done"
QUICK = Graces(term_s=0.2, kill_s=1.0, keeper_s=0.5)
AT_ONCE_S = 3.0  # what should take a tenth of a second, on a busy machine

Launch = Callable[..., AbstractAsyncContextManager[Child]]
MakeOutput = Callable[[], Output]


@pytest.fixture
def mark() -> Iterator[str]:
    with marked() as mark:
        yield mark


@pytest.fixture(params=SUPERVISORS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def launch(kind: str, tmp_path: Path, mark: str) -> Launch:
    """Return `open_child` with everything filled in but a shell's script."""

    def launch(
        script: str, *, argv: Sequence[str] = (), **how: Any
    ) -> AbstractAsyncContextManager[Child]:
        script = script.replace("FAMILY", FAMILY[kind]).replace("@", mark)
        options: dict[str, Any] = {
            "cwd": tmp_path,
            "env": os.environ | {RUN_MARKER: f"{os.getpid()}.test"},
            "make_supervisor": SUPERVISORS[kind],
        }
        if "scratch" not in how:
            options["scratch"] = make_scratch()
        return open_child(argv or ["sh", "-c", script], **options | how)

    return launch


async def read_all(child: Child) -> bytes:
    data = b""
    while chunk := await child.receive_some():
        data += chunk
    return data


async def ready(child: Child) -> None:
    data = b""
    while b"ready" not in data:
        chunk = await child.receive_some()
        assert chunk, data
        data += chunk


# --- starting, streams, status


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_exit_code(launch: Launch, code: int) -> None:
    async with launch(f"exit {code}") as child:
        await child.wait()
        assert child.exit_code == code


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGINT", "SIGABRT"])
async def test_death_by_signal(launch: Launch, name: str) -> None:
    number = signal.Signals[name]
    async with launch(f"ulimit -c 0; kill -{number} $$") as child:
        await child.wait()
        assert child.exit_code == -number


async def test_stdin_arrives_whole_and_ends(launch: Launch) -> None:
    data = random.randbytes(1_000_000)  # noqa: S311
    async with launch("cat", stdin=data) as child:
        assert await read_all(child) == data
        await child.wait()
        assert child.exit_code == 0


async def test_child_that_does_not_read(launch: Launch) -> None:
    async with launch("exec <&-; exit 4", stdin=bytes(1_000_000)) as child:
        await child.wait()
        assert child.exit_code == 4


@contextmanager
def forked() -> Iterator[int]:
    """Fork, as `multiprocessing` does, a process that does nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn, because there are threads
        pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


async def test_stdin_ends_though_the_host_has_forked(launch: Launch) -> None:
    async with launch("echo ready; sleep 0.2; wc -c", stdin=bytes(1_000_000)) as child:
        await ready(child)
        with forked(), trio.fail_after(AT_ONCE_S):
            assert int(await read_all(child)) == 1_000_000


@pytest.mark.parametrize("kind", ["warden"], indirect=True)
async def test_forks_have_no_copy_of_the_lifeline(launch: Launch) -> None:
    def sockets(pid: int) -> set[str]:
        found = set()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # that of the directory itself
                found.add(str(link.readlink()))
        return {name for name in found if name.startswith("socket:")}

    before = sockets(os.getpid())
    async with launch("echo ready; exec sleep @") as child:
        await ready(child)
        with forked() as fork:
            assert len(sockets(os.getpid())) == len(before) + 1
            while sockets(fork) != before:  # noqa: ASYNC110 - it may just be starting
                await trio.sleep(0.01)


async def test_child_pid_is_the_childs(launch: Launch) -> None:
    async with launch("echo $$; exec sleep @") as child:
        assert int(await child.receive_some()) == child.pid
        assert child.exit_code is None
        assert child.teardown is None


async def test_child_is_out_of_reach_of_our_terminal(launch: Launch) -> None:
    async with launch("echo ready; sleep @") as child:
        await ready(child)
        supervisor = child._process.pid
        assert os.getsid(0) not in {os.getsid(supervisor), os.getsid(child.pid)}


OUTPUTS = pytest.mark.parametrize("output", [Pipe, Spool])


@pytest.mark.parametrize("pause_s", [0.0, 0.3])  # the exit comes amid the reading, or before it
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", ""])
@OUTPUTS
async def test_output_held_by_a_grandchild(
    launch: Launch, closed: str, pause_s: float, output: MakeOutput
) -> None:
    began = time.monotonic()
    async with launch(f"echo hi; sleep @ {closed} & exit 3", make_output=output) as child:
        assert await child.receive_some() == b"hi\n"
        await trio.sleep(pause_s)
        assert await read_all(child) == b""
        await child.wait()
        assert child.exit_code == 3
        assert time.monotonic() - began < DRAIN_S + AT_ONCE_S


@OUTPUTS
async def test_late_reader_finds_everything(launch: Launch, output: MakeOutput) -> None:
    async with launch("echo one; echo two; sleep @ & exit 0", make_output=output) as child:
        await child.wait()
        await trio.sleep(DRAIN_S + 0.1)
        assert await read_all(child) == b"one\ntwo\n"


# As opencode does: it exits, and what has not been read by then is lost.
CARELESS = "import os; os.set_blocking(1, False); os.write(1, bytes(300_000))"


async def test_a_spool_takes_what_a_child_would_not_wait_with(launch: Launch) -> None:
    argv = [sys.executable, "-I", "-S", "-c", CARELESS]
    async with launch("", argv=argv, make_output=Spool) as child:
        await child.wait()
        assert await read_all(child) == bytes(300_000)


async def test_a_spool_is_read_while_it_is_written(launch: Launch) -> None:
    async with launch(
        "echo one; read line; echo $line", stdin=b"two\n", make_output=Spool
    ) as child:
        assert await read_all(child) == b"one\ntwo\n"
    async with launch("echo one; exec sleep @", make_output=Spool) as child:
        assert await child.receive_some() == b"one\n"
        with trio.move_on_after(0.1):
            await child.receive_some()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.receive_some)
            await trio.sleep(0.1)
            with pytest.raises(trio.BusyResourceError):
                await child.receive_some()
            nursery.cancel_scope.cancel()


async def test_a_spool_that_cannot_be_made(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = make_scratch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OpenCodeConfigError, match="temporary directory"):
        async with launch("exit", scratch=scratch, make_output=Spool):
            pass
    assert not scratch.exists()


async def test_stderr_is_kept_up_to_a_bound(launch: Launch) -> None:
    seen: list[int] = []
    script = "seq 100000 >&2; printf '\\303\\274' >&2"
    async with launch(script, on_stderr=lambda child: seen.append(len(child.stderr_tail))) as child:
        await child.wait()
        assert child.stderr_tail.endswith("99999\n100000\nü")
        # In whole lines, because half a secret would not be known for one.
        assert STDERR_TAIL_BYTES - 6 <= len(child.stderr_tail.encode()) <= STDERR_TAIL_BYTES
        assert all(len(line) == 5 for line in child.stderr_tail.split("\n")[:-2])
        assert seen
        assert max(seen) <= STDERR_TAIL_BYTES


# --- what cannot be started


def programs(tmp_path: Path) -> dict[str, tuple[list[str], dict[str, Any], type[OpenCodeError]]]:
    (data := tmp_path / "data").write_text("no program")
    (broken := tmp_path / "broken").write_bytes(b"\x7fELF no program")
    (orphan := tmp_path / "orphan").write_text("#!/nonexistent/interpreter\n")
    for path in (broken, orphan):
        path.chmod(0o755)
    huge = {"env": {"HUGE": "x" * 3_000_000}}
    return {
        "ENOENT": ([str(tmp_path / "missing")], {}, OpenCodeBinaryNotFoundError),
        "EACCES": ([str(data)], {}, OpenCodeBinaryNotFoundError),
        "ENOEXEC": ([str(broken)], {}, OpenCodeBinaryNotFoundError),
        "interpreter": ([str(orphan)], {}, OpenCodeBinaryNotFoundError),
        "cwd": (["true"], {"cwd": tmp_path / "gone"}, OpenCodeConfigError),
        "cwd-is-a-file": (["true"], {"cwd": data}, OpenCodeConfigError),
        "E2BIG": (["true"], huge, OpenCodeConfigError),
        "E2BIG-argument": (["true", "x" * 3_000_000], {}, OpenCodeConfigError),
    }


CASES = "ENOENT EACCES ENOEXEC interpreter cwd cwd-is-a-file E2BIG E2BIG-argument"


@pytest.mark.parametrize("case", CASES.split())
async def test_what_cannot_be_started(launch: Launch, tmp_path: Path, case: str) -> None:
    argv, how, error = programs(tmp_path)[case]
    scratch = make_scratch()
    with pytest.raises(error) as caught:
        async with launch("", argv=argv, scratch=scratch, **how):
            raise AssertionError("the block must not be entered")
    assert type(caught.value) is error
    named = how.get("cwd") or ("too long" if "E2BIG" in case else argv[0])
    assert str(named) in str(caught.value)
    assert not scratch.exists()


async def test_keeper_that_cannot_be_made(tmp_path: Path) -> None:
    def make(*_: object) -> Any:
        raise OpenCodeProcessError("not here")

    scratch = make_scratch()
    with pytest.raises(OpenCodeProcessError):
        async with open_child(
            ["true"], cwd=tmp_path, env={}, scratch=scratch, make_supervisor=make
        ):
            pass
    assert not scratch.exists()


def pretend(path: Path, script: str) -> str:
    """Make a program that is no Python interpreter, whatever its name."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@asynccontextmanager
async def warded(cwd: Path, *argv: str) -> AsyncIterator[Child]:
    scratch = make_scratch()
    try:
        async with open_child(argv or ["true"], cwd=cwd, env={}, scratch=scratch) as child:
            yield child
    finally:
        assert not scratch.exists()


async def test_warden_that_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = pretend(tmp_path / "python3", "echo 'no such option' >&2; exit 2")
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(OpenCodeProcessError, match="its warden ended at once") as caught:
        async with warded(tmp_path):
            raise AssertionError("the block must not be entered")
    assert "no such option" in caught.value.stderr


# --- where `sys.executable` is no Python


@pytest.mark.parametrize("kind", ["frozen", "embedded", "unknown", "removed"])
async def test_a_program_that_is_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """PyInstaller and the like; uwsgi and the like; a virtual environment that is gone."""
    name = {"frozen": "python-app", "embedded": "uwsgi"}.get(kind, "python3")
    application = pretend(tmp_path / name, f"touch {tmp_path}/started")
    if kind == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    if kind == "removed":
        Path(application).unlink()
    real = Path(sys.executable).resolve()
    monkeypatch.setattr(sys, "executable", "" if kind == "unknown" else application)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(OpenCodeConfigError, match=r"no Python .* OPENCODE_TRIO_PYTHON") as caught:
        async with warded(tmp_path):
            raise AssertionError("the block must not be entered")
    assert ("is gone" in str(caught.value)) is (kind == "removed")

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(real)
    async with warded(tmp_path, "/bin/echo", "hi") as child:
        assert await read_all(child) == b"hi\n"
    assert not (tmp_path / "started").exists()


async def test_an_interpreter_that_cannot_be_started_is_no_missing_opencode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCODE_TRIO_PYTHON", str(tmp_path / "gone"))
    with pytest.raises(OpenCodeProcessError, match="gone, the Python that looks after opencode"):
        async with warded(tmp_path):
            raise AssertionError("the block must not be entered")


async def test_a_frozen_application_without_the_warden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_warden_host, "WARDEN", str(tmp_path / "_left_out.py"))
    with pytest.raises(OpenCodeConfigError, match="--collect-all opencode_trio"):
        async with warded(tmp_path):
            raise AssertionError("the block must not be entered")


PACKED = """
import opencode_trio, sys, trio
from pathlib import Path
from opencode_trio._process.child import open_child
from opencode_trio._process.scratch import make_scratch

assert ".zip" in opencode_trio.__file__

async def main():
    argv = ["/bin/echo", "hi"]
    async with open_child(argv, cwd=Path("/"), env={}, scratch=make_scratch()) as child:
        print(await child.receive_some())
    print(child.teardown.is_certain)

trio.run(main)
"""


def test_the_library_in_a_zip(tmp_path: Path) -> None:
    package = Path(opencode_trio.__file__).parent
    packed = shutil.make_archive(str(tmp_path / "app"), "zip", package.parent, package.name)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {packed!r})\n{PACKED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n") == ["b'hi\\n'", "True", ""], done.stderr


async def test_windows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OpenCodeProcessError, match=r"Windows.*WSL"):
        _warden_host.best_supervisor()([], tmp_path, tmp_path, QUICK)


def test_elsewhere_a_group_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, supervisor in {"linux": WardenSupervisor, "darwin": GroupSupervisor}.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert _warden_host.best_supervisor() is supervisor


# --- leaving the block


@pytest.mark.parametrize("way", ["end", "error", "cancelled", "child ended"])
async def test_nobody_is_left(launch: Launch, mark: str, way: str) -> None:
    scratch = make_scratch()
    (scratch / "file").touch()
    child: Child | None = None
    script = f"FAMILY echo ready; {'exit 0' if way == 'child ended' else 'sleep @'}"
    with trio.CancelScope() as scope:
        try:
            async with launch(script, scratch=scratch) as child:
                await ready(child)
                if way == "error":
                    raise KeyError(mark)  # noqa: TRY301 - out of the block
                if way == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()
                if way == "child ended":
                    await child.wait()
        except KeyError:
            assert way == "error"
    assert carrying(mark) == []
    assert not scratch.exists()
    assert child
    assert child.teardown is not None
    assert child.teardown.survivors == ()
    assert scope.cancelled_caught is (way == "cancelled")


async def test_error_of_the_block_leaves_bare(launch: Launch) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with launch("sleep @"):
            try:
                raise KeyError("first")  # noqa: TRY301
            except KeyError:
                raise ZeroDivisionError("second")  # noqa: B904
    assert type(caught.value.__context__) is KeyError
    assert caught.value.__cause__ is None


async def test_error_of_a_cancelled_block_leaves_bare(launch: Launch) -> None:
    with trio.CancelScope() as scope, pytest.raises(ZeroDivisionError):
        async with launch("sleep @"):
            scope.cancel()
            raise ZeroDivisionError


async def test_cancelled_before_it_began_nothing_is_started(launch: Launch, tmp_path: Path) -> None:
    scratch = make_scratch()
    with trio.CancelScope() as scope:
        scope.cancel()
        async with launch("touch started", scratch=scratch):
            pass
    assert scope.cancelled_caught
    assert not scratch.exists()
    await trio.sleep(0.1)
    assert not (tmp_path / "started").exists()


class StopAt(trio.abc.Instrument):
    """Cancel a scope after so many steps of trio's tasks: a deterministic "at any moment"."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope, self._left = scope, steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


async def test_cancelled_at_each_moment(
    launch: Launch, mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    for steps in itertools.count(1):
        scratch = make_scratch()
        with trio.CancelScope() as scope:
            instrument = StopAt(scope, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                script = "{ FAMILY } >/dev/null 2>&1; echo ready; exit 0"
                async with launch(script, scratch=scratch) as child:
                    await read_all(child)
                    await child.wait()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert carrying(mark) == [], f"cancelled after {steps} steps"
        assert not scratch.exists()
        # A warning is in order: who was born amid the asking has to be killed.
        assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []
        if not scope.cancel_called:
            break
    assert steps > 10


@pytest.mark.parametrize("moment_s", [0.0, 0.1, 0.25])
async def test_cancelled_during_cleanup(launch: Launch, mark: str, moment_s: float) -> None:
    """A shield that is only around the first steps would let go of a deaf family."""
    with trio.move_on_after(60) as scope:
        async with launch(DEAF, graces=QUICK) as child:
            await ready(child)
            scope.deadline = trio.current_time() + moment_s
    assert carrying(mark) == []
    assert child.teardown is not None
    assert child.teardown.killed >= 1


async def test_cancelled_twice(launch: Launch, mark: str) -> None:
    with trio.CancelScope() as outer, trio.CancelScope() as inner:
        async with trio.open_nursery() as nursery:

            async def cancel_again() -> None:
                with trio.CancelScope(shield=True):
                    inner.cancel()
                    await trio.sleep(0.1)  # amid the grace
                    outer.cancel()
                    await trio.sleep(0.2)  # amid the kill
                    nursery.cancel_scope.cancel()

            async with launch(DEAF, graces=QUICK) as child:
                await ready(child)
                nursery.start_soon(cancel_again)
                await trio.sleep_forever()
    assert carrying(mark) == []
    assert child.teardown is not None
    assert child.teardown.survivors == ()


async def test_cleanup_of_ones_own_comes_first(launch: Launch) -> None:
    with trio.CancelScope() as scope:
        async with launch("trap 'echo bye; exit 0' TERM; echo ready; sleep @ & wait") as child:
            await ready(child)
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.1)
                    assert child.exit_code is None
                    child.release()
                    assert await read_all(child) == b"bye\n"
                    await child.wait()
                    assert child.exit_code == 0


@pytest.mark.timeout(120)
async def test_two_hundred_cancelled_at_random(mark: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)  # noqa: S311
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311
    script = f"{FAMILY['warden']} echo ready; sleep @".replace("@", mark)
    limit = trio.CapacityLimiter(4)

    async def one(patience_s: float) -> None:
        async with limit:
            with trio.move_on_after(patience_s):
                async with open_child(
                    ["sh", "-c", script],
                    cwd=tmp_path,
                    env=os.environ | {RUN_MARKER: f"{os.getpid()}.test"},
                    scratch=make_scratch(),
                ):
                    await trio.sleep_forever()

    async with assert_no_leaks(), trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(one, chance.expovariate(20))
    assert carrying(mark) == []


# --- keepers that fail


def broken_keeper(end: Callable[[trio.Process], Any]) -> MakeSupervisor:
    """Make a keeper that starts a child and does not end it."""

    class Broken(GroupSupervisor):
        async def end(self, process: trio.Process) -> Teardown:
            result: Teardown = await end(process)
            return result

    return Broken


async def hang(process: trio.Process) -> None:
    await trio.sleep_forever()


async def fail(process: trio.Process) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("end", [hang, fail])
@pytest.mark.parametrize("kind", ["group"], indirect=True)
async def test_keeper_that_does_not_end_its_family(
    launch: Launch, mark: str, end: Any, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    async with launch(DEAF, graces=QUICK, make_supervisor=broken_keeper(end)) as child:
        await ready(child)
    assert carrying(mark) == []
    assert time.monotonic() - began < 2 * QUICK.total_s + AT_ONCE_S
    assert f"pid {child.pid} did not end its family" in caplog.text
    assert child.teardown is not None
    assert (child.teardown.killed > 0, child.teardown.survivors) == (True, ())


async def test_keeper_that_never_says_whether_it_started(
    launch: Launch, mark: str, kind: str
) -> None:
    class Silent(GroupSupervisor):
        async def started(self, process: trio.Process) -> Started:
            await trio.sleep_forever()
            raise AssertionError

    with trio.move_on_after(0.2) as scope:
        async with launch("sleep @", make_supervisor=Silent):
            raise AssertionError
    assert scope.cancelled_caught
    assert carrying(mark) == []


@pytest.mark.parametrize("kind", ["group"], indirect=True)
async def test_survivor_that_holds_our_pipes(launch: Launch, mark: str) -> None:
    """A group does not find this one (a warden would); at least it must not hold up the block."""
    with trio.fail_after(2 * DRAIN_S + AT_ONCE_S):
        leave = "(setsid sh -c 'echo > left; exec sleep @' &)"
        async with launch(f"{leave}; until [ -e left ]; do sleep 0.01; done") as child:
            await child.wait()
    assert len(carrying(mark)) == 1
    assert child.teardown is not None
    assert not child.teardown.is_certain


@pytest.mark.parametrize("kind", ["warden"], indirect=True)
async def test_warden_that_was_stopped(
    launch: Launch, mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    async with launch("FAMILY echo ready; sleep @", graces=QUICK) as child:
        await ready(child)
        os.kill(child._process.pid, signal.SIGSTOP)
    assert carrying(mark) == []
    assert time.monotonic() - began < 2 * QUICK.total_s + AT_ONCE_S
    assert "did not end its family" in caplog.text


@pytest.mark.parametrize("kind", ["warden"], indirect=True)
async def test_warden_that_was_killed_is_told(
    launch: Launch, caplog: pytest.LogCaptureFixture
) -> None:
    async with launch("echo ready; exec sleep @") as child:
        await ready(child)
        os.kill(child._process.pid, signal.SIGKILL)
        began = time.monotonic()
        await child.wait()
    assert time.monotonic() - began < AT_ONCE_S
    assert child.exit_code == -signal.SIGKILL
    assert child.teardown is not None
    assert not child.teardown.is_certain
    assert "killed the warden" in caplog.text


# --- telling


async def test_escalation_is_told(
    launch: Launch, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with launch(DEAF, graces=QUICK) as child:
        await ready(child)
    assert child.teardown is not None
    # The shell is deaf; the two that it sleeps by have inherited that.  When they are killed
    # before it, it may start another.
    assert child.teardown.terminated == 3
    assert child.teardown.killed >= 3
    assert child.teardown.is_certain is (kind == "warden")
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert f"{child.teardown.killed} processes had to be killed" in caplog.text


async def test_ending_without_escalation_is_not_logged(
    launch: Launch, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with launch("echo ready; exec sleep @") as child:
        await ready(child)
    expected = Teardown(terminated=1, is_certain=kind == "warden")
    assert child.teardown == expected
    assert caplog.records == []


async def test_child_that_ended_by_itself_needs_no_signal(launch: Launch) -> None:
    async with launch("exit 0") as child:
        await child.wait()
    assert child.teardown is not None
    assert (child.teardown.terminated, child.teardown.killed) == (0, 0)


async def test_result_tells_of_the_teardown(mark: str, tmp_path: Path) -> None:
    plan = RunPlan(
        argv=["sh", "-c", DEAF.replace("@", mark)],
        prompt=b"",
        cwd=tmp_path,
        env=dict(os.environ),
        scratch=make_scratch(),
    )
    async with open_run(plan) as run:
        while len(carrying(mark)) < 3:  # noqa: ASYNC110 - processes ring no bell
            await trio.sleep(0.01)
        assert run.result.teardown is None
    told = run.result.teardown
    assert told is not None
    assert told == Teardown(terminated=3, killed=max(told.killed, 3))


# --- Ctrl+C, and the host's end

HOST = """
import os, signal, sys, trio
from pathlib import Path
from opencode_trio._process.supervisors import GroupSupervisor
from opencode_trio._process.child import open_child
from opencode_trio._process.scratch import make_scratch
from opencode_trio._process.supervisors import WardenSupervisor

async def main(supervisor, script):
    async with open_child(
        ["sh", "-c", script], cwd=Path.cwd(), env=os.environ, scratch=make_scratch(),
        make_supervisor={"warden": WardenSupervisor, "group": GroupSupervisor}[supervisor],
    ) as child:
        while chunk := await child.receive_some():
            os.write(1, chunk)

signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored in a shell's background
try:
    trio.run(main, *sys.argv[1:])
except KeyboardInterrupt:
    sys.exit(77)
"""


def start_host(kind: str, script: str, cwd: Path) -> subprocess.Popen[bytes]:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, kind, script],
        cwd=cwd,
        stdout=subprocess.PIPE,
        start_new_session=True,  # as a shell gives each job a group of its own
    )
    assert host.stdout is not None
    assert host.stdout.readline() == b"ready\n"
    return host


INTERRUPT = """
TASK = sys.argv.pop()

def interrupt(frame, event, _):
    code = frame.f_code
    if (code.co_name, Path(code.co_filename).name) == (TASK, "child.py"):
        sys.settrace(None)
        signal.raise_signal(signal.SIGINT)

sys.settrace(interrupt)
"""


@pytest.mark.parametrize("task", ["_outlive", "pump", "_feed", "_drain_stderr", "_watch"])
def test_ctrl_c_that_hits_a_task_of_ours(kind: str, mark: str, tmp_path: Path, task: str) -> None:
    """It must reach the block, not break off what ends the family."""
    script = FAMILY[kind].replace("@", mark) + " echo ready; sleep 60"
    program = HOST.replace("\nasync def main", f"{INTERRUPT}\nasync def main")
    command = [sys.executable, "-c", program, kind, script, task]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 77, done.stderr.decode()
    assert carrying(mark) == []
    assert not list(tmp_path.glob(f"{SCRATCH_PREFIX}*"))


@pytest.mark.parametrize("again_s", [(), (0.05,), (0.1, 0.3), (0.02, 0.02, 0.02)], ids=str)
def test_ctrl_c_as_often_as_you_like(
    kind: str, mark: str, tmp_path: Path, again_s: tuple[float, ...]
) -> None:
    """In a terminal Ctrl+C goes to the whole group: the child must not get it, but us."""
    deaf = f"trap 'touch interrupted' INT; {DEAF}".replace("@", mark)
    with start_host(kind, deaf, tmp_path) as host:
        os.killpg(host.pid, signal.SIGINT)
        for pause in again_s:
            time.sleep(pause)
            os.killpg(host.pid, signal.SIGINT)
        assert host.wait(60) == 77
    assert carrying(mark) == []
    assert not (tmp_path / "interrupted").exists()
    assert not list(tmp_path.parent.glob(f"opencode-trio-{host.pid}-*"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGHUP"])
@pytest.mark.parametrize("whom", ["host", "group"])
def test_end_of_the_host(mark: str, tmp_path: Path, name: str, whom: str) -> None:
    script = f"{FAMILY['warden']} echo ready; sleep @".replace("@", mark)
    with start_host("warden", script, tmp_path) as host:
        send = {"host": os.kill, "group": os.killpg}[whom]
        send(host.pid, signal.Signals[name])
        assert host.wait(60) == -signal.Signals[name]
    deadline = time.monotonic() + AT_ONCE_S
    while (left := carrying(mark)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []
