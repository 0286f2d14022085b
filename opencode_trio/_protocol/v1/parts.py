"""Parts of messages become events; the stream, stored messages and `run` carry the same parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from opencode_trio._json import (
    Json,
    flag_of,
    number_of,
    object_of,
    session_id_of,
    text_of,
    text_or_none_of,
    tokens_of,
)
from opencode_trio.events import (
    OtherPart,
    PartEvent,
    ReasoningPart,
    StepFinished,
    StepStarted,
    TextPart,
    ToolPart,
)


def part_ids(part: Json, record: Json) -> dict[str, Any]:
    return {
        "session_id": session_id_of(part, object_of(record.get("properties")), record),
        "raw": record,
        "message_id": text_or_none_of(part, "messageID"),
        "part_id": text_or_none_of(part, "id"),
    }


def _has_ended(part: Json) -> bool:
    # `run` prints a part once it is whole, and older releases without a time.
    return "end" in object_of(part["time"]) if "time" in part else bool(text_of(part, "text"))


def step_start(part: Json, record: Json) -> PartEvent:
    return StepStarted(**part_ids(part, record))


def step_finish(part: Json, record: Json) -> PartEvent:
    return StepFinished(
        **part_ids(part, record),
        reason=text_of(part, "reason") or "unknown",
        cost=number_of(part, "cost"),
        tokens=tokens_of(part.get("tokens")),
    )


def text_part(part: Json, record: Json) -> PartEvent:
    return TextPart(
        **part_ids(part, record),
        text=text_of(part, "text"),
        is_complete=_has_ended(part),
        is_synthetic=flag_of(part, "synthetic"),
        metadata=object_of(part.get("metadata")),
    )


def reasoning_part(part: Json, record: Json) -> PartEvent:
    return ReasoningPart(
        **part_ids(part, record), text=text_of(part, "text"), is_complete=_has_ended(part)
    )


def tool_part(part: Json, record: Json) -> PartEvent:
    state = object_of(part.get("state"))
    return ToolPart(
        **part_ids(part, record),
        tool=text_of(part, "tool"),
        call_id=text_or_none_of(part, "callID"),
        status=text_of(state, "status") or "pending",
        input=object_of(state.get("input")),
        output=text_or_none_of(state, "output"),
        error=text_or_none_of(state, "error"),
        title=text_or_none_of(state, "title"),
        metadata=object_of(state.get("metadata")),
        state=state,
        provider_executed=flag_of(object_of(part.get("metadata")), "providerExecuted"),
    )


def other_part(part: Json, record: Json) -> PartEvent:
    return OtherPart(**part_ids(part, record), part_type=text_of(part, "type"))


PARTS: Mapping[str, Callable[[Json, Json], PartEvent]] = {
    "step-start": step_start,
    "step-finish": step_finish,
    "text": text_part,
    "reasoning": reasoning_part,
    "tool": tool_part,
}


def part_event(part: Json, record: Json) -> PartEvent:
    """Translate a part; `record` is where it came from and stays in ``raw``."""
    return PARTS.get(text_of(part, "type"), other_part)(part, record)
