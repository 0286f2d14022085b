"""What an event says in one line, fit for a terminal and for XML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from opencode_trio._json import object_of
from opencode_trio.events import ErrorInfo, PermissionAsked, QuestionAsked, ToolPart

MAX_TITLE = 160
"""Characters: what a tooltip shows well."""


TELLING = ("command", "filePath", "pattern", "path", "url", "query", "description", "name")
"""Arguments of tools that say most about a call, the best first."""


PATHS = frozenset({"filePath", "path"})


UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")
"""What XML forbids, a terminal would obey, or breaks lines."""


def one_line(text: str, most: int = MAX_TITLE) -> str:
    """Return the text, fit for a terminal, for XML, and for one line of so many characters."""
    text = " ".join(UNPRINTABLE.sub(" ", text[: 2 * most]).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def call_title(event: ToolPart) -> str:
    """Return the tool and what it is used on: ``bash: wc -l poem.txt``."""
    return one_line(": ".join(filter(None, [event.tool, _argument(event)])))


def tool_title(event: ToolPart) -> str:
    """Return what a tool call does, and what went wrong with it."""
    what = event.title or _argument(event)
    code = _exit_code(event.metadata)
    wrong = event.error or (f"exit {code}" if code else "")
    return one_line(": ".join(filter(None, [event.tool, what, wrong])))


def _argument(event: ToolPart) -> str:
    values = ((name, event.input.get(name)) for name in TELLING)
    for name, value in values:
        if isinstance(value, str) and value:
            # Of a path, the end says most, and a narrow table shows the beginning.
            return "/".join(value.rsplit("/", 2)[-2:]) if name in PATHS else value
    return ""


def has_failed(event: ToolPart) -> bool:
    """Say whether a tool call failed, which ``completed`` does not rule out."""
    return event.status == "error" or event.tool == "invalid" or bool(_exit_code(event.metadata))


def duration_of(event: ToolPart) -> float:
    """Return the seconds that a tool call took by opencode's clock; 0 if it does not say."""
    time = object_of(event.state.get("time"))
    start, end = time.get("start"), time.get("end")
    if isinstance(start, int | float) and isinstance(end, int | float):
        return max(0.0, (end - start) / 1000)
    return 0.0


def ask_title(event: PermissionAsked | QuestionAsked) -> str:
    """Return what a human is asked."""
    if isinstance(event, PermissionAsked):
        return one_line(f"may it {event.permission}? {', '.join(event.patterns)}")
    return one_line(" ".join(question.question for question in event.questions) or "a question")


def error_title(error: ErrorInfo) -> str:
    """Return what went wrong."""
    return one_line(f"{error.name}: {error.message}" if error.message else error.name)


def _exit_code(metadata: Mapping[str, Any]) -> int:
    code = metadata.get("exit")
    return code if isinstance(code, int) else 0
