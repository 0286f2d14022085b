"""The typed vocabulary: what an agent does, as frozen values.

`opencode run` and `opencode serve` speak two dialects about the same things.  Both are
translated into the classes below (by `run_lines` and `stream_events`), so that code which reads one
can read the other:

    Event
    ├── a step of the model      StepStarted  StepFinished
    ├── what it says             TextPart  TextDelta  ReasoningPart  ReasoningDelta
    ├── what it does             ToolPart  OtherPart
    ├── what it asks             PermissionAsked  PermissionReplied
    │                            QuestionAsked  QuestionReplied  QuestionRejected
    ├── how the session fares    SessionBusy  SessionRetrying  SessionIdle  SessionCompacted
    │                            SessionCreated  SessionUpdated  SessionDeleted
    │                            MessageUpdated  TodoUpdated  ErrorReported
    ├── how the server fares     ServerConnected  ServerHeartbeat  InstanceDisposed
    └── everything else          Diagnostic  UnknownEvent

Use them with `match`:

    match event:
        case TextPart(text=text):
            print(text)
        case ToolPart(tool=tool, status="completed"):
            print("ran", tool)

A field that one dialect does not carry is ``None`` there, and its comment says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs

ToolStatus = Literal["pending", "running", "completed", "error"]
"""The states of a tool call.  ``run`` reports only the last two."""


@attrs.frozen
class TokenUsage:
    """Tokens as the provider counted them."""

    total: int = 0
    """Everything billed, as opencode adds it up."""
    input: int = 0
    """Prompt tokens, those read from the cache not included."""
    output: int = 0
    """Answer tokens."""
    reasoning: int = 0
    """Thinking tokens."""
    cache_read: int = 0
    """Prompt tokens the provider had cached."""
    cache_write: int = 0
    """Prompt tokens the provider put into its cache."""

    def __add__(self, other: TokenUsage) -> TokenUsage:
        mine, theirs = attrs.astuple(self), attrs.astuple(other)
        return TokenUsage(*(a + b for a, b in zip(mine, theirs, strict=True)))


@attrs.frozen
class ErrorInfo:
    """A failure as opencode describes it."""

    name: str
    """opencode's name for it, for example ``APIError`` or ``ContextOverflowError``."""
    message: str = ""
    """What the provider or opencode said."""
    status_code: int | None = None
    """The provider's HTTP status, when it was an HTTP failure."""
    is_retryable: bool | None = None
    """Whether trying again may help; ``None`` when opencode does not say."""
    data: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    """Everything opencode attached: response body and headers, a log reference."""


@attrs.frozen
class QuestionOption:
    """One choice of a question."""

    label: str
    """What the answer must name."""
    description: str = ""
    """What choosing it means."""


@attrs.frozen
class Question:
    """One multiple-choice question of the model."""

    question: str
    """The whole question."""
    header: str = ""
    """A short title."""
    options: tuple[QuestionOption, ...] = ()
    """The choices."""
    multiple: bool = False
    """Whether several labels may be chosen."""
    custom: bool = True
    """Whether an answer in the user's own words is welcome; opencode's default is yes."""


# Thirty classes: that attrs writes `==` and `repr` for each would be a third of this package's
# import time, so they are written once, here.  A class without fields of its own needs no attrs.
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Event:
    """Anything that happened.  Every event has these two fields."""

    session_id: str | None = None
    """The session it happened in; ``None`` for events of the server itself."""
    raw: dict[str, Any] = attrs.field(factory=dict[str, Any], repr=False, eq=False)
    """The record as it came over the wire, every unknown field included."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            getattr(self, field.name) == getattr(other, field.name)
            for field in attrs.fields(type(self))
            if field.eq
        )

    # A tool's input is a dict: some events cannot be hashed, so none can.
    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]

    def __repr__(self) -> str:
        fields = (field for field in attrs.fields(type(self)) if field.repr)
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PartEvent(Event):
    """An event about one part of one message."""

    message_id: str | None = None
    """The message the part belongs to."""
    part_id: str | None = None
    """The part; a later event with the same id replaces an earlier one."""


# --- a step of the model -----------------------------------------------------------------


class StepStarted(PartEvent):
    """A request to the model was sent (again, after a failure in the middle of one)."""

    __slots__ = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class StepFinished(PartEvent):
    """The model's reply to one request is complete."""

    reason: str = "unknown"
    """``stop``, ``tool-calls``, ``length``, ``content-filter``, ``error``, ``unknown``, or
    whatever a later opencode says."""
    cost: float = 0.0
    """US dollars; 0 when opencode knows no price for the model."""
    tokens: TokenUsage = TokenUsage()
    """What this step used."""


# --- what it says ------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TextPart(PartEvent):
    """Text, as it stands now.  In ``run`` it comes once, whole; in a session it grows."""

    text: str = ""
    """All of the part's text so far."""
    is_complete: bool = True
    """Whether the text has ended."""
    is_synthetic: bool = False
    """Whether opencode wrote it (to continue after a compaction, say) rather than the model."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    """What opencode or the provider attached."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TextDelta(PartEvent):
    """A piece of text as the model produces it.  Sessions only."""

    delta: str = ""
    """What was added to the part."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ReasoningPart(PartEvent):
    """The model's thinking, as it stands now.  In ``run`` only with ``thinking=True``."""

    text: str = ""
    """All of the part's text so far."""
    is_complete: bool = True
    """Whether the thinking has ended."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ReasoningDelta(PartEvent):
    """A piece of thinking as the model produces it.  Sessions only."""

    delta: str = ""
    """What was added to the part."""


# --- what it does ------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ToolPart(PartEvent):
    """A tool call, as it stands now.

    ``completed`` is no proof of success: a shell command that exits with 3 is ``completed``
    with ``metadata["exit"] == 3``, and a call of a tool that does not exist is a
    ``completed`` call of the tool ``invalid``.
    """

    tool: str = ""
    """The tool's name."""
    call_id: str | None = None
    """The provider's id of the call."""
    status: str = "pending"
    """One of `ToolStatus`, or whatever a later opencode says."""
    input: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """The arguments the model gave."""
    output: str | None = None
    """What the model is told, once completed."""
    error: str | None = None
    """What went wrong, when the status is ``error``."""
    title: str | None = None
    """opencode's one-line description."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    """The tool's own extras: ``exit`` of a shell command, ``sessionId`` of a subagent."""
    state: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    """opencode's own record of the call, which the fields above were read from."""
    provider_executed: bool = False
    """Whether the provider has run the tool itself, so that the model is not asked again for it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OtherPart(PartEvent):
    """A part of a kind this library gives no class of its own: a file, a patch, a snapshot."""

    part_type: str = ""
    """opencode's name of the kind."""


# --- what it asks ------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PermissionAsked(Event):
    """A tool waits for permission.  Sessions only."""

    request_id: str = ""
    """What an answer must name."""
    permission: str = ""
    """What is asked for: ``bash``, ``edit``, ``external_directory`` ..."""
    patterns: tuple[str, ...] = ()
    """What it would be used on: commands, paths."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """Details of the tool call."""
    always: tuple[str, ...] = ()
    """The patterns that an answer ``always`` would allow from now on."""
    message_id: str | None = None
    """The assistant message that made the call."""
    call_id: str | None = None
    """The tool call."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PermissionReplied(Event):
    """A request for permission was answered, by whomever."""

    request_id: str = ""
    """The request."""
    reply: str = ""
    """``once``, ``always`` or ``reject``."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class QuestionAsked(Event):
    """The model asks the user.  Sessions only."""

    request_id: str = ""
    """What an answer must name."""
    questions: tuple[Question, ...] = ()
    """An answer has one list of labels for each."""
    message_id: str | None = None
    """The assistant message that asked."""
    call_id: str | None = None
    """The tool call."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class QuestionReplied(Event):
    """A question was answered, by whomever."""

    request_id: str = ""
    """The request."""
    answers: tuple[tuple[str, ...], ...] = ()
    """The chosen labels, question by question."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class QuestionRejected(Event):
    """A question was dismissed, by whomever."""

    request_id: str = ""
    """The request."""


# --- how the session fares ---------------------------------------------------------------


class SessionBusy(Event):
    """The session works.  Sent again with every step."""

    __slots__ = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SessionRetrying(Event):
    """The provider failed and opencode will try again.  Sessions only."""

    attempt: int = 0
    """How many tries have failed."""
    message: str = ""
    """What the provider said."""
    next_at_s: float = 0.0
    """When it tries again: seconds since the epoch."""


class SessionIdle(Event):
    """The session stopped working.  May come twice, and before the answer is complete."""

    __slots__ = ()


class SessionCompacted(Event):
    """The conversation was summarised to make room."""

    __slots__ = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SessionInfoEvent(Event):
    """An event with the session's own record."""

    parent_id: str | None = None
    """The session whose subagent this one is; ``None`` for a conversation of its own."""
    title: str | None = None
    """Its title."""
    agent: str | None = None
    """The agent it runs."""
    directory: str | None = None
    """The directory it works in."""


class SessionCreated(SessionInfoEvent):
    """A session began; with a ``parent_id``, a subagent's."""

    __slots__ = ()


class SessionUpdated(SessionInfoEvent):
    """A session's record changed."""

    __slots__ = ()


class SessionDeleted(SessionInfoEvent):
    """A session is gone."""

    __slots__ = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MessageUpdated(Event):
    """A message's record, as it stands now.  Sessions only.

    For one assistant message it comes several times, its cost first 0 and then, more than
    once, the true one: replace by ``message_id``, never add.
    """

    message_id: str | None = None
    """The message."""
    role: str = ""
    """``user`` or ``assistant``."""
    parent_id: str | None = None
    """The user message that an assistant message answers."""
    cost: float = 0.0
    """US dollars."""
    tokens: TokenUsage = TokenUsage()
    """What the message used."""
    finish: str | None = None
    """Why the model stopped, once it has."""
    is_complete: bool = False
    """Whether the message has ended."""
    is_summary: bool = False
    """Whether it is a compaction summary and no answer."""
    error: ErrorInfo | None = None
    """Why it failed, if it did."""
    agent: str | None = None
    """The agent that wrote it."""
    model: str | None = None
    """The model, as ``provider/model``."""
    structured: Any = None
    """The structured answer, when one was asked for."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TodoUpdated(Event):
    """The agent's to-do list changed.  Sessions only."""

    todos: tuple[Mapping[str, Any], ...] = ()
    """The list, as opencode holds it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ErrorReported(Event):
    """opencode reported a failure.  Not the end: it may recover (after a compaction, say)."""

    error: ErrorInfo = ErrorInfo("UnknownError")
    """The failure."""


# --- how the server fares ----------------------------------------------------------------


class ServerConnected(Event):
    """The event stream is open."""

    __slots__ = ()


class ServerHeartbeat(Event):
    """The event stream is alive."""

    __slots__ = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class InstanceDisposed(Event):
    """The server let go of one directory (or, without a ``directory``, of all)."""

    directory: str | None = None
    """The directory."""


# --- everything else ---------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Diagnostic(Event):
    """A line of output that is no event."""

    kind: str = ""
    """``empty_line``, ``non_object_json`` or ``json_decode_error``."""
    text: str = ""
    """The line."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UnknownEvent(Event):
    """An event this library has no class for.  Everything is in ``raw``."""

    type: str = ""
    """opencode's name of it."""
