"""What the stored messages say of a turn.  They are the truth; the stream was the live view."""

from __future__ import annotations

from collections.abc import Iterable

from opencode_trio._json import Json, object_of, text_of


def _following(stored: list[Json], message_id: str) -> list[Json]:
    """Pick what comes after a message; if it is not among them, by their ids."""
    ids = [text_of(object_of(message.get("info")), "id") for message in stored]
    if message_id in ids:
        return stored[ids.index(message_id) + 1 :]
    return [m for m, identifier in zip(stored, ids, strict=True) if identifier > message_id]


def answers_in(stored: Iterable[Json]) -> list[Json]:
    """Pick the assistant messages."""
    return [m for m in stored if text_of(object_of(m.get("info")), "role") == "assistant"]


def is_of_a_former_turn(answer: Json, message_id: str) -> bool:
    """Say whether an answer answers another prompt than this one, or is the prompt itself."""
    info = object_of(answer.get("info"))
    return text_of(info, "id") <= message_id and text_of(info, "parentID") != message_id
