"""One child and its family, owned by a block.

Leaving `open_child`, by whatever way, means that the child and everything it started have ended
and that its scratch directory is gone.  A `Supervisor` knows how: `WardenSupervisor` with a
warden process, `GroupSupervisor` where the platform has no child subreaper.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from opencode_trio._process.output import DRAIN_S, Output, Pipe
from opencode_trio._process.scratch import no_temporary, remove_scratch
from opencode_trio._process.supervisor import (
    DEFAULT_GRACES,
    Graces,
    MakeSupervisor,
    NotStarted,
    Started,
    Supervisor,
    keep_from_forks,
)
from opencode_trio._process.supervisors import best_supervisor, end_family, not_started_error
from opencode_trio._tasks import clear_away
from opencode_trio.errors import OpenCodeError
from opencode_trio.results import Teardown

_log = logging.getLogger("opencode_trio")


STDERR_TAIL_BYTES = 64 * 1024
"""How much of stderr is kept: hundreds of lines, of which the last say what went wrong."""


class Child:
    """A running child."""

    def __init__(
        self,
        process: trio.Process,
        output: Output,
        supervisor: Supervisor,
        *,
        scratch: Path,
        on_stderr: Callable[[Child], None],
        redact: Callable[[str], str],
    ):
        self.pid: int = process.pid
        """The child's own pid."""
        self.scratch = scratch
        """Its scratch directory."""
        self.teardown: Teardown | None = None
        """How the family was ended; ``None`` until the block has been left."""
        self._stdin = _piped(process.stdin)
        self._output = output
        self._stderr = _piped(process.stderr)
        self._process = process
        self._keeper = supervisor
        self._on_stderr = on_stderr
        self._redact = redact
        self._exited = trio.Event()
        self._stderr_ended = trio.Event()
        self._tail = b""

    @property
    def exit_code(self) -> int | None:
        """The exit status, minus the signal's number if one ended it; ``None`` while it runs."""
        return self._process.returncode

    @property
    def stderr_tail(self) -> str:
        """The end of what it wrote to stderr, without secrets."""
        tail = self._tail
        if len(tail) == STDERR_TAIL_BYTES:  # half a secret at its beginning would not be known
            tail = tail.partition(b"\n")[2] or tail
        return self._redact(tail.decode(errors="replace"))

    def release(self) -> None:
        """Begin to end the family; leaving the block waits for it."""
        self._keeper.release()

    async def wait(self) -> None:
        """Wait until the child has ended, and its stderr is known to its end.

        **Cancellation**: harmless.
        """
        await self._exited.wait()

    async def receive_some(self) -> bytes:
        """Read what the child wrote to stdout; ``b""`` at its end.

        **Cancellation**: loses nothing.
        """
        return await self._output.receive_some()

    # --- in the background; nothing here raises, Ctrl+C included: it is for the block

    @trio.lowlevel.enable_ki_protection
    async def pump(self, stdin: bytes) -> None:
        """Serve the child's pipes until they end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed, stdin)
            nursery.start_soon(self._drain_stderr)
            nursery.start_soon(self._watch)

    @trio.lowlevel.enable_ki_protection
    async def _feed(self, data: bytes) -> None:
        try:
            async with self._stdin:  # opencode reads to the end of file before it starts
                await self._stdin.send_all(data)
        except trio.BrokenResourceError:
            pass  # it ended without reading; its exit says why

    @trio.lowlevel.enable_ki_protection
    async def _drain_stderr(self) -> None:
        async for chunk in self._stderr:
            self._tail = (self._tail + chunk)[-STDERR_TAIL_BYTES:]
            self._on_stderr(self)
        self._stderr_ended.set()

    @trio.lowlevel.enable_ki_protection
    async def _watch(self) -> None:
        await self._process.wait()
        self._output.end()
        with trio.move_on_after(DRAIN_S):
            await self._stderr_ended.wait()
        self._exited.set()

    async def end(self, graces: Graces) -> None:
        """End the family; called shielded."""
        self.teardown = await end_family(self._keeper, self._process, graces)

    async def close_pipes(self) -> None:
        """Close our ends of the pipes."""
        for stream in (self._stdin, self._stderr, self._output):
            await stream.aclose()


T = TypeVar("T")


def _piped(stream: T | None) -> T:
    if stream is None:  # never: every child of ours gets these pipes
        raise RuntimeError("a standard stream of the child is not piped")
    return stream


@asynccontextmanager
@trio.lowlevel.enable_ki_protection  # Ctrl+C in between would leave a child that nobody owns
async def open_child(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    scratch: Path,
    stdin: bytes = b"",
    on_stderr: Callable[[Child], None] = lambda _: None,
    redact: Callable[[str], str] = str,
    make_output: Callable[[], Output] = Pipe,
    graces: Graces = DEFAULT_GRACES,
    make_supervisor: MakeSupervisor | None = None,
) -> AsyncGenerator[Child]:
    """Start a child; when the block is left, it and its whole family have ended.

    Args:
        argv: its command line.
        cwd: its working directory.
        env: its whole environment.
        scratch: a directory to remove once the family has ended; ours from this call on.
        stdin: written to it, and closed.
        on_stderr: called with the child whenever its stderr has grown; must not raise.
        redact: takes secrets out of its stderr.
        make_output: makes what its stdout is read from.
        graces: how patient the ending is.
        make_supervisor: makes the `Supervisor`; by default the best that the platform has.

    Raises:
        OpenCodeBinaryNotFoundError: the executable is gone or cannot be executed.
        OpenCodeConfigError: the working directory cannot be entered, or arguments and
            environment are too long for the system.

    **Cancellation**: ends the family, shielded, and bounded by the graces.
    """
    try:
        supervisor = (make_supervisor or best_supervisor())(argv, cwd, scratch, graces)
        output = _made(make_output, supervisor)
        # From here to the `try` below there is no checkpoint: no gap between fork and ownership.
        process = await _spawn(supervisor, output, argv[0], cwd, env)
    except BaseException:
        await clear_away(remove_scratch, scratch)
        raise
    child = Child(process, output, supervisor, scratch=scratch, on_stderr=on_stderr, redact=redact)
    over = trio.Event()
    failure: BaseException | None = None
    has_started = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_outlive, over, child, stdin, scratch, graces)
            try:
                child.pid = _pid_of(await supervisor.started(process), cwd, argv[0])
                has_started = True
                yield child
            except BaseException as exc:  # noqa: BLE001 - Cancelled, too, leaves below
                failure = exc  # raised below, bare: the nursery would wrap it in a group
            over.set()
    except* KeyboardInterrupt as interrupts:  # one more Ctrl+C, while we waited for the end
        failure, cause = interrupts.exceptions[0], failure
        failure.__context__ = cause
    if failure is not None:
        if isinstance(failure, OpenCodeError) and not has_started:
            failure.stderr = child.stderr_tail  # may say why; later errors may not be the child's
        try:
            raise failure
        finally:
            del failure  # or it would be kept alive, with all its frames, by this one


@trio.lowlevel.enable_ki_protection
async def _outlive(
    over: trio.Event, child: Child, stdin: bytes, scratch: Path, graces: Graces
) -> None:
    """Serve the child's pipes, and end its family once the block is over, whatever is cancelled.

    In a task of its own, because no shield keeps trio from raising a second Ctrl+C in the main
    task, where it would break off what the first one has begun.
    """
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.pump, stdin)
            await over.wait()
            await child.end(graces)
            await clear_away(remove_scratch, scratch)  # most often there is nothing left
            with trio.move_on_after(DRAIN_S):
                await child.wait()
            nursery.cancel_scope.cancel()
        await child.close_pipes()


def _made(make_output: Callable[[], Output], supervisor: Supervisor) -> Output:
    try:
        return make_output()
    except OSError as exc:
        supervisor.close()
        raise no_temporary(exc) from exc


async def _spawn(
    supervisor: Supervisor, output: Output, binary: str, cwd: Path, env: Mapping[str, str]
) -> trio.Process:
    try:
        process = await trio.lowlevel.open_process(
            supervisor.command,
            stdin=subprocess.PIPE,
            stdout=output.destination,
            stderr=subprocess.PIPE,
            env=env,
            **supervisor.options,
        )
    except BaseException as exc:
        supervisor.close()
        await output.aclose()
        if not isinstance(exc, OSError):
            raise
        why = NotStarted(exc.errno or 0, exc.strerror or str(exc), exc.filename)
        raise not_started_error(why, cwd, binary) from exc
    if isinstance(process.stdin, trio.lowlevel.FdStream):
        keep_from_forks(process.stdin)
    output.attach(process.stdout)
    return process


def _pid_of(start: Started | NotStarted, cwd: Path, binary: str) -> int:
    if isinstance(start, NotStarted):
        raise not_started_error(start, cwd, binary)
    return start.pid
