"""What came of a turn: `RunResult`, folded from events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeGuard

import attrs

from opencode_trio._bus_wire import bus_event, message_events
from opencode_trio._fold import TurnFold
from opencode_trio._json import Json, joined_text_of, object_of, objects_of
from opencode_trio._run_wire import TOOL_RECORDS, run_event
from opencode_trio._turn import StopReason
from opencode_trio._typevars import StructuredT_co
from opencode_trio.events import TokenUsage, ToolPart


@attrs.frozen(kw_only=True)
class Teardown:
    """How the processes of a run were ended."""

    terminated: int = 0
    """How many were still there when the run was over and were sent SIGTERM."""
    killed: int = 0
    """How many of those did not go within the grace and were sent SIGKILL."""
    survivors: tuple[int, ...] = ()
    """The pids that could not be ended (another user's, or stuck in the kernel)."""
    is_certain: bool = True
    """Whether nobody else can be left.  Not certain where there is no child subreaper (macOS),
    nor when somebody killed the process that keeps the family together."""


_NONE: Any = None  # as what no answer of any type can be


@attrs.frozen(kw_only=True)
class RunResult(Generic[StructuredT_co]):
    """The outcome of a turn, or of as much of it as has arrived.

    Generic over its structured answer: ``RunResult[Review]`` has a ``structured: Review``.
    """

    final_text: str = ""
    """The answer: the text of the last assistant message that has any.  Neither a compaction
    summary nor text that opencode itself put in counts."""
    text: str = ""
    """All the text of the turn's assistant messages, a newline between two messages."""
    stop_reason: StopReason | None = None
    """Why the turn ended; ``None`` while it goes on."""
    structured: StructuredT_co = _NONE
    """The structured answer; ``None`` if none was asked for."""
    session_id: str | None = None
    """The session the turn ran in."""
    turns: int = 0
    """How many steps the model finished: one request and its reply each."""
    tool_calls: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]], repr=False)
    """The tool calls as the wire tells them, each once, in its last state.  ``run`` and a server tell
    them differently; `tool_parts` reads the same."""
    tool_parts: tuple[ToolPart, ...] = attrs.field(default=(), repr=False)
    """The tool calls as events, each once, in its last state."""
    token_usage: TokenUsage = attrs.field(factory=TokenUsage)
    """Tokens of the whole session tree."""
    total_cost: float = 0.0
    """US dollars, of the whole session tree; 0 when opencode knows no price for the model."""
    cost_by_session: Mapping[str, float] = attrs.field(factory=dict[str, float], repr=False)
    """US dollars by session: the turn's own and those of its subagents."""
    duration_s: float | None = None
    """Seconds from the call to the end of the turn."""
    exit_code: int | None = None
    """The process's exit status, minus the signal's number if one ended it; ``None`` in a
    session.  No verdict: opencode exits with 0 on failures and with 1 on success."""
    stderr: str = attrs.field(default="", repr=False)
    """The end of what the process wrote to stderr, without colours."""
    events: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]], repr=False)
    """Every record as it came over the wire, unknown fields included."""
    raw_stdout_lines: list[str] = attrs.field(factory=list[str], repr=False)
    """Every line of the process's output; empty in a session."""
    teardown: Teardown | None = None
    """How the run's processes were ended; ``None`` before that, and in a session."""


def is_result(value: object) -> TypeGuard[RunResult]:
    """Tell a result from what else a function may return."""
    return isinstance(value, RunResult)


def aggregate_run_result(
    *,
    events: Sequence[Json],
    raw_stdout_lines: Sequence[str],
    exit_code: int | None,
    stderr: str,
) -> RunResult:
    """Fold the records that ``opencode run --format json`` printed into a result.

    Args:
        events: records as `parse_event_line` returns them.
        raw_stdout_lines: the lines they came from.
        exit_code: the process's exit status.
        stderr: what it wrote to stderr.
    """
    fold = TurnFold()
    for record in events:
        fold.add(run_event(record))
    return result_of(
        fold, raw_stdout_lines=list(raw_stdout_lines), exit_code=exit_code, stderr=stderr
    )


def aggregate_server_result(
    *,
    events: Sequence[Json],
    session_id: str | None,
    final_messages: Iterable[Json] | None = None,
    exit_code: int | None = 0,
    stderr: str = "",
) -> RunResult:
    """Fold the records of ``opencode serve``'s event stream into a result.

    Args:
        events: records of ``/event`` or ``/global/event``.
        session_id: the session whose text is the answer; costs are of every session seen.
        final_messages: the turn's stored messages (``GET /session/:id/message``), the oldest
            first; they replace, id by id, what the stream said.
        exit_code: passed on to the result.
        stderr: passed on to the result.
    """
    fold = TurnFold(session_id)
    for record in events:
        fold.add(bus_event(record))
    for message in objects_of(list(final_messages or ())):
        fold.replace(message_events(message))
    return result_of(fold, exit_code=exit_code, stderr=stderr)


def result_of(fold: TurnFold, **more: Any) -> RunResult:
    """Make a result of a fold; `more` are the fields that no event tells."""
    fields: dict[str, Any] = {
        "final_text": fold.final_text,
        "text": fold.text,
        "stop_reason": fold.stop_reason,
        "structured": fold.structured,
        "session_id": fold.root,
        "turns": fold.steps,
        "tool_calls": [_tool_record(part) for part in fold.tools.values()],
        "tool_parts": tuple(fold.tools.values()),
        "token_usage": fold.token_usage,
        "total_cost": fold.total_cost,
        "cost_by_session": fold.cost_by_session,
        "events": list(fold.records),
    }
    return RunResult(**(fields | more))


def _tool_record(event: ToolPart) -> Json:
    """Give a call of `run` as it was printed, one of a session in the same terms."""
    if event.raw.get("type") in TOOL_RECORDS:
        return event.raw
    return {
        "type": "tool",
        "tool": event.tool,
        "callID": event.call_id,
        "state": event.state,
        "id": event.part_id,
        "sessionID": event.session_id,
    }


def run_result_fuzzy_text(result: RunResult) -> str:
    """Find what a human would call the output, whatever shape the events have.

    The answer if there is one; else any text found in the events; else the raw lines.
    """
    if answer := result.final_text.strip():
        return answer
    found = [text for record in result.events for text in _texts_in(record)]
    return "\n".join(found or filter(None, map(str.strip, result.raw_stdout_lines)))


TEXT_KEYS = ("content", "text", "delta", "output", "message", "result", "value")
"""Where releases and forks have put text."""


def _texts_in(record: Json) -> list[str]:
    if record.get("type") == "diagnostic":
        return []
    nests = [record, object_of(record.get("part")), object_of(record.get("message"))]
    values = (nest[key] for nest in nests for key in TEXT_KEYS if key in nest)
    texts = (joined_text_of(value).strip() for value in values)
    return list(filter(None, dict.fromkeys(texts)))  # the same text under two keys is one
