"""The two supervisors of a child and its family: by a warden process, and by a process group.

Which of them is best, how a start that failed is told, and what is done when a supervisor fails.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import trio

from opencode_trio._json import Json, number_of, object_of, text_of, text_or_none_of
from opencode_trio._process.output import LineSplitter
from opencode_trio._process.supervisor import (
    Graces,
    MakeSupervisor,
    NotStarted,
    Started,
    Supervisor,
    keep_from_forks,
)
from opencode_trio.errors import (
    OpenCodeBinaryNotFoundError,
    OpenCodeConfigError,
    OpenCodeError,
    OpenCodeProcessError,
)
from opencode_trio.results import Teardown

_log = logging.getLogger("opencode_trio")


WARDEN = str(Path(__file__).with_name("warden.py"))
"""A program: it runs in an interpreter of its own and is never imported here."""


PYTHON_VARIABLE = "OPENCODE_TRIO_PYTHON"
"""Names the interpreter for it, where the program itself has none to offer."""


_INTERPRETER = re.compile(r"python|pypy|graalpy", re.IGNORECASE)


def interpreter() -> str:
    """Find a Python for the warden.

    In a frozen application or a program that embeds Python, `sys.executable` is that program, which
    must not be started again.

    Raises:
        OpenCodeConfigError: there is none.
    """
    if named := os.environ.get(PYTHON_VARIABLE):
        return named
    own = sys.executable or ""
    is_python = not hasattr(sys, "frozen") and _INTERPRETER.search(Path(own).name)
    if is_python and os.access(own, os.X_OK):  # it may have been removed since it was started
        return own
    names = [f"python3.{minor}" for minor in (sys.version_info.minor, *range(20, 10, -1))]
    for name in (*names, "python3"):
        if found := shutil.which(name):
            return found
    raise OpenCodeConfigError(
        f"no Python was found to look after opencode: {own!r} "
        + ("is gone" if is_python else "is no Python interpreter")
        + f"; install Python 3.11 or newer, or name one in {PYTHON_VARIABLE}"
    )


def program() -> list[str]:
    """Return the words that have an interpreter run the warden.

    Raises:
        OpenCodeConfigError: the packed library lacks it.
    """
    if Path(WARDEN).is_file():
        return [WARDEN]
    import pkgutil  # noqa: PLC0415 - rarely needed

    try:  # in a zip, say
        source = pkgutil.get_data("opencode_trio._process", Path(WARDEN).name)
    except OSError:
        source = None
    if source is None:
        raise OpenCodeConfigError(
            f"{WARDEN} is missing, which looks after opencode; a frozen application has to bring it "
            "as a file (`pyinstaller --collect-all opencode_trio`)"
        )
    return ["-c", source.decode()]


class WardenSupervisor:
    """Keeps a family under a warden process (see `warden` for what the two say to each other)."""

    def __init__(self, argv: Sequence[str], cwd: Path, scratch: Path, graces: Graces) -> None:
        python, warden = interpreter(), program()
        ours, self._theirs = socket.socketpair()
        keep_from_forks(ours)
        keep_from_forks(self._theirs)
        self._lifeline = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._framer = LineSplitter()
        self._words: list[bytes] = []
        self._last: Json = {}
        fd = self._theirs.fileno()
        settings = {
            "host": os.getpid(),
            "lifeline": fd,
            "cwd": cwd,
            "scratch": scratch,
            "term_grace_s": graces.term_s,
            "kill_grace_s": graces.kill_s,
        }
        words = [f"{name}={value}" for name, value in settings.items()]
        # -I and -S: neither the user's site-packages nor PYTHON* variables change a warden.
        self.command = [python, "-I", "-S", *warden, *words, "--", *argv]
        # A session of its own, or a terminal's Ctrl+C would end the child before our cleanup.
        self.options = {"pass_fds": (fd,), "start_new_session": True}

    async def started(self, _process: trio.Process) -> Started | NotStarted:
        """Wait for the warden's first line."""
        self._theirs.close()  # the warden has its copy; ours would hide its end
        word = await self._hear()
        if pid := int(number_of(word, "pid")):
            return Started(pid)
        why = object_of(word.get("error")) or {"strerror": "its warden ended at once"}
        return NotStarted(
            int(number_of(why, "errno")), text_of(why, "strerror"), text_or_none_of(why, "filename")
        )

    def release(self) -> None:
        """Close our direction of the lifeline: the warden takes it as the word to end all."""
        with contextlib.suppress(OSError):  # the warden may have ended
            self._lifeline.socket.shutdown(socket.SHUT_WR)

    async def end(self, process: trio.Process) -> Teardown:
        """Let go, and wait for the warden's exit, which is the proof that nobody is left."""
        self._theirs.close()
        self.release()
        while await self._hear():
            pass
        await process.wait()
        report = self._last
        if "empty" not in report:
            _log.error("somebody killed the warden %d; its family may be left", process.pid)
        return Teardown(
            terminated=int(number_of(report, "terminated")),
            killed=int(number_of(report, "killed")),
            survivors=tuple(report.get("survivors") or ()),
            is_certain=report.get("empty") is True,
        )

    def close(self) -> None:
        """Close the lifeline."""
        self._theirs.close()
        self._lifeline.socket.close()

    async def _hear(self) -> Json:
        """Return the warden's next line; nothing when it has ended."""
        while not self._words:
            try:
                chunk = await self._lifeline.receive_some()
            except trio.BrokenResourceError:
                return {}
            if not chunk:
                return {}
            self._words += self._framer.feed(bytes(chunk))
        self._last = object_of(json.loads(self._words.pop(0)))
        return self._last


PAUSE_S = 0.05
"""Between two looks at the process table; a look costs ten milliseconds."""


class ProcessId(NamedTuple):
    """A process; its start is part of its identity, because pids are used again."""

    pid: int
    started: str


class GroupSupervisor:
    """Keeps a family together by its process group and its lines of descent."""

    def __init__(self, argv: Sequence[str], cwd: Path, _scratch: Path, graces: Graces) -> None:
        self.command = list(argv)
        self.options = {"cwd": cwd, "start_new_session": True}
        self._graces = graces
        self._leader = 0
        self._family: set[ProcessId] = set()

    async def started(self, process: trio.Process) -> Started:
        """Return at once: what kept the child from starting has been raised by its start."""
        self._leader = process.pid
        return Started(process.pid)

    def release(self) -> None:
        """Ask the group to end."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, signal.SIGTERM)

    async def end(self, process: trio.Process) -> Teardown:
        """Ask all who can be found, then kill them, while the graces last."""
        self._leader = process.pid
        terminated = await self._tell(signal.SIGTERM, self._graces.term_s)
        killed = await self._tell(signal.SIGKILL, self._graces.kill_s)
        await process.wait()
        survivors = tuple(person.pid for person in await self._alive())
        return Teardown(terminated=terminated, killed=killed, survivors=survivors, is_certain=False)

    def close(self) -> None:
        """Hold nothing."""

    async def _tell(self, number: signal.Signals, grace_s: float) -> int:
        """Signal everybody once, newcomers too, until nobody is left or the grace is over."""
        told: set[ProcessId] = set()
        with trio.move_on_after(grace_s):
            while left := await self._alive():
                for person in left - told:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(person.pid, number)
                        os.kill(person.pid, signal.SIGCONT)  # the stopped hear nothing else
                told |= left
                await trio.sleep(PAUSE_S)
        return len(told)

    async def _alive(self) -> set[ProcessId]:
        """Return who is left of the family, those included who joined it since."""
        command = ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat=,lstart="]
        # A session of its own: Ctrl+C in a terminal would end this, too.
        table = await trio.run_process(command, capture_stdout=True, start_new_session=True)
        alive = set(self._members(table.stdout.decode(errors="replace")))
        self._family |= alive
        return alive

    def _members(self, table: str) -> Iterator[ProcessId]:
        children: dict[int, list[ProcessId]] = {}
        found: list[ProcessId] = []
        for line in table.splitlines():
            pid, parent, group, state, started = line.split(None, 4)
            if state.startswith("Z"):
                continue  # dead; its parent reaps it
            person = ProcessId(int(pid), started)
            children.setdefault(int(parent), []).append(person)
            if self._leader in (person.pid, int(group)) or person in self._family:
                found.append(person)
        for person in found:  # grows while we walk it
            found += children.pop(person.pid, [])
        return iter(found)


def _no_supervisor(*_: object) -> Supervisor:
    raise OpenCodeProcessError(
        "opencode-trio cannot run opencode on Windows, where nothing guarantees that the "
        "processes it starts are ended; run it under WSL, or use connect_server() with a server that runs elsewhere"
    )


SUPERVISORS: Mapping[str, MakeSupervisor] = {"linux": WardenSupervisor, "win32": _no_supervisor}
"""By `sys.platform`; any other is a Unix without child subreapers."""


def best_supervisor() -> MakeSupervisor:
    """Return how families are kept on this platform."""
    return SUPERVISORS.get(sys.platform, GroupSupervisor)


def not_started_error(why: NotStarted, cwd: Path, binary: str) -> OpenCodeError:
    """Put a failed start into the words of who has to mend it."""
    if why.filename is not None and Path(why.filename) == cwd:
        return OpenCodeConfigError(f"workspace: cannot work in {cwd}: {why.strerror}")
    match why.errno:
        case errno.E2BIG:
            return OpenCodeConfigError(
                "arguments and environment are too long for the system; put what is long in them "
                "(RunConfig.extra_env, cli_kwargs) into a file"
            )
        case errno.ENOENT | errno.EACCES | errno.ENOEXEC | errno.ENOTDIR | errno.EPERM:
            if why.filename == binary:
                return OpenCodeBinaryNotFoundError(f"cannot start {binary}: {why.strerror}")
            return OpenCodeProcessError(
                f"cannot start {why.filename}, the Python that looks after opencode: {why.strerror}"
            )
        case _:
            return OpenCodeProcessError(f"cannot start opencode: {why.strerror}")


async def end_family(supervisor: Supervisor, process: trio.Process, graces: Graces) -> Teardown:
    """End the family, shielded by the caller; never without a bound, never without a word."""
    teardown: Teardown | None = None
    with trio.move_on_after(graces.total_s):
        try:
            teardown = await supervisor.end(process)
        except Exception:  # noqa: BLE001 - a bug of ours must not keep the family alive
            _log.exception("the keeper of pid %d failed", process.pid)
    if teardown is None:
        _log.error("the keeper of pid %d did not end its family; doing without it", process.pid)
        teardown = await _end_without_supervisor(process, graces)
    supervisor.close()
    if teardown.killed:
        _log.warning("%d processes had to be killed: SIGTERM did not end them", teardown.killed)
    if teardown.survivors:
        _log.error("these processes could not be ended: %s", teardown.survivors)
    return teardown


async def _end_without_supervisor(process: trio.Process, graces: Graces) -> Teardown:
    """End all that is found below a process, a warden included."""
    with trio.move_on_after(graces.total_s):
        try:
            return await GroupSupervisor([], Path(), Path(), graces).end(process)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("nor can its descendants be found")
    process.kill()
    return Teardown(survivors=(process.pid,), is_certain=False)
