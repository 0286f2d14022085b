"""What the library adds to a server's turns, beside the same two POSTs sent bare.

Every session is opened and prompted once, all at the same time.  Each way has a server of its own,
because the library also has its server tell the events; the bare client looks at nothing but the
answers.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from bench.benchmark import Benchmark, Setup, in_turns
from bench.model import ANSWER, PROMPT
from bench.processes import cpu_s
from bench.programs import Model, model_elsewhere
from bench.rows import Row
from bench.ways import bare_server, bare_turn
from opencode_trio import AsyncOpenCodeClient

SESSIONS = 64
ROUNDS = 3
BARE, OURS = "bare httpx", "the library"


@attrs.frozen
class Way:
    """A server, and how to have an agent on it."""

    turn: Callable[[], Awaitable[str]]
    pid: int
    """The server."""

    async def turns(self, count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self._one)

    async def _one(self) -> None:
        if (answer := await self.turn()) != ANSWER:
            raise AssertionError(f"{answer!r} is no answer")


@attrs.define
class Costs:
    """What one way has cost, round by round: seconds, and milliseconds of CPU per turn."""

    wall: list[float] = attrs.field(factory=list)
    client: list[float] = attrs.field(factory=list)
    server: list[float] = attrs.field(factory=list)
    model: list[float] = attrs.field(factory=list)


@asynccontextmanager
async def open_ways(setup: Setup, model: Model) -> AsyncIterator[dict[str, Way]]:
    async with AsyncExitStack() as stack:
        workspace = str(Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve())
        http, bare_pid = await stack.enter_async_context(
            bare_server(setup.binary, model.cfg, workspace)
        )
        client = AsyncOpenCodeClient(setup.binary)
        server = await stack.enter_async_context(
            client.open_server(workspace, run_cfg=model.cfg, warm=True)
        )

        async def bare() -> str:
            return await bare_turn(http, workspace, model.cfg, PROMPT)

        async def library() -> str:
            async with server.open_session() as session:
                return (await session.send(PROMPT)).final_text

        yield {BARE: Way(bare, bare_pid), OURS: Way(library, server.pid or 0)}


async def quiet(pid: int) -> None:
    """Wait until a server has done what the round before has left to it."""
    before = -1.0
    while (now := cpu_s(pid)) > before:
        before = now
        await trio.sleep(0.3)


async def measure(setup: Setup, model: Model, count: int) -> Mapping[str, Costs]:
    costs = {BARE: Costs(), OURS: Costs()}
    async with open_ways(setup, model) as ways:
        for way in ways.values():
            await way.turns(setup.scaled(8))  # warms the client as well as the server
        for number, name in in_turns(list(ways), ROUNDS):
            for way in ways.values():
                await quiet(way.pid)
            gc.collect()
            await measure_round(ways[name], model, count, costs[name])
            setup.say(f"round {number}  {name:<12} {costs[name].wall[-1]:6.2f} s")
    return costs


async def measure_round(way: Way, model: Model, count: int, costs: Costs) -> None:
    def used() -> tuple[float, float, float]:
        return time.process_time(), cpu_s(way.pid), cpu_s(model.pid)

    began, before = time.perf_counter(), used()
    await way.turns(count)
    costs.wall.append(time.perf_counter() - began)
    for costs_of, now, then in zip(
        (costs.client, costs.server, costs.model), used(), before, strict=True
    ):
        costs_of.append((now - then) / count * 1000)


def run(setup: Setup) -> list[Row]:
    count = setup.scaled(SESSIONS, least=4)
    with model_elsewhere() as model:
        found = trio.run(measure, setup, model, count)
    theirs, ours = found[BARE], found[OURS]
    wall = Row(f"{BARE}: {count} turns", "s", theirs.wall, note="all at once")
    own_wall = Row(f"{OURS}: {count} turns", "s", ours.wall, note="all at once")
    rows = [wall, own_wall.compared(wall, at_most=1.10)]
    for who in ("client", "server"):
        cpu = Row(f"{BARE}: CPU of the {who} per turn", "ms", getattr(theirs, who))
        own = Row(f"{OURS}: CPU of the {who} per turn", "ms", getattr(ours, who))
        rows += [cpu, own.compared(cpu)]
    return [*rows, Row("CPU of the model per turn", "ms", ours.model, note="not counted above")]


BENCHMARK = Benchmark("what the library adds to a turn on a shared server", run)
