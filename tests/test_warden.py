"""The warden, against real processes: how a child is started, and that none of its family is left.

Every process that a test starts carries the test's marker among its arguments, as the time that it
sleeps or as a word nobody reads, so that what is left is found by looking through /proc.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")

PROGRAM = Path(__file__).parent.parent / "opencode_trio" / "_process" / "warden.py"
BOUND_S = 10.0  # for anything that should happen at once, on a busy machine
NOBODY = 65534


class Warden:
    """A running warden, as a host sees it."""

    def __init__(self, *argv: str, python: tuple[str, ...] = (sys.executable,), **how: Any) -> None:
        options = {"host": os.getpid(), "term_grace_s": 0.25, "kill_grace_s": 5.0}
        options |= how.pop("options", {})
        self.lifeline, theirs = socket.socketpair()
        self.lifeline.settimeout(BOUND_S)
        with theirs:
            options["lifeline"] = theirs.fileno()
            words = [f"{name}={value}" for name, value in options.items()]
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*python, "-I", "-S", str(PROGRAM), *words, "--", *argv],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                **streams | how,
            )
        self._unread = b""

    def line(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            data = self.lifeline.recv(65536)
            assert data, "the warden left without a word"
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return dict(json.loads(line))

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def end(self) -> None:
        with suppress(OSError):
            self.lifeline.shutdown(socket.SHUT_WR)

    def wait(self) -> int:
        return self.process.wait(BOUND_S)


Launch = Callable[..., Warden]


@pytest.fixture
def marker() -> Iterator[str]:
    marker = f"{random.randrange(10**7, 10**8)}.{random.randrange(10**6, 10**7)}"  # noqa: S311
    yield marker
    for _ in range(1000):
        for pid in (pids := carrying(marker)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            break


@pytest.fixture
def launch(marker: str) -> Iterator[Launch]:
    started: list[Warden] = []

    def launch(*argv: str, **how: Any) -> Warden:
        started.append(Warden(*argv, **how))
        return started[-1]

    yield launch
    for warden in started:
        warden.lifeline.close()
        if warden.process.poll() is None:
            warden.process.kill()
        warden.process.wait()
        for stream in (warden.process.stdin, warden.process.stdout, warden.process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


@pytest.fixture
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_warden_under_test", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def carrying(marker: str) -> list[int]:
    """Find the processes with the marker among their arguments; zombies have none."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and marker.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def wait_gone(pid: int) -> None:
    """Wait for the end of a process that may be somebody else's child."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            assert select.select([handle], [], [], BOUND_S)[0], f"{pid} does not end"
        finally:
            os.close(handle)


def children(pid: int) -> dict[int, str]:
    """Return the state letters of a process's children."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found[int(entry.name)] = fields[0]
    return found


# --- starting, streams, status ---


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code_is_passed_on(launch: Launch, code: int) -> None:
    warden = launch("sh", "-c", f"exit {code}")
    assert warden.line()["pid"] > 1
    assert warden.line() == {
        "status": code << 8,
        "terminated": 0,
        "killed": 0,
        "empty": True,
        "survivors": [],
        "scratch_removed": None,
        "error": None,
    }
    assert warden.wait() == code


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV", "SIGINT", "SIGPIPE", "SIGHUP"])
def test_death_by_signal_is_passed_on_without_a_second_core_dump(
    launch: Launch, tmp_path: Path, name: str
) -> None:
    number = signal.Signals[name]
    warden = launch("sh", "-c", f"ulimit -c 0; kill -{number} $$", cwd=tmp_path)
    resource.prlimit(warden.process.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    assert warden.line()["pid"]
    assert warden.line()["status"] & 0x7F == number
    _, status = os.waitpid(warden.process.pid, 0)
    warden.process.returncode = -os.WTERMSIG(status)
    assert os.WTERMSIG(status) == number
    assert not os.WCOREDUMP(status)
    assert not list(tmp_path.iterdir())


def test_streams_pass_through_to_end_of_file(launch: Launch) -> None:
    warden = launch("sh", "-c", "cat; echo err >&2", stdin=-1, stderr=-1)
    data = os.urandom(300_000)
    assert warden.process.communicate(data, BOUND_S) == (data, b"err\n")
    assert warden.wait() == 0


def test_streams_end_when_the_child_closes_them(launch: Launch, marker: str) -> None:
    script = f"echo ready; exec <&- >&- 2>&-; exec sleep {marker}"
    warden = launch("sh", "-c", script, stdin=-1, stderr=-1)
    process = warden.process
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    warden.ready()
    for stream in (process.stdout, process.stderr):
        assert select.select([stream], [], [], BOUND_S)[0], "a copy is open"
        assert stream.read(1) == b""
    with pytest.raises(BrokenPipeError):
        os.write(process.stdin.fileno(), b"x")
    assert carrying(marker)


def test_arguments_are_the_childs_byte_for_byte(launch: Launch) -> None:
    odd = ["", "--", "a=b", "two\nlines", "ünï\U0001f600", os.fsdecode(b"\xff\xfe"), "-I"]
    warden = launch("printf", "%s\\0", *odd)
    out, _ = warden.process.communicate(timeout=BOUND_S)
    assert out.split(b"\0")[:-1] == [os.fsencode(word) for word in odd]


@pytest.mark.parametrize("given", [{}, {"A": "b=c\n", "LC_CTYPE": "C", "PYTHONPATH": "x"}])
def test_environment_is_the_childs_byte_for_byte(launch: Launch, given: dict[str, str]) -> None:
    warden = launch("/usr/bin/env", "-0", env=given)
    out, _ = warden.process.communicate(timeout=BOUND_S)
    assert sorted(out.decode().split("\0")[:-1]) == sorted(f"{k}={v}" for k, v in given.items())


def test_child_has_default_signals_and_an_empty_mask(launch: Launch) -> None:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
    try:
        warden = launch("grep", "^Sig[BI]", "/proc/self/status", restore_signals=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, ignored)
    out, _ = warden.process.communicate(timeout=BOUND_S)
    assert [int(line.split()[1], 16) for line in out.splitlines()] == [0, 0]


def test_child_has_the_streams_and_no_other_descriptor(launch: Launch) -> None:
    warden = launch("sh", "-c", "echo ready; read x", stdin=-1)
    warden.ready()
    fds = (Path("/proc") / str(warden.line()["pid"]) / "fd").iterdir()
    assert sorted(int(fd.name) for fd in fds) == [0, 1, 2]


def test_child_leads_a_session_of_its_own(launch: Launch, tmp_path: Path) -> None:
    warden = launch("sh", "-c", "read x; pwd", stdin=-1, options={"cwd": tmp_path})
    pid = warden.line()["pid"]
    assert os.getsid(pid) == pid
    assert warden.process.communicate(b"\n", BOUND_S)[0].decode().strip() == str(tmp_path)


def test_start_failures_are_told(launch: Launch, tmp_path: Path) -> None:
    (data := tmp_path / "data").write_text("no program")
    (broken := tmp_path / "broken").write_bytes(b"\x7fELF no program")
    broken.chmod(0o755)
    missing = str(tmp_path / 'missing\nline "\\ \U0001f600 \udcff')
    cases: list[tuple[str, dict[str, str], int, str]] = [
        (missing, {}, errno.ENOENT, missing),
        ("no-such-program-anywhere", {}, errno.ENOENT, "no-such-program-anywhere"),
        (str(data), {}, errno.EACCES, str(data)),
        (str(broken), {}, errno.ENOEXEC, str(broken)),
        ("true", {"cwd": missing}, errno.ENOENT, missing),
        ("true", {"cwd": str(data)}, errno.ENOTDIR, str(data)),
    ]
    for program, options, number, filename in cases:
        (scratch := tmp_path / "scratch").mkdir()
        warden = launch(program, options=options | {"scratch": scratch})
        report = warden.line()
        expected = {"stage": "start", "errno": number, "strerror": os.strerror(number)}
        assert report["error"] == expected | {"filename": filename}
        assert (report["status"], report["empty"], report["scratch_removed"]) == (None, True, True)
        assert warden.wait() == 125


# --- ending the family ---

STORM = "import os, signal\n{prelude}\nwhile True:\n    if os.fork(): os._exit(0)\n    {step}"
SCRIPTS = {  # @ is the marker; each ends up with descendants in the background
    "plain": "sleep @ &",
    "setsid": "setsid sleep @ &",
    "double fork": "(setsid sh -c 'sleep @ & sleep @ &' &)",
    "env -i": "env -i setsid sleep @ &",
    "deaf": "trap '' TERM; setsid sh -c 'sleep @ & wait; sleep @' & trap - TERM",
    "stopped": "setsid sleep @ & sleep @ & kill -STOP $!",
    "holds stdout": "sh -c 'sleep @ & wait' &",
    "nested subreaper": "PYTHON -I -S PROGRAM host=$$ lifeline=2 -- sh -c 'setsid sleep @ & sleep @' &",
    "fork storm": "PYTHON -I -S -c '$STORM' @ & PYTHON -I -S -c '$STORM' @ &",
}


def script(kind: str, marker: str, last: str) -> list[str]:
    storm = STORM.format(prelude="signal.signal(15, signal.SIG_IGN)", step="pass")
    text = SCRIPTS[kind].replace("PYTHON", sys.executable).replace("PROGRAM", str(PROGRAM))
    text = text.replace("$STORM", storm).replace("@", marker)
    return ["sh", "-c", f"{text}\necho ready\n{last.replace('@', marker)}"]


@pytest.mark.parametrize("ending", ["exit", "closed lifeline", "SIGTERM", "host SIGKILL"])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_nobody_is_left(
    launch: Launch, marker: str, kind: str, ending: str, tmp_path: Path
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    (scratch / "file").touch()
    argv = script(kind, marker, "sleep 0.05; exit 7" if ending == "exit" else "exec sleep @")
    if ending == "host SIGKILL":
        by_a_host_that_is_killed(argv, scratch)
    else:
        warden = launch(*argv, options={"scratch": scratch})
        warden.ready()
        if ending == "closed lifeline":
            warden.lifeline.close()  # with a line unread, so that the warden meets a reset
        elif ending == "SIGTERM":
            warden.process.terminate()
        assert warden.wait() == (7 if ending == "exit" else -signal.SIGTERM)
        assert warden.process.stdout is not None
        assert select.select([warden.process.stdout], [], [], 0)[0]
        assert warden.process.stdout.read() == b""
    assert carrying(marker) == []
    assert not scratch.exists()


HOST = """
import os, socket, subprocess, sys
ours, theirs = socket.socketpair()
options = ["host=" + str(os.getpid()), "lifeline=" + str(theirs.fileno())]
words = [*sys.argv[1:5], *options, *sys.argv[5:]]
warden = subprocess.Popen(words, pass_fds=[theirs.fileno()], start_new_session=True)
theirs.close()
print(warden.pid, flush=True)
warden.wait()
"""


def by_a_host_that_is_killed(argv: list[str], scratch: Path) -> None:
    words = [sys.executable, "-I", "-S", str(PROGRAM), f"scratch={scratch}"]
    words += ["term_grace_s=0.25", "--", *argv]
    host = subprocess.Popen([sys.executable, "-c", HOST, *words], stdout=subprocess.PIPE)
    assert host.stdout is not None
    with host.stdout:
        try:
            lines = {host.stdout.readline() for _ in range(2)}
            (warden,) = (int(line) for line in lines - {b"ready\n"})
        finally:
            host.kill()
            host.wait()
        wait_gone(warden)
        assert host.stdout.read() == b""


FORKING_HOST = """
import os, signal, socket, subprocess, sys, threading
ours, theirs = socket.socketpair()
options = ["host=" + str(os.getpid()), "lifeline=" + str(theirs.fileno())]
words = [*sys.argv[1:5], *options, *sys.argv[5:]]
how = {"pass_fds": [theirs.fileno()], "start_new_session": True, "stdout": subprocess.PIPE}
wardens = []
thread = threading.Thread(target=lambda: wardens.append(subprocess.Popen(words, **how)))
thread.start()
thread.join()
theirs.close()
assert wardens[0].stdout.readline() == b"ready\\n"
fork = os.fork()
if fork:
    print(fork, wardens[0].pid, flush=True)
signal.pause()
"""


def test_host_is_killed_that_has_forked(marker: str) -> None:
    """The fork has a copy of the host's end of the lifeline, so there is no end-of-file.

    The thread that started the warden has ended before, which must mean nothing.
    """
    words = [sys.executable, "-I", "-S", str(PROGRAM), "--", "sh", "-c"]
    words += [f"setsid sleep {marker} & echo ready; exec sleep {marker}"]
    host = subprocess.Popen([sys.executable, "-c", FORKING_HOST, *words], stdout=subprocess.PIPE)
    assert host.stdout is not None
    with host.stdout:
        fork, warden = map(int, host.stdout.readline().split())
        try:
            while len(carrying(f"sleep\0{marker}\0")) < 2:
                time.sleep(0.01)
            host.kill()
            host.wait()
            wait_gone(warden)
        finally:
            host.kill()
            os.kill(fork, signal.SIGKILL)
            host.wait()
            wait_gone(fork)
    assert carrying(marker) == []


def test_host_that_died_before_the_warden_looked(launch: Launch, marker: str) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    warden = launch("sleep", marker, options={"host": dead.pid})
    assert warden.wait() == -signal.SIGTERM
    assert carrying(marker) == []


def test_stopped_processes_get_to_end_by_themselves(launch: Launch, marker: str) -> None:
    mark = "trap 'echo asked; exit 0' TERM"
    warden = launch(
        "sh", "-c", f"{mark}; (kill -STOP $$; echo ready) & sleep {marker} & wait; wait"
    )
    pid = warden.line()["pid"]
    while (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)
    warden.end()
    report = warden.line()
    assert (report["status"], report["killed"], report["empty"]) == (0, 0, True)


def test_escalation_is_told_and_bounded(launch: Launch, marker: str) -> None:
    code = f"(trap '' TERM; echo ready; exec sleep {marker}) & exec sleep {marker}"
    warden = launch("sh", "-c", code)
    warden.ready()
    assert warden.line()["pid"]
    began = time.monotonic()
    warden.end()
    report = warden.line()
    assert (report["terminated"], report["killed"], report["empty"]) == (2, 1, True)
    assert warden.wait() == -signal.SIGTERM
    assert 0.25 <= time.monotonic() - began < 2


def test_the_grace_is_no_delay_for_those_who_listen(launch: Launch, marker: str) -> None:
    options = {"term_grace_s": 30}
    warden = launch(*script("setsid", marker, "exec sleep @"), options=options)
    warden.ready()
    began = time.monotonic()
    warden.end()
    assert warden.wait() == -signal.SIGTERM
    assert time.monotonic() - began < BOUND_S


def test_who_is_born_while_others_end_is_asked_as_well(launch: Launch, marker: str) -> None:
    heir = f"trap 'setsid sleep {marker} & exit' TERM; echo ready; while :; do sleep 0.01; done"

    def killed() -> int:
        warden = launch("sh", "-c", heir, options={"term_grace_s": 1})
        warden.ready()
        assert warden.line()["pid"]
        warden.end()
        report = warden.line()
        assert report["empty"]
        return int(report["killed"])

    # A SIGTERM between fork and exec is lost to the shell's trap; not ten times in a row.
    assert 0 in (killed() for _ in range(10))


def test_storm_of_sessions(launch: Launch, marker: str) -> None:
    storm = STORM.format(prelude="signal.signal(15, signal.SIG_IGN)", step="os.setsid()")
    one = f"{sys.executable} -I -S -c '{storm}' {marker} & "
    warden = launch("sh", "-c", f"{one * 6} sleep 0.2; echo ready; exec sleep {marker}")
    warden.ready()
    warden.end()
    assert warden.line()["pid"]
    assert warden.line()["empty"]
    assert warden.wait() == -signal.SIGTERM
    assert carrying(marker) == []


SHORTSIGHTED = """
import importlib.util, sys
looks, path, *words = int(sys.argv[1]), *sys.argv[4:]
spec = importlib.util.spec_from_file_location("warden", path)
warden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(warden)
walk, looked = warden.descendants, []
warden.descendants = lambda root: looked.append(root) or (walk(root) if len(looked) > looks else [])
end = words.index("--")
warden.main(dict(word.split("=") for word in words[:end]), words[end + 1:])
"""


@pytest.mark.parametrize(("grace", "seen_by"), [(30, "terminated"), (0.01, "killed")])
def test_walk_that_misses_somebody_is_repeated(
    launch: Launch, marker: str, grace: float, seen_by: str
) -> None:
    """The first four walks find nobody, as if all had been between two parents just then."""
    python, options = (sys.executable, "-c", SHORTSIGHTED, "4"), {"term_grace_s": grace}
    warden = launch(
        "sh", "-c", f"setsid sleep {marker} & exec sleep {marker}", python=python, options=options
    )
    assert warden.line()["pid"]
    warden.end()
    report = warden.line()
    assert (report[seen_by], report["empty"]) == (2, True)


def test_hopeless_cases_are_given_up_in_time(launch: Launch, marker: str) -> None:
    python = (sys.executable, "-c", SHORTSIGHTED, "1000000")
    warden = launch("sleep", marker, python=python, options={"kill_grace_s": 0.2})
    pid = warden.line()["pid"]
    warden.end()
    report = warden.line()
    assert (report["status"], report["empty"], report["survivors"]) == (None, False, [])
    assert warden.wait() == 125
    wait_gone(pid)


def test_group_of_a_child_is_killed_at_once(module: ModuleType, marker: str) -> None:
    with subprocess.Popen(
        ["sh", "-c", f"sleep {marker} & echo ready; wait"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        family = module.Family.__new__(module.Family)  # we are nobody's warden
        family.killed = set()
        family.kill(module.Process(leader.pid))
        assert select.select([leader.stdout], [], [], BOUND_S)[0]
        assert leader.stdout.read(1) == b""  # so the other has let go of it as well
        assert len(family.killed) == 1


def test_host_that_leaves_during_the_grace_changes_nothing(launch: Launch, marker: str) -> None:
    warden = launch(*script("deaf", marker, "exec sleep @"))
    warden.ready()
    warden.process.terminate()
    time.sleep(0.1)
    warden.lifeline.close()  # with a line unread
    assert warden.wait() == -signal.SIGTERM
    assert carrying(marker) == []


def test_the_grace_is_slept(launch: Launch, marker: str) -> None:
    options = {"term_grace_s": 0.6}
    warden = launch("sh", "-c", f"trap '' TERM; echo ready; exec sleep {marker}", options=options)
    warden.ready()
    warden.lifeline.close()
    _, status, usage = os.wait4(warden.process.pid, 0)
    warden.process.returncode = -os.WTERMSIG(status)
    assert usage.ru_utime + usage.ru_stime < 0.3  # at end-of-file, poll() would never sleep again


REUSE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.getpid()
if os.fork():
    os._exit(7)
os.setsid()  # a pid stays taken while it names a session
while os.path.exists(f"/proc/{child}"):
    time.sleep(0.001)
for attempt in range(100):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(child - 1))
    pid = os.fork()
    if pid == 0:
        time.sleep(0.02)
        os._exit(3)
    if pid == child:
        os.write(1, b"reused")
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses pids")
def test_status_is_not_that_of_an_orphan_with_the_same_pid(launch: Launch) -> None:
    warden = launch(sys.executable, "-I", "-S", "-c", REUSE, options={"term_grace_s": 5})
    out, _ = warden.process.communicate(timeout=BOUND_S)
    assert (out, warden.wait()) == (b"reused", 7)


def test_orphans_are_reaped_while_the_child_runs(launch: Launch) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do (true &); done; echo ready; read x"
    warden = launch("sh", "-c", script, stdin=-1)
    warden.ready()
    deadline = time.monotonic() + BOUND_S
    while len(children(warden.process.pid)) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(children(warden.process.pid)) == [warden.line()["pid"]]


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_other_signals_are_survived(launch: Launch, name: str) -> None:
    warden = launch("sh", "-c", "echo ready; read x; exit 5", stdin=-1)
    warden.ready()
    for _ in range(3):
        os.kill(warden.process.pid, signal.Signals[name])
        time.sleep(0.01)
    assert warden.process.stdin is not None
    assert warden.process.poll() is None
    warden.process.stdin.close()
    assert warden.wait() == 5


def test_words_on_the_lifeline_mean_nothing(launch: Launch) -> None:
    warden = launch("sh", "-c", "echo ready; read x; exit 5", stdin=-1)
    warden.ready()
    warden.lifeline.send(b"hello?\n")
    time.sleep(0.05)
    assert warden.process.stdin is not None
    warden.process.stdin.close()
    assert warden.wait() == 5


def test_child_of_a_dead_warden_does_not_start(module: ModuleType, tmp_path: Path) -> None:
    news, tell = os.pipe()
    pid = os.fork()
    if pid == 0:  # the parent is not whom it takes for the warden
        module.become(["touch", str(tmp_path / "started")], None, 1, tell)
    os.close(tell)
    assert os.waitpid(pid, 0)[1] == 125 << 8
    assert os.read(news, 1) == b""
    os.close(news)
    assert not list(tmp_path.iterdir())


def test_child_dies_with_a_killed_warden(launch: Launch, marker: str) -> None:
    warden = launch("sleep", marker)
    pid = warden.line()["pid"]
    warden.process.kill()
    warden.wait()
    wait_gone(pid)


def test_blinded_warden_kills_what_it_knows(launch: Launch, marker: str) -> None:
    warden = launch(*script("plain", marker, "exec sleep @"))
    warden.ready()
    resource.prlimit(warden.process.pid, resource.RLIMIT_NOFILE, (3, 3))  # it cannot open /proc
    warden.end()
    assert warden.line()["pid"]
    report = warden.line()
    assert (report["status"], report["error"]["stage"]) == (signal.SIGKILL, "end")
    assert report["error"]["errno"] == errno.EMFILE
    assert warden.wait() == -signal.SIGKILL
    assert carrying(marker) == []


def test_foreign_proc_is_refused(launch: Launch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    python = ("unshare", "--pid", "--fork", sys.executable)
    warden = launch("touch", "/nonexistent", python=python, stderr=subprocess.PIPE)
    _, text = warden.process.communicate(timeout=BOUND_S)
    assert b"another pid namespace" in text
    assert warden.wait() == 1


# --- pids and users ---


def test_signals_never_reach_the_next_owner_of_a_pid(module: ModuleType, marker: str) -> None:
    with subprocess.Popen(["sleep", marker]) as bystander:
        try:
            process = module.Process(bystander.pid)
            process.start -= 1  # as if an earlier one had been seen
            with pytest.raises(ProcessLookupError):
                process.send(signal.SIGKILL)
            time.sleep(0.05)
            assert bystander.poll() is None
        finally:
            bystander.kill()
    with pytest.raises(ProcessLookupError):
        process.send(signal.SIGKILL)


def test_signals_without_pidfds(
    module: ModuleType, marker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with subprocess.Popen(["sleep", marker]) as sleeper:
        try:
            module.Process(sleeper.pid).send(signal.SIGTERM, signal.SIGCONT)
            assert sleeper.wait(BOUND_S) == -signal.SIGTERM
        finally:
            sleeper.kill()


def test_descendants_come_after_their_parents(module: ModuleType, marker: str) -> None:
    with subprocess.Popen(
        ["sh", "-c", f"(sh -c 'sleep {marker} & echo; wait'; true) & wait"],
        stdout=subprocess.PIPE,
    ) as top:
        try:
            assert top.stdout is not None
            top.stdout.readline()
            found = module.descendants(top.pid)
            assert [process.parent for process in found] == [
                top.pid,
                *(process.pid for process in found[:-1]),
            ]
            assert len(found) == 3
        finally:
            for pid in [top.pid, *carrying(marker)]:
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def unprivileged() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Give a directory for everybody, and the words that run Python as nobody."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if os.geteuid() != 0 or python is None or shutil.which("setpriv") is None:
        pytest.skip("needs root, setpriv and a Python for everybody")
    asked = [python, "-c", "import sys; print(sys.version_info >= (3, 11))"]
    words = ("setpriv", "--reuid", str(NOBODY), "--clear-groups", python)
    if (
        subprocess.check_output(asked) != b"True\n"
        or subprocess.run([*words, "-c", f"open({str(PROGRAM)!r})"], check=False).returncode
    ):
        pytest.skip("nobody cannot run the warden")
    place = Path(f"/tmp/warden-{random.randrange(10**12)}")  # noqa: S311
    place.mkdir()
    try:
        place.chmod(0o777)
        yield place, words
    finally:
        shutil.rmtree(place)


def test_another_users_process_is_reported_at_once(
    launch: Launch, marker: str, unprivileged: tuple[Path, tuple[str, ...]]
) -> None:
    place, python = unprivileged
    become_root = place / "setpriv"
    shutil.copy(str(shutil.which("setpriv")), become_root)
    become_root.chmod(0o4755)
    code = f"{become_root} --reuid 0 --regid 0 --clear-groups sleep {marker} & wait"
    warden = launch("sh", "-c", code, python=python, options={"kill_grace_s": 60})
    assert warden.line()["pid"]
    deadline = time.monotonic() + BOUND_S
    while not (rooted := [pid for pid in carrying(f"sleep\0{marker}\0") if is_roots(pid)]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    warden.end()
    report = warden.line()
    assert (report["empty"], report["survivors"], report["error"]) == (False, rooted, None)
    assert warden.wait() == -signal.SIGTERM


def is_roots(pid: int) -> bool:
    """Say whether its user ids are all root's: until then whoever started it may still signal it."""
    status = (Path("/proc") / str(pid) / "status").read_text()
    return "\nUid:\t0\t0\t0\t0\n" in status


# --- the scratch directory ---


def test_scratch_goes_and_what_it_points_to_stays(
    launch: Launch, unprivileged: tuple[Path, tuple[str, ...]]
) -> None:
    place, python = unprivileged
    (outside := place / "outside").mkdir(mode=0o711)
    (kept := outside / "kept").write_text("precious")
    scratch = place / "scratch"
    for directory in (scratch, *(scratch / name for name in ("closed", "fixed", "closed/deep"))):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "file").touch()
    (scratch / "to directory").symlink_to(outside)
    (scratch / "to file").symlink_to(kept)
    (scratch / "to nothing").symlink_to("nowhere")
    os.mkfifo(scratch / "fifo")
    for entry in [scratch, *scratch.rglob("*")]:
        os.chown(entry, NOBODY, NOBODY, follow_symlinks=False)
    for name, mode in [("closed/deep", 0o000), ("closed", 0o000), ("fixed", 0o555)]:
        (scratch / name).chmod(mode)
    warden = launch("true", python=python, options={"scratch": scratch})
    assert warden.line()["pid"]
    report = warden.line()
    assert (report["scratch_removed"], report["error"]) == (True, None)
    assert not scratch.exists()
    assert kept.read_text() == "precious"
    assert outside.stat().st_mode & 0o777 == 0o711


def test_scratch_that_is_a_link_or_gone(launch: Launch, tmp_path: Path) -> None:
    (outside := tmp_path / "outside").mkdir()
    (outside / "kept").touch()
    (scratch := tmp_path / "scratch").symlink_to(outside)
    for _ in range(2):
        warden = launch("true", options={"scratch": scratch})
        assert warden.line()["pid"]
        report = warden.line()
        assert (report["scratch_removed"], report["error"]) == (True, None)
        assert not os.path.lexists(scratch)
    assert (outside / "kept").exists()


def test_scratch_that_stays_is_told(
    launch: Launch, unprivileged: tuple[Path, tuple[str, ...]]
) -> None:
    place, python = unprivileged
    (roots := place / "scratch" / "roots").mkdir(parents=True)  # not nobody's to empty
    (roots / "file").touch()
    (place / "scratch" / "own").touch()
    os.chown(place / "scratch", NOBODY, NOBODY)
    warden = launch("true", python=python, options={"scratch": place / "scratch"})
    assert warden.line()["pid"]
    report = warden.line()
    assert (report["scratch_removed"], report["error"]["stage"]) == (False, "scratch")
    assert report["error"]["errno"] == errno.ENOTEMPTY
    assert [entry.name for entry in (place / "scratch").iterdir()] == ["roots"]
    assert warden.wait() == 0


# --- cost ---


def test_cost(launch: Launch, marker: str, capsys: pytest.CaptureFixture[str]) -> None:
    def through_a_warden() -> None:
        launch("true").process.wait()  # given a time limit, it would poll

    runs: list[Callable[[], object]] = [
        lambda: subprocess.run(["true"], check=True),
        lambda: subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True),
        through_a_warden,
    ]
    times: list[list[float]] = []
    for _ in range(11):  # in turn, so that a busy moment is everybody's
        marks = [time.perf_counter()]
        for run in runs:
            run()
            marks.append(time.perf_counter())
        times.append([1000 * (end - start) for start, end in pairwise(marks)])
    direct, python, warded = (statistics.median(column) for column in zip(*times, strict=True))
    resident = launch("sleep", marker)
    assert resident.line()["pid"]
    status = (Path("/proc") / str(resident.process.pid) / "status").read_text()
    megabytes = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    with capsys.disabled():
        print(
            f"\nwarden: {warded - direct:.0f} ms more than {direct:.1f} ms, {megabytes:.1f} MB;"
            f" {warded / python:.1f} times a bare interpreter's {python:.0f} ms"
        )
    assert warded < 5 * python
    assert megabytes < 16
