"""What an agent asks of a human, and what can be answered.

A handler gets a `PermissionRequest` or a `QuestionRequest`.  Both have attributes, and the wire's
own fields by key: ``request.patterns`` and ``request["patterns"]``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import attrs

from opencode_trio._endpoints import Call, reject_question, reply_permission, reply_question
from opencode_trio._json import is_sequence
from opencode_trio.errors import OpenCodeConfigError
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
"""``"once"``, ``"always"``, ``"reject"`` or a `Reject`.  ``always`` holds for every session of the server in that directory, until the server ends."""

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


def refusal(request: AskRequest) -> Call[Any]:
    """Build the call that says no."""
    if isinstance(request, QuestionRequest):
        return reject_question(request.request_id)
    return reply_permission(request.request_id, "reject")


def reply(request: AskRequest, answer: object) -> Call[Any]:
    """Build the call that gives an answer.

    Raises:
        OpenCodeConfigError: it is no possible answer to this request.
    """
    if isinstance(request, QuestionRequest):
        return _question_reply(request, answer)
    return _permission_reply(request, answer)


def _permission_reply(request: AskRequest, answer: object) -> Call[Any]:
    if isinstance(answer, Reject):
        return reply_permission(request.request_id, "reject", answer.why or None)
    if isinstance(answer, str) and answer in PERMISSION_ANSWERS:
        return reply_permission(request.request_id, answer)
    expected = ", ".join(map(repr, PERMISSION_ANSWERS))
    raise OpenCodeConfigError(
        f"on_permission answered {answer!r}; expected {expected} or Reject('why')"
    )


def _question_reply(request: QuestionRequest, answer: object) -> Call[Any]:
    if answer is None or isinstance(answer, Reject):
        return reject_question(request.request_id)
    return reply_question(request.request_id, checked_answers(request.questions, answer))


def checked_answers(questions: Sequence[Question], answers: object) -> list[list[str]]:
    """Return the answers if they are possible ones.

    Raises:
        OpenCodeConfigError: they are not one list of labels for each question, name a label that
            is no option (where only options count), or several where one is wanted.
    """
    if not is_sequence(answers):
        raise OpenCodeConfigError(f"expected a list of labels per question, got {answers!r}")
    if len(answers) != len(questions):
        raise OpenCodeConfigError(f"{len(questions)} questions, but {len(answers)} answers")
    pairs = zip(questions, answers, strict=True)
    return [_checked_answer(question, labels) for question, labels in pairs]


def _checked_answer(question: Question, labels: object) -> list[str]:
    where = f"the answer to {question.header or question.question!r}"
    if not is_sequence(labels):
        raise OpenCodeConfigError(f"{where}: expected a list of labels, got {labels!r}")
    texts = [label for label in labels if isinstance(label, str)]
    if strange := [label for label in labels if not isinstance(label, str)]:
        raise OpenCodeConfigError(f"{where}: {strange[0]!r} is not a string")
    options = [option.label for option in question.options]
    unknown = [label for label in texts if label not in options]
    if unknown and options and not question.custom:
        raise OpenCodeConfigError(f"{where}: {unknown[0]!r} is not one of {options}")
    if len(texts) > 1 and not question.multiple:
        raise OpenCodeConfigError(f"{where}: expected one label, got {texts}")
    return texts
