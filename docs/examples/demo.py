"""Eight agents on one server. Each has a question that it needs a tool to answer.

Without arguments, a script plays the model, so you need no API key and it costs nothing:

    python docs/examples/demo.py

On a real model, with the credentials from `opencode auth login`:

    python docs/examples/demo.py --model anthropic/claude-haiku-4-5
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile

import trio

from opencode_trio import AsyncOpenCodeClient, open_swarm
from opencode_trio.progress import show_progress
from opencode_trio.testing import Delay, ModelRequest, Reply, Text, ToolCall, open_run_config

POEM = """\
Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?

When the stars threw down their spears
And water'd heaven with their tears:
Did he smile his work to see?
Did he who made the Lamb make thee?
"""
QUESTIONS = {  # and the command that answers it
    "How many lines are there?": "wc -l poem.txt",
    "How many words are there?": "wc -w poem.txt",
    "How many bytes are there?": "wc -c poem.txt",
    "Which line is the first?": "head -n 1 poem.txt",
    "Which line is the last?": "tail -n 1 poem.txt",
    "Where are the stars?": "grep -n stars poem.txt",
    "How many lines begin with Did?": "grep -c ^Did poem.txt",
    "Is there a lamb?": "grep -n -i lamb poem.txt",
}
PROMPT = "It is about poem.txt: {} Find out with one shell command, and answer in one line."
PERMISSION = {
    "*": "deny",
    "bash": {"*": "deny", "wc *": "allow", "head *": "allow", "tail *": "allow", "grep *": "allow"},
}


async def main(model: str, page: str) -> int:
    """Let an agent answer each question; return how many could not be answered."""
    with tempfile.TemporaryDirectory() as directory:
        await trio.Path(directory, "poem.txt").write_text(POEM)
        client = AsyncOpenCodeClient()
        async with (
            open_run_config(model, script=play, permission=PERMISSION, snapshot=False) as config,
            show_progress(
                open_swarm(client, workspace=directory, run_cfg=config, on_failure="collect")
            ) as swarm,
        ):
            for question in QUESTIONS:
                swarm.start_soon(PROMPT.format(question), name=question)

    print()
    for outcome in swarm.outcomes():
        print(f"{outcome.name:32}", outcome.error or outcome.unwrap().final_text.strip())
    await trio.Path(page).write_text(swarm.report().html(), "utf-8")
    print(f"\nWho did what, and when: {await trio.Path(page).resolve()}")
    return sum(outcome.error is not None for outcome in swarm.outcomes())


# --- without a real model ----------------------------------------------------------------------


def play(request: ModelRequest) -> Reply:
    """Play the model: think, call the tool, and read the answer from its output."""
    thinking = Delay(random.uniform(0.2, 1.2))
    if request.tool_results:
        return Reply(thinking, Text(request.tool_results[-1]))
    command = next(QUESTIONS[question] for question in QUESTIONS if question in request.prompt)
    return Reply(thinking, ToolCall("bash", {"command": command, "description": "Look"}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask eight agents about a poem.")
    parser.add_argument("--model", default="scripted/demo", metavar="PROVIDER/MODEL")
    parser.add_argument("--page", default="swarm.html", metavar="FILE", help="for the timeline")
    args = parser.parse_args()
    sys.exit(trio.run(main, args.model, args.page))
