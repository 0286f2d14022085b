"""A human at the terminal, who is asked for permission."""

from __future__ import annotations

import os
import select
from typing import TextIO

import trio

from opencode_trio._wording import harmless
from opencode_trio.asks import PermissionAnswer, PermissionRequest, Reject

ANSWERS: dict[str, PermissionAnswer] = {
    "o": "once",
    "once": "once",
    "a": "always",
    "always": "always",
    "r": "reject",
    "reject": "reject",
    "": "reject",
}
"""What may be typed; anything else refuses, and is the reason that the model is told."""

LOOK_S = 0.1
"""Between two looks whether the question still stands: its agent may have been cancelled."""


def question_of(request: PermissionRequest, name: str) -> str:
    """Return what the human is asked.  All of what shall be done is shown, every line."""
    what = "\n".join(f"    {line}" for text in request.patterns for line in text.splitlines())
    always = ", ".join(request.always) or "everything of the kind"
    return harmless(
        f"{name} wants permission: {request.permission or request.tool}\n{what}\n"
        f"  o: once   a: always ({always})   r: reject   or a reason to refuse: "
    )


def answer_of(line: str) -> PermissionAnswer:
    """Return what was answered."""
    text = line.strip()
    return ANSWERS.get(text.lower(), Reject(text))


def ask(question: str, stdin: TextIO, stdout: TextIO) -> str:
    """Ask, and return the line that is typed then.  For a thread of trio's.

    **Cancellation**: is noticed within `LOOK_S`.
    """
    _forget_typed(stdin)
    stdout.write(question)
    stdout.flush()
    fd = stdin.fileno()
    while not select.select([fd], [], [], LOOK_S)[0]:
        trio.from_thread.check_cancelled()
    return os.read(fd, 4096).decode(errors="replace")  # a terminal gives whole lines


def _forget_typed(stdin: TextIO) -> None:
    """What was typed before the question is no answer to it."""
    import termios  # noqa: PLC0415 - needed only where a human is asked

    termios.tcflush(stdin.fileno(), termios.TCIFLUSH)
