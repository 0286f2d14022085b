"""What an agent is doing, from its events."""

from __future__ import annotations

from typing import Any

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


def test_tools() -> None:
    activity = Activity()
    assert activity.take(ToolPart(part_id="prt_1", tool="bash", status="pending"))
    assert activity.take(
        ToolPart(part_id="prt_1", tool="bash", status="running", input={"command": "ls"})
    )
    assert activity.call == "bash: ls"
    assert activity.take(ToolPart(part_id="prt_2", tool="read", status="running"))
    assert activity.tool == "read"
    assert activity.take(ToolPart(part_id="prt_2", tool="read", status="error"))
    assert activity.tool == "bash"
    assert activity.take(TextPart(text="hm")) is False
    activity.clear()
    assert [activity.tool, activity.call] == [None, ""]


def test_the_phases_of_a_turn() -> None:
    activity = Activity()
    story: list[tuple[Event, str]] = [
        (TextPart(text="the prompt"), "idle"),
        (SessionBusy(session_id="ses_1"), "waiting"),
        (StepStarted(), "waiting"),
        (ReasoningPart(is_complete=False), "thinking"),
        (ReasoningDelta(delta="hm"), "thinking"),
        (ReasoningPart(text="hm"), "thinking"),
        (TextPart(is_complete=False), "writing"),
        (SessionBusy(session_id="ses_1"), "writing"),
        (TextDelta(delta="I look"), "writing"),
        (ToolPart(part_id="prt_1", tool="bash", status="pending"), "calling"),
        (ToolPart(part_id="prt_1", tool="bash", status="running"), "calling"),
        (ToolPart(part_id="prt_1", tool="bash", status="completed"), "waiting"),
        (StepFinished(reason="tool-calls"), "waiting"),
        (TextDelta(delta="It is"), "writing"),
        (StepFinished(reason="stop"), "writing"),
    ]
    for event, phase in story:
        activity.take(event)
        assert activity.phase == phase, event
    activity.clear()
    assert activity.phase == "idle"


@pytest.mark.parametrize(
    ("tool", "arguments", "title"),
    [
        ("bash", {"command": "wc -l a", "description": "Count"}, "bash: wc -l a"),
        ("read", {"filePath": "/a/long/way/to/src/module.py"}, "read: src/module.py"),
        ("glob", {"pattern": "**/*.py", "path": "/a"}, "glob: **/*.py"),
        ("task", {"description": "find tests", "prompt": "Find"}, "task: find tests"),
        ("todowrite", {"todos": []}, "todowrite"),
        ("bash", {"command": "echo \x1b[31m\nls"}, "bash: echo [31m ls"),
    ],
)
def test_what_a_tool_is_used_on(tool: str, arguments: dict[str, Any], title: str) -> None:
    activity = Activity()
    activity.take(ToolPart(part_id="prt_1", tool=tool, status="running", input=arguments))
    assert activity.call == title


def test_asks() -> None:
    activity = Activity()
    activity.take(PermissionAsked(request_id="per_1"))
    activity.take(PermissionAsked(request_id="per_1"))
    activity.take(QuestionAsked(request_id="que_1"))
    assert activity.asks == 2
    assert activity.asked == "a question"
    activity.take(PermissionReplied(request_id="per_1"))
    activity.take(QuestionRejected(request_id="que_1"))
    activity.take(QuestionRejected(request_id="que_1"))
    assert activity.asks == 0


def test_steps_and_retries() -> None:
    activity = Activity()
    assert activity.take(StepFinished())
    assert activity.take(SessionRetrying(session_id="ses_1"))
    later = SessionRetrying(session_id="ses_2", message="Overloaded", next_at_s=1e9)
    assert activity.take(later)
    assert activity.retry == later
    activity.take(SessionBusy(session_id="ses_1"))
    assert activity.is_retrying
    assert activity.take(SessionIdle(session_id="ses_2"))
    assert [activity.steps, activity.is_retrying, activity.retry] == [1, False, None]
