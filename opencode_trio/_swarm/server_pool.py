"""Servers for many agents: started when they are needed, shared, worn out, and replaced."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

import attrs
import trio

from opencode_trio._checks import StrPath, check_path, checked_workspace
from opencode_trio._json import is_mapping
from opencode_trio._session.settings import OF_A_TURN
from opencode_trio._tasks import open_background
from opencode_trio.config import RunConfig
from opencode_trio.errors import (
    OpenCodeConfigError,
    OpenCodeError,
    OpenCodeProcessError,
    OpenCodeServerError,
)
from opencode_trio.server import OpenCodeServer, ServerOpener

_log = logging.getLogger("opencode_trio")

MAX_DIRECTORIES = 16
"""A server keeps 40 to 75 MB for each directory that it has ever worked in, until it ends: with
sixteen it has grown from a half to one and a half gigabytes."""

MAX_RSS_BYTES = 2 * 2**30
"""What sixteen directories take, and some.  Sessions grow a server, too, more slowly."""

MAX_IDLE = 4
"""A server that nobody uses still holds half a gigabyte, and one is started in two seconds."""

PAGE_BYTES = 4096
"""Of Linux, where it matters: a larger page makes a server look smaller, and last longer."""


Source: TypeAlias = ServerOpener | OpenCodeServer | Sequence[OpenCodeServer]
"""Where the servers come from."""


class ServerPool(Protocol):
    """Gives servers to agents."""

    def directory(self, workspace: StrPath | None) -> str | None:
        """Return where an agent should work; ``None`` leaves it to the server."""
        ...

    def lease(
        self, cfg: RunConfig | None, directory: str | None
    ) -> AbstractAsyncContextManager[OpenCodeServer]:
        """Give a server for as long as the block takes."""
        ...


@asynccontextmanager
async def open_pool(source: Source) -> AsyncGenerator[ServerPool]:
    """Open the servers' pool; when the block is left, the servers that it started have ended.

    **Cancellation**: outlived by the servers for as long as the block takes to say goodbye.
    """
    if isinstance(source, ServerOpener):
        async with open_background() as tasks:
            yield OwnServers(source, tasks)
    else:
        yield GivenServers(source if isinstance(source, Sequence) else [source])


class GivenServers:
    """Servers that somebody else opened; each agent goes where the fewest are.

    A server that did not answer is not asked again while others do: an agent fails on it in no
    time, so that it would always have the fewest.
    """

    def __init__(self, servers: Sequence[OpenCodeServer]) -> None:
        if not servers:
            raise OpenCodeConfigError("source: expected at least one server, got none")
        self._servers = list(servers)
        self._users = [0] * len(servers)
        self._strikes = [0] * len(servers)

    def directory(self, workspace: StrPath | None) -> str | None:
        """Return it as it is: it may be a path on another machine.

        Raises:
            OpenCodeConfigError: opencode cannot work in it.
        """
        if workspace is None:
            return None
        directory = os.fspath(workspace)
        check_path(directory)
        return directory

    @asynccontextmanager
    async def lease(
        self, cfg: RunConfig | None, directory: str | None
    ) -> AsyncGenerator[OpenCodeServer]:
        """Give the server with the least to do.

        Raises:
            OpenCodeServerError: all have ended.
        """
        del cfg, directory  # sessions have their own of what can differ
        alive = [n for n, server in enumerate(self._servers) if not server.has_ended]
        if not alive:
            raise OpenCodeServerError("all servers that the swarm was given have ended")
        number = min(alive, key=lambda n: (self._strikes[n], self._users[n]))
        self._users[number] += 1
        try:
            yield self._servers[number]
        except OpenCodeServerError as exc:
            self._strikes[number] += exc.status_code is None
            raise
        else:
            self._strikes[number] = 0
        finally:
            self._users[number] -= 1


@attrs.define(eq=False)
class _PooledServer:
    """A server of ours, from the demand for it to its end."""

    cfg: RunConfig
    directories: set[str] = attrs.field(factory=set[str])
    users: int = 0
    server: OpenCodeServer | None = None
    failure: OpenCodeError | None = None
    is_retired: bool = False
    """Whether it is given to nobody any more, and ends when its last user leaves."""
    ready: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is a server, or a failure."""
    over: trio.Event = attrs.field(factory=trio.Event)
    """Set when nobody needs it any more."""

    def wear(self, directory: str) -> str | None:
        """Say why it should be replaced rather than get an agent in this directory."""
        if directory not in self.directories and len(self.directories) >= MAX_DIRECTORIES:
            return f"it has worked in {len(self.directories)} directories"
        if self.server is None:
            return None
        if self.server.has_ended:
            return "it has ended"
        size = resident_bytes(self.server.pid)
        return f"it has grown to {size / 2**20:.0f} MiB" if size > MAX_RSS_BYTES else None


class OwnServers:
    """Servers of a client: one for each configuration that a server cannot share.

    Args:
        client: opens them.
        tasks: keeps them.
    """

    def __init__(self, client: ServerOpener, tasks: trio.Nursery) -> None:
        self._client = client
        self._tasks = tasks
        self._slots: dict[RunConfig, _PooledServer] = {}

    def directory(self, workspace: StrPath | None) -> str:
        """Check that it is there.

        Raises:
            OpenCodeConfigError: it is not.
        """
        if workspace is None:
            raise OpenCodeConfigError(
                "workspace: missing; name the directory that the agent works in"
            )
        return str(checked_workspace(workspace))

    @asynccontextmanager
    async def lease(
        self, cfg: RunConfig | None, directory: str | None
    ) -> AsyncGenerator[OpenCodeServer]:
        """Give the server of this configuration; start it, if there is none.

        Raises:
            OpenCodeError: it cannot be started.

        **Cancellation**: leaves a start to the others who wait for it.
        """
        directory = self.directory(directory)
        slot = self._slot(cfg or RunConfig(), directory)
        slot.users += 1
        slot.directories.add(directory)
        try:
            await slot.ready.wait()
            if slot.server is None:
                # Everybody who waits gets an error of their own, to add to and to raise.
                failure = slot.failure or OpenCodeServerError("the swarm is closing its servers")
                raise copy.copy(failure) from failure
            yield slot.server
        finally:
            self._leave(slot)

    def _slot(self, cfg: RunConfig, directory: str) -> _PooledServer:
        key = server_config(cfg)
        slot = self._slots.get(key)
        if slot is not None and (why := slot.wear(directory)) is not None:
            _log.info("replacing a server: %s", why)
            self._retire(slot)
            slot = None
        if slot is None:
            slot = self._slots[key] = _PooledServer(key)
            small = cfg.small_model or cfg.model  # so that none of its text goes elsewhere
            served = attrs.evolve(key, small_model=small)
            self._tasks.start_soon(self._keep, slot, served, directory)
        return slot

    async def _keep(self, slot: _PooledServer, cfg: RunConfig, directory: str) -> None:
        """Serve until nobody needs it.  Raises nothing."""
        try:
            async with self._client.open_server(directory, run_cfg=cfg) as slot.server:
                slot.ready.set()
                await slot.over.wait()
        except OpenCodeError as exc:
            slot.failure = exc
        except OSError as exc:  # no descriptors are left, or no memory
            slot.failure = OpenCodeProcessError(f"opencode cannot be started: {exc}")
        finally:
            self._retire(slot)
            slot.ready.set()

    def _leave(self, slot: _PooledServer) -> None:
        slot.users -= 1
        if slot.server is not None and slot.server.has_ended:
            self._retire(slot)
        elif slot.users == 0:
            self._retire_idle(slot)
        self._end_if_unused(slot)

    def _retire_idle(self, latest: _PooledServer) -> None:
        """Keep the servers that were used last."""
        if self._slots.get(latest.cfg) is latest:
            self._slots[latest.cfg] = self._slots.pop(latest.cfg)
        idle = [slot for slot in self._slots.values() if slot.users == 0]
        for slot in idle[: max(0, len(idle) - MAX_IDLE)]:
            self._retire(slot)

    def _retire(self, slot: _PooledServer) -> None:
        slot.is_retired = True
        if self._slots.get(slot.cfg) is slot:
            del self._slots[slot.cfg]
        self._end_if_unused(slot)

    def _end_if_unused(self, slot: _PooledServer) -> None:
        if slot.is_retired and slot.users == 0:
            slot.over.set()


def _asks_something(cfg: RunConfig) -> bool:
    """Say whether any permission of a configuration is to be asked for."""
    permission = cfg.permission or {}
    settings = [permission] if isinstance(permission, str) else permission.values()
    actions = (s.values() if is_mapping(s) else [s] for s in settings)
    return any("ask" in of_one for of_one in actions)


def server_config(cfg: RunConfig) -> RunConfig:
    """Return what of a configuration belongs to the whole server: who has the same can share one.

    ``small_model`` is left as it is: the default it takes from the model is for titles, and
    sessions have one.

    Permissions are a session's own, unless something is to be asked: of a session's rules opencode
    hands down to its subagents what is denied, and they would do the rest without asking.
    """
    default = RunConfig()
    own = OF_A_TURN - {"permission"} if _asks_something(cfg) else OF_A_TURN
    return attrs.evolve(cfg, **{name: getattr(default, name) for name in own})


def resident_bytes(pid: int | None) -> int:
    """Measure the memory that a process holds; 0 where that cannot be known."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * PAGE_BYTES
