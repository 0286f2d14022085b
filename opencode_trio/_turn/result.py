"""Make a `RunResult` from the events of a turn, or from what was folded of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from opencode_trio._json import Json, joined_text_of, object_of, objects_of
from opencode_trio._protocol.v1.run_lines import TOOL_RECORDS, run_event
from opencode_trio._protocol.v1.stream_events import message_events, stream_event
from opencode_trio._turn.fold import TurnFold
from opencode_trio.events import ToolPart
from opencode_trio.results import RunResult


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
        fold.add(stream_event(record))
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
