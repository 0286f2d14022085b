"""The calls of opencode's HTTP interface, as values: what to send, and how to read the answer.

Constructors only; `_http` sends them.  The routes are those of 1.x (``GET /doc`` of a server lists
them).  Bodies leave out what is not given, so that opencode's own defaults hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opencode_trio._json import Json
from opencode_trio._protocol.calls import Call, a_flag, an_object, anything, objects
from opencode_trio._protocol.v1.ids import checked_id
from opencode_trio.config import split_model

ALL_SESSIONS = 1_000_000
"""``GET /session`` gives 100 unless it is told how many."""


def _given(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


# --- the server --------------------------------------------------------------------------


def health() -> Call[Json]:
    return Call("GET", "/global/health", an_object)


def info() -> Call[Json]:
    """The version of a 2.x server; 1.x has no such route."""
    return Call("GET", "/api/info", an_object)


def agents() -> Call[list[Json]]:
    return Call("GET", "/agent", objects)


def providers() -> Call[Json]:
    """Providers and models; a directory's first answer takes a second."""
    return Call("GET", "/config/providers", an_object)


def config() -> Call[Json]:
    return Call("GET", "/config", an_object)


def statuses() -> Call[Json]:
    """States by session id, of one directory; whoever is not in it is idle."""
    return Call("GET", "/session/status", an_object)


# --- sessions ----------------------------------------------------------------------------


def create_session(
    *, title: str | None = None, permission: Sequence[Json] | None = None
) -> Call[Json]:
    rules = list(permission) if permission else None
    return Call("POST", "/session", an_object, body=_given(title=title, permission=rules))


def list_sessions() -> Call[list[Json]]:
    return Call("GET", "/session", objects, query={"limit": str(ALL_SESSIONS)})


def _session(session_id: str, more: str = "") -> str:
    return f"/session/{checked_id('ses', session_id)}{more}"


def get_session(session_id: str) -> Call[Json]:
    return Call("GET", _session(session_id), an_object)


def add_rules(session_id: str, permission: Sequence[Json]) -> Call[Json]:
    """Append rules of permission; the last that matches wins, and none can be taken away."""
    body = {"permission": list(permission)}
    return Call("PATCH", _session(session_id), an_object, body=body)


def delete_session(session_id: str) -> Call[bool]:
    return Call("DELETE", _session(session_id), a_flag)


def delete_message(session_id: str, message_id: str) -> Call[bool]:
    """Delete a message, which a session that works does not allow."""
    path = _session(session_id, f"/message/{checked_id('msg', message_id)}")
    return Call("DELETE", path, a_flag)


def fork_session(session_id: str, message_id: str | None = None) -> Call[Json]:
    message = None if message_id is None else checked_id("msg", message_id)
    return Call("POST", _session(session_id, "/fork"), an_object, body=_given(messageID=message))


def children(session_id: str) -> Call[list[Json]]:
    return Call("GET", _session(session_id, "/children"), objects)


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


def prompt(
    session_id: str,
    *,
    message_id: str,
    parts: Sequence[Json],
    model: str | None = None,
    agent: str | None = None,
    variant: str | None = None,
    system: str | None = None,
    schema: Json | None = None,
    no_reply: bool | None = None,
) -> Call[Json]:
    """Ask the agent.  Without ``tools``: that field replaces the session's whole permissions."""
    body = _given(
        messageID=checked_id("msg", message_id),
        parts=list(parts),
        model=split_model(model) if model else None,
        agent=agent,
        variant=variant,
        system=system,
        format={"type": "json_schema", "schema": schema} if schema is not None else None,
        noReply=no_reply,
    )
    path = _session(session_id, "/message")
    return Call("POST", path, an_object, body=body, waits_for_agent=True)


def command(
    session_id: str,
    *,
    message_id: str,
    name: str,
    arguments: str,
    model: str | None = None,
    agent: str | None = None,
    variant: str | None = None,
) -> Call[Json]:
    """Run one of opencode's slash commands.  Here the model is one string, unlike in `prompt`."""
    body = _given(
        messageID=checked_id("msg", message_id),
        command=name,
        arguments=arguments,
        model=model,
        agent=agent,
        variant=variant,
    )
    path = _session(session_id, "/command")
    return Call("POST", path, an_object, body=body, waits_for_agent=True)


def shell(session_id: str, *, command: str, agent: str, model: str | None = None) -> Call[Json]:
    body = _given(command=command, agent=agent, model=split_model(model) if model else None)
    path = _session(session_id, "/shell")
    return Call("POST", path, an_object, body=body, waits_for_agent=True)


def summarize(session_id: str, *, model: str) -> Call[bool]:
    path = _session(session_id, "/summarize")
    return Call("POST", path, a_flag, body=split_model(model), waits_for_agent=True)


# --- questions to the user ---------------------------------------------------------------


def permissions() -> Call[list[Json]]:
    return Call("GET", "/permission", objects)


def reply_permission(request_id: str, reply: str, message: str | None = None) -> Call[Any]:
    path = f"/permission/{checked_id('per', request_id)}/reply"
    body = _given(reply=reply, message=message)
    return Call("POST", path, anything, body=body, does_no_harm_twice=True)


def questions() -> Call[list[Json]]:
    return Call("GET", "/question", objects)


def reply_question(request_id: str, answers: Sequence[Sequence[str]]) -> Call[Any]:
    path = f"/question/{checked_id('que', request_id)}/reply"
    body = {"answers": [list(labels) for labels in answers]}
    return Call("POST", path, anything, body=body, does_no_harm_twice=True)


def reject_question(request_id: str) -> Call[Any]:
    path = f"/question/{checked_id('que', request_id)}/reject"
    return Call("POST", path, anything, does_no_harm_twice=True)
