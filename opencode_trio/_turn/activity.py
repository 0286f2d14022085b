"""What an agent is doing, as its events tell it."""

from __future__ import annotations

from opencode_trio.events import (
    Event,
    PermissionAsked,
    PermissionReplied,
    QuestionAsked,
    QuestionRejected,
    QuestionReplied,
    SessionBusy,
    SessionIdle,
    SessionRetrying,
    StepFinished,
    ToolPart,
)


class Activity:
    """The state of one session tree, for somebody to look at."""

    def __init__(self) -> None:
        self.steps: int = 0
        """Requests to the model that were finished."""
        self._tools: dict[str | None, str] = {}
        self._asks: set[str] = set()
        self._retrying: set[str | None] = set()

    @property
    def asks(self) -> int:
        """How many requests wait for a human."""
        return len(self._asks)

    @property
    def tool(self) -> str | None:
        """The tool that runs; of several the one that began last."""
        return next(reversed(self._tools.values()), None)

    @property
    def is_retrying(self) -> bool:
        """Whether it waits for a provider to try again."""
        return bool(self._retrying)

    def take(self, event: Event) -> bool:
        """Take an event; say whether it changed anything."""
        before = (self.steps, self.tool, self.asks, self.is_retrying)
        self._take(event)
        return before != (self.steps, self.tool, self.asks, self.is_retrying)

    def clear(self) -> None:
        """Know that the turn is over; what it did not tell the end of has ended, too."""
        self._tools.clear()
        self._asks.clear()
        self._retrying.clear()

    def _take(self, event: Event) -> None:
        match event:
            case StepFinished():
                self.steps += 1
            case ToolPart(part_id=part, status="running"):
                self._tools.setdefault(part, event.tool)
            case ToolPart(part_id=part):
                self._tools.pop(part, None)
            case PermissionAsked(request_id=request) | QuestionAsked(request_id=request):
                self._asks.add(request)
            case (
                PermissionReplied(request_id=request)
                | QuestionReplied(request_id=request)
                | QuestionRejected(request_id=request)
            ):
                self._asks.discard(request)
            case SessionRetrying(session_id=session):
                self._retrying.add(session)
            case SessionBusy(session_id=session) | SessionIdle(session_id=session):
                self._retrying.discard(session)
