"""One opencode server for all tests. Copy this file next to your tests.

The server runs in a thread, since each test has an event loop of its own. A test connects to it,
and says what the model answers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial

import attrs
import pytest
import trio

from opencode_trio import AsyncOpenCodeClient, OpenCodeServer, RunConfig, connect_server
from opencode_trio.testing import ModelRequest, ReplyLike, open_scripted_model

Script = Callable[[ModelRequest], ReplyLike]


def say_ok(_request: ModelRequest) -> str:
    """Answer a test that has no script."""
    return "ok"


@attrs.define
class Shared:
    """The server that all tests share, and the script of the current test."""

    script: Script = say_ok
    url: str = ""
    password: str | None = None
    run_cfg: RunConfig = attrs.field(factory=RunConfig)
    _stop: Callable[[], object] = lambda: None

    async def run(self, workspace: str, started: queue.SimpleQueue[BaseException | None]) -> None:
        """Run the model and the server until `stop`."""
        client, stopped = AsyncOpenCodeClient(), trio.Event()
        token = trio.lowlevel.current_trio_token()
        async with (
            open_scripted_model(self._answer) as model,
            client.open_server(workspace, run_cfg=model.run_config()) as server,
        ):
            self.url, self.password = server.url, server.password
            self.run_cfg = RunConfig(model=model.run_config().model)
            self._stop = lambda: token.run_sync_soon(stopped.set)
            started.put(None)
            await stopped.wait()

    def _answer(self, request: ModelRequest) -> ReplyLike:
        return self.script(request)  # the one that the test has set

    def stop(self) -> None:
        """Let `run` return."""
        self._stop()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Run one server for the whole session."""
    shared, started = Shared(), queue.SimpleQueue[BaseException | None]()

    def run() -> None:
        try:
            trio.run(shared.run, str(tmp_path_factory.mktemp("server")), started)
        except BaseException as error:
            started.put(error)  # the fixture raises it
            raise

    thread = threading.Thread(target=run)
    thread.start()
    error = started.get()
    if error is not None:
        raise error
    yield shared
    shared.stop()
    thread.join()


@pytest.fixture
async def server(shared: Shared) -> AsyncGenerator[OpenCodeServer]:
    """Connect a test to the server."""
    shared.script = say_ok
    async with connect_server(shared.url, password=shared.password) as server:
        yield server


@pytest.fixture
def config(shared: Shared) -> RunConfig:
    """Return the settings of a test's sessions, which name the model."""
    return shared.run_cfg


@pytest.fixture
def play(shared: Shared) -> Callable[[Script], None]:
    """Return a function that sets what the model answers in a test."""
    return partial(setattr, shared, "script")
