"""One turn of a session as its events tell it: what is of this turn, and what it means so far."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from opencode_trio._turn.fold import TurnFold
from opencode_trio._turn.guards import TurnGuard
from opencode_trio.events import (
    ErrorInfo,
    ErrorReported,
    Event,
    MessageUpdated,
    PartEvent,
    ReasoningDelta,
    ReasoningPart,
    SessionBusy,
    SessionIdle,
    SessionRetrying,
    TextDelta,
    TextPart,
    ToolPart,
)


def _as_it_is(delta: TextDelta) -> Event:
    return delta


def _as_reasoning(delta: TextDelta) -> Event:
    return ReasoningDelta(
        session_id=delta.session_id,
        raw=delta.raw,
        message_id=delta.message_id,
        part_id=delta.part_id,
        delta=delta.delta,
    )


@attrs.define
class DeltaSorter:
    """Tell deltas of thinking from those of text, and put each behind its part's first event.

    Parts of no turn but one may pass through it: it forgets nothing.
    """

    _kinds: dict[str | None, Callable[[TextDelta], Event]] = attrs.field(
        factory=dict[str | None, Callable[[TextDelta], Event]]
    )
    _early: dict[str | None, list[TextDelta]] = attrs.field(
        factory=dict[str | None, list[TextDelta]]
    )

    def sort(self, event: Event) -> list[Event]:
        """Return what can be told now, in order."""
        match event:
            case TextDelta(part_id=part):
                return self._sort_delta(event, part)
            case TextPart(part_id=part, is_complete=whole):
                return [event, *self._late(part, _as_it_is, whole=whole)]
            case ReasoningPart(part_id=part, is_complete=whole):
                return [event, *self._late(part, _as_reasoning, whole=whole)]
            case PartEvent(part_id=part):
                self._early.pop(part, None)
        return [event]

    def _sort_delta(self, delta: TextDelta, part: str | None) -> list[Event]:
        if translate := self._kinds.get(part):
            return [translate(delta)]
        self._early.setdefault(part, []).append(delta)
        return []

    def _late(
        self, part: str | None, translate: Callable[[TextDelta], Event], *, whole: bool
    ) -> list[Event]:
        self._kinds[part] = translate
        early = self._early.pop(part, [])
        # A part that is whole already holds what they would add.
        return [] if whole else [translate(delta) for delta in early]


@attrs.define
class TurnState:
    """What is known of a running turn.

    A stream carries late words of the turn before, and a session can be heard of that is idle,
    though it is about to begin.  So nothing counts before the turn's own message has been seen,
    and no message that is older.

    Args:
        root: the session.
        message_id: the user's message, which begins the turn.
        guard: what the turn may use.
        former: the subagents' sessions that former turns began.
    """

    root: str
    message_id: str
    guard: TurnGuard
    former: frozenset[str] = frozenset()
    fold: TurnFold = attrs.field(
        default=attrs.Factory(lambda turn: TurnFold(turn.root), takes_self=True), init=False
    )
    has_begun: bool = attrs.field(default=False, init=False)
    """Whether the server has told of the turn's own message."""
    errors: list[ErrorInfo] = attrs.field(factory=list[ErrorInfo], init=False)
    """Every failure that the session reported; of a turn that never began, the only word."""
    complete: set[str] = attrs.field(factory=set[str], init=False)
    """The assistant messages that have ended."""
    answers: set[str] = attrs.field(factory=set[str], init=False)
    """The assistant messages of the session itself."""
    sessions: set[str | None] = attrs.field(factory=set[str | None], init=False)
    """The sessions that were heard of in this turn."""
    agents: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    """The agent of each session, as its messages name it."""
    tools: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    """The tool of each call."""
    retrying: set[str | None] = attrs.field(factory=set[str | None], init=False)
    """The sessions that wait for a provider."""
    model: str | None = attrs.field(default=None, init=False)
    """The model that the session asked last, as ``provider/model``."""
    _deltas: DeltaSorter = attrs.field(factory=DeltaSorter, init=False)

    @property
    def provider(self) -> str:
        """Whose model was asked last; empty if that is not known."""
        return (self.model or "").partition("/")[0]

    def take(self, event: Event, now_s: float) -> list[Event]:
        """Take an event of the session's tree; return what to show of it.

        Args:
            event: the event.
            now_s: the time, in seconds since the epoch.

        Raises:
            OpenCodeLimitError: the turn must go no further.  The event has been counted.
        """
        if isinstance(event, ErrorReported) and event.session_id == self.root:
            self.errors.append(event.error)
        if not self.is_of_this_turn(event):
            return []
        self.sessions.add(event.session_id)
        self.fold.add(event)
        if isinstance(event, TextDelta):
            return self._deltas.sort(event)
        self._weigh(event, now_s)
        return self._deltas.sort(event)

    def take_found(self, event: Event, now_s: float) -> list[Event]:
        """Take an event that was read, not told; it may have been told before, or be told again.

        As `take`, of an event that is certainly of this turn.
        """
        self.fold.fold(event)
        self._weigh(event, now_s)
        return self._deltas.sort(event)

    def is_of_this_turn(self, event: Event) -> bool:
        """Say whether an event belongs to this turn, or to one before it."""
        message = event.message_id if isinstance(event, PartEvent | MessageUpdated) else None
        self.has_begun = self.has_begun or message == self.message_id
        parent = event.parent_id if isinstance(event, MessageUpdated) else None
        return self.has_begun and self.owns(event.session_id, message, parent)

    def owns(self, session: str | None, message: str | None, parent: str | None = None) -> bool:
        """Say whether a message belongs to this turn.

        Its parent tells, or that its subagent is a new one.  Ids tell of the rest: they sort by
        time, unless a clock has been set back.
        """
        return (
            message is None
            or message >= self.message_id
            or self.message_id == parent
            or message in self.answers
            or session not in {self.root, *self.former}
        )

    def _weigh(self, event: Event, now_s: float) -> None:
        self._note(event)
        self.guard.check(event, cost_usd=lambda: self.fold.total_cost, now_s=now_s)

    def _note(self, event: Event) -> None:
        match event:
            case MessageUpdated(role="assistant", message_id=str(message)):
                if event.session_id == self.root:
                    self.answers.add(message)
                    self.model = event.model or self.model
                if event.is_complete:
                    self.complete.add(message)
                if event.agent and event.session_id:
                    self.agents[event.session_id] = event.agent
            case ToolPart(call_id=str(call), tool=tool):
                self.tools[call] = tool
            case SessionRetrying(session_id=session):
                self.retrying.add(session)
            case SessionBusy(session_id=session) | SessionIdle(session_id=session):
                self.retrying.discard(session)
