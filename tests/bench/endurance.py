"""How a program fares that runs very many agents: its memory, its servers', its failures.

The agents work in several directories, one after the other, as repositories are worked through; so
servers wear out and are replaced.  The program is one of its own (this file).
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from bench.benchmark import Benchmark, Setup
from bench.model import ANSWER, PROMPT
from bench.processes import MIB, memory
from bench.programs import answer_job, model_elsewhere, module, read_job, run_program
from bench.rows import Row
from opencode_trio import (
    AsyncOpenCodeClient,
    OpenCodeServer,
    RunConfig,
    RunResult,
    Swarm,
    open_swarm,
)
from opencode_trio._checks import StrPath
from opencode_trio.testing import assert_no_leaks

AGENTS = 1000
LIMIT = 64
DIRECTORIES = 20
WARM_UP = 100
"""Agents after which the interpreter has grown as far as it does anyway."""
EVERY_S = 5.0
KIB_PER_AGENT = 50
"""What a finished agent may leave in memory: its outcome and its part of the story."""


@attrs.define
class Observed:
    """What is seen of the program and its servers."""

    servers: list[int] = attrs.field(factory=list)
    """How large each was at most, in bytes; in the order of their starts."""
    client: int = 0
    growth: float = 0.0
    """Bytes of the client per agent, since the warm-up."""
    wrong: list[str] = attrs.field(factory=list)
    seconds: float = 0.0
    leaks: str = ""


@attrs.frozen
class WatchedClient:
    """Opens servers as a client does, and watches them."""

    client: AsyncOpenCodeClient
    observed: Observed

    def open_server(
        self, workspace: StrPath, *, run_cfg: RunConfig | None = None
    ) -> AbstractAsyncContextManager[OpenCodeServer]:
        return self._open(workspace, run_cfg)

    @asynccontextmanager
    async def _open(
        self, workspace: StrPath, run_cfg: RunConfig | None
    ) -> AsyncIterator[OpenCodeServer]:
        async with self.client.open_server(workspace, run_cfg=run_cfg) as server:
            self.observed.servers.append(0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, server.pid, len(self.observed.servers) - 1)
                yield server
                nursery.cancel_scope.cancel()

    async def _watch(self, pid: int | None, number: int) -> None:
        sizes = self.observed.servers
        while True:
            sizes[number] = max(sizes[number], memory([pid or 0]).resident)
            await trio.sleep(EVERY_S)


async def watch(swarm: Swarm, observed: Observed) -> None:
    began = time.perf_counter()
    base = counted = 0
    async for state in swarm.updates(every_s=EVERY_S):
        gc.collect()
        own = memory([os.getpid()]).resident
        over = state.count["completed"] + state.count["failed"]
        if not base and over >= WARM_UP:
            base, counted = own, over
        if base and over > counted:
            observed.growth = (own - base) / (over - counted)
        observed.client = max(observed.client, own)
        print(
            f"{time.perf_counter() - began:6.1f} s  {over:5d} are over"
            f"  client {own / MIB:4.0f} MiB, {observed.growth / 1024:5.1f} KiB per agent"
            f"  servers {', '.join(f'{size / MIB:.0f}' for size in observed.servers)} MiB",
            file=sys.stderr,
            flush=True,
        )


async def main(job: dict[str, Any]) -> Observed:
    observed = Observed()
    try:
        async with assert_no_leaks():
            with tempfile.TemporaryDirectory() as root:
                await work(job, Path(root), observed)
    except AssertionError as problem:
        observed.leaks = str(problem)
    return observed


async def work(job: dict[str, Any], root: Path, observed: Observed) -> None:
    workspaces = [root / str(number) for number in range(job["directories"])]
    for workspace in workspaces:
        workspace.mkdir()
    client = WatchedClient(AsyncOpenCodeClient(job["binary"]), observed)
    cfg, agents = RunConfig(**job["cfg"]), job["agents"]
    began = time.perf_counter()
    async with (
        trio.open_nursery() as nursery,
        open_swarm(client, limit=job["limit"], run_cfg=cfg, on_failure="collect") as swarm,
    ):
        nursery.start_soon(watch, swarm, observed)
        for number in range(agents):
            swarm.start_soon(PROMPT, workspace=workspaces[number * len(workspaces) // agents])
    observed.seconds = time.perf_counter() - began
    for outcome in swarm.outcomes():
        if not isinstance(outcome.value, RunResult) or outcome.value.final_text != ANSWER:
            observed.wrong.append(f"{outcome.value!r:.200}, {outcome.error!r}")


def run(setup: Setup) -> list[Row]:
    agents = setup.scaled(AGENTS, least=20)
    with model_elsewhere() as model:
        job = {
            "binary": setup.binary,
            "cfg": attrs.asdict(model.cfg),
            "agents": agents,
            "limit": LIMIT,
            "directories": DIRECTORIES,
        }
        seen = Observed(**run_program(module("endurance"), job).said)
    for problem, count in Counter([*seen.wrong, *filter(None, [seen.leaks])]).items():
        setup.say(f"{count} x {problem}")
    return [
        Row(f"agents per second, {agents} agents, {LIMIT} at once", "", [agents / seen.seconds]),
        Row("failures", "", [len(seen.wrong)], at_most=0),
        Row("growth of the client per agent", "KiB", [seen.growth / 1024], at_most=KIB_PER_AGENT),
        Row("the client, at most", "MiB", [seen.client / MIB]),
        Row(f"servers, one after the other, {DIRECTORIES} directories", "", [len(seen.servers)]),
        Row("a server, at most", "MiB", [size / MIB for size in seen.servers], share=1),
        Row("kinds of things left behind", "", [bool(seen.leaks)], at_most=0),
    ]


BENCHMARK = Benchmark("very many agents: memory that stays bounded, nothing that fails", run)


if __name__ == "__main__":
    answer_job(attrs.asdict(trio.run(main, read_job())))
