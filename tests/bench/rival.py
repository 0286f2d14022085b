"""The same agents through `py-opencode-wrapper`, an asyncio package.

As `ways.py` a program, but one that runs in an environment of its own:
python -m venv E && E/bin/pip install py-opencode-wrapper==0.3.8
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from opencode_wrapper import (  # type: ignore[import-not-found,unused-ignore]
    AsyncOpenCodeClient,
    OpenCodeSession,
    RunConfig,
)


async def main(job: dict[str, Any]) -> dict[str, Any]:
    cfg = RunConfig(model=job["cfg"]["model"], config_overrides=job["config"])
    client = AsyncOpenCodeClient(job["binary"])
    places = asyncio.Semaphore(job["limit"])

    async def agent() -> str:
        async with places:
            if job["way"] == "run":
                result = await client.async_run(job["prompt"], job["workspace"], run_cfg=cfg)
            else:
                session = OpenCodeSession(client, job["workspace"], run_cfg=cfg)
                async with session:
                    result = await session.send(job["prompt"])
            return str(result.final_text)

    began = time.perf_counter()
    answers = await asyncio.gather(*(agent() for _ in range(job["agents"])), return_exceptions=True)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "wrong": [repr(a) for a in answers if a != job["answer"]]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.stdin.read())))))
