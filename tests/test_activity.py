"""What an agent is doing, from its events."""

from __future__ import annotations

from opencode_trio._turn.activity import Activity
from opencode_trio.events import (
    PermissionAsked,
    PermissionReplied,
    QuestionAsked,
    QuestionRejected,
    SessionBusy,
    SessionIdle,
    SessionRetrying,
    StepFinished,
    TextPart,
    ToolPart,
)


def test_tools() -> None:
    activity = Activity()
    assert activity.take(ToolPart(part_id="prt_1", tool="bash", status="pending")) is False
    assert activity.take(ToolPart(part_id="prt_1", tool="bash", status="running"))
    assert activity.take(ToolPart(part_id="prt_2", tool="read", status="running"))
    assert activity.tool == "read"
    assert activity.take(ToolPart(part_id="prt_2", tool="read", status="error"))
    assert activity.tool == "bash"
    assert activity.take(TextPart(text="hm")) is False
    activity.clear()
    assert activity.tool is None


def test_asks() -> None:
    activity = Activity()
    activity.take(PermissionAsked(request_id="per_1"))
    activity.take(PermissionAsked(request_id="per_1"))
    activity.take(QuestionAsked(request_id="que_1"))
    assert activity.asks == 2
    activity.take(PermissionReplied(request_id="per_1"))
    activity.take(QuestionRejected(request_id="que_1"))
    activity.take(QuestionRejected(request_id="que_1"))
    assert activity.asks == 0


def test_steps_and_retries() -> None:
    activity = Activity()
    assert activity.take(StepFinished())
    assert activity.take(SessionRetrying(session_id="ses_1"))
    assert activity.take(SessionRetrying(session_id="ses_2")) is False
    assert activity.take(SessionBusy(session_id="ses_1")) is False
    assert activity.is_retrying
    assert activity.take(SessionIdle(session_id="ses_2"))
    assert (activity.steps, activity.is_retrying) == (1, False)
