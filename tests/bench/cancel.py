"""From a cancellation to quiet: until the model sees its request closed, until the block is left."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from bench.benchmark import Benchmark, Setup
from bench.rows import Row
from opencode_trio import AsyncOpenCodeClient, OpenCodeServer
from opencode_trio.events import TextDelta
from opencode_trio.testing import Reply, ScriptedModel, Text, open_scripted_model

TURNS = 100
RUNS = 10
LONG = Reply(Text("on and on " * 1000, chunks=2000, delay_s=0.01))
"""Still being told when it is cancelled."""
UNDER_WAY_S = 0.2
"""`opencode run` prints no text before it is whole: so long after its request it is being told."""


Opened = Callable[[], AbstractAsyncContextManager[None]]
"""Opens an agent; entered, it is in mid-stream."""


@attrs.define
class Stopwatch:
    """Cancels, and takes the times from there, in milliseconds."""

    model: ScriptedModel
    quiet: list[float] = attrs.field(factory=list)
    left: list[float] = attrs.field(factory=list)
    _began: float = 0.0

    async def __call__(self, open_agent: Opened) -> None:
        """Cancel an agent, once it is entered."""
        async with trio.open_nursery() as watchers:
            with trio.CancelScope() as scope:
                async with open_agent():
                    watchers.start_soon(self._until_quiet)
                    self._began = time.perf_counter()
                    scope.cancel()
                    await trio.sleep_forever()
            self.left.append(self._elapsed_ms())

    async def _until_quiet(self) -> None:
        await self.model.wait_until_quiet()
        self.quiet.append(self._elapsed_ms())

    def _elapsed_ms(self) -> float:
        return (time.perf_counter() - self._began) * 1000

    def rows(self, what: str, worst: float) -> list[Row]:
        """Tell the median and another quantile."""
        name = "max" if worst == 1 else f"p{worst * 100:.0f}"
        return [
            Row(f"{what}, until {until}, {label}", "ms", values, share=share)
            for until, values in (
                ("the model's request is closed", self.quiet),
                ("the block is left", self.left),
            )
            for label, share in (("p50", 0.5), (name, worst))
        ]


async def cancel_turns(client: AsyncOpenCodeClient, watch: Stopwatch, count: int, at: Path) -> None:
    @asynccontextmanager
    async def under_way(server: OpenCodeServer) -> AsyncIterator[None]:
        async with server.open_session() as session, session.stream("Talk.") as turn:
            async for event in turn:
                if isinstance(event, TextDelta):
                    yield
                    return

    cfg = watch.model.run_config(snapshot=False)
    async with client.open_server(at, run_cfg=cfg, warm=True) as server:
        for _ in range(1 + count):
            await watch(lambda: under_way(server))
    # A server's first turn is another thing: it goes on preparing while it answers.
    del watch.quiet[0], watch.left[0]


async def cancel_runs(client: AsyncOpenCodeClient, watch: Stopwatch, count: int, at: Path) -> None:
    @asynccontextmanager
    async def under_way() -> AsyncIterator[None]:
        before = len(watch.model.requests)
        async with client.async_stream("Talk.", at, run_cfg=watch.model.run_config()):
            await watch.model.wait_for_requests(before + 1)
            await trio.sleep(UNDER_WAY_S)
            yield

    for _ in range(count):
        await watch(under_way)


async def measure(setup: Setup) -> list[Row]:
    client = AsyncOpenCodeClient(setup.binary)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for what, cancel, count, worst in (
            ("a turn", cancel_turns, setup.scaled(TURNS, least=3), 0.99),
            ("a run", cancel_runs, setup.scaled(RUNS, least=2), 1),
        ):
            async with open_scripted_model(LONG) as model:
                watch = Stopwatch(model)
                await cancel(client, watch, count, Path(directory))
            rows += watch.rows(what, worst)
            setup.say(f"{what}: cancelled {count} times")
    return rows


def run(setup: Setup) -> list[Row]:
    return trio.run(measure, setup)


BENCHMARK = Benchmark("from the cancellation of an agent in mid-stream to quiet", run)
