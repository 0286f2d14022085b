"""The stage of a round: a model, servers at their places, workspaces; opened and left as one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from chaos.books import Books
from chaos.plots import ASKED, IMPATIENT
from chaos.tally import Tally
from chaos.weather import Weather
from opencode_trio import (
    AsyncOpenCodeClient,
    OpenCodeError,
    OpenCodeServer,
    RunConfig,
    connect_server,
)
from opencode_trio._tasks import open_background
from opencode_trio.testing import ScriptedModel, open_scripted_model
from tcp_proxy import Proxy, open_proxy

IMPATIENT_MS = 1000
PERMISSION: Mapping[str, Any] = {
    "*": "allow",
    "question": "allow",
    "bash": {"*": "allow", f"{ASKED}*": "ask"},
}
RUN_PERMISSION: Mapping[str, Any] = {"*": "allow"}
WORKSPACES = 2
"""For each place: each costs a server 50 MB."""

NAP_S = 300 + os.getpid() / 1e7
"""What `plots.NAP` sleeps: a length that nobody else's `sleep` has."""


@attrs.define(eq=False)
class Place:
    """Where there is a server; maybe another one, after a while."""

    name: str
    server: OpenCodeServer | None = None
    """What sessions are opened on."""
    base: OpenCodeServer | None = None
    """The process itself, when `server` leads to it through a proxy."""
    proxy: Proxy | None = None
    label: str = ""
    """Names the server among all that have been at the place."""
    risen: trio.Event = attrs.field(factory=trio.Event)

    async def current(self) -> OpenCodeServer:
        """Wait for a server."""
        while self.server is None:
            await self.risen.wait()
        return self.server

    def rise(self, server: OpenCodeServer, base: OpenCodeServer, proxy: Proxy | None) -> None:
        self.server, self.base, self.proxy = server, base, proxy
        self.label = f"{self.name} {server.url}"
        self.risen.set()

    def fall(self) -> None:
        self.server = self.base = self.proxy = None
        self.risen = trio.Event()


@attrs.frozen(eq=False)
class Stage:
    """Everything that activities have in common for a round."""

    client: AsyncOpenCodeClient
    model: ScriptedModel
    books: Books
    weather: Weather
    tally: Tally
    directory: Path
    places: Mapping[str, Place]
    complain: Callable[[str], None]
    note: Callable[[str], None]
    """Writes the story of the soak, for who looks for a reason."""
    runs: trio.CapacityLimiter
    """Those who start processes of their own, half a gigabyte each."""

    def config(self, **more: Any) -> RunConfig:
        """Return the settings of servers and runs."""
        return config_of(self.model, **more)

    def workspace(self, number: int) -> str:
        """Return one of the directories that agents work in."""
        return str(self.directory / f"workspace{number}")


def config_of(model: ScriptedModel, /, **more: Any) -> RunConfig:
    patient = model.opencode_config["provider"]["scripted"]
    timeouts = {"chunkTimeout": IMPATIENT_MS, "headerTimeout": IMPATIENT_MS}
    provider = patient | {"options": patient["options"] | timeouts}
    name = IMPATIENT.partition("/")[0]
    overrides = {"provider": {name: provider}, "enabled_providers": ["scripted", name]}
    fields: dict[str, Any] = {
        "snapshot": False,
        "permission": PERMISSION,
        "extra_env": {"CHAOS_NAP": f"{NAP_S:.7f}"},
        "config_overrides": overrides,
    }
    return model.run_config(**(fields | more))


@asynccontextmanager
async def open_stage(
    binary: str,
    directory: Path,
    tally: Tally,
    complain: Callable[[str], None],
    note: Callable[[str], None],
) -> AsyncIterator[Stage]:
    """Open a model, and a server at each place."""
    books = Books(complain, note)
    for number in range(WORKSPACES):
        _make_repository(directory / f"workspace{number}")
    async with open_scripted_model(books) as model, open_background() as tasks:
        books.keep_for(model)
        places = {name: Place(name) for name in ("calm", "mortal", "remote")}
        stage = Stage(
            client=AsyncOpenCodeClient(binary),
            model=model,
            books=books,
            weather=Weather(note),
            tally=tally,
            directory=directory,
            places=places,
            complain=complain,
            note=note,
            runs=trio.CapacityLimiter(2),
        )
        for place in places.values():
            tasks.start_soon(_keep, stage, place)
        yield stage
        if model.open_requests:
            complain(f"{model.open_requests} requests are open when all is over")


async def _keep(stage: Stage, place: Place) -> None:
    """Keep a server at a place, the next one when one has ended."""
    serve = _serve_remote if place.name == "remote" else _serve
    while True:
        try:
            await serve(stage, place)
        except OpenCodeError as exc:
            stage.complain(f"the server at {place.name!r} could not be opened: {exc!r}")
            return
        stage.tally.count("servers that ended", place.name)


async def _serve(stage: Stage, place: Place) -> None:
    async with stage.client.open_server(stage.workspace(0), run_cfg=stage.config()) as server:
        place.rise(server, server, None)
        try:
            await server._connection.gone.wait()
            _check_end(stage, place, server)
        finally:
            place.fall()


def _check_end(stage: Stage, place: Place, server: OpenCodeServer) -> None:
    now = trio.current_time()
    if "kill" not in stage.weather.met(place.label, now, now):
        stage.complain(f"the server at {place.name!r} ended: {server._connection.failure!r}")


async def _serve_remote(stage: Stage, place: Place) -> None:
    async with (
        stage.client.open_server(stage.workspace(0), run_cfg=stage.config()) as base,
        open_proxy(base.url) as proxy,
        connect_server(
            proxy.url, password=password_of(base), workspace=stage.workspace(0)
        ) as server,
    ):
        place.rise(server, base, proxy)
        try:
            await base._connection.gone.wait()
            _check_end(stage, place, base)
        finally:
            stage.tally.add("reconnections", server.statistics().reconnections)
            place.fall()


def password_of(server: OpenCodeServer) -> str:
    environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    [found] = [v for v in environment if v.startswith(b"OPENCODE_SERVER_PASSWORD=")]
    return found.partition(b"=")[2].decode()


def _make_repository(path: Path) -> None:
    path.mkdir()
    (path / "file").write_text("before\n")
    for command in (["init"], ["add", "."], ["commit", "-m", "first"]):
        subprocess.run(["git", "-C", str(path), *command], check=True, capture_output=True)


def worktrees_left(path: Path) -> list[str]:
    """List the worktrees that a repository still has, beside its own."""
    command = ["git", "-C", str(path), "worktree", "list", "--porcelain"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line for line in told.splitlines() if line.startswith("worktree ")][1:]
