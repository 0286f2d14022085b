"""Lines of ``opencode run --format json`` become events: one record a line.

A record is ``{"type", "timestamp", "sessionID", ...}``.  Nothing here fails: a type that the
table does not have becomes `UnknownEvent`, and the record itself stays in ``Event.raw``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TypeAlias

from opencode_trio._json import (
    Json,
    error_info_of,
    is_object,
    joined_text_of,
    object_of,
    session_id_of,
    text_of,
)
from opencode_trio._protocol.v1.parts import (
    reasoning_part,
    step_finish,
    step_start,
    text_part,
    tool_part,
)
from opencode_trio.events import Diagnostic, ErrorReported, Event, PartEvent, UnknownEvent

Builder: TypeAlias = Callable[[Json], Event]


def parse_event_line(line: str) -> Json:
    """Parse one line of ``opencode run --format json`` into a record.

    A line that is no JSON object becomes a record of type ``diagnostic``, so that a stray
    print of a plugin never breaks a stream.  What a plugin prints without a newline stands before
    a record, on the same line; the record is what counts.
    """
    text = line.strip(" \t\r\n")
    if not text:
        return {"type": "diagnostic", "kind": "empty_line", "raw": line}
    try:
        value = json.loads(text)
    # ValueError: not JSON, or an integer longer than Python will read.  RecursionError:
    # nesting deeper than Python will follow.
    except (ValueError, RecursionError) as exc:
        unread = {"type": "diagnostic", "kind": "json_decode_error", "raw": text, "error": str(exc)}
        return _record_behind(text) or unread
    if is_object(value):
        return value
    return {"type": "diagnostic", "kind": "non_object_json", "value": value, "raw": text}


_BEGINNING = re.compile(r'\{"type":"')
"""How opencode begins each record that it prints."""

MAX_BEGINNINGS = 20
"""A record may hold others, as text; the first that reads to the end of the line is the whole."""


def _record_behind(text: str) -> Json | None:
    for found in islice(_BEGINNING.finditer(text), MAX_BEGINNINGS):
        with suppress(ValueError, RecursionError):
            record = json.loads(text[found.start() :])
            if is_object(record):
                return record
    return None


def run_event(record: Json) -> Event:
    """Translate a record."""
    return RUN_EVENTS.get(text_of(record, "type"), _unknown)(record)


def _part(record: Json) -> Json:
    # Very old releases print the part without an envelope.
    return object_of(record.get("part")) or record


def _printed(build: Callable[[Json, Json], PartEvent]) -> Builder:
    return lambda record: build(_part(record), record)


def _text(record: Json) -> Event:
    part = _part(record)
    texts = (joined_text_of(part.get(key)) for key in ("text", "content", "delta"))
    return text_part({**part, "text": next(filter(None, texts), "")}, record)


def _error(record: Json) -> Event:
    error = error_info_of(record.get("error"))
    return ErrorReported(session_id=session_id_of(record), raw=record, error=error)


def _diagnostic(record: Json) -> Event:
    return Diagnostic(raw=record, kind=text_of(record, "kind"), text=text_of(record, "raw"))


def _unknown(record: Json) -> Event:
    return UnknownEvent(session_id=session_id_of(record), raw=record, type=text_of(record, "type"))


# Only the first of each is what opencode prints today; older releases and forks have the others.
TEXT_RECORDS = ("text", "message", "assistant", "model")
TOOL_RECORDS = ("tool_use", "tool", "tool_call", "tool_result")

RUN_EVENTS: Mapping[str, Builder] = {
    "step_start": _printed(step_start),
    "step_finish": _printed(step_finish),
    "reasoning": _printed(reasoning_part),
    "error": _error,
    "diagnostic": _diagnostic,
    **dict.fromkeys(TEXT_RECORDS, _text),
    **dict.fromkeys(TOOL_RECORDS, _printed(tool_part)),
}
