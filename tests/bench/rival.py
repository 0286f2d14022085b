"""The same agents through `py-opencode-wrapper`, an asyncio package; started by swarm.py.

It runs in an environment of its own: python -m venv E && E/bin/pip install py-opencode-wrapper==0.3.8
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from opencode_wrapper import (  # type: ignore[import-not-found,unused-ignore]
    AsyncOpenCodeClient,
    OpenCodeSession,
    RunConfig,
)


async def main(job: dict[str, Any]) -> int:
    cfg = RunConfig(model=job["model"], config_overrides=job["config"])
    client = AsyncOpenCodeClient(job["binary"])
    places = asyncio.Semaphore(job["limit"])

    async def agent() -> str:
        async with places:
            if job["mode"] == "run":
                result = await client.async_run(job["prompt"], job["workspace"], run_cfg=cfg)
            else:
                session = OpenCodeSession(client, job["workspace"], run_cfg=cfg)
                async with session:
                    result = await session.send(job["prompt"])
            return str(result.final_text)

    answers = await asyncio.gather(*(agent() for _ in range(job["agents"])), return_exceptions=True)
    wrong = [answer for answer in answers if answer != job["answer"]]
    print(*dict.fromkeys(map(repr, wrong)), sep="\n", file=sys.stderr)
    return len(wrong)


if __name__ == "__main__":
    print(asyncio.run(main(json.loads(sys.stdin.read()))))
