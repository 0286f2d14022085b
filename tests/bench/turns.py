"""What the library adds to a server's turns: many sessions through it, and bare, side by side.

    nox -s bench -- sessions      (or: python tests/bench/sessions.py --sessions 64 --rounds 3)

Both do the same work on one server: create a session and prompt it once, all at the same time.  The
bare driver sends the same two POSTs with httpx and looks at nothing.  Rounds alternate, because a
machine's mood changes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import trio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import provide_opencode
from opencode_trio.server import OpenCodeServer
from opencode_trio.testing import ScriptedModel
from serving import serving

MODEL = {"providerID": "scripted", "modelID": "scripted"}


async def ours(server: OpenCodeServer, count: int) -> None:
    async def one() -> None:
        async with server.open_session() as session:
            assert (await session.send("hello")).final_text == "ok"

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


async def bare(client: httpx.AsyncClient, directory: str, count: int) -> None:
    async def one() -> None:
        query = {"directory": directory}
        created = await client.post("/session", params=query, json={"title": "bare"})
        path = f"/session/{created.json()['id']}/message"
        body = {"model": MODEL, "parts": [{"type": "text", "text": "hello"}]}
        answer = await client.post(path, params=query, json=body)
        assert answer.json()["info"]["finish"] == "stop"

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)


async def measure(way: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    await way()
    return time.perf_counter() - wall, time.process_time() - cpu


def report(name: str, found: list[tuple[float, float]], count: int) -> float:
    walls, cpus = zip(*found, strict=True)
    wall: float = statistics.median(walls)
    cpu = statistics.median(cpus) / count * 1000
    spread = ", ".join(f"{value:.2f}" for value in walls)
    print(f"{name:5} {wall:6.2f} s wall ({spread}); {cpu:5.1f} ms CPU per turn, model included")
    return wall


async def run(binary: str, count: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as workspace:
        async with serving(binary, Path(workspace), {}) as (server, model):
            await compare(server, model, workspace, count, rounds)


async def compare(
    server: OpenCodeServer, model: ScriptedModel, workspace: str, count: int, rounds: int
) -> None:
    directory = str(Path(workspace).resolve())
    auth = server._link.api._client.auth  # type: ignore[attr-defined]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=server.url, auth=auth, timeout=httpx.Timeout(None), limits=limits, trust_env=False
    ) as client:
        await ours(server, 2)  # warm
        await bare(client, directory, 2)
        found: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
        for number in range(rounds):
            ways = [
                ("bare", lambda: bare(client, directory, count)),
                ("ours", lambda: ours(server, count)),
            ]
            for name, way in ways if number % 2 else reversed(ways):
                found[name].append(await measure(way))
    walls = {name: report(name, values, count) for name, values in found.items()}
    print(f"ours takes {walls['ours'] / walls['bare']:.3f} of the bare driver's time")
    print(server.statistics())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    binary = os.environ.get(provide_opencode.VARIABLE) or str(provide_opencode.provide())
    trio.run(run, binary, options.sessions, options.rounds)


if __name__ == "__main__":
    main()
