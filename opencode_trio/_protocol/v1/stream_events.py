"""Records of the event stream, and stored messages, become events.

``/event`` sends ``{"id", "type", "properties"}``; ``/global/event`` wraps the same in
``{"directory", "payload"}``.  Nothing here fails: a type that the table does not have becomes
`UnknownEvent`, and the record itself stays in ``Event.raw``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from opencode_trio._json import (
    Json,
    error_info_of,
    flag_of,
    list_of,
    number_of,
    object_of,
    objects_of,
    session_id_of,
    text_of,
    text_or_none_of,
    texts_of,
    tokens_of,
)
from opencode_trio._protocol.v1.parts import part_event
from opencode_trio.events import (
    ErrorReported,
    Event,
    InstanceDisposed,
    MessageUpdated,
    PartEvent,
    PermissionAsked,
    PermissionReplied,
    Question,
    QuestionAsked,
    QuestionOption,
    QuestionRejected,
    QuestionReplied,
    ServerConnected,
    ServerHeartbeat,
    SessionBusy,
    SessionCompacted,
    SessionCreated,
    SessionDeleted,
    SessionIdle,
    SessionInfoEvent,
    SessionRetrying,
    SessionUpdated,
    TextDelta,
    TodoUpdated,
    UnknownEvent,
)

Builder: TypeAlias = Callable[[Json, Json], Event]
"""Builds an event from its properties and the whole record."""


def route() -> str:
    """Name the stream of all directories and sessions; it sends a heartbeat every 10 s."""
    return "/global/event"


def read_record(record: Json) -> Sequence[Event]:
    """Translate a record of the stream into the events that it tells."""
    event = stream_event(record)
    if isinstance(event, UnknownEvent) and event.type == "sync":
        return ()  # the same event again, for replicas
    return (event,)


def stream_event(record: Json) -> Event:
    """Translate a record, in the envelope of ``/global/event`` or bare."""
    payload = _payload_of(record)
    properties = object_of(payload.get("properties"))
    kind = text_of(payload, "type")
    if build := STREAM_EVENTS.get(kind):
        return build(properties, record)
    return UnknownEvent(session_id=session_id_of(properties), raw=record, type=kind)


def server_id(event: Event) -> str:
    """Return the id that the server gave an event; it holds the server's time."""
    return text_of(_payload_of(event.raw), "id")


def details(event: Event) -> Json:
    """Return the fields of an event as the server sent them."""
    return object_of(_payload_of(event.raw).get("properties"))


def _payload_of(record: Json) -> Json:
    return object_of(record.get("payload")) or record


def message_events(message: Json) -> Sequence[PartEvent | MessageUpdated]:
    """Translate a stored message, ``{"info", "parts"}``, into the events that would make it.

    The message's own record is the last of them.
    """
    parts = [part_event(part, message) for part in objects_of(message.get("parts"))]
    return [*parts, _message_updated(message, message)]


def _session_event(kind: type[Event]) -> Builder:
    """Build an event that has nothing but its session."""
    return lambda props, record: kind(session_id=session_id_of(props), raw=record)


def _session_info_event(kind: type[SessionInfoEvent]) -> Builder:
    """Build an event that carries the session's record."""

    def build(props: Json, record: Json) -> Event:
        info = object_of(props.get("info"))
        return kind(
            session_id=session_id_of(props) or text_or_none_of(info, "id"),
            raw=record,
            parent_id=text_or_none_of(info, "parentID"),
            title=text_or_none_of(info, "title"),
            agent=text_or_none_of(info, "agent"),
            directory=text_or_none_of(info, "directory"),
        )

    return build


def _session_status(props: Json, record: Json) -> Event:
    status = object_of(props.get("status"))
    build = SESSION_STATES.get(text_of(status, "type"))
    if build is None:
        return UnknownEvent(session_id=session_id_of(props), raw=record, type="session.status")
    return build(props, record)


def _session_retrying(props: Json, record: Json) -> Event:
    status = object_of(props.get("status"))
    return SessionRetrying(
        session_id=session_id_of(props),
        raw=record,
        attempt=int(number_of(status, "attempt")),
        message=text_of(status, "message"),
        next_at_s=number_of(status, "next") / 1000,
    )


SESSION_STATES: Mapping[str, Builder] = {
    "busy": _session_event(SessionBusy),
    "idle": _session_event(SessionIdle),
    "retry": _session_retrying,
}


def _session_error(props: Json, record: Json) -> Event:
    return ErrorReported(
        session_id=session_id_of(props), raw=record, error=error_info_of(props.get("error"))
    )


def _message_updated(props: Json, record: Json) -> MessageUpdated:
    info = object_of(props.get("info"))
    model = object_of(info.get("model")) or info  # user messages nest it, assistants do not
    provider, model_id = text_of(model, "providerID"), text_of(model, "modelID")
    return MessageUpdated(
        session_id=session_id_of(props, info),
        raw=record,
        message_id=text_or_none_of(info, "id"),
        role=text_of(info, "role"),
        parent_id=text_or_none_of(info, "parentID"),
        cost=number_of(info, "cost"),
        tokens=tokens_of(info.get("tokens")),
        finish=text_or_none_of(info, "finish"),
        is_complete="completed" in object_of(info.get("time")),
        is_summary=flag_of(info, "summary"),
        error=error_info_of(info["error"]) if isinstance(info.get("error"), dict) else None,
        agent=text_or_none_of(info, "agent"),
        model=f"{provider}/{model_id}" if model_id else None,
        structured=info.get("structured"),
    )


def _part_updated(props: Json, record: Json) -> Event:
    return part_event(object_of(props.get("part")), record)


def _part_delta(props: Json, record: Json) -> Event:
    # The wire does not say whether the part is text or thinking; who knows the part does.
    if text_of(props, "field") != "text":
        return UnknownEvent(session_id=session_id_of(props), raw=record, type="message.part.delta")
    return TextDelta(
        session_id=session_id_of(props),
        raw=record,
        message_id=text_or_none_of(props, "messageID"),
        part_id=text_or_none_of(props, "partID"),
        delta=text_of(props, "delta"),
    )


def _permission_asked(props: Json, record: Json) -> Event:
    tool = object_of(props.get("tool"))
    return PermissionAsked(
        session_id=session_id_of(props),
        raw=record,
        request_id=text_of(props, "id"),
        permission=text_of(props, "permission"),
        patterns=texts_of(props.get("patterns")),
        metadata=object_of(props.get("metadata")),
        always=texts_of(props.get("always")),
        message_id=text_or_none_of(tool, "messageID"),
        call_id=text_or_none_of(tool, "callID"),
    )


def _permission_replied(props: Json, record: Json) -> Event:
    return PermissionReplied(
        session_id=session_id_of(props),
        raw=record,
        request_id=text_of(props, "requestID"),
        reply=text_of(props, "reply"),
    )


def _question(value: Json) -> Question:
    return Question(
        question=text_of(value, "question"),
        header=text_of(value, "header"),
        options=tuple(
            QuestionOption(text_of(option, "label"), text_of(option, "description"))
            for option in objects_of(value.get("options"))
        ),
        multiple=flag_of(value, "multiple"),
        custom=flag_of(value, "custom", default=True),
    )


def _question_asked(props: Json, record: Json) -> Event:
    tool = object_of(props.get("tool"))
    return QuestionAsked(
        session_id=session_id_of(props),
        raw=record,
        request_id=text_of(props, "id"),
        questions=tuple(map(_question, objects_of(props.get("questions")))),
        message_id=text_or_none_of(tool, "messageID"),
        call_id=text_or_none_of(tool, "callID"),
    )


def _question_replied(props: Json, record: Json) -> Event:
    return QuestionReplied(
        session_id=session_id_of(props),
        raw=record,
        request_id=text_of(props, "requestID"),
        answers=tuple(map(texts_of, list_of(props.get("answers")))),
    )


def _question_rejected(props: Json, record: Json) -> Event:
    return QuestionRejected(
        session_id=session_id_of(props), raw=record, request_id=text_of(props, "requestID")
    )


def _todo_updated(props: Json, record: Json) -> Event:
    todos = tuple(objects_of(props.get("todos")))
    return TodoUpdated(session_id=session_id_of(props), raw=record, todos=todos)


def _disposed(props: Json, record: Json) -> Event:
    return InstanceDisposed(raw=record, directory=text_or_none_of(props, "directory"))


STREAM_EVENTS: Mapping[str, Builder] = {
    "server.connected": _session_event(ServerConnected),
    "server.heartbeat": _session_event(ServerHeartbeat),
    "server.instance.disposed": _disposed,
    "global.disposed": _disposed,
    "session.created": _session_info_event(SessionCreated),
    "session.updated": _session_info_event(SessionUpdated),
    "session.deleted": _session_info_event(SessionDeleted),
    # `session.idle` only repeats what `session.status` said; it stays unknown, or a turn would
    # seem to end twice as often as it does.
    "session.status": _session_status,
    "session.error": _session_error,
    "session.compacted": _session_event(SessionCompacted),
    "message.updated": _message_updated,
    "message.part.updated": _part_updated,
    "message.part.delta": _part_delta,
    "permission.asked": _permission_asked,
    "permission.updated": _permission_asked,  # its name in some releases
    "permission.replied": _permission_replied,
    "question.asked": _question_asked,
    "question.replied": _question_replied,
    "question.rejected": _question_rejected,
    "todo.updated": _todo_updated,
}
