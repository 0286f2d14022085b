"""What an agent asks of a human, and what can be answered.

A handler gets a `PermissionRequest` or a `QuestionRequest`.  Both have attributes, and the wire's
own fields by key: ``request.patterns`` and ``request["patterns"]``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from opencode_trio.events import Question

PERMISSION_ANSWERS = ("once", "always", "reject")


@attrs.frozen
class Reject:
    """Refuse, and tell the model why.

    With a reason the agent goes on and may try something else; a bare ``"reject"`` ends the turn.
    """

    why: str = ""
    """What the model is told."""


PermissionAnswer: TypeAlias = Literal["once", "always", "reject"] | Reject
"""``"once"``, ``"always"``, ``"reject"`` or a `Reject`.  ``always`` holds for every session of the
server in that directory, until the server ends."""


QuestionAnswer: TypeAlias = Sequence[Sequence[str]] | Reject | None
"""For each question the labels chosen; ``None`` or `Reject` dismisses it."""


@attrs.frozen(kw_only=True, eq=False)
class AskRequest(Mapping[str, Any]):
    """What both kinds of request have."""

    request_id: str
    """Its id."""
    session_id: str
    """The session that asks: the conversation's own, or a subagent's."""
    parent_id: str | None = None
    """The session whose subagent asks; ``None`` if it is the conversation itself."""
    depth: int = 0
    """How far below the conversation that is: 0 is itself, 1 its subagent."""
    agent: str | None = None
    """The agent that asks, as far as known."""
    raw: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    """The wire's own fields."""

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)


@attrs.frozen(kw_only=True, eq=False)
class PermissionRequest(AskRequest):
    """A tool waits for permission."""

    tool: str = ""
    """The tool that wants to run."""
    permission: str = ""
    """What is asked for: mostly the tool's name, else ``external_directory`` or ``doom_loop``."""
    patterns: tuple[str, ...] = ()
    """What it would be used on: commands, paths."""
    always: tuple[str, ...] = ()
    """The patterns that the answer ``always`` would allow."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """Details of the tool call."""


@attrs.frozen(kw_only=True, eq=False)
class QuestionRequest(AskRequest):
    """The model asks the user."""

    questions: tuple[Question, ...] = ()
    """An answer has one list of labels for each."""


PermissionCallback: TypeAlias = Callable[
    [PermissionRequest], PermissionAnswer | Awaitable[PermissionAnswer]
]
"""Answers a request for permission."""


QuestionCallback: TypeAlias = Callable[
    [QuestionRequest], QuestionAnswer | Awaitable[QuestionAnswer]
]
"""Answers the model's questions."""
