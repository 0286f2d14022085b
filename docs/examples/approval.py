"""A human in the loop: the agent asks at the terminal before it acts, and when it has a question.

    python docs/examples/approval.py
    python docs/examples/approval.py --model anthropic/claude-haiku-4-5

In the first, a script plays the model. Without a terminal, everything is refused.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import termios
from collections.abc import Sequence

import trio

from opencode_trio import (
    AsyncOpenCodeClient,
    OpenCodeSession,
    PermissionAnswer,
    PermissionRequest,
    QuestionRequest,
    Reject,
)
from opencode_trio.testing import ModelRequest, ReplyLike, ToolCall, open_run_config

PROMPT = (
    "I want to keep notes. Ask me which database to use, SQLite or PostgreSQL; then, with a shell "
    "command, write the name of it into the file database.txt."
)
PERMISSION = {"*": "deny", "question": "allow", "bash": "ask"}


class Human:
    """Somebody at the terminal. They are asked one thing at a time."""

    def __init__(self) -> None:
        self._attention = trio.Lock()

    async def allow(self, request: PermissionRequest) -> PermissionAnswer:
        """Answer a request for permission. The model is told the reason for a refusal."""
        wanted = ", ".join(request.patterns)
        answer = await self._ask(f"May it use {request.permission}: {wanted}\n  yes, or why not? ")
        if answer.lower() in {"y", "yes"}:
            return "once"
        return Reject(answer or "nobody answered")

    async def choose(self, request: QuestionRequest) -> Sequence[Sequence[str]] | None:
        """Answer the model's questions, each with the number of an option, or in your own words.

        Nothing dismisses them.
        """
        answers: list[list[str]] = []
        for question in request.questions:
            options = [option.label for option in question.options]
            listed = "".join(f"  {number}: {label}\n" for number, label in enumerate(options, 1))
            answer = await self._ask(f"{question.question}\n{listed}  which? ")
            if not answer:
                return None
            is_number = answer.isdecimal() and 1 <= int(answer) <= len(options)
            answers.append([options[int(answer) - 1] if is_number else answer])
        return answers

    async def _ask(self, text: str) -> str:
        """Ask, and return the line that is typed. If cancelled, it leaves the next line alone."""
        if not sys.stdin.isatty():
            return ""
        async with self._attention:
            termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before is not an answer
            print(text, end="", flush=True)
            await trio.lowlevel.wait_readable(sys.stdin)
            return os.read(sys.stdin.fileno(), 4096).decode().strip()  # a terminal returns one line


async def main(model: str) -> None:
    """Let the agent work, and look at what it has done."""
    human = Human()
    with tempfile.TemporaryDirectory() as directory:
        async with (
            open_run_config(model, script=play, permission=PERMISSION, snapshot=False) as config,
            OpenCodeSession(
                AsyncOpenCodeClient(),
                directory,
                run_cfg=config,
                on_permission=human.allow,
                on_question=human.choose,
            ) as session,
        ):
            result = await session.send(PROMPT)
        note = trio.Path(directory, "database.txt")
        print(f"\nThe agent, {result.stop_reason}: {result.final_text.strip()}")
        print(f"It wrote: {(await note.read_text()).strip() if await note.exists() else 'nothing'}")


# --- without a real model ----------------------------------------------------------------------

OPTIONS = [
    {"label": "SQLite", "description": "A file, and no server."},
    {"label": "PostgreSQL", "description": "A server, for many at once."},
]


def play(request: ModelRequest) -> ReplyLike:
    """Play the model: ask, act, and say how it went."""
    answer, *done = request.tool_results or [None]
    if answer is None:
        question = {"question": "Which database?", "header": "Database", "options": OPTIONS}
        return ToolCall("question", {"questions": [question]})
    if not done:
        name = next((o["label"] for o in OPTIONS if o["label"] in answer), "none yet")
        return ToolCall(
            "bash", {"command": f"echo {name} > database.txt", "description": "Write it down"}
        )
    return f"The shell said: {done[-1]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Let an agent ask before it acts.")
    parser.add_argument("--model", default="scripted/approval", metavar="PROVIDER/MODEL")
    trio.run(main, parser.parse_args().model)
