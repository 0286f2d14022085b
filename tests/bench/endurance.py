"""How a program fares that runs very many agents: its memory, its servers', its failures.

    nox -s bench -- endurance      (or: python tests/bench/endurance.py --agents 1000 --limit 64)

The agents work in several directories, so that servers wear out and are replaced.  The model is a
process of its own, because it remembers every request.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from opencode_trio import AsyncOpenCodeClient, RunConfig, Swarm, open_swarm
from opencode_trio._pool import resident_bytes
from opencode_trio.testing import open_scripted_model

ANSWER = "hello"
EVERY_S = 5.0
WARM_UP = 100
"""Agents after which the interpreter has grown as far as it does anyway."""


async def serve_model() -> None:
    """In the other process: say what to ask for, then answer until stdin is closed."""
    async with open_scripted_model(ANSWER) as model:
        cfg = model.run_config(snapshot=False)
        print(json.dumps(attrs.asdict(cfg)), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


@contextmanager
def model_elsewhere() -> Iterator[RunConfig]:
    with subprocess.Popen(
        [sys.executable, __file__, "--serve-model"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield RunConfig(**json.loads(process.stdout.readline()))
        finally:
            process.kill()


async def watch(swarm: Swarm) -> None:
    began = time.perf_counter()
    base = 0
    async for state in swarm.updates(every_s=EVERY_S):
        gc.collect()
        own = resident_bytes(os.getpid())
        done = state.count["completed"] + state.count["failed"]
        base = base if base or done < WARM_UP else own
        growth = (own - base) / max(1, done - WARM_UP) / 1024 if base else 0.0
        seconds = time.perf_counter() - began
        print(
            f"{seconds:6.1f} s  {done:5d} done  {done / seconds:5.1f}/s"
            f"  client {own / 2**20:4.0f} MiB, {growth:5.1f} KiB per agent since the {WARM_UP}th",
            flush=True,
        )


async def main(binary: str, agents: int, limit: int, directories: int) -> int:
    with tempfile.TemporaryDirectory() as root:
        workspaces = [Path(root, str(n)) for n in range(directories)]
        for workspace in workspaces:
            workspace.mkdir()
        client = AsyncOpenCodeClient(binary)
        with model_elsewhere() as cfg:
            async with (
                trio.open_nursery() as nursery,
                open_swarm(client, limit=limit, run_cfg=cfg, on_failure="collect") as swarm,
            ):
                nursery.start_soon(watch, swarm)
                for n in range(agents):
                    # One after the other, as repositories are worked through.
                    swarm.start_soon("hello?", workspace=workspaces[n * directories // agents])
    failures = Counter(type(o.error).__name__ for o in swarm.outcomes() if o.error)
    print(f"\n{agents} agents, failures: {dict(failures) or 'none'}, spent: {swarm.spent}")
    return len(failures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run very many agents.")
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--directories", type=int, default=20)
    parser.add_argument("--serve-model", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_model:
        trio.run(serve_model)
    else:
        program = os.environ.get("OPENCODE_TRIO_TEST_BINARY", "opencode")
        sys.exit(trio.run(main, program, options.agents, options.limit, options.directories))
