"""What an agent is doing, from its events."""

from __future__ import annotations

import pytest

from opencode_trio._turn.activity import Activity
from opencode_trio.events import (
    Event,
    PermissionAsked,
    PermissionReplied,
    QuestionAsked,
    QuestionRejected,
    ReasoningDelta,
    ReasoningPart,
    SessionBusy,
    SessionIdle,
    SessionRetrying,
    StepFinished,
    StepStarted,
    TextDelta,
    TextPart,
    ToolPart,
)

RUNNING = ToolPart(part_id="prt_1", tool="bash", status="running", input={"command": "echo hi"})
ENDED = ToolPart(part_id="prt_1", tool="bash", status="completed")


def test_tools() -> None:
    activity = Activity()
    assert activity.take(ToolPart(part_id="prt_1", tool="bash", status="pending")) is False
    assert activity.take(ToolPart(part_id="prt_1", tool="bash", status="running"))
    assert activity.take(ToolPart(part_id="prt_2", tool="read", status="running"))
    assert activity.tool == "read"
    assert activity.take(ToolPart(part_id="prt_2", tool="read", status="error"))
    assert activity.tool == "bash"
    activity.clear()
    assert activity.tool is None


@pytest.mark.parametrize(
    ("events", "doing"),
    [
        ([], ""),
        ([SessionBusy()], "waiting for model"),
        ([SessionBusy(), StepStarted()], "waiting for model"),
        ([StepStarted(), ReasoningDelta(delta="hm")], "thinking"),
        ([StepStarted(), ReasoningPart(text="hm"), TextDelta(delta="So")], "writing"),
        ([TextPart(text="So"), RUNNING], "bash: echo hi"),
        ([RUNNING, ToolPart(part_id="prt_2", tool="read", status="running")], "read"),
        ([TextPart(text="So"), RUNNING, ENDED], "writing"),
        ([RUNNING, ENDED, StepFinished(reason="tool-calls")], "waiting for model"),
    ],
)
def test_what_it_is_doing_at_any_time(events: list[Event], doing: str) -> None:
    activity = Activity()
    for event in events:
        activity.take(event)
    assert activity.doing == doing
    activity.clear()
    assert activity.doing == ""


def test_a_picture_changes_with_what_it_shows_only() -> None:
    activity = Activity()
    assert activity.take(TextDelta(delta="a"))
    assert activity.take(TextDelta(delta="b")) is False


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
