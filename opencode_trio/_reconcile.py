"""What the stored messages say of a turn.  They are the truth; the stream was the live view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opencode_trio._bus_wire import message_events
from opencode_trio._fold import TurnFold
from opencode_trio._json import Json, flag_of, object_of, objects_of, text_of


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


def _following(stored: list[Json], message_id: str) -> list[Json]:
    """Pick what comes after a message; if it is not among them, by their ids."""
    ids = [text_of(object_of(message.get("info")), "id") for message in stored]
    if message_id in ids:
        return stored[ids.index(message_id) + 1 :]
    return [m for m, identifier in zip(stored, ids, strict=True) if identifier > message_id]


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


def answers_in(stored: Iterable[Json]) -> list[Json]:
    """Pick the assistant messages."""
    return [m for m in stored if text_of(object_of(m.get("info")), "role") == "assistant"]


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


def is_of_a_former_turn(answer: Json, message_id: str) -> bool:
    """Say whether an answer answers another prompt than this one, or is the prompt itself."""
    info = object_of(answer.get("info"))
    return text_of(info, "id") <= message_id and text_of(info, "parentID") != message_id


def settle(fold: TurnFold, turn: Iterable[Json], subagents: Mapping[str, Iterable[Json]]) -> None:
    """Put what is stored of a turn in the place of what its stream told.

    Args:
        fold: of the stream.
        turn: the session's own messages of the turn.
        subagents: those of each subagent's session.
    """
    # The session's own come last, for the last word decides what the turn's end is called.
    for messages in (*subagents.values(), turn):
        for message in messages:
            fold.replace(message_events(message))


def _has_compaction(message: Json) -> bool:
    return any(text_of(p, "type") == "compaction" for p in objects_of(message.get("parts")))


def _is_put_in(message: Json) -> bool:
    texts = [p for p in objects_of(message.get("parts")) if text_of(p, "type") == "text"]
    return bool(texts) and all(flag_of(part, "synthetic") for part in texts)
