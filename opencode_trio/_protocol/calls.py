"""The calls of opencode's HTTP interface, as values: what to send, and how to read the answer.

Constructors only; `_server.http` sends them.  The routes are those of 1.x (``GET /doc`` of a server
lists them).  Bodies leave out what is not given, so that opencode's own defaults hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from opencode_trio._json import Json, is_list, is_object, object_of, objects_of

T = TypeVar("T")


MAX_TEXT = 2000
"""Of what an error says, so much is told."""


class UnexpectedAnswerError(Exception):
    """The answer is not of the shape that this route has."""


@attrs.frozen
class Call(Generic[T]):
    """One request."""

    method: str
    path: str
    read: Callable[[object], T]
    """Reads the answer's JSON; raises `UnexpectedAnswerError` if it is something else."""
    query: Mapping[str, str] = attrs.field(factory=dict[str, str])
    body: Json | None = None
    waits_for_agent: bool = False
    """Whether the answer comes when the agent has finished, minutes or hours later."""
    does_no_harm_twice: bool = False
    """Whether it can be sent again when its answer was lost on the way."""

    def inside(self, directory: str) -> Call[T]:
        """Address the call to one directory: permissions, questions and states have one each."""
        return attrs.evolve(self, query={**self.query, "directory": directory})


def an_object(value: object) -> Json:
    if is_object(value):
        return value
    raise UnexpectedAnswerError(f"expected a JSON object, got {value!r:.80}")


def objects(value: object) -> list[Json]:
    if is_list(value) and all(map(is_object, value)):
        return objects_of(value)
    raise UnexpectedAnswerError(f"expected a list of JSON objects, got {value!r:.80}")


def a_flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise UnexpectedAnswerError(f"expected true or false, got {value!r:.80}")


def anything(value: object) -> Any:
    return value


# --- failures ----------------------------------------------------------------------------


def failure_text(status: int, answer: object) -> str:
    """Say what an error's answer says.  It has three shapes, and 401 has none."""
    if status == 401:
        return "the password (or user name) is wrong"
    if not is_object(answer):
        return "no explanation"
    detail = object_of(answer.get("data")) or answer
    name = answer.get("name") or answer.get("_tag") or "error"
    # A configuration that is refused has a list of issues in place of a message.
    told = {key: detail[key] for key in detail.keys() - {"name", "_tag", "data"}}
    why = detail.get("message") or (json.dumps(told, sort_keys=True) if told else "no explanation")
    text = f"{name}: {why}"[:MAX_TEXT]
    return f"{text} (log reference {detail['ref']})" if detail.get("ref") else text
