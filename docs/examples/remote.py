"""A swarm over several remote servers. docs/remote.md explains how to run them.

    export OPENCODE_SERVER_PASSWORD=...
    python docs/examples/remote.py --workspace /srv/repo https://one.example https://two.example

The tasks are the lines of standard input. Agents are spread over the servers. When a server dies,
its agents begin again on the others.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

import trio

from opencode_trio import (
    OpenCodeServer,
    OpenCodeServerError,
    RunConfig,
    connect_server,
    open_swarm,
)
from opencode_trio.progress import show_progress

AT_ONCE_EACH = 4
"""Agents on a server: as many as its machine can take, if their tools are builds and tests."""


async def main(urls: Sequence[str], workspace: str, model: str | None) -> int:
    """Do the tasks; return how many failed."""
    prompts = [line.strip() for line in sys.stdin if line.strip()]
    async with AsyncExitStack() as stack:
        servers = await connect_all(stack, urls)
        opening = open_swarm(
            servers,
            limit=AT_ONCE_EACH * len(servers),
            workspace=workspace,  # on the servers' machines; it is not checked here
            run_cfg=RunConfig(model=model),
            on_failure="collect",
        )
        async with show_progress(opening) as swarm:
            for prompt in prompts:
                # If its server dies, an agent begins again. What it had done by then stays done.
                swarm.start_soon(prompt, name=prompt, restartable=True)

    print()
    for outcome in swarm.outcomes():
        again = f" (begun {outcome.attempts} times)" if outcome.attempts > 1 else ""
        print(f"{outcome.name}{again}: {outcome.error or outcome.unwrap().final_text.strip()}")
    return sum(outcome.error is not None for outcome in swarm.outcomes())


async def connect_all(stack: AsyncExitStack, urls: Sequence[str]) -> list[OpenCodeServer]:
    """Connect to the servers that answer. Closing the stack disconnects them."""
    password = os.environ.get("OPENCODE_SERVER_PASSWORD")
    servers: list[OpenCodeServer] = []
    for url in urls:
        try:
            server = await stack.enter_async_context(connect_server(url, password=password))
        except OpenCodeServerError as error:
            print(f"going on without it: {error}", file=sys.stderr)
        else:
            servers.append(server)
    return servers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Do tasks on remote opencode servers.")
    parser.add_argument(
        "--workspace", required=True, metavar="PATH", help="on the servers' machines"
    )
    parser.add_argument("--model", metavar="PROVIDER/MODEL", help="default: the servers' own")
    parser.add_argument("urls", nargs="+", metavar="URL")
    args = parser.parse_args()
    sys.exit(1 if trio.run(main, args.urls, args.workspace, args.model) else 0)
