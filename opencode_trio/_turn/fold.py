"""The fold of a turn's events, in either dialect, into what is known of it.

Everything is kept under its message's and part's id and replaced, never added, because one
message is told several times.  A shape without ids counts as new each time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import attrs

from opencode_trio._json import Json
from opencode_trio._turn.ending import end_if_nothing_follows
from opencode_trio.events import (
    ErrorInfo,
    ErrorReported,
    Event,
    MessageUpdated,
    PartEvent,
    StepFinished,
    TextDelta,
    TextPart,
    TokenUsage,
    ToolPart,
)
from opencode_trio.results import StopReason


@attrs.frozen
class _Usage:
    cost: float = 0.0
    tokens: TokenUsage = attrs.field(factory=TokenUsage)

    def __add__(self, other: _Usage) -> _Usage:
        return _Usage(self.cost + other.cost, self.tokens + other.tokens)


@attrs.define
class _Message:
    session_id: str | None
    role: str = "assistant"  # `run` prints no other, and says of none what it is
    is_summary: bool | None = None  # until its own record says so
    calls_tools: bool = False
    texts: dict[Hashable, list[str]] = attrs.field(factory=dict[Hashable, list[str]])
    steps: dict[Hashable, _Usage] = attrs.field(factory=dict[Hashable, _Usage])
    reported: _Usage | None = None

    @property
    def text(self) -> str:
        return "".join(piece for pieces in self.texts.values() for piece in pieces)

    @property
    def usage(self) -> _Usage:
        # Its own record knows best, once it is there; until then its steps do.
        return self.reported or sum(self.steps.values(), _Usage())


TOO_LONG = "ContextOverflowError"
"""After this error opencode has the conversation summarized, and then goes on in it."""


class TurnFold:
    """What the events so far say of a turn.

    Args:
        root: the session whose text is the answer.  By default the first one seen; what names
            no session is then taken for its.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = root
        self._is_alone = root is None
        self.records: list[Json] = []
        self.tools: dict[Hashable, ToolPart] = {}
        self.last_error: ErrorInfo | None = None
        self.structured: Any = None
        self._end: StopReason | None = None
        self._is_too_long = False  # for the model: a summary follows
        self._messages: dict[Hashable, _Message] = {}

    def add(self, event: Event) -> None:
        """Take an event and keep its record."""
        self.records.append(event.raw)
        self.fold(event)

    def fold(self, event: Event) -> None:
        """Take an event without keeping its record."""
        self.root = self.root or event.session_id
        if self._is_of_root(event.session_id):
            self._end = self._end_if_nothing_follows(event) or self._end
        match event:
            case TextDelta():
                self._take_delta(event)
            case TextPart():
                self._take_text(event)
            case StepFinished():
                self._take_step(event)
            case ToolPart():
                self._take_tool(event)
            case MessageUpdated():
                self._take_message(event)
            case ErrorReported():
                self._take_error(event)

    def replace(self, stored: Sequence[Event]) -> None:
        """Take a stored message, as its events, in the place of all that was seen of it."""
        for event in stored:
            if isinstance(event, MessageUpdated):
                self._messages.pop(event.message_id, None)
        for event in stored:
            self.fold(event)

    # --- the result

    @property
    def stop_reason(self) -> StopReason | None:
        """What to call the end, if this was it; ``None`` when nothing has happened yet."""
        return "empty" if self._end == "completed" and not self._has_answer else self._end

    @property
    def final_text(self) -> str:
        return next((m.text for m in reversed(self._answers()) if m.text), "")

    @property
    def text(self) -> str:
        return "\n".join(m.text for m in self._answers() if m.text)

    @property
    def steps(self) -> int:
        return sum(len(m.steps) for m in self._assistants())

    @property
    def token_usage(self) -> TokenUsage:
        return sum((m.usage for m in self._assistants()), _Usage()).tokens

    @property
    def total_cost(self) -> float:
        return sum((m.usage.cost for m in self._assistants()), 0.0)

    @property
    def cost_by_session(self) -> Mapping[str, float]:
        costs: dict[str, float] = {}
        for message in self._assistants():
            session = message.session_id or self.root or ""
            costs[session] = costs.get(session, 0.0) + message.usage.cost
        return costs

    @property
    def _has_answer(self) -> bool:
        return bool(self.final_text) or self.structured is not None

    def _assistants(self) -> list[_Message]:
        return [m for m in self._messages.values() if m.role == "assistant"]

    def _answers(self) -> list[_Message]:
        mine = (m for m in self._assistants() if self._is_of_root(m.session_id))
        return [m for m in mine if not m.is_summary]

    def _is_of_root(self, session_id: str | None) -> bool:
        return session_id == self.root or (session_id is None and self._is_alone)

    # --- taking events

    def _end_if_nothing_follows(self, event: Event) -> StopReason | None:
        if isinstance(event, StepFinished):
            if self._is_too_long:
                return "incomplete"
            message = self._messages.get(event.message_id)
            if message is not None and message.calls_tools:
                # Some providers call that "stop"; opencode looks at the calls, and asks again.
                event = attrs.evolve(event, reason="tool-calls")
        return end_if_nothing_follows(event)

    def _message(self, message_id: str | None, session_id: str | None) -> _Message:
        return self._messages.setdefault(message_id, _Message(session_id))

    def _part(self, event: PartEvent) -> tuple[_Message, Hashable]:
        return self._message(event.message_id, event.session_id), event.part_id or object()

    def _take_delta(self, event: TextDelta) -> None:
        # A delta does not say whether it is text or thinking, but what it adds to is known.
        message = self._messages.get(event.message_id)
        if message and event.part_id in message.texts:
            message.texts[event.part_id].append(event.delta)

    def _take_text(self, event: TextPart) -> None:
        if event.is_synthetic:
            # opencode's own words follow a compaction; what stood before them is its summary,
            # which `run` does not tell otherwise.
            if event.metadata.get("compaction_continue"):
                self._mark_summary(event.session_id)
            return
        message, part = self._part(event)
        message.texts[part] = [event.text]

    def _mark_summary(self, session_id: str | None) -> None:
        written = [m for m in self._assistants() if m.session_id == session_id]
        if written and written[-1].is_summary is None:
            written[-1].is_summary = True

    def _take_step(self, event: StepFinished) -> None:
        message, part = self._part(event)
        message.steps[part] = _Usage(event.cost, event.tokens)
        if self._is_too_long and self._is_of_root(event.session_id):
            self._is_too_long, message.is_summary = False, True

    def _take_tool(self, event: ToolPart) -> None:
        self.tools[event.part_id or object()] = event
        if event.message_id is not None and not event.provider_executed:
            self._message(event.message_id, event.session_id).calls_tools = True

    def _take_message(self, event: MessageUpdated) -> None:
        message = self._message(event.message_id, event.session_id)
        message.role = event.role or message.role
        message.is_summary = bool(message.is_summary or event.is_summary)
        if event.is_complete:
            message.reported = _Usage(event.cost, event.tokens)
        if self._is_of_root(event.session_id):
            self.structured = self.structured if event.structured is None else event.structured
            self.last_error = event.error or self.last_error

    def _take_error(self, event: ErrorReported) -> None:
        if event.session_id in (self.root, None):
            self.last_error = event.error
            if self._is_alone and event.error.name == TOO_LONG:
                self._is_too_long = True  # `run` does not say of the summary that it is one
