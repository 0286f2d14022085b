"""What the library adds to a server's turns: the same two POSTs, bare, on the same server.

Every session is opened and prompted once, all at the same time.  The bare driver looks at nothing
but the answers.  The library's event stream stays open meanwhile: a server tells all or nobody.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from bench.benchmark import Benchmark, Setup, in_turns
from bench.model import ANSWER, PROMPT
from bench.processes import cpu_s
from bench.programs import Model, model_elsewhere
from bench.rows import Row
from bench.ways import PATIENT, bare_turn
from opencode_trio import AsyncOpenCodeClient, OpenCodeServer

SESSIONS = 64
ROUNDS = 3
BARE, OURS = "bare httpx", "the library"

Turns = Callable[[int], Awaitable[None]]


@attrs.define
class Costs:
    """What one way has cost, round by round."""

    wall: list[float] = attrs.field(factory=list)
    client: list[float] = attrs.field(factory=list)
    """Processor time of this process, per turn, in milliseconds."""
    model: list[float] = attrs.field(factory=list)
    """Likewise of the model."""


async def library(server: OpenCodeServer, count: int) -> None:
    async def one() -> None:
        async with server.open_session() as session:
            check((await session.send(PROMPT)).final_text)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


async def bare(http: httpx.AsyncClient, workspace: str, model: Model, count: int) -> None:
    async def one() -> None:
        check(await bare_turn(http, workspace, model.cfg, PROMPT))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


def check(answer: str) -> None:
    if answer != ANSWER:
        raise AssertionError(f"{answer!r} is no answer")


@asynccontextmanager
async def ways(
    setup: Setup, model: Model
) -> AsyncIterator[tuple[OpenCodeServer, dict[str, Turns]]]:
    client = AsyncOpenCodeClient(setup.binary)
    with tempfile.TemporaryDirectory() as directory:
        workspace = str(Path(directory).resolve())
        async with client.open_server(workspace, run_cfg=model.cfg, warm=True) as server:
            inside: Any = server._link.api  # for its password
            async with httpx.AsyncClient(
                base_url=server.url,
                auth=inside._client.auth,
                timeout=PATIENT,
                limits=httpx.Limits(max_connections=None),
                trust_env=False,
            ) as http:
                yield (
                    server,
                    {
                        BARE: lambda count: bare(http, workspace, model, count),
                        OURS: lambda count: library(server, count),
                    },
                )


async def quiet(server: OpenCodeServer) -> None:
    """Wait until the server has done what the round before has left to it."""
    before = -1.0
    while (now := cpu_s(server.pid or 0)) > before:
        before = now
        await trio.sleep(0.3)


async def measure(setup: Setup, model: Model, count: int) -> Mapping[str, Costs]:
    costs = {BARE: Costs(), OURS: Costs()}
    async with ways(setup, model) as (server, turns):
        for way in turns.values():
            await way(setup.scaled(8))  # warms both, and the server
        for number, name in in_turns(list(turns), ROUNDS):
            await quiet(server)
            gc.collect()
            wall, cpu, answered = time.perf_counter(), time.process_time(), cpu_s(model.pid)
            await turns[name](count)
            cost = costs[name]
            cost.wall.append(time.perf_counter() - wall)
            cost.client.append((time.process_time() - cpu) / count * 1000)
            cost.model.append((cpu_s(model.pid) - answered) / count * 1000)
            setup.say(f"round {number}  {name:<12} {cost.wall[-1]:6.2f} s")
    return costs


def run(setup: Setup) -> list[Row]:
    count = setup.scaled(SESSIONS, least=4)
    with model_elsewhere() as model:
        found = trio.run(measure, setup, model, count)
    theirs, ours = found[BARE], found[OURS]
    wall = Row(f"{BARE}: {count} turns", "s", theirs.wall, note="all at once")
    cpu = Row(f"{BARE}: CPU of the client per turn", "ms", theirs.client)
    own_wall = Row(f"{OURS}: {count} turns", "s", ours.wall, note="all at once")
    own_cpu = Row(f"{OURS}: CPU of the client per turn", "ms", ours.client)
    return [
        wall,
        own_wall.compared(wall, at_most=1.10),
        cpu,
        own_cpu.compared(cpu),
        Row("the model: CPU per turn", "ms", ours.model, note="not counted above"),
    ]


BENCHMARK = Benchmark("what the library adds to a turn on a shared server", run)
