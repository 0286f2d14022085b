"""A small swarm: each agent counts the lines of one file, all at once.

Without arguments the agents talk to a scripted model, so no key is needed and nothing is spent:

    python docs/examples/demo.py

With a model, they talk to that one, with the credentials of `opencode auth login`:

    python docs/examples/demo.py --model anthropic/claude-haiku-4-5
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from opencode_trio import (
    AsyncOpenCodeClient,
    RunConfig,
    RunResult,
    StepStarted,
    TextPart,
    ToolPart,
)
from opencode_trio.testing import ModelRequest, Reply, Text, ToolCall, open_scripted_model

FILES = {
    "poem.txt": "roses are red\nviolets are blue\n",
    "todo.txt": "milk\nbread\ntea\n",
    "log.txt": "started\n" * 12,
    "empty.txt": "",
}
PERMISSION = {"*": "deny", "bash": {"*": "deny", "wc *": "allow"}}


async def count_lines(
    client: AsyncOpenCodeClient,
    workspace: Path,
    name: str,
    config: RunConfig,
    results: dict[str, RunResult],
) -> None:
    """Run one agent, telling what it does while it does it."""
    prompt = f"Count the lines of {name} with `wc -l {name}` and answer with the number alone."
    began = trio.current_time()
    async with client.async_stream(prompt, workspace, run_cfg=config, timeout_s=300) as run:
        async for event in run:
            match event:
                case StepStarted():
                    news = "asks the model"
                case ToolPart(tool=tool, status=status):
                    news = f"{tool} {status}: {event.input.get('command', '')}"
                case TextPart(text=text):
                    news = f"says {text!r}"
                case _:
                    continue
            print(f"{trio.current_time() - began:5.1f} s  {name:<10} {news}", flush=True)
    results[name] = run.result


def print_table(results: dict[str, RunResult]) -> None:
    """Print what came of it, in the order in which the agents were started."""
    row = "{:<10}  {:<7}  {:<10}  {:>6}  {:>8}  {:>7}".format
    print("\n" + row("agent", "answer", "ended", "tokens", "cost", "seconds"))
    for name in FILES:
        result = results[name]
        answer, ended = result.final_text.strip(), result.stop_reason
        tokens, cost = result.token_usage.total, f"${result.total_cost:.5f}"
        print(row(name, answer, ended, tokens, cost, f"{result.duration_s:.1f}"))
    tokens = sum(result.token_usage.total for result in results.values())
    cost = f"${sum(result.total_cost for result in results.values()):.5f}"
    print(row("all", "", "", tokens, cost, ""))


@asynccontextmanager
async def open_config(model: str | None) -> AsyncIterator[RunConfig]:
    """Give the settings for a real model, or for a scripted one while the block lasts."""
    if model is not None:
        yield RunConfig(model=model, permission=PERMISSION)
        return

    def script(request: ModelRequest) -> Reply:
        """Play a model: first ask for the tool, then read the number out of what it said."""
        if not request.tool_results:
            name = next(name for name in FILES if name in request.prompt)
            return Reply(ToolCall("bash", {"command": f"wc -l {name}", "description": "Count"}))
        return Reply(Text(request.tool_results[-1].split()[0]))

    async with open_scripted_model(script) as scripted:
        yield scripted.run_config(permission=PERMISSION)


async def main(model: str | None) -> None:
    """Write the files, run the agents, print the table."""
    # nox names the opencode it has provided; without nox it is the one on PATH.
    client = AsyncOpenCodeClient(os.environ.get("OPENCODE_TRIO_TEST_BINARY", "opencode"))
    results: dict[str, RunResult] = {}
    with tempfile.TemporaryDirectory() as directory:
        workspace = Path(directory)
        for name, text in FILES.items():
            await trio.Path(workspace / name).write_text(text)
        print(f"{len(FILES)} agents on {model or 'a scripted model'}; each is an opencode process.")
        async with open_config(model) as config, trio.open_nursery() as nursery:
            for name in FILES:
                nursery.start_soon(count_lines, client, workspace, name, config, results)
    print_table(results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count lines with a swarm of agents.")
    parser.add_argument("--model", help="provider/model; by default a scripted one")
    trio.run(main, parser.parse_args().model)
