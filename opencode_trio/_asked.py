"""Requests for permission and questions, made of the events that ask."""

from __future__ import annotations

from typing import Any

from opencode_trio._bus_wire import payload_of
from opencode_trio._json import object_of
from opencode_trio._live import LiveTurn
from opencode_trio._tree import SessionTree
from opencode_trio.asks import AskRequest, PermissionRequest, QuestionRequest
from opencode_trio.events import PermissionAsked, QuestionAsked


def request_of(
    event: PermissionAsked | QuestionAsked, turn: LiveTurn, tree: SessionTree
) -> AskRequest:
    """Make the request that a handler gets.

    Args:
        event: what asks.
        turn: what is known of the turn, which names agents and tools.
        tree: whose subagent is who.
    """
    if isinstance(event, QuestionAsked):
        return QuestionRequest(**_common(event, turn, tree), questions=event.questions)
    return PermissionRequest(
        **_common(event, turn, tree),
        tool=turn.tools.get(event.call_id or "") or event.permission,
        permission=event.permission,
        patterns=event.patterns,
        always=event.always,
        metadata=event.metadata,
    )


def _common(
    event: PermissionAsked | QuestionAsked, turn: LiveTurn, tree: SessionTree
) -> dict[str, Any]:
    session = event.session_id or ""
    return {
        "request_id": event.request_id,
        "session_id": session,
        "parent_id": None if session == turn.root else tree.parent_of(session),
        "depth": tree.depth(session, turn.root),
        "agent": turn.agents.get(session) or tree.agent_of(session),
        "raw": object_of(payload_of(event.raw).get("properties")),
    }
