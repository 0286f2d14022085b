"""What the stored messages say of a turn.  They are the truth; the stream was the live view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opencode_trio._json import (
    Json,
    flag_of,
    number_of,
    object_of,
    objects_of,
    session_id_of,
    text_of,
    text_or_none_of,
    tokens_of,
)
from opencode_trio._reconcile import _following, answers_in, is_of_a_former_turn
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


def messages_of_turn(stored: Iterable[Json], message_id: str) -> list[Json]:
    """Pick the assistant messages of a turn out of its session's messages, in order.

    They answer the user's message, or one that opencode put in after it, for a compaction or to
    go on after one.  What another client of the server asked in between is none of it.  Their
    parents tell; ids sort by a clock that may be set back.

    Args:
        stored: messages as the server stores them, in order.
        message_id: the user's message.
    """
    stored = list(stored)
    ours = {message_id}
    compacted = False
    for message in _following(stored, message_id):
        info = object_of(message.get("info"))
        if text_of(info, "role") == "user":
            compacted = compacted or _has_compaction(message)
            # After a compaction that made room for a prompt, opencode stores that prompt again.
            if compacted or _is_put_in(message):
                ours.add(text_of(info, "id"))
    return [m for m in stored if text_of(object_of(m.get("info")), "parentID") in ours]


def has_message(stored: Iterable[Json], message_id: str) -> bool:
    """Say whether a message is among the stored ones."""
    return any(text_of(object_of(m.get("info")), "id") == message_id for m in stored)


def messages_since(stored: Iterable[Json], message_id: str) -> list[Json]:
    """Pick the assistant messages that a subagent wrote after the turn began.

    Args:
        stored: messages of a subagent that a former turn began, and this one may have woken: what
            is older was counted then.
        message_id: the user's message, which begins the turn.
    """
    return [m for m in answers_in(stored) if text_of(object_of(m.get("info")), "id") > message_id]


def broken_compactions(stored: Iterable[Json], message_id: str) -> list[str]:
    """Pick the messages that compactions began with, of those that were begun and not ended.

    Args:
        stored: messages as the server stores them.
        message_id: of those after this message only.
    """
    begun: list[str] = []
    for message in _following(list(stored), message_id):
        info = object_of(message.get("info"))
        if _has_compaction(message):
            begun.append(text_of(info, "id"))
        elif flag_of(info, "summary") and text_of(info, "finish"):
            begun = [identifier for identifier in begun if identifier != text_of(info, "parentID")]
    return begun


def is_whole_turn(answer: Json, message_id: str, known: set[str]) -> bool:
    """Say whether the answer is all that the session itself said in the turn.

    Args:
        answer: the message that the prompt was answered with.
        message_id: the user's message.
        known: the assistant messages that the stream told of.
    """
    info = object_of(answer.get("info"))
    return known == {text_of(info, "id")} and text_of(info, "parentID") == message_id


def is_cut_off(answer: Json, message_id: str) -> bool:
    """Say whether an answer is none, and there will be none.

    It is what a turn is answered with that was aborted in its first moments: a message that the
    agent had just begun (opencode 1.14), the prompt itself (since 1.15), or what the agent had said
    last before it.

    Args:
        answer: the message that the prompt was answered with.
        message_id: the user's message.
    """
    info = object_of(answer.get("info"))
    is_complete = "completed" in object_of(info.get("time"))
    return bool(info) and (not is_complete or is_of_a_former_turn(answer, message_id))


def _has_compaction(message: Json) -> bool:
    return any(text_of(p, "type") == "compaction" for p in objects_of(message.get("parts")))


def _is_put_in(message: Json) -> bool:
    texts = [p for p in objects_of(message.get("parts")) if text_of(p, "type") == "text"]
    return bool(texts) and all(flag_of(part, "synthetic") for part in texts)
