"""What an open session holds: on the server, and in the program that opened it.

The program is one of its own (this file), so that nothing else is in its memory.
"""

from __future__ import annotations

import gc
import os
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import trio

from bench.benchmark import Benchmark, Setup
from bench.model import PROMPT
from bench.processes import MIB, cpu_s, memory, parent
from bench.programs import answer_job, model_elsewhere, module, read_job, run_program
from bench.rows import Row
from opencode_trio import AsyncOpenCodeClient, OpenCodeServer, RunConfig, Session

SESSIONS = 200
WARM_UP = 20
"""Sessions and turns after which a server has grown as far as it does anyway."""
AT_ONCE = 8


async def measured(server: OpenCodeServer) -> dict[str, int]:
    """Look at both, once the server has nothing left to do."""
    before, now = -1.0, 0.0
    while now > before:
        before = now
        await trio.sleep(1.0)
        now = cpu_s(server.pid or 0)
    gc.collect()
    return {
        "server": memory([server.pid or 0]).resident,
        "client": memory([os.getpid()]).resident,
    }


async def prompt_all(sessions: list[Session]) -> None:
    places = trio.CapacityLimiter(AT_ONCE)

    async def one(session: Session) -> None:
        async with places:
            await session.send(PROMPT)

    async with trio.open_nursery() as nursery:
        for session in sessions:
            nursery.start_soon(one, session)


async def main(job: dict[str, Any]) -> dict[str, Any]:
    client = AsyncOpenCodeClient(job["binary"])
    cfg = RunConfig(**job["cfg"])
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            client.open_server(job["workspace"], run_cfg=cfg, warm=True)
        )

        async def opened(count: int) -> list[Session]:
            opening = [server.open_session() for _ in range(count)]
            return [await stack.enter_async_context(session) for session in opening]

        await prompt_all(await opened(job["warm_up"]))
        stages = [await measured(server)]
        sessions = await opened(job["sessions"])
        stages.append(await measured(server))
        await prompt_all(sessions)
        stages.append(await measured(server))
        warden = memory([parent(server.pid or 0)])
    return {"stages": stages, "warden": attrs.asdict(warden)}


def run(setup: Setup) -> list[Row]:
    count = setup.scaled(SESSIONS, least=10)
    with model_elsewhere() as model, tempfile.TemporaryDirectory() as directory:
        job = {
            "binary": setup.binary,
            "cfg": attrs.asdict(model.cfg),
            "workspace": str(Path(directory).resolve()),
            "warm_up": setup.scaled(WARM_UP, least=2),
            "sessions": count,
        }
        said = run_program(module("memory"), job).said
    base, opened, prompted = said["stages"]
    rows = []
    for who in ("server", "client"):
        idle = (opened[who] - base[who]) / count / 1024
        used = (prompted[who] - base[who]) / count / 1024
        rows += [
            Row(f"the {who}, before", "MiB", [base[who] / MIB]),
            Row(f"the {who}, per open session ({count})", "KiB", [idle]),
            Row(f"the {who}, per open session after a turn", "KiB", [used]),
        ]
    warden = said["warden"]
    return [
        *rows,
        Row("the warden, all pages", "MiB", [warden["resident"] / MIB], at_most=12),
        Row("the warden, pages of its own", "MiB", [warden["private"] / MIB]),
    ]


BENCHMARK = Benchmark("resident memory of sessions that are open, and of a warden", run)


if __name__ == "__main__":
    answer_job(trio.run(main, read_job()))
