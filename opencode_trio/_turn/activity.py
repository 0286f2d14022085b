"""What an agent is doing, as its events tell it."""

from __future__ import annotations

from typing import Literal

from opencode_trio._turn.titles import ask_title, call_title
from opencode_trio.events import (
    Event,
    PermissionAsked,
    PermissionReplied,
    QuestionAsked,
    QuestionRejected,
    QuestionReplied,
    ReasoningDelta,
    ReasoningPart,
    SessionBusy,
    SessionIdle,
    SessionRetrying,
    StepFinished,
    StepStarted,
    TextDelta,
    TextPart,
    ToolPart,
)

TurnPhase = Literal["idle", "waiting", "thinking", "writing", "calling"]
"""What the model is at: no turn is open; it was asked and has not answered yet; it thinks; it
writes text; it writes a tool call."""


class Activity:
    """The state of one session tree, for somebody to look at."""

    def __init__(self) -> None:
        self.steps: int = 0
        """Requests to the model that were finished."""
        self.phase: TurnPhase = "idle"
        """What the model is at that was heard of last: the agent's, or a subagent's."""
        self._tools: dict[str | None, ToolPart] = {}
        self._asks: dict[str, str] = {}
        self._retrying: dict[str | None, SessionRetrying] = {}

    @property
    def asks(self) -> int:
        """How many requests wait for a human."""
        return len(self._asks)

    @property
    def asked(self) -> str:
        """What is asked, by the request that came last."""
        return next(reversed(self._asks.values()), "")

    @property
    def tool(self) -> str | None:
        """The tool that runs; of several the one that began last."""
        return next((part.tool for part in reversed(self._tools.values())), None)

    @property
    def call(self) -> str:
        """That tool and what it is used on, its command say."""
        return next((call_title(part) for part in reversed(self._tools.values())), "")

    @property
    def retry(self) -> SessionRetrying | None:
        """What it waits for a provider for; of several the last."""
        return next(reversed(self._retrying.values()), None)

    @property
    def is_retrying(self) -> bool:
        """Whether it waits for a provider to try again."""
        return bool(self._retrying)

    def take(self, event: Event) -> bool:
        """Take an event; say whether it changed anything."""
        before = self._state()
        self._take(event)
        return before != self._state()

    def _state(self) -> tuple[object, ...]:
        return (self.steps, self.phase, [*self._tools], [*self._asks], self.retry)

    def clear(self, *, asked: bool = False) -> None:
        """Know that no turn is open; what the last did not tell the end of has ended, too.

        Args:
            asked: whether the model is asked at once.
        """
        self.phase = "waiting" if asked else "idle"
        self._tools.clear()
        self._asks.clear()
        self._retrying.clear()

    def _take(self, event: Event) -> None:
        self.phase = _phase_after(event, self.phase)
        match event:
            case StepFinished():
                self.steps += 1
            case ToolPart(part_id=part, status="running"):
                self._tools.setdefault(part, event)
            case ToolPart(part_id=part):
                self._tools.pop(part, None)
            case PermissionAsked(request_id=request) | QuestionAsked(request_id=request):
                self._asks[request] = ask_title(event)
            case (
                PermissionReplied(request_id=request)
                | QuestionReplied(request_id=request)
                | QuestionRejected(request_id=request)
            ):
                self._asks.pop(request, None)
            case SessionRetrying(session_id=session):
                self._retrying[session] = event
            case SessionBusy(session_id=session) | SessionIdle(session_id=session):
                self._retrying.pop(session, None)


def _phase_after(event: Event, phase: TurnPhase) -> TurnPhase:
    match event:
        case ReasoningDelta() | ReasoningPart(is_complete=False):
            return "thinking"
        case TextDelta() | TextPart(is_complete=False):
            return "writing"
        case ToolPart(status="pending"):
            return "calling"
        case StepStarted() | ToolPart(status="completed" | "error"):
            return "waiting"
        case SessionBusy() if phase == "idle":
            return "waiting"
    return phase
