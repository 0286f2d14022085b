"""What a swarm adds to an agent, and what it saves: one-turn agents in several ways.

    nox -s bench -- swarm          (or: python tests/bench/swarm.py --agents 64 --rounds 5)

First through the library and through bare HTTP, on the same `opencode serve`, all agents at once.
Bare is the least that gets an answer: a session, a prompt, no events.  Rounds alternate, because a
machine's mood changes, and because the server slows down with its age.

With --others N, then N agents in each of the ways that have no shared server, `--limit` at once:
bare `opencode run` processes, and with --rival PYTHON the package of `rival.py`; beside them the
library from nothing, the start of its server included.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import runs
from opencode_trio import AsyncOpenCodeClient, OpenCodeServer, RunConfig, open_swarm
from opencode_trio._pool import resident_bytes
from opencode_trio.config import split_model
from opencode_trio.server import open_server
from opencode_trio.testing import open_scripted_model
from serving import serve_plan

PROMPT = "Say hello."
ANSWER = "hello"

Way = Callable[[OpenCodeServer, RunConfig, int], Awaitable[None]]


async def through_the_library(server: OpenCodeServer, cfg: RunConfig, agents: int) -> None:
    async with open_swarm(server, limit=agents) as swarm:
        results = await swarm.map([PROMPT] * agents)
    assert [result.final_text for result in results] == [ANSWER] * agents


async def bare(server: OpenCodeServer, cfg: RunConfig, agents: int) -> None:
    inside: Any = server._link.api  # for its password
    limits = httpx.Limits(max_connections=None)
    client = httpx.AsyncClient(
        base_url=server.url, auth=inside._client.auth, timeout=3600, limits=limits, trust_env=False
    )

    async def agent() -> None:
        session = (await client.post("/session", json={"title": "bench"})).json()
        body = {
            "model": split_model(str(cfg.model)),
            "parts": [{"type": "text", "text": PROMPT}],
        }
        answer = await client.post(f"/session/{session['id']}/message", json=body)
        assert ANSWER in [part.get("text") for part in answer.json()["parts"]]

    async with client, trio.open_nursery() as nursery:
        for _ in range(agents):
            nursery.start_soon(agent)


@contextmanager
def measured(name: str, agents: int) -> Iterator[list[int]]:
    """Print what the block took; it leaves its number of failures in the list."""
    failures: list[int] = []
    over = threading.Event()
    peak = [0]
    watcher = threading.Thread(target=_watch_memory, args=(over, peak))
    began = time.perf_counter()
    watcher.start()
    try:
        yield failures
    finally:
        seconds = time.perf_counter() - began
        over.set()
        watcher.join()
    print(
        f"{name:<34} {agents / seconds:6.2f} agents/s  {seconds:6.1f} s"
        f"  peak {peak[0] / 2**20:6.0f} MiB  failures {sum(failures)}",
        flush=True,
    )


def _watch_memory(over: threading.Event, peak: list[int]) -> None:
    while not over.wait(0.25):
        peak[0] = max(peak[0], sum(map(resident_bytes, _descendants())))


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = stat.read_text("ascii", "replace").rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    family = [os.getpid()]
    for pid in family:  # grows while we walk it
        family += children.get(pid, [])
    return family


async def pair(binary: str, cfg: RunConfig, agents: int, rounds: int) -> float:
    """Compare the library with bare HTTP on one server; return the ratio."""
    took: dict[Way, list[float]] = {through_the_library: [], bare: []}
    with tempfile.TemporaryDirectory() as directory:
        plan = serve_plan(binary, Path(directory).resolve(), cfg)
        async with open_server(plan, warm=True) as server:
            for way in took:
                await way(server, cfg, 8)  # warms both
            for turn in range(rounds):
                for way in list(took) if turn % 2 else list(reversed(took)):
                    gc.collect()
                    began = trio.current_time()
                    with measured(f"round {turn + 1}  {way.__name__}", agents):
                        await way(server, cfg, agents)
                    took[way].append(trio.current_time() - began)
    pairs = zip(took[through_the_library], took[bare], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


async def from_nothing(binary: str, cfg: RunConfig, workspace: Path, agents: int) -> None:
    client = AsyncOpenCodeClient(binary)
    async with open_swarm(client, limit=agents, workspace=workspace, run_cfg=cfg) as swarm:
        results = await swarm.map([PROMPT] * agents)
    assert [result.final_text for result in results] == [ANSWER] * agents


async def processes(binary: str, cfg: RunConfig, workspace: Path, agents: int, limit: int) -> None:
    places = trio.CapacityLimiter(limit)

    async def agent() -> None:
        async with places:
            await runs.bare(binary, cfg, workspace)

    async with trio.open_nursery() as nursery:
        for _ in range(agents):
            nursery.start_soon(agent)


async def others(binary: str, cfg: RunConfig, rival: str | None, agents: int, limit: int) -> None:
    """Measure the ways without a shared server."""
    with tempfile.TemporaryDirectory() as directory:
        workspace = Path(directory)
        with measured("the library, from nothing", agents):
            await from_nothing(binary, cfg, workspace, agents)
        with measured(f"bare opencode run, {limit} at once", agents):
            await processes(binary, cfg, workspace, agents, limit)
        for mode in ("run", "session") if rival else ():
            job = {
                "mode": mode,
                "binary": binary,
                "model": cfg.model,
                "config": cfg.build_opencode_config_dict(),
                "workspace": directory,
                "prompt": PROMPT,
                "answer": ANSWER,
                "agents": agents,
                "limit": limit,
            }
            with measured(f"py-opencode-wrapper, {mode} mode", agents) as failures:
                done = await trio.run_process(
                    [str(rival), str(Path(__file__).with_name("rival.py"))],
                    stdin=json.dumps(job).encode(),
                    capture_stdout=True,
                )
                failures.append(int(done.stdout))


async def main(options: argparse.Namespace) -> float:
    binary = os.environ.get("OPENCODE_TRIO_TEST_BINARY", "opencode")
    async with open_scripted_model(ANSWER) as model:
        cfg = model.run_config(snapshot=False)
        ratio = await pair(binary, cfg, options.agents, options.rounds)
        if options.others:
            await others(binary, cfg, options.rival, options.others, options.limit)
    print(f"\n{options.agents} agents at once, median of rounds: library / bare = {ratio:.3f}")
    return ratio


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare ways to run one-turn agents.")
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--others", type=int, default=0, help="agents for the other ways")
    parser.add_argument("--limit", type=int, default=4, help="how many of those at once")
    parser.add_argument("--rival", help="an interpreter that has py-opencode-wrapper")
    parser.add_argument("--at-most", type=float, help="fail if the ratio is above this")
    given = parser.parse_args()
    found = trio.run(main, given)
    sys.exit(given.at_most is not None and found > given.at_most)
