"""What an agent is doing, as its events tell it."""

from __future__ import annotations

import re
from collections.abc import Mapping

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

MAX_TITLE = 160
"""Characters: what a tooltip shows well."""


TELLING = ("command", "filePath", "path", "pattern", "url", "query", "description", "name")
"""Arguments of tools that say most about a call, the best first."""


UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")
"""What XML forbids, a terminal would obey, or breaks lines."""


def one_line(text: str, most: int = MAX_TITLE) -> str:
    """Return the text, fit for a terminal, for XML, and for one line of so many characters."""
    text = " ".join(UNPRINTABLE.sub(" ", text[: 2 * most]).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def call_title(event: ToolPart) -> str:
    """Return what a tool call does."""
    what = event.title or next(
        (value for name in TELLING if isinstance(value := event.input.get(name), str) and value), ""
    )
    return one_line(": ".join(filter(None, [event.tool, what])))


WAITING, THINKING, WRITING = "waiting for model", "thinking", "writing"
PHASES: Mapping[type[Event], str] = {
    SessionBusy: WAITING,
    StepStarted: WAITING,
    StepFinished: WAITING,
    ReasoningDelta: THINKING,
    ReasoningPart: THINKING,
    TextDelta: WRITING,
    TextPart: WRITING,
}
"""What a turn is at after an event, while no tool runs."""


class Activity:
    """The state of one session tree, for somebody to look at."""

    def __init__(self) -> None:
        self.steps: int = 0
        """Requests to the model that were finished."""
        self._tools: dict[str | None, str] = {}
        self._titles: dict[str | None, str] = {}
        self._phase = ""
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
    def doing(self) -> str:
        """What it is doing, in a few words: the tool that runs, or what the model does."""
        return next(reversed(self._titles.values()), self._phase)

    @property
    def is_retrying(self) -> bool:
        """Whether it waits for a provider to try again."""
        return bool(self._retrying)

    def take(self, event: Event) -> bool:
        """Take an event; say whether it changed anything."""
        before = self._state()
        self._take(event)
        return before != self._state()

    def clear(self) -> None:
        """Know that the turn is over; what it did not tell the end of has ended, too."""
        self._tools.clear()
        self._titles.clear()
        self._phase = ""
        self._asks.clear()
        self._retrying.clear()

    def _state(self) -> tuple[object, ...]:
        return self.steps, self.tool, self.doing, self.asks, self.is_retrying

    def _take(self, event: Event) -> None:
        self._phase = PHASES.get(type(event), self._phase)
        match event:
            case StepFinished():
                self.steps += 1
            case ToolPart(part_id=part, status="running"):
                self._tools.setdefault(part, event.tool)
                self._titles[part] = call_title(event)
            case ToolPart(part_id=part):
                self._tools.pop(part, None)
                self._titles.pop(part, None)
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
