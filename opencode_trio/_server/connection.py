"""A server, as its sessions see it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import attrs
import trio

from opencode_trio._checks import check_path, path_of
from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.dialect import Dialect
from opencode_trio._server.event_stream import EventStream, Records
from opencode_trio._tasks import TrioRun
from opencode_trio._turn.session_tree import MAX_DEPTH
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeError, OpenCodeServerError
from opencode_trio.events import Event, PermissionAsked, QuestionAsked

_log = logging.getLogger("opencode_trio")

T = TypeVar("T")


class Api(Protocol):
    """What `HttpApi` is, said without naming it: to import httpx costs as much as trio does."""

    async def call(self, call: Call[T]) -> T:
        """Send a call and read its answer; raises `OpenCodeServerError`."""
        ...

    def open_events(self, path: str) -> Records:
        """Open the event stream; raises `OpenCodeServerError`."""
        ...


@attrs.define(eq=False)
class _Warming:
    epoch: int
    """How often directories had been disposed of before."""
    done: trio.Event = attrs.field(factory=trio.Event)
    failure: OpenCodeServerError | None = None


class Connection:
    """The way to a server: its interface, its event stream, and whether it is still there.

    Args:
        api: the interface.
        dialect: what the server speaks.
        url: where it is.
        password: what it wants; ``None`` if it wants none.
        tasks: where work runs that no caller's cancellation may interrupt.
        cfg: what it was started with; ``None`` if somebody else started it.
        end: ends the server at once; ``None`` if it is not ours to end.
        log_tail: reads the end of its log; ``None`` likewise.
        pid: its process; ``None`` likewise.
        check_directory: raises `OpenCodeConfigError` if opencode may not be let into a directory;
            blocks.  ``None`` likewise.
    """

    def __init__(
        self,
        api: Api,
        dialect: Dialect,
        *,
        url: str,
        tasks: trio.Nursery,
        password: str | None = None,
        cfg: RunConfig | None = None,
        end: Callable[[], None] | None = None,
        log_tail: Callable[[], str] | None = None,
        pid: int | None = None,
        check_directory: Callable[[Path], None] | None = None,
    ) -> None:
        self.api = api
        self.dialect = dialect
        self.url = url
        self.password = password
        self.cfg = cfg
        self.pid = pid
        self.event_stream: EventStream = EventStream(dialect, api.open_events)
        self.gone: trio.Event = trio.Event()
        """Set when the server has ended, or its block has."""
        self.failure: OpenCodeServerError | None = None
        """Why, then."""
        self._end = end
        self._check_directory = check_directory
        self._log_tail = log_tail
        self._tasks = tasks
        self._run = TrioRun(of="this server")
        self._warm: dict[str, _Warming] = {}
        self.event_stream.on_stray(self._adopt)

    async def call(self, call: Call[T], directory: str | None = None) -> T:
        """Send a call, in a directory.

        Raises:
            OpenCodeServerError: no answer, or an error.  Of a server that has ended, the way it
                ended.
        """
        self.check_run()
        call = call if directory is None else call.inside(directory)
        patient_until = trio.current_time() + PATIENCE_S
        pauses = iter(PAUSES_S if call.method == "GET" or call.does_no_harm_twice else ())
        while True:
            if self.failure is not None:
                raise self.ended_error()
            try:
                return await self.api.call(call)
            except OpenCodeServerError as exc:
                if exc.status_code is None and await self._is_gone():
                    raise self.ended_error() from exc
                if exc.status_code == 500 and (text := await self._true_text(exc)):
                    raise OpenCodeServerError(text, status_code=500) from exc
                pause = next(pauses, None) if exc.status_code in LOST else None
                if pause is None or trio.current_time() > patient_until:
                    raise
            await trio.sleep(pause)

    def check_run(self) -> None:
        """Check that the caller is in the `trio.run` that opened the server.

        Raises:
            RuntimeError: the caller is in another one.
        """
        self._run.check()

    async def check(self, directory: str) -> None:
        """See that opencode can be let into a directory, and may, as far as that is ours to say.

        Raises:
            OpenCodeConfigError: it cannot, or may not.
        """
        self.check_run()
        check_path(directory)
        if self._check_directory is not None:
            await trio.to_thread.run_sync(self._check_directory, path_of(directory))

    async def warm(self, directory: str) -> None:
        """See that the server has read a directory's providers.

        A prompt that is the first to need them and is aborted halfway leaves opencode 1.18
        with a reading that was interrupted, which it keeps: every later prompt in that directory
        gets a 500 ("All fibers interrupted without error"), until the directory is disposed of.
        So they are asked for before the first prompt, by a task that nobody interrupts.

        Raises:
            OpenCodeServerError: the server failed.

        **Cancellation**: harmless.
        """
        self.check_run()
        if self.failure is not None:
            raise self.ended_error()
        warming = self._warm.get(directory)
        if warming is None or warming.epoch != self.event_stream.disposals:
            warming = self._warm[directory] = _Warming(self.event_stream.disposals)
            self._tasks.start_soon(self._run_warming, directory, warming)
        await warming.done.wait()
        if warming.failure is not None:
            self._warm.pop(directory, None)
            raise copy_of(warming.failure)

    @trio.lowlevel.enable_ki_protection
    async def _run_warming(self, directory: str, warming: _Warming) -> None:
        try:
            await self.call(self.dialect.requests.providers(), directory)
        except OpenCodeServerError as exc:
            warming.failure = exc
        finally:
            warming.done.set()

    def _adopt(self, event: Event) -> None:
        if isinstance(event, PermissionAsked | QuestionAsked):
            self._tasks.start_soon(self._find_family, event)

    @trio.lowlevel.enable_ki_protection
    async def _find_family(self, event: Event) -> None:
        """Find out whose subagent asks, of which no event told that it began.

        It is one from before our time, woken again, and nobody would answer it.
        """
        session = event.session_id or ""
        try:
            for _ in range(MAX_DEPTH):
                record = await self.call(self.dialect.requests.get_session(session))
                if not record.parent_id:
                    break
                self.event_stream.tree.add(session, record.parent_id, record.agent)
                session = record.parent_id
        except OpenCodeError as exc:
            _log.warning("cannot tell whose subagent asks: %s", exc)
        self.event_stream.dispatch(event)

    def fail(self, error: OpenCodeServerError) -> None:
        """Know that the server has ended; every turn on it fails now."""
        if self.failure is None:
            self.failure = error
            self.gone.set()
            self.event_stream.fail(error)

    @contextmanager
    def in_use(self) -> Generator[None]:
        """Let the server be used in the block; who goes on afterwards gets a telling error."""
        try:
            yield
        finally:
            self.fail(
                OpenCodeServerError("the server is closed: the block that opened it was left")
            )

    def ended_error(self) -> OpenCodeServerError:
        """Say how the server ended, in an error of one's own to raise."""
        return copy_of(self.failure or OpenCodeServerError("the server has ended"))

    def end_server(self, why: str) -> None:
        """End a server of ours that no longer obeys; others are left alone."""
        if self._end is not None and self.failure is None:
            self.fail(OpenCodeServerError(f"the server was ended: {why}"))
            self._end()

    async def _true_text(self, error: OpenCodeServerError) -> str | None:
        """Find the text of a failure, for which the answer has but a reference to the log."""
        reference = re.search(r"log reference (\w+)", error.args[0])
        if reference is None or self._log_tail is None:
            return None
        await trio.sleep(LOG_IS_WRITTEN_S)
        said = re.search(rf'ref={reference[1]} error="((?:[^"\\]|\\.)*)"', self._log_tail())
        if said is None:
            return None
        return f"{error.args[0]}: " + str(said[1]).replace('\\"', '"')

    async def _is_gone(self) -> bool:
        """Say whether a broken connection was the server's end: its exit is known a moment later."""
        if self._end is not None:
            with trio.move_on_after(EXIT_IS_KNOWN_S):
                await self.gone.wait()
        return self.failure is not None


def copy_of(error: OpenCodeServerError) -> OpenCodeServerError:
    """Return the same error, for one caller to raise: each gets a ``partial`` of its own."""
    return OpenCodeServerError(error.args[0], status_code=error.status_code, stderr=error.stderr)


PAUSES_S = (0.1, 0.5, 1.0, 2.0)
"""Between tries to reach a server: a proxy that restarts takes a second or two."""

PATIENCE_S = 30.0
"""What had no answer for so long is not tried again: somebody takes requests and does not answer."""

LOST = frozenset({None, 502, 503, 504})
"""Statuses of what is no answer of the server's: nothing at all, or a word of a proxy in between."""

LOG_IS_WRITTEN_S = 0.05
"""From an error's answer to its line in the log, with a margin."""

EXIT_IS_KNOWN_S = 0.5
"""From the loss of a server's connections to the news of its exit, through the warden: a tenth of
this, on a busy machine."""
