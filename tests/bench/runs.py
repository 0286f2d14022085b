"""What the library adds to a run: runs at once through it, and bare, side by side.

    nox -s bench -- runs          (or: python tests/bench/runs.py --runs 16 --rounds 2)

Both do the same work: as many `opencode run` processes at once, each with a data directory of its
own, on one scripted model.  Rounds alternate, because a machine's mood changes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from opencode_trio import AsyncOpenCodeClient, RunConfig
from opencode_trio.testing import ScriptedModel, open_scripted_model

PROMPT = "Say hello."
ANSWER = "hello"


async def through_the_library(binary: str, config: RunConfig, workspace: Path) -> None:
    client = AsyncOpenCodeClient(binary)
    result = await client.async_run(PROMPT, workspace, run_cfg=config)
    assert result.final_text == ANSWER


async def bare(binary: str, config: RunConfig, workspace: Path) -> None:
    content = config.opencode_config_content_json()
    with tempfile.TemporaryDirectory() as directory:
        done = await trio.run_process(
            [binary, "run", "--format", "json", "-m", str(config.model), "--title", "bench"],
            stdin=PROMPT.encode(),
            capture_stdout=True,
            cwd=workspace,
            stderr=subprocess.DEVNULL,
            env=os.environ
            | {
                "OPENCODE_CONFIG_CONTENT": str(content),
                "OPENCODE_DISABLE_AUTOUPDATE": "1",
                "XDG_DATA_HOME": f"{directory}/data",
                "XDG_CONFIG_HOME": f"{directory}/config",
                "XDG_STATE_HOME": f"{directory}/state",
                "PWD": str(workspace),
            },
        )
    records = map(json.loads, done.stdout.splitlines())
    assert ANSWER in [record["part"].get("text") for record in records]


Way = Callable[[str, RunConfig, Path], Awaitable[None]]


async def seconds_for(way: Way, runs: int, binary: str, model: ScriptedModel) -> float:
    with tempfile.TemporaryDirectory() as directory:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(runs):
                nursery.start_soon(way, binary, model.run_config(), Path(directory))
        return trio.current_time() - began


async def main(binary: str, runs: int, rounds: int) -> float:
    took: dict[Way, list[float]] = {through_the_library: [], bare: []}
    async with open_scripted_model(ANSWER) as model:
        await bare(binary, model.run_config(), Path.cwd())  # warms the disk
        for turn in range(rounds):
            for way in list(took) if turn % 2 else list(reversed(took)):
                took[way].append(await seconds_for(way, runs, binary, model))
                print(f"round {turn + 1}  {way.__name__:<20} {took[way][-1]:6.1f} s", flush=True)
    best = {way: statistics.median(seconds) for way, seconds in took.items()}
    ratio = best[through_the_library] / best[bare]
    print(f"\n{runs} runs at once, median of {rounds} rounds: library / bare = {ratio:.3f}")
    return ratio


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare runs through the library with bare ones.")
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--at-most", type=float, help="fail if the ratio is above this")
    options = parser.parse_args()
    program = os.environ.get("OPENCODE_TRIO_TEST_BINARY", "opencode")
    found = trio.run(main, program, options.runs, options.rounds)
    sys.exit(options.at_most is not None and found > options.at_most)
