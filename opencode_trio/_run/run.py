"""One ``opencode run``: its events as they come, and the verdict at its end."""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from opencode_trio._json import text_of
from opencode_trio._process.child import Child, open_child
from opencode_trio._process.output import (
    MAX_LINE_BYTES,
    LineSplitter,
    LineTooLongError,
    Spool,
    plain,
)
from opencode_trio._process.scratch import shortage
from opencode_trio._protocol.v1.run_lines import parse_event_line, run_event
from opencode_trio._run.ending import (
    AGENT_FALLBACK,
    FAILED_REQUEST,
    end_of_run,
    failure_of_run,
)
from opencode_trio._run.event_log import EventLog
from opencode_trio._tasks import TrioRun
from opencode_trio._turn.ending import OVER, PROVIDER_FAILED
from opencode_trio._turn.fold import TurnFold
from opencode_trio._turn.guards import StepGuard
from opencode_trio._turn.redaction import NOTHING_KNOWN, Redactor
from opencode_trio._turn.result import result_of
from opencode_trio.errors import (
    OpenCodeError,
    OpenCodeLimitError,
    OpenCodeProcessError,
)
from opencode_trio.events import Event
from opencode_trio.results import RunResult, StopReason

_log = logging.getLogger("opencode_trio")

SETTLE_S = 10.0
"""How long opencode may take to exit once it has nothing left to do.  Usually that is half a second;
open handles have kept it for ever."""


OPENCODES_OWN_WORDS = {"error", "diagnostic"}
"""Types of records that say nothing of the model's or a tool's, so that secrets can be taken out."""


@attrs.frozen
class RunPlan:
    """Everything that one run needs, as values."""

    argv: Sequence[str]
    prompt: bytes = attrs.field(repr=False)
    cwd: Path
    """Where it starts."""
    env: Mapping[str, str] = attrs.field(repr=False)
    scratch: Path
    redactor: Redactor = NOTHING_KNOWN
    max_steps: int | None = None
    max_line_bytes: int = MAX_LINE_BYTES


class Run(trio.abc.ReceiveChannel[Event]):
    """The events of a run, each delivered once its line is whole.

    Iterate over it.  The end of the run ends the iteration; a run that failed ends it with the
    error.  A reader may take its time: the agent does not wait for it, and nothing is lost.
    """

    def __init__(self, child: Child, plan: RunPlan, log: EventLog | None) -> None:
        self._run = TrioRun(of="this run of an agent")
        self._child = child
        self._plan = plan
        self._log = log
        self._fold = TurnFold()
        self._guard = StepGuard(plan.max_steps)
        self._framer = LineSplitter(plan.max_line_bytes)
        self._ready: deque[Event] = deque()
        self._lines: list[str] = []
        self._began = trio.current_time()
        self._ended: float | None = None
        self._stop: StopReason | None = None
        self._patience_s = math.inf
        self._outstayed = False
        self._is_closed = False

    @property
    def result(self) -> RunResult:
        """The result so far; after the block, the final one."""
        ended = trio.current_time() if self._ended is None else self._ended
        return result_of(
            self._fold,
            stop_reason=self._stop,
            duration_s=ended - self._began,
            exit_code=self._child.exit_code,
            stderr=plain(self._child.stderr_tail),
            raw_stdout_lines=list(self._lines),
            teardown=self._child.teardown,
        )

    async def receive(self) -> Event:
        """Return the next event.

        Raises:
            trio.EndOfChannel: the run is over, and its result is complete.
            OpenCodeTurnError: the model or its provider failed.
            OpenCodeLimitError: a guard ended the run.
            OpenCodeProcessError: opencode crashed, or ended without an answer.
            OpenCodeCancelledError: somebody else aborted the turn.
            OpenCodeConfigError: opencode does not have the agent asked for.
            trio.ClosedResourceError: you closed it.
            trio.BusyResourceError: another task is waiting for the next event.

        **Cancellation**: loses no event.
        """
        self._run.check()
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._ready:
            await trio.lowlevel.checkpoint()
        while not self._ready:
            await self._read()
        return self._deliver(self._ready.popleft())

    async def aclose(self) -> None:
        """Begin to end the run; leaving its block waits for that."""
        self._run.check()
        self._is_closed = True
        self._child.release()
        await trio.lowlevel.checkpoint()

    async def _read(self) -> None:
        chunk = await self._chunk()
        if self._is_closed:
            raise trio.ClosedResourceError
        try:
            lines = self._framer.feed(chunk) if chunk else self._framer.close()
        except LineTooLongError as exc:
            error = OpenCodeProcessError(f"opencode wrote a line that is not an event: {exc}")
            raise self._ending(error, "incomplete") from exc
        for line in lines:
            self._take(line.decode(errors="replace"))
        if not chunk and not self._ready:
            await self._finish()

    async def _chunk(self) -> bytes:
        began = trio.current_time()
        with trio.move_on_after(self._patience_s):
            try:
                return await self._child.receive_some()
            finally:  # only waiting counts, and all of it: neither a slow reader nor one that polls
                waited = trio.current_time() - began
                self._patience_s = max(0.0, self._patience_s - waited)
        self._let_go_of_lingerer()
        return await self._child.receive_some()

    def _let_go_of_lingerer(self) -> None:
        self._outstayed = True
        self._patience_s = math.inf
        self._child.release()

    def _take(self, line: str) -> None:
        record = parse_event_line(line)
        if text_of(record, "type") in OPENCODES_OWN_WORDS:
            redacted = self._plan.redactor.values(record)
            if redacted != record:
                line, record = redacted.get("raw") or json.dumps(redacted), redacted
        self._lines.append(line)
        self._ready.append(run_event(record))

    def _deliver(self, event: Event) -> Event:
        if self._log is not None:
            self._log.write(event.raw, text_of(event.raw, "type"))
        self._fold.add(event)
        # Nothing more is owed then: wait for the exit, but not for ever.
        is_over = self._fold.stop_reason in OVER
        self._patience_s = min(self._patience_s, SETTLE_S) if is_over else math.inf
        try:
            self._guard.check(event)
        except OpenCodeLimitError as exc:
            raise self._ending(exc, "limit") from None
        return event

    async def _finish(self) -> None:
        with trio.move_on_after(SETTLE_S) as patience:
            await self._child.wait()
        if patience.cancelled_caught:  # it has closed its output, and stays
            self._let_go_of_lingerer()
            await self._child.wait()
        self._settle(0 if self._outstayed else self._child.exit_code)
        failure = failure_of_run(self.result, self._fold.last_error)
        if failure is None:
            raise trio.EndOfChannel
        raise self._described(failure)

    def _ending(self, error: OpenCodeError, stop: StopReason) -> OpenCodeError:
        """End the run at once: while the error travels, the model must not be asked again."""
        self._child.release()
        self._stop = self._stop or stop
        return self._described(error)

    def _described(self, error: OpenCodeError) -> OpenCodeError:
        error.partial = self.result
        error.stderr = error.partial.stderr
        if isinstance(error, OpenCodeProcessError):
            error.args = (f"{error.args[0]}{shortage(error.stderr, self._plan.scratch)}",)
        error.argv = tuple(map(self._plan.redactor.text, self._plan.argv))
        return error

    def _settle(self, exit_code: int | None) -> None:
        """Note how and when the run ended, the first time that it is known."""
        if self._ended is None:
            self._ended = trio.current_time()
            self._stop = self._stop or end_of_run(self._fold, exit_code)


class OwnedRun(Run):
    """A run as its block has it."""

    def leave(self) -> None:
        """Note that the block was left."""
        self._is_closed = True
        self._settle(None)


@asynccontextmanager
async def open_run(plan: RunPlan, log: EventLog | None = None) -> AsyncGenerator[Run]:
    """Start a run; when the block is left, it and its whole family have ended.

    **Cancellation**: ends the run, shielded and bounded (see `open_child`).
    """
    async with open_child(
        plan.argv,
        cwd=plan.cwd,
        env=plan.env,
        scratch=plan.scratch,
        stdin=plan.prompt,
        redact=plan.redactor.text,
        make_output=Spool,
        on_stderr=_StderrReader().read,
    ) as child:
        run = OwnedRun(child, plan, log)
        try:
            yield run
        finally:
            run.leave()


class _StderrReader:
    """Acts on what only stderr tells."""

    def __init__(self) -> None:
        self._has_warned = False

    def read(self, child: Child) -> None:
        """Take what has come so far."""
        said = plain(child.stderr_tail)
        # Said before the model is asked: end it while it has cost nothing.
        if AGENT_FALLBACK.search(said):
            child.release()
        failed = FAILED_REQUEST.search(said)
        if failed is not None and not self._has_warned:
            self._has_warned = True
            _log.warning(PROVIDER_FAILED, *failed.groups())
