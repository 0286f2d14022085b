"""What 1.x has stored of a turn.  It is the truth; the stream was the live view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opencode_trio._json import Json, flag_of, object_of, objects_of, text_of
from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.v1 import routes
from opencode_trio._protocol.v1.stream_events import message_events
from opencode_trio._protocol.values import Send
from opencode_trio.errors import OpenCodeServerError
from opencode_trio.events import Event

NOT_FOUND = 404

UNTOLD = 400
"""The status of a message that opencode has and cannot tell: from 1.15 on those that asked for a
structured answer, unless they are told among others that are not the session's whole story."""

SPARE_MESSAGES = 10
"""Read beyond those that a turn is known to have: what opencode itself puts in."""


async def has_message(send: Send, session_id: str, message_id: str) -> bool:
    """Say whether the server has a message."""
    try:
        await send(routes.message(session_id, message_id))
    except OpenCodeServerError as exc:
        if exc.status_code not in {NOT_FOUND, UNTOLD}:
            raise
        return exc.status_code == UNTOLD
    return True


async def turn_messages(
    send: Send, session_id: str, message_id: str, expected: int | None = None
) -> list[Sequence[Event]]:
    """Read a turn's own assistant messages, each as the events that would make it.

    Args:
        send: sends a call.
        session_id: the session.
        message_id: the user's message.
        expected: how many there are, as far as known; a long conversation is then not read from
            its beginning.
    """
    if expected is not None:
        stored = await newest_messages(send, session_id, 2 * expected + SPARE_MESSAGES)
        if is_among(stored, message_id):
            return list(map(message_events, messages_of_turn(stored, message_id)))
    stored = await newest_messages(send, session_id)
    return list(map(message_events, messages_of_turn(stored, message_id)))


async def subagent_messages(
    send: Send, session_id: str, since: str | None
) -> list[Sequence[Event]]:
    """Read what a subagent wrote, likewise.

    Args:
        send: sends a call.
        session_id: the subagent's session.
        since: the user's message that began the turn, if a former turn began the subagent.
    """
    stored = await newest_messages(send, session_id)
    written = answers_in(stored) if since is None else messages_since(stored, since)
    return list(map(message_events, written))


async def leftovers(send: Send, session_id: str, message_id: str, expected: int) -> list[Call[Any]]:
    """Find what a turn that failed has left for the next one to take up; return what deletes it.

    A compaction that was broken off is taken up again with the session's next prompt, which is
    then answered with what comes of it.
    """
    stored = await newest_messages(send, session_id, 2 * expected + SPARE_MESSAGES)
    broken = broken_compactions(stored, message_id)
    return [routes.delete_message(session_id, message) for message in broken]


async def newest_messages(send: Send, session_id: str, limit: int | None = None) -> list[Json]:
    """Read a session's newest messages, the oldest first, or as many of them as opencode can tell.

    Of a session that was asked for a structured answer that is all but the first; see `UNTOLD`.

    Args:
        send: sends a call, and may raise `OpenCodeServerError`.
        session_id: the session.
        limit: the most messages; ``None`` is all.
    """
    try:
        return await send(routes.messages(session_id, limit))
    except OpenCodeServerError as exc:
        if exc.status_code != UNTOLD:
            raise
    found: list[Json] = []
    more, grows = 1, True  # how many there are nobody tells: gallop until it is one too many
    while more:
        wanted = len(found) + more
        try:
            found = await send(routes.messages(session_id, wanted))
        except OpenCodeServerError as exc:
            if exc.status_code != UNTOLD:
                raise
            grows = False
        else:
            if len(found) < wanted:
                break  # all there are, now
        more = more * 2 if grows else more // 2
    return found


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


def is_among(stored: Iterable[Json], message_id: str) -> bool:
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


def _has_compaction(message: Json) -> bool:
    return any(text_of(p, "type") == "compaction" for p in objects_of(message.get("parts")))


def _is_put_in(message: Json) -> bool:
    texts = [p for p in objects_of(message.get("parts")) if text_of(p, "type") == "text"]
    return bool(texts) and all(flag_of(part, "synthetic") for part in texts)
