"""The requests of 1.x: constructors of calls, whose answers are read into shapes of ours.

``GET /doc`` of a server lists the routes.  Bodies leave out what is not given, so that opencode's
own defaults hold.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opencode_trio._json import Json, number_of, object_of, text_of, text_or_none_of
from opencode_trio._protocol.calls import (
    Call,
    a_flag,
    an_object,
    anything,
    objects,
)
from opencode_trio._protocol.v1.ids import checked_id
from opencode_trio._protocol.v1.stream_events import message_events, stream_event
from opencode_trio._protocol.values import Answer, Attachment, Command, Prompt, SessionRecord
from opencode_trio.config import split_model
from opencode_trio.events import Event

ALL_SESSIONS = 1_000_000
"""``GET /session`` gives 100 unless it is told how many."""


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


# --- the server --------------------------------------------------------------------------


def version() -> Call[str]:
    return Call("GET", "/global/health", lambda answer: text_of(an_object(answer), "version"))


def agents() -> Call[list[Json]]:
    return Call("GET", "/agent", objects)


def providers() -> Call[Json]:
    """Providers and models; a directory's first answer takes a second."""
    return Call("GET", "/config/providers", an_object)


def config() -> Call[Json]:
    return Call("GET", "/config", an_object)


def working() -> Call[Mapping[str, Event]]:
    """The sessions of a directory that are not idle, each with the event that tells its state."""
    return Call("GET", "/session/status", _states)


def _states(answer: object) -> Mapping[str, Event]:
    return {
        session: stream_event(_told("session.status", sessionID=session, status=state))
        for session, state in an_object(answer).items()
    }


def _told(kind: str, **properties: Any) -> Json:
    return {"type": kind, "properties": properties}


# --- sessions ----------------------------------------------------------------------------


def create_session(*, title: str | None = None, rules: Sequence[Json] = ()) -> Call[SessionRecord]:
    body = _given(title=title, permission=list(rules) or None)
    return Call("POST", "/session", session_record, body=body)


def session_record(answer: object) -> SessionRecord:
    """Read what a server has of a session."""
    record = an_object(answer)
    return SessionRecord(
        session_id=text_of(record, "id"),
        directory=text_of(record, "directory"),
        parent_id=text_or_none_of(record, "parentID"),
        agent=text_or_none_of(record, "agent"),
        raw=record,
    )


def list_sessions() -> Call[list[Json]]:
    return Call("GET", "/session", objects, query={"limit": str(ALL_SESSIONS)})


def _session(session_id: str, more: str = "") -> str:
    return f"/session/{checked_id('ses', session_id)}{more}"


def get_session(session_id: str) -> Call[SessionRecord]:
    return Call("GET", _session(session_id), session_record)


def add_rules(session_id: str, rules: Sequence[Json]) -> Call[SessionRecord]:
    """Append rules of permission; the last that matches wins, and none can be taken away."""
    body = {"permission": list(rules)}
    return Call("PATCH", _session(session_id), session_record, body=body)


def delete_session(session_id: str) -> Call[bool]:
    return Call("DELETE", _session(session_id), a_flag)


def delete_message(session_id: str, message_id: str) -> Call[bool]:
    """Delete a message, which a session that works does not allow."""
    path = _session(session_id, f"/message/{checked_id('msg', message_id)}")
    return Call("DELETE", path, a_flag)


def fork_session(session_id: str, message_id: str | None = None) -> Call[SessionRecord]:
    message = None if message_id is None else checked_id("msg", message_id)
    body = _given(messageID=message)
    return Call("POST", _session(session_id, "/fork"), session_record, body=body)


def children(session_id: str) -> Call[list[SessionRecord]]:
    def read(answer: object) -> list[SessionRecord]:
        return list(map(session_record, objects(answer)))

    return Call("GET", _session(session_id, "/children"), read)


def abort(session_id: str) -> Call[bool]:
    return Call("POST", _session(session_id, "/abort"), a_flag, does_no_harm_twice=True)


def todo(session_id: str) -> Call[list[Json]]:
    return Call("GET", _session(session_id, "/todo"), objects)


def diff(session_id: str, message_id: str | None = None) -> Call[list[Json]]:
    message = None if message_id is None else checked_id("msg", message_id)
    return Call("GET", _session(session_id, "/diff"), objects, query=_given(messageID=message))


def messages(session_id: str, limit: int | None = None) -> Call[list[Json]]:
    """Stored messages, the newest `limit` of them, the oldest first."""
    query = {} if limit is None else {"limit": str(limit)}
    return Call("GET", _session(session_id, "/message"), objects, query=query)


def message(session_id: str, message_id: str) -> Call[Json]:
    """A stored message."""
    path = _session(session_id, f"/message/{checked_id('msg', message_id)}")
    return Call("GET", path, an_object)


def revert(session_id: str, message_id: str, part_id: str | None = None) -> Call[Json]:
    part = None if part_id is None else checked_id("prt", part_id)
    body = _given(messageID=checked_id("msg", message_id), partID=part)
    return Call("POST", _session(session_id, "/revert"), an_object, body=body)


def unrevert(session_id: str) -> Call[Json]:
    return Call("POST", _session(session_id, "/unrevert"), an_object)


# --- work --------------------------------------------------------------------------------


def prompt(prompt: Prompt) -> Call[Answer]:
    """Ask the agent.  Without ``tools``: that field replaces the session's whole permissions."""
    parts = [{"type": "text", "text": prompt.text}, *map(_file_part, prompt.files)]
    body = _given(
        messageID=checked_id("msg", prompt.message_id),
        parts=parts,
        model=split_model(prompt.model) if prompt.model else None,
        agent=prompt.agent,
        variant=prompt.variant,
        system=prompt.system,
        format=None if prompt.schema is None else {"type": "json_schema", "schema": prompt.schema},
    )
    path = _session(prompt.session_id, "/message")
    return Call("POST", path, _answer_to(prompt.message_id), body=body, waits_for_agent=True)


def _file_part(file: Attachment) -> Json:
    content = base64.b64encode(file.data).decode("ascii")
    url = f"data:{file.media_type};base64,{content}"
    return _given(type="file", mime=file.media_type, url=url, filename=file.filename or None)


def command(command: Command) -> Call[Answer]:
    """Run one of opencode's slash commands.  Here the model is one string, unlike in `prompt`."""
    body = _given(
        messageID=checked_id("msg", command.message_id),
        command=command.name,
        arguments=command.arguments,
        model=command.model,
        agent=command.agent,
        variant=command.variant,
    )
    path = _session(command.session_id, "/command")
    return Call("POST", path, _answer_to(command.message_id), body=body, waits_for_agent=True)


def note(session_id: str, *, message_id: str, text: str, model: str | None) -> Call[Any]:
    """Store a message that the agent does not answer."""
    body = _given(
        messageID=checked_id("msg", message_id),
        parts=[{"type": "text", "text": text}],
        model=split_model(model) if model else None,
        noReply=True,
    )
    return Call("POST", _session(session_id, "/message"), anything, body=body, waits_for_agent=True)


def _answer_to(message_id: str) -> Callable[[object], Answer]:
    """Read what a prompt is answered with: the agent's last message.

    A turn that was aborted in its first moments has none of its own.  It is answered with a message
    that the agent had just begun (opencode 1.14), the prompt itself (since 1.15), or what the agent
    had said last before it.
    """

    def read(answer: object) -> Answer:
        message = an_object(answer)
        info = object_of(message.get("info"))
        parent = text_of(info, "parentID")
        is_former = text_of(info, "id") <= message_id and parent != message_id
        times = object_of(info.get("time"))
        return Answer(
            message_id="" if is_former else text_of(info, "id"),
            is_of_former_turn=bool(info) and is_former,
            created_ms=number_of(times, "created"),
            is_cut_off=bool(info) and ("completed" not in times or is_former),
            replies_to_prompt=parent == message_id,
            events=message_events(message),
        )

    return read


DEFAULT_AGENT = "build"
"""opencode's own default, unless its configuration names another."""


def shell(
    session_id: str, *, command: str, agent: str | None, model: str | None = None
) -> Call[Json]:
    body = _given(
        command=command, agent=agent or DEFAULT_AGENT, model=split_model(model) if model else None
    )
    path = _session(session_id, "/shell")
    return Call("POST", path, an_object, body=body, waits_for_agent=True)


def summarize(session_id: str, *, model: str) -> Call[bool]:
    path = _session(session_id, "/summarize")
    return Call("POST", path, a_flag, body=split_model(model), waits_for_agent=True)


# --- questions to the user ---------------------------------------------------------------


def open_asks() -> Sequence[Call[list[Event]]]:
    """What waits for an answer in a directory, as the events that told it."""
    return (
        Call("GET", "/permission", _asks("permission.asked")),
        Call("GET", "/question", _asks("question.asked")),
    )


def _asks(kind: str) -> Callable[[object], list[Event]]:
    return lambda answer: [stream_event(_told(kind, **ask)) for ask in objects(answer)]


def reply_permission(
    session_id: str, request_id: str, reply: str, message: str | None = None
) -> Call[Any]:
    del session_id  # the directory is enough
    path = f"/permission/{checked_id('per', request_id)}/reply"
    body = _given(reply=reply, message=message)
    return Call("POST", path, anything, body=body, does_no_harm_twice=True)


def reply_question(session_id: str, request_id: str, answers: Sequence[Sequence[str]]) -> Call[Any]:
    del session_id  # as above
    path = f"/question/{checked_id('que', request_id)}/reply"
    body = {"answers": [list(labels) for labels in answers]}
    return Call("POST", path, anything, body=body, does_no_harm_twice=True)


def reject_question(session_id: str, request_id: str) -> Call[Any]:
    del session_id  # as above
    path = f"/question/{checked_id('que', request_id)}/reject"
    return Call("POST", path, anything, does_no_harm_twice=True)
