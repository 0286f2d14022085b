"""A race: the first model to pass the tests wins, and the others are aborted.

    python docs/examples/race.py
    python docs/examples/race.py anthropic/claude-haiku-4-5 openai/gpt-5-mini

In the first, a script plays a hare, which is fast and wrong, a fox, and a tortoise.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence

import trio

from opencode_trio import AgentTask, AsyncOpenCodeClient, RunConfig, RunResult, open_swarm
from opencode_trio.testing import Delay, ModelRequest, Reply, Stall, open_run_config

PROMPT = (
    "Write a regular expression for Python's re.fullmatch that accepts the hours and minutes of a "
    "24-hour clock, as in 07:30, and nothing else. Answer with the expression alone."
)
TESTS = {"00:00": True, "07:30": True, "23:59": True, "24:00": False, "7:30": False, "12:60": False}


def is_right(result: RunResult) -> bool:
    """Say whether an answer passes the tests."""
    try:
        pattern = re.compile(result.final_text.strip().strip("`"))
    except re.error:
        return False
    return all(bool(pattern.fullmatch(text)) == right for text, right in TESTS.items())


async def main(models: Sequence[str]) -> None:
    """Run the race, and print how each model did."""
    with tempfile.TemporaryDirectory() as directory:
        async with (
            open_run_config(*models, script=play, permission="deny", snapshot=False) as config,
            AsyncOpenCodeClient().open_server(directory, run_cfg=config) as server,
            open_swarm(server) as swarm,
        ):
            # The server knows all the models; a session only says which one it wants.
            runners = [AgentTask(PROMPT, name=m, run_cfg=RunConfig(model=m)) for m in models]
            winner = await swarm.race(*runners, accept=is_right, timeout_s=120)
    print(f"The first right answer: {winner.final_text.strip()}\n")
    for outcome in swarm.outcomes():
        how = "won" if outcome.value is winner else "was wrong" if outcome.value else outcome.status
        print(
            f"{outcome.name:30} {how:10} {outcome.duration_s:6.1f} s  ${outcome.spent.cost_usd:.4f}"
        )


# --- without real models -----------------------------------------------------------------------


def play(request: ModelRequest) -> Reply:
    """Play the models."""
    match request.model:
        case "hare":
            return Reply(r"\d\d:\d\d")
        case "fox":
            return Reply(Delay(1.0), r"([01]\d|2[0-3]):[0-5]\d")
        case _:
            return Reply("Let me think.", Stall())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Let models race for a right answer.")
    parser.add_argument("models", nargs="*", metavar="PROVIDER/MODEL")
    trio.run(
        main, parser.parse_args().models or ["scripted/hare", "scripted/fox", "scripted/tortoise"]
    )
