"""The scripted model as a program: say where it is, then answer until stdin is closed."""

from __future__ import annotations

import json
import sys

import attrs
import trio

from opencode_trio.testing import open_scripted_model

PROMPT = "Say hello."
ANSWER = "hello"


async def main() -> None:
    async with open_scripted_model(ANSWER) as model:
        cfg = model.run_config(snapshot=False)
        print(json.dumps(attrs.asdict(cfg)), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(main)
