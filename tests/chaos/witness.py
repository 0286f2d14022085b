"""A witness of one turn: what was told of it, and what was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs
import trio

from chaos.ends import HandlerError, ListenerError
from chaos.markers import markers_in
from chaos.plots import Plot
from opencode_trio import QuestionRequest, Reject
from opencode_trio.asks import AskRequest
from opencode_trio.events import (
    Event,
    PermissionAsked,
    QuestionAsked,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
    ToolPart,
)

SLOW_S = 0.8

Handler: TypeAlias = Callable[[AskRequest], Awaitable[Any]]


@attrs.define(eq=False)
class Witness:
    """Sees everything of a turn, and plays its handlers."""

    mark: str
    plot: Plot
    complain: Callable[[str], None]
    crash_at: int | None = None
    """The number of the event at which `on_event` crashes."""
    events: int = 0
    kinds: Counter[str] = attrs.field(factory=Counter)
    foreign: set[str] = attrs.field(factory=set)
    """Markers of other turns that were seen."""
    asks: int = 0
    is_over: bool = False

    def take(self, event: Event) -> None:
        """See an event, as `on_event` does."""
        self.see(event)
        self.events += 1
        if self.events == self.crash_at:
            raise ListenerError(self.mark)

    def see(self, event: Event) -> None:
        """See an event, out of a stream."""
        kind = type(event).__name__
        self.kinds[kind] += 1
        if self.is_over:
            self.complain(f"{self.mark}: told after its end: {kind}")
        self.foreign |= markers_in(*_texts(event)) - {self.mark}

    async def answer(self, request: AskRequest) -> Any:
        """Answer an ask, as a handler does."""
        self.asks += 1
        if not self.plot.asks:
            self.complain(f"{self.mark}: asked what nobody asks: {dict(request)}")
        if self.is_over:
            self.complain(f"{self.mark}: asked after its end: {request}")
        self.foreign |= markers_in(str(dict(request))) - {self.mark}
        return await HANDLERS[self.plot.handler](request)


async def _yes(request: AskRequest) -> Any:
    return [["one"]] * len(request.questions) if isinstance(request, QuestionRequest) else "once"


async def _slow_yes(request: AskRequest) -> Any:
    await trio.sleep(SLOW_S)
    return await _yes(request)


async def _no(request: AskRequest) -> Any:
    return None if isinstance(request, QuestionRequest) else "reject"


async def _why_not(_: AskRequest) -> Any:
    return Reject("there is a better way")


async def _never(_: AskRequest) -> Any:
    await trio.sleep_forever()


async def _crash(request: AskRequest) -> Any:
    raise HandlerError(request.request_id)


HANDLERS: Mapping[str, Handler] = {
    "yes": _yes,
    "slow yes": _slow_yes,
    "no": _no,
    "why not": _why_not,
    "never": _never,
    "crash": _crash,
}


BY_HAND: Mapping[str, Callable[[PermissionAsked | QuestionAsked], Any]] = {
    "yes": lambda ask: "once" if isinstance(ask, PermissionAsked) else [["one"]],
    "no": lambda ask: "reject" if isinstance(ask, PermissionAsked) else None,
    "why not": lambda _: Reject("there is a better way"),
}
"""What the reader of a stream answers."""


def _texts(event: Event) -> Iterator[str]:
    match event:
        case TextPart(text=text) | ReasoningPart(text=text):
            yield text
        case TextDelta(delta=text) | ReasoningDelta(delta=text):
            yield text
        case ToolPart(input=given, output=output, error=error):
            yield from (str(given), output or "", error or "")
        case _:
            return
