"""Stand between the host and one child, and leave nobody of the child's family behind.

The host starts one warden per child, in a session of its own, out of reach of a terminal's Ctrl+C::

    python -I -S .../warden.py host=7 lifeline=5 scratch=/tmp/x -- <child> <argument>...

The warden starts the child, waits until the child ends or the host lets go, ends every descendant
(after ``setsid``, double forks or ``env -i``, and with SIGTERM ignored, too), removes the scratch
directory, and only then exits, with the child's own status: its exit is the proof that all are gone.

**Options**: ``host``, the pid of the host, which is our parent; ``lifeline``, the number of an
inherited descriptor, our end of a ``socket.socketpair()``; and if wanted ``cwd`` of the child,
``scratch`` directory to remove, ``term_grace_s`` (0.5; from SIGTERM to SIGKILL) and
``kill_grace_s`` (5; from there to giving up).
The standard streams and the environment are for the child; no further descriptors are passed.

**The lifeline** brings end-of-file when the host closes its end; then the family ends. It ends as
well when the host dies, even if a process that the host has forked still holds a copy of its end.
A host that uses ``shutdown(SHUT_WR)`` to say so can still read what we say, one JSON object a
line: ``{"pid": int}`` once the child runs its program; and just before we exit

- ``status``: as ``os.waitpid`` gives it; null if the child never started, or has not ended;
- ``terminated``, ``killed``: how many processes were sent SIGTERM, and then SIGKILL;
- ``empty``: the kernel's word that no descendant is left; ``survivors``: if not, the pids found;
- ``scratch_removed``: null if there was none;
- ``error``: null, or the first thing to go wrong: ``stage`` (start, watch, end, survivors, scratch),
  ``errno`` (0 if it was not the system), ``strerror``, ``filename`` (or null).

**Worktrees**: when the host was killed, those that it has noted in the child's repository are given
to `worktrees`, which removes them unless they hold work; we become it, once the families of all
wardens of that host have had their time to end.

**Signals**: SIGTERM ends the family; other signals that would end a process are survived.
**Exit**: with the child's exit code, or by the child's signal; 125 if there is none to pass on.

**Limits**: Linux only, for a child subreaper is what keeps orphans below the warden. SIGKILL to
the warden takes the child along, but not the child's own descendants.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time

TYPE_CHECKING = False  # typing would cost each child 5 ms, and signal's enums 6
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    import _signal as signal

NO_STATUS = 125  # what env(1) and timeout(1) exit with when the failure is their own
SWEEP_S = 0.02  # the longest pause between two looks at who is left
SURVIVED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36  # <linux/prctl.h>

libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process."""
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# --- starting the child ---


def become(argv: list[str], cwd: str | None, warden: int, tell: int) -> NoReturn:
    """Turn this fork of the warden into the child, as if the host had started it directly."""
    filename = cwd
    try:
        os.setsid()  # no group in common with the warden: see Family.kill
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # safe here: the warden has but one thread
        if os.getppid() != warden:  # it died before the line above
            os._exit(NO_STATUS)
        for number in signal.valid_signals():  # Python ignores SIGPIPE, and a host may ignore more
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        if cwd is not None:
            os.chdir(cwd)
        filename = argv[0]
        os.execvpe(argv[0], argv, given_environment())
    except BaseException as error:  # noqa: BLE001 - the warden has to hear of it
        code, text, _ = describe(error)
        os.write(tell, os.fsencode(f"{code}\n{text}\n{filename}"))
    os._exit(NO_STATUS)


def given_environment() -> dict[bytes, bytes]:
    """Read what the host gave: in the C locale, Python adds an LC_CTYPE of its own (PEP 538)."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [entry.partition(b"=") for entry in file.read().split(b"\0") if entry]
    return {name: value for name, _, value in pairs}


def give_up_stdio() -> None:
    """Let go of the child's streams: they are open for as long as the family holds them."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


# --- the family ---


def take_note(_number: int, _frame: object) -> None:
    """Do nothing: what counts is the ring of the bell."""


class Watch:
    """What the warden sleeps on: its signals, the lifeline, and the host's death."""

    def __init__(self, lifeline: int, host: int) -> None:
        self._lifeline, self._host, self._poll = lifeline, host, select.poll()
        self._change_signal, ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGCHLD, signal.SIGTERM, *SURVIVED):
            signal.signal(number, take_note)
        signal.set_wakeup_fd(ring)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        # It comes whenever the host's thread that is our parent ends, and another inherits us.
        # The last time, with the host, it is somebody else who does.
        prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)  # for a host that died before the line above
        self._poll.register(self._change_signal, select.POLLIN)
        self._poll.register(lifeline, select.POLLIN)

    def sleep(self, seconds: float | None = None) -> bool:
        """Sleep until something happens; return whether it was the word to end the family."""
        ready = dict(self._poll.poll(None if seconds is None else seconds * 1000))
        told = self._change_signal in ready and signal.SIGTERM in os.read(
            self._change_signal, 65536
        )
        if self._lifeline in ready and self._host_let_go():
            self._poll.unregister(self._lifeline)  # end-of-file would end every later sleep, too
            told = True
        return told or os.getppid() != self._host

    def _host_let_go(self) -> bool:
        try:
            return not os.read(self._lifeline, 4096)
        except ConnectionError:  # it closed its end without having read our lines
            return True


class Process:
    """A process as /proc showed it; its pid may be reused, but not with the same start time."""

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
        self.pid, self.parent, self.group = pid, int(fields[1]), int(fields[2])
        self.start = int(fields[19])

    def send(self, *signals: int) -> None:
        """Send signals to this very process, not to a later owner of its pid, or raise."""
        try:
            handle = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # gone; or the kernel or this build of Python is old
            handle = None
        try:
            if Process(self.pid).start != self.start:  # asked after opening: the handle's owner
                raise ProcessLookupError
            for number in signals:
                if handle is None:
                    os.kill(self.pid, number)
                else:
                    signal.pidfd_send_signal(handle, number)
        except FileNotFoundError:
            raise ProcessLookupError from None
        finally:
            if handle is not None:
                os.close(handle)


def descendants(root: int) -> list[Process]:
    """Find everybody below a process, parents before their children.

    Who is orphaned meanwhile may be missed, so callers repeat it. (The kernel's own lists, in
    task/*/children, have the same gap, and not every kernel is built with them.)
    """
    children: dict[int, list[Process]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            process = Process(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(process.parent, []).append(process)
    found = children.pop(root, [])
    for process in found:  # grows while we walk it
        found += children.pop(process.pid, [])
    return found


class Family:
    """Everybody below the warden, who as the subreaper becomes the parent of every orphan."""

    def __init__(self, watch: Watch) -> None:
        if os.readlink("/proc/self") != str(os.getpid()):
            raise RuntimeError("/proc is of another pid namespace: its pids are not ours to signal")
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.child, self.status = 0, -1
        self.terminated: set[tuple[int, int]] = set()
        self.killed: set[tuple[int, int]] = set()
        self._watch = watch

    def start(self, argv: list[str], cwd: str | None) -> int:
        """Start the child and return its pid, or raise what kept it from running the program."""
        warden, (news, tell) = os.getpid(), os.pipe()
        self.child = os.fork()
        if self.child == 0:
            become(argv, cwd, warden, tell)
        os.close(tell)
        give_up_stdio()
        failure = os.fsdecode(os.read(news, 65536))  # exec closes the pipe: silence is success
        os.close(news)
        if failure:
            self.child = 0  # so that nobody takes its exit for the program's
            code, text, filename = failure.split("\n", 2)
            raise OSError(int(code), text, filename)
        return self.child

    def reap(self) -> bool:
        """Collect the dead; return whether anybody is left.

        A living process has living parents all the way up to us: no children means no family.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.child and self.status < 0:  # an orphan may have the same pid later
                self.status = status

    def wait(self) -> None:
        """Return when it is time to end the family."""
        while self.reap() and self.status < 0 and not self._watch.sleep():
            pass

    def end(self, term_grace_s: float, kill_grace_s: float) -> bool:
        """Ask everybody to end, then make them, while time is left; return whether all are gone."""
        deadline = time.monotonic() + term_grace_s
        while self.reap():
            self.sweep(self.terminate)  # again and again: somebody may be born meanwhile
            if (left := deadline - time.monotonic()) <= 0:
                break
            self._watch.sleep(min(left, SWEEP_S))
        deadline += kill_grace_s
        while self.reap() and time.monotonic() < deadline and self.sweep(self.kill):
            self._watch.sleep(SWEEP_S)
        return not self.reap()

    def end_blindly(self) -> None:
        """Kill the one group that is known, when looking around has failed."""
        if self.child and self.reap() and self.status < 0:
            os.killpg(self.child, signal.SIGKILL)
            deadline = time.monotonic() + 1
            while self.reap() and (left := deadline - time.monotonic()) > 0:
                self._watch.sleep(left)

    def sweep(self, act: Callable[[Process], None]) -> bool:
        """Do something to everybody; return False if it was forbidden for all there are."""
        forbidden, members = 0, descendants(os.getpid())
        for member in members:
            try:
                act(member)
            except ProcessLookupError:
                pass
            except PermissionError:
                forbidden += 1
        return not members or forbidden < len(members)

    def terminate(self, member: Process) -> None:
        """Ask one member to end, once, and wake it if it was stopped."""
        if (member.pid, member.start) not in self.terminated:
            member.send(signal.SIGTERM, signal.SIGCONT)
            self.terminated.add((member.pid, member.start))

    def kill(self, member: Process) -> None:
        """Kill one member; if it is a child of ours, its group as well.

        A group gets a signal all at once, so that forking faster than we look is no way out. No
        stranger is hit: the child leads a session, which nobody can join from outside, and a
        group's number is not reused while it has a member that only we can reap.
        """
        member.send(signal.SIGKILL)
        self.killed.add((member.pid, member.start))
        if member.parent == os.getpid() and member.group != os.getpgrp():
            os.killpg(member.group, signal.SIGKILL)

    def survivors(self) -> list[int]:
        """List the processes that are left."""
        return [member.pid for member in descendants(os.getpid())] if self.reap() else []


# --- afterwards ---


def remove_tree(name: str, parent: int | None = None) -> None:
    """Remove a file or a directory, whatever its mode, without following a link anywhere."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        directory = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)
    else:
        return
    try:
        itself = f"/proc/self/fd/{directory}"  # by its name, chmod would follow a link
        os.chmod(itself, 0o700)
        for entry in os.listdir(itself):
            try:
                remove_tree(entry, directory)
            except OSError:  # remove what can be; rmdir will tell of the rest
                pass
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)


def noted_worktrees(directory: str) -> str | None:
    """Find the git directory of a repository in which hosts have noted worktrees.

    See `worktree_claims`.
    """
    git = os.path.join(directory, ".git")
    while not os.path.lexists(git):
        if directory == os.path.dirname(directory):
            return None
        directory = os.path.dirname(directory)
        git = os.path.join(directory, ".git")
    if os.path.isfile(git):  # of a worktree: "gitdir: <common>/worktrees/<name>"
        with open(git) as file:
            git = os.path.dirname(os.path.dirname(file.read().partition(" ")[2].strip()))
    notes = os.path.join(git, "opencode-trio")
    return git if os.path.isdir(notes) and os.listdir(notes) else None


def clear_worktrees(git: str) -> NoReturn:
    """Become the program that removes them; where the library is not installed, nothing happens."""
    words = [sys.executable, "-P", "-m", "opencode_trio._swarm.worktrees", git]
    os.execve(sys.executable, words, given_environment())


def exit_like(status: int) -> NoReturn:
    """End as the child did; at once, for nothing here is buffered."""
    if status >= 0 and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        prctl(PR_SET_DUMPABLE, 0)  # no second core dump (RLIMIT_CORE does not keep pipes from one)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status) if status >= 0 else NO_STATUS)


def describe(error: BaseException) -> tuple[int, str, str | None]:
    """Return an error's number, text, and file."""
    text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return getattr(error, "errno", None) or 0, text, getattr(error, "filename", None)


def to_json(value: object) -> str:
    """Write a value of the report; json would cost each child 5 ms, and a file might not open."""
    if isinstance(value, dict):  # of what, only something imported could tell a type checker
        items: dict[str, object] = value  # pyright: ignore[reportUnknownVariableType]
        return "{" + ", ".join(f'"{name}": {to_json(item)}' for name, item in items.items()) + "}"
    if isinstance(value, str):
        escape = "\\u{:04x}".format
        special = {c for c in value if c < " " or c in '"\\' or "\ud800" <= c <= "\udfff"}
        return '"' + value.translate({ord(c): escape(ord(c)) for c in special}) + '"'
    return "null" if value is None else str(value).lower()  # numbers, booleans, lists of numbers


class Report:
    """What the host is told, whether or not it still listens."""

    def __init__(self, lifeline: int) -> None:
        self._lifeline = lifeline
        self.error: dict[str, object] | None = None

    def attempt(self, stage: str, step: Callable[..., Any], *args: Any) -> Any:
        """Take one step and return its result, or None: after a failure, too, the rest follows."""
        try:
            return step(*args)
        except BaseException as error:  # noqa: BLE001 - the family has to end
            words = zip(("errno", "strerror", "filename"), describe(error), strict=True)
            self.error = self.error or {"stage": stage, **dict(words)}
            return None

    def send(self, **line: object) -> None:
        """Write one line, if the host is there to read it."""
        try:
            os.write(self._lifeline, to_json(line).encode() + b"\n")
        except OSError:
            pass


def main(options: dict[str, str], argv: list[str]) -> NoReturn:
    """Run one child from its start to the end of its family."""
    lifeline, scratch = int(options["lifeline"]), options.get("scratch")
    host, cwd = int(options["host"]), options.get("cwd")
    graces = float(options.get("term_grace_s", 0.5)), float(options.get("kill_grace_s", 5))
    os.set_inheritable(lifeline, False)
    family, report = Family(Watch(lifeline, host)), Report(lifeline)
    if report.attempt("start", family.start, argv, cwd):
        report.send(pid=family.child)
        report.attempt("watch", family.wait)
    if report.attempt("end", family.end, *graces) is None:
        report.attempt("end", family.end_blindly)
    if scratch is not None:
        report.attempt("scratch", remove_tree, scratch)
    empty = not family.reap()
    report.send(
        status=family.status if family.status >= 0 else None,
        terminated=len(family.terminated),
        killed=len(family.killed),
        empty=empty,
        survivors=report.attempt("survivors", family.survivors) or [],
        scratch_removed=None if scratch is None else not os.path.lexists(scratch),
        error=report.error,
    )
    was_killed = os.getppid() != host and cwd is not None
    if was_killed and (git := report.attempt("worktrees", noted_worktrees, cwd)):
        time.sleep(sum(graces))
        report.attempt("worktrees", clear_worktrees, git)
    exit_like(family.status)


if __name__ == "__main__":
    words = sys.argv[1 : sys.argv.index("--")]
    main(dict(word.split("=", 1) for word in words), sys.argv[len(words) + 2 :])
