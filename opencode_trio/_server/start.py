"""A server of our own: ``opencode serve`` as a child, from its start to its end."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from opencode_trio._process.binary import check_version
from opencode_trio._process.child import Child, open_child
from opencode_trio._process.isolation import ChildHome, home_of
from opencode_trio._process.output import LineSplitter
from opencode_trio._process.scratch import shortage
from opencode_trio._process.untrusted_workspace import check_project
from opencode_trio._protocol.detection import server_version
from opencode_trio._protocol.v1 import V1
from opencode_trio._server.connection import Connection
from opencode_trio._tasks import open_background
from opencode_trio._turn.redaction import password_forms
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeProcessError, OpenCodeServerError

_log = logging.getLogger("opencode_trio")

START_S = 60.0
"""From the start to the first event.  Two seconds on an idle machine; a cold disk, or an MCP server
that does not answer (30 s), takes its time."""

START_ATTEMPTS = 5
"""A port that was free may be taken a moment later by somebody else; five times in a row it is
something else."""

READY = re.compile(rb"listening on (http\S+)")
"""In the line that says where the server is; it is not the first line."""

TAKEN = re.compile(r"ServeError|Failed to start server", re.IGNORECASE)
"""What opencode says when it cannot have its port: first that of 1.18, then of older ones."""

USER = "opencode"


class _PortTakenError(Exception):
    pass


@attrs.frozen
class ServePlan:
    """Everything that a server needs, as values."""

    binary: str
    workspace: Path
    cfg: RunConfig
    prepare_home: Callable[[], ChildHome]
    """Makes the scratch directory and the environment, settings included; blocking."""
    start_s: float = START_S
    """Seconds until it must be ready."""


@asynccontextmanager
async def start_server(plan: ServePlan) -> AsyncGenerator[Connection]:
    """Start a server; when the block is left, it and its whole family have ended.

    It has a random password, listens on loopback only, and is ready: it has answered, and its
    event stream is open.

    Raises:
        OpenCodeServerError: it was not ready in time, or is not what it should be.
        OpenCodeProcessError: it ended before it was ready.
        OpenCodeVersionError: it is an opencode that this library cannot drive.
        OpenCodeBinaryNotFoundError: it cannot be executed.

    **Cancellation**: outlived by the server for as long as the block takes to say goodbye.
    """
    async with open_background() as tasks:
        connection = await _started(plan, tasks)
        with connection.in_use():
            yield connection


async def _started(plan: ServePlan, tasks: trio.Nursery) -> Connection:
    for _ in range(START_ATTEMPTS):
        try:
            connection: Connection = await tasks.start(_keep, plan)
        except _PortTakenError:
            _log.info("somebody else took the port; trying another")
        else:
            return connection
    raise OpenCodeServerError(f"opencode found its port taken {START_ATTEMPTS} times in a row")


@trio.lowlevel.enable_ki_protection
async def _keep(plan: ServePlan, *, task_status: trio.TaskStatus[Connection]) -> None:
    # Imported here, because to import httpx costs as much as to import trio.
    from opencode_trio._server.http import open_api  # noqa: PLC0415

    password = secrets.token_urlsafe(32)
    argv = [plan.binary, "serve", "--hostname=127.0.0.1", f"--port={_free_port()}"]
    # `open_child` owns the scratch directory, and no checkpoint stands between.
    home = await trio.to_thread.run_sync(plan.prepare_home)
    env = home.env | {"OPENCODE_SERVER_PASSWORD": password}
    redactor = home.redactor.knowing(*password_forms(USER, password))
    async with open_child(
        argv,
        cwd=home.elsewhere or plan.workspace,
        env=env,
        scratch=home.scratch,
        redact=redactor.text,
    ) as child:
        with _start_limit(plan.start_s, child) as limit:
            url = await _announced_url(child)
            async with (
                open_api(url, password=password, username=USER, redactor=redactor) as api,
                open_background() as tasks,
            ):
                connection = Connection(
                    api,
                    V1,
                    url=url,
                    password=password,
                    tasks=tasks,
                    cfg=plan.cfg,
                    pid=child.pid,
                    end=child.release,
                    log_tail=lambda: child.stderr_tail,
                    check_directory=partial(
                        check_project, home=Path(home_of(os.environ)), untrusted=plan.cfg.untrusted
                    ),
                )
                starting = trio.CancelScope()
                tasks.start_soon(_discard_output, child)
                tasks.start_soon(_tell_its_end, child, connection, starting)
                tasks.start_soon(connection.event_stream.run)
                await _answers(connection, child, starting)
                limit.deadline = math.inf
                task_status.started(connection)
                await trio.sleep_forever()  # who holds the connection still learns how it ended


async def _answers(connection: Connection, child: Child, starting: trio.CancelScope) -> None:
    try:
        with starting:
            await check_health(connection)
            await connection.event_stream.wait_connected()
    except OpenCodeServerError:
        if child.exit_code is None:
            raise
    if child.exit_code is not None:
        raise _ended_early(child)


@trio.lowlevel.enable_ki_protection
async def _tell_its_end(child: Child, connection: Connection, starting: trio.CancelScope) -> None:
    await child.wait()
    connection.fail(_ended(child))
    starting.cancel()


@contextmanager
def _start_limit(seconds: float, child: Child) -> Generator[trio.CancelScope]:
    with trio.move_on_after(seconds) as scope:
        yield scope
    if scope.cancelled_caught:
        text = f"opencode serve was not ready within {seconds:g} s"
        raise OpenCodeServerError(text, stderr=child.stderr_tail)


async def _announced_url(child: Child) -> str:
    framer = LineSplitter()
    while chunk := await child.receive_some():
        for line in framer.feed(chunk):
            if found := READY.search(line):
                return found[1].decode()
    await child.wait()
    if TAKEN.search(child.stderr_tail):
        raise _PortTakenError
    raise _ended_early(child)


def _ended_early(child: Child) -> OpenCodeProcessError:
    text = f"opencode serve exited with status {child.exit_code} before it was ready"
    text += shortage(child.stderr_tail, child.scratch)
    return OpenCodeProcessError(text, exit_code=child.exit_code, stderr=child.stderr_tail)


@trio.lowlevel.enable_ki_protection
async def _discard_output(child: Child) -> None:
    # What it prints from now on nobody needs, but a full pipe would stop it.
    while await child.receive_some():
        pass


def _ended(child: Child) -> OpenCodeServerError:
    text = f"the server ended with exit status {child.exit_code}"
    text += shortage(child.stderr_tail, child.scratch)
    return OpenCodeServerError(text, stderr=child.stderr_tail)


def _free_port() -> int:
    """Find a port that is free now: opencode's own ``--port 0`` means 4096 first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def check_health(connection: Connection) -> str:
    """Ask for the version, and return it if this library can drive it.

    Raises:
        OpenCodeServerError: the server does not answer as opencode does.
        OpenCodeVersionError: it is one that this library cannot drive.
    """
    return check_version(await server_version(connection.call), of=connection.url)
