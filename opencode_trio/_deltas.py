"""What the pieces of a stream are pieces of.

A delta names its part but not the part's kind, and may come before the part does.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from opencode_trio.events import (
    Event,
    PartEvent,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
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
