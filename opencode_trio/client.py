"""`AsyncOpenCodeClient`: the door for programs."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from opencode_trio._checks import (
    PATHS_FAIL_WITH,
    UNTRUSTED_SINCE,
    StrPath,
    checked_prompt,
    checked_workspace,
)
from opencode_trio._process.binary import check_release, probe_version, resolve_binary
from opencode_trio._process.child_setup import prepare_child
from opencode_trio._process.environment import build_argv
from opencode_trio._process.isolation import ChildHome
from opencode_trio._process.scratch import is_short_of_space, unusable
from opencode_trio._run.event_log import EventLog
from opencode_trio._run.run import Run, RunPlan, open_run
from opencode_trio._tasks import require_trio, time_limit
from opencode_trio._turn.guards import MAX_STEPS
from opencode_trio.config import RunConfig, validate_config_for_run
from opencode_trio.errors import OpenCodeConfigError, OpenCodeProcessError
from opencode_trio.results import RunResult

if TYPE_CHECKING:
    from opencode_trio.server import OpenCodeServer

_log = logging.getLogger("opencode_trio")

TITLE = "opencode-trio"
"""With a title opencode does not ask a model to invent one, a request that nobody would see."""

SQLITE_CRASHES = (
    "database is locked",
    "sqlite_busy",
    "sqliteerror",
    "journal_mode",
    "disk i/o error",
)
"""What stderr says, in lower case, when opencode crashed because others opened the database too."""


@attrs.frozen
class _Waits:
    """What tasks of one client wait for.  Such things of trio work in one `trio.run` only."""

    starting: trio.Semaphore
    """Held by a child that is opening a database that others use, too."""
    probing: trio.Lock = attrs.field(factory=trio.Lock)
    """Held while opencode is asked for its version: sixteen first runs ask once."""


_Clients: TypeAlias = weakref.WeakKeyDictionary[object, _Waits]
_clients = trio.lowlevel.RunVar[_Clients | None]("opencode_trio_clients", default=None)


class AsyncOpenCodeClient:
    """Runs agents.  One client serves any number of tasks at once.

    Several threads may share it, each with a `trio.run` of its own.  What it opened belongs to the
    thread that opened it.

    Args:
        binary: opencode's name on ``PATH``, or its path.
        startup_concurrency: how many children that share a database may start at once, in each
            `trio.run`.
        startup_delay_s: how many seconds each of those keeps its place, so that opencode has
            opened the database before the next one does.  Children with a database of their own
            are not held up.
        isolate_db: give every run a database of its own.  Without it runs share the host's:
            sessions can be resumed, and writing makes them wait for each other.
    """

    def __init__(
        self,
        binary: str = "opencode",
        startup_concurrency: int = 1,
        startup_delay_s: float = 0.3,
        isolate_db: bool = True,
    ) -> None:
        if startup_concurrency < 1:
            raise OpenCodeConfigError(
                f"startup_concurrency: expected at least 1, got {startup_concurrency}"
            )
        check_delay("startup_delay_s", startup_delay_s)
        self.binary: str = binary
        """What it was made with: a name on ``PATH``, or a path."""
        self._isolate_db = isolate_db
        self._startup_delay_s = startup_delay_s
        self._startup_concurrency = startup_concurrency

    def resolved_binary(self) -> str:
        """Return the path of the executable.

        Raises:
            OpenCodeBinaryNotFoundError: there is none.
        """
        return resolve_binary(self.binary)

    async def async_run(
        self,
        prompt: str,
        workspace: StrPath,
        *,
        run_cfg: RunConfig | None = None,
        timeout_s: float | None = None,
        log_file: StrPath | None = None,
        log_exclude_types: Collection[str] = (),
        max_retries: int = 2,
        retry_delay_s: float = 1.0,
        data_home: StrPath | None = None,
    ) -> RunResult:
        """Run an agent to its end.

        Args:
            prompt: what to do; the model receives it byte for byte.
            workspace: the directory the agent works in.
            run_cfg: the settings.
            timeout_s: seconds for everything, retries included; like `trio.fail_after`.
            log_file: each event is appended to it as a line of JSON, as it comes.
            log_exclude_types: types of events that are kept out of the log (not of the result).
            max_retries: how often to start again after a crash while opening the database; only
                when no event had come, so nothing is ever done twice.
            retry_delay_s: seconds between two attempts.
            data_home: use this data directory (database, sessions, logs) rather than a private
                one, or the host's; made if it is missing, never removed.

        Returns:
            The result, whose `stop_reason` says how the turn ended.  A refused permission, or an
            answer that reached its limit, is a result.

        Raises:
            OpenCodeConfigError: the prompt, workspace, log file or settings are invalid.
            OpenCodeBinaryNotFoundError: there is no opencode to run.
            OpenCodeVersionError: it is one this library cannot drive.
            OpenCodeTurnError: the model or its provider failed.
            OpenCodeLimitError: a guard ended the run.
            OpenCodeTimeoutError: `timeout_s` was up.
            OpenCodeProcessError: opencode crashed, or ended without an answer.
            OpenCodeCancelledError: the turn was aborted, though not by you.

        All errors but the first three carry what had arrived, as ``partial``.

        **Cancellation**: ends the agent and everything it started before it lets go, in at most
        the time of `opencode_trio.Graces`.
        """
        require_trio()
        check_delay("retry_delay_s", retry_delay_s)
        if max_retries < 0:
            raise OpenCodeConfigError(f"max_retries: expected at least 0, got {max_retries}")
        run: Run | None = None
        with (
            time_limit(timeout_s, partial=lambda: run.result if run else None),
            _log_of(log_file, log_exclude_types) as log,
        ):
            for attempt in range(max_retries + 1):
                try:
                    async with self._open(prompt, workspace, run_cfg, data_home, log) as run:
                        async for _ in run:
                            pass
                except OpenCodeProcessError as exc:
                    if attempt == max_retries or not is_startup_crash(exc):
                        raise
                    _log.warning(
                        "opencode crashed while it opened its database; starting it again: %s", exc
                    )
                else:
                    return run.result
                await trio.sleep(retry_delay_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    @asynccontextmanager
    async def async_stream(
        self,
        prompt: str,
        workspace: StrPath,
        *,
        run_cfg: RunConfig | None = None,
        timeout_s: float | None = None,
        log_file: StrPath | None = None,
        log_exclude_types: Collection[str] = (),
        data_home: StrPath | None = None,
    ) -> AsyncGenerator[Run]:
        """Run an agent and read its events as they come.

        The arguments and errors are those of `async_run`; errors of the run come out of the
        iteration.  The block may be left at any time, which ends the run.

        Yields:
            A `trio.abc.ReceiveChannel` of `Event`, with the ``result`` so far; after the block
            the result is final.

        **Cancellation**: as in `async_run`.
        """
        require_trio()
        run: Run | None = None
        with (
            time_limit(timeout_s, partial=lambda: run.result if run else None),
            _log_of(log_file, log_exclude_types) as log,
        ):
            async with self._open(prompt, workspace, run_cfg, data_home, log) as run:
                yield run

    @asynccontextmanager
    async def open_server(
        self,
        workspace: StrPath,
        *,
        run_cfg: RunConfig | None = None,
        warm: bool = False,
        data_home: StrPath | None = None,
    ) -> AsyncGenerator[OpenCodeServer]:
        """Start a server, which hosts any number of conversations at once.

        A turn on it costs a tenth of a second where a run of its own costs four.

        Args:
            workspace: the directory that sessions work in unless they name another.
            run_cfg: the settings; those that a server has but once (``mcp``, ``instructions``,
                providers) are settled here, the others are the sessions' defaults.
            warm: prepare the workspace now, so that the first turn does not wait for it.
            data_home: as in `async_run`.

        Raises:
            OpenCodeServerError: it was not ready in time.
            OpenCodeProcessError: it ended before it was ready.

        Invalid arguments raise the same errors as in `async_run`.

        **Cancellation**: ends the server and everything it started before it lets go.
        """
        require_trio()
        # Imported when first needed: runs alone do without the modules of a server.
        from opencode_trio._server.start import ServePlan  # noqa: PLC0415
        from opencode_trio.server import open_server  # noqa: PLC0415

        cfg = run_cfg or RunConfig()
        directory = checked_workspace(workspace)
        plan = ServePlan(
            binary=await self._checked_binary(cfg),
            workspace=directory,
            cfg=cfg,
            prepare_home=lambda: self._surroundings(cfg, directory, data_home),
        )
        async with open_server(plan, warm=warm) as server:
            yield server

    @asynccontextmanager
    async def _open(
        self,
        prompt: str,
        workspace: StrPath,
        run_cfg: RunConfig | None,
        data_home: StrPath | None,
        log: EventLog | None,
    ) -> AsyncGenerator[Run]:
        cfg = run_cfg or RunConfig()
        validate_config_for_run(cfg)
        message = encode_prompt(prompt, cfg)
        directory = checked_workspace(workspace)
        binary = await self._checked_binary(cfg)
        shares_database = data_home is not None or not self._isolate_db
        async with AsyncExitStack() as stack:
            async with self._waits.starting if shares_database else nullcontext():
                # `open_run` owns the scratch directory, and no checkpoint stands between.
                home = await trio.to_thread.run_sync(self._surroundings, cfg, directory, data_home)
                plan = RunPlan(
                    argv=build_argv(binary, "", _with_title(cfg)),
                    prompt=message,
                    cwd=home.elsewhere or directory,
                    env=home.env,
                    scratch=home.scratch,
                    redactor=home.redactor,
                    max_steps=cfg.max_steps or MAX_STEPS,
                )
                run = await stack.enter_async_context(open_run(plan, log))
                await trio.sleep(self._startup_delay_s if shares_database else 0)
            yield run

    @property
    def _waits(self) -> _Waits:
        clients = _clients.get()
        if clients is None:
            _clients.set(clients := weakref.WeakKeyDictionary())
        return clients.setdefault(self, _Waits(trio.Semaphore(self._startup_concurrency)))

    def _surroundings(
        self, cfg: RunConfig, workspace: Path, data_home: StrPath | None
    ) -> ChildHome:
        try:
            data = None if data_home is None else Path(data_home).expanduser().absolute()
        except PATHS_FAIL_WITH as exc:
            raise unusable("data_home", exc) from exc
        return prepare_child(cfg, workspace, isolate_db=self._isolate_db, data_home=data)

    async def _checked_binary(self, cfg: RunConfig) -> str:
        binary = self.resolved_binary()
        async with self._waits.probing:
            version = await probe_version(binary)
        if cfg.untrusted:
            check_release(version, at_least=UNTRUSTED_SINCE, needed_for="RunConfig.untrusted")
        return binary


def check_delay(name: str, seconds: float) -> None:
    """Refuse what is no length of time, or has no end."""
    if not 0 <= seconds < math.inf:  # nor is NaN
        raise OpenCodeConfigError(f"{name}: expected seconds, got {seconds!r}")


def encode_prompt(prompt: str, cfg: RunConfig) -> bytes:
    """Write a prompt for opencode's stdin.

    Raises:
        OpenCodeConfigError: the prompt is empty, or cannot be written as UTF-8.
    """
    # opencode refuses white space alone, unless a command of its own comes with it.
    has_command = "command" in (cfg.cli_kwargs or {})
    message = checked_prompt(prompt, may_be_blank=has_command).encode()
    if b"\0" in message:
        raise OpenCodeConfigError("prompt: holds a NUL byte")
    # Reading stdin, opencode takes one byte order mark off; give it one to take.
    return "\ufeff".encode() + message if prompt.startswith("\ufeff") else message


def is_startup_crash(error: OpenCodeProcessError) -> bool:
    """Whether opencode crashed opening its database, before anything had happened."""
    started = error.partial is not None and bool(error.partial.events)
    is_the_databases = any(sign in error.stderr.lower() for sign in SQLITE_CRASHES)
    return not started and is_the_databases and not is_short_of_space(error.stderr)


def _with_title(cfg: RunConfig) -> RunConfig:
    flags = dict(cfg.cli_kwargs or {})
    if flags.keys() & {"title", "session", "s", "continue", "c"}:
        return cfg
    return attrs.evolve(cfg, cli_kwargs=flags | {"title": TITLE})


def _log_of(path: StrPath | None, exclude: Collection[str]) -> EventLog | nullcontext[None]:
    return nullcontext() if path is None else EventLog(path, exclude)
