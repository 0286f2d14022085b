"""Both dialects become one vocabulary, whatever the records hold."""

from __future__ import annotations

import inspect
import json
import math
import pickle
import random
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs
import pytest

from opencode_trio import events
from opencode_trio._protocol.v1.run_lines import RUN_EVENTS, parse_event_line, run_event
from opencode_trio._protocol.v1.stream_events import STREAM_EVENTS, message_events, stream_event
from opencode_trio._turn.fold import TurnFold
from opencode_trio._turn.result import result_of, run_result_fuzzy_text
from opencode_trio.events import (
    Diagnostic,
    ErrorInfo,
    ErrorReported,
    Event,
    InstanceDisposed,
    MessageUpdated,
    OtherPart,
    PermissionAsked,
    PermissionReplied,
    Question,
    QuestionAsked,
    QuestionOption,
    QuestionRejected,
    QuestionReplied,
    ReasoningPart,
    ServerConnected,
    ServerHeartbeat,
    SessionBusy,
    SessionCompacted,
    SessionCreated,
    SessionDeleted,
    SessionIdle,
    SessionRetrying,
    SessionUpdated,
    StepFinished,
    StepStarted,
    TextDelta,
    TextPart,
    TodoUpdated,
    TokenUsage,
    ToolPart,
    UnknownEvent,
)
from opencode_trio.results import StopReason
from wire import RUN_TRACES, SERVE_TRACES, TRACES, answers_of, records_of

Record = dict[str, Any]

# --- lines of `run` --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ('{"type": "x"}', {"type": "x"}),
        (' \t{"type": "x"}\r\n', {"type": "x"}),
        ("{}", {}),
        ('{"text": "a\u2028b\x85c"}', {"text": "a\u2028b\x85c"}),
        ('{"text": "\\u2028\\u0000"}', {"text": "\u2028\0"}),
        ("", {"type": "diagnostic", "kind": "empty_line", "raw": ""}),
        (" \r\n", {"type": "diagnostic", "kind": "empty_line", "raw": " \r\n"}),
        *(
            (
                f" {text} ",
                {"type": "diagnostic", "kind": "non_object_json", "value": value, "raw": text},
            )
            for text, value in [
                ("[1, null]", [1, None]),
                ('"a"', "a"),
                ("3", 3),
                ("true", True),
                ("null", None),
            ]
        ),
    ],
)
def test_a_line_is_parsed(line: str, record: Record) -> None:
    assert parse_event_line(line) == record


NOT_JSON = [
    "hello",
    "~  https://opncd.ai/s/abc",
    "{",
    '{"type": "x"',
    '{"type": "x"} {"type": "y"}',
    '{"text": "a\0b"}',  # JSON wants it escaped
    "\ufeff{}",
    "\u2028{}",
    "[" * 100_000,
    "9" * 5000,  # Python reads no number of so many digits
]


@pytest.mark.parametrize("line", NOT_JSON, ids=range(len(NOT_JSON)))
def test_a_line_that_is_no_json_is_a_diagnostic(line: str) -> None:
    record = parse_event_line(f" {line}\n")
    assert record.pop("error")
    assert record == {"type": "diagnostic", "kind": "json_decode_error", "raw": line}


@pytest.mark.parametrize(
    "noise", ["\x1b]9;done\x07", "loading...", '{"type":"of a plugin"}', "[1] ", '{"type":"']
)
def test_what_a_plugin_prints_without_a_newline_hides_no_record(noise: str) -> None:
    record = {"type": "text", "sessionID": "ses_1", "part": {"text": '{"type":"x"}'}}
    line = noise + json.dumps(record, separators=(",", ":"))
    assert parse_event_line(line) == record


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        ("", "empty_line", ""),
        ("[1, null]", "non_object_json", "[1, null]"),
        ("oh no", "json_decode_error", "oh no"),
    ],
)
def test_diagnostics_are_events(line: str, kind: Any, text: str) -> None:
    record = parse_event_line(line)
    event = run_event(record)
    assert event == Diagnostic(kind=kind, text=text)
    assert event.raw is record


def test_the_signature_is_the_one_that_users_know() -> None:
    assert list(inspect.signature(parse_event_line).parameters) == ["line"]


# --- records ---------------------------------------------------------------------------------

IDS = {"id": "prt_1", "messageID": "msg_1", "sessionID": "ses_1"}
OF_PART: Record = {"session_id": "ses_1", "message_id": "msg_1", "part_id": "prt_1"}
OF_SESSION: Record = {"session_id": "ses_1"}
TOKENS = {
    "total": 21,
    "input": 1,
    "output": 2,
    "reasoning": 3,
    "cache": {"read": 7, "write": 8},
}
USAGE = TokenUsage(total=21, input=1, output=2, reasoning=3, cache_read=7, cache_write=8)
DATA = {"message": "slow down", "statusCode": 429, "isRetryable": True, "more": 1}
API_ERROR = {"name": "APIError", "data": DATA}
API_ERROR_INFO = ErrorInfo("APIError", "slow down", 429, is_retryable=True, data=DATA)
DONE = {
    "status": "completed",
    "input": {"command": "ls"},
    "output": "a\n",
    "title": "ls",
    "metadata": {"exit": 3},
}
FAILED = {"status": "error", "error": "refused"}

PARTS: list[tuple[Record, Event]] = [
    ({"type": "step-start"}, StepStarted(**OF_PART)),
    (
        {"type": "step-finish", "reason": "stop", "cost": 0.5, "tokens": TOKENS},
        StepFinished(**OF_PART, reason="stop", cost=0.5, tokens=USAGE),
    ),
    ({"type": "step-finish"}, StepFinished(**OF_PART, reason="unknown")),
    (
        {"type": "step-finish", "reason": "brand-new", "tokens": {**TOKENS, "total": None}},
        StepFinished(**OF_PART, reason="brand-new", tokens=USAGE),
    ),
    (
        {"type": "text", "text": "hi", "time": {"start": 1, "end": 2}, "metadata": {"a": 1}},
        TextPart(**OF_PART, text="hi", metadata={"a": 1}),
    ),
    ({"type": "text", "text": "hi"}, TextPart(**OF_PART, text="hi")),
    ({"type": "text", "text": ""}, TextPart(**OF_PART, is_complete=False)),
    (
        {"type": "text", "text": "h", "time": {"start": 1}},
        TextPart(**OF_PART, text="h", is_complete=False),
    ),
    (
        {"type": "text", "text": "hi", "synthetic": True},
        TextPart(**OF_PART, text="hi", is_synthetic=True),
    ),
    (
        {"type": "reasoning", "text": "hm", "time": {"start": 1, "end": 2}},
        ReasoningPart(**OF_PART, text="hm"),
    ),
    (
        {"type": "reasoning", "text": "", "time": {"start": 1}},
        ReasoningPart(**OF_PART, is_complete=False),
    ),
    (
        {"type": "tool", "tool": "bash", "callID": "call_1", "state": DONE},
        ToolPart(
            **OF_PART,
            tool="bash",
            call_id="call_1",
            status="completed",
            input={"command": "ls"},
            output="a\n",
            title="ls",
            metadata={"exit": 3},
            state=DONE,
        ),
    ),
    (
        {"type": "tool", "tool": "edit", "state": FAILED},
        ToolPart(**OF_PART, tool="edit", status="error", error="refused", state=FAILED),
    ),
    ({"type": "tool"}, ToolPart(**OF_PART)),
]

RUN_TYPES = {
    "step-start": "step_start",
    "step-finish": "step_finish",
    "text": "text",
    "reasoning": "reasoning",
    "tool": "tool_use",
}


@pytest.mark.parametrize(("part", "event"), PARTS)
def test_a_part_is_the_same_event_in_both_dialects(part: Record, event: Event) -> None:
    part = {**IDS, **part}
    printed = {"type": RUN_TYPES[part["type"]], "sessionID": "ses_1", "part": part}
    payload = {"type": "message.part.updated", "properties": {"part": part}}
    wrapped = {"directory": "/srv", "payload": payload}
    stored = {"info": {"id": "msg_1"}, "parts": [part]}
    assert run_event(printed) == stream_event(payload) == stream_event(wrapped) == event
    assert message_events(stored)[0] == event
    assert run_event(printed).raw is printed
    assert stream_event(payload).raw is payload
    assert stream_event(wrapped).raw is wrapped
    assert message_events(stored)[0].raw is stored


@pytest.mark.parametrize("kind", ["file", "patch", "snapshot", "compaction", "brand-new", ""])
def test_a_part_of_another_kind_is_kept(kind: Any) -> None:
    record = {"type": "message.part.updated", "properties": {"part": {**IDS, "type": kind}}}
    event = stream_event(record)
    assert event == OtherPart(**OF_PART, part_type=kind)
    assert event.raw is record


@pytest.mark.parametrize(
    ("record", "event"),
    [
        # without an envelope, as very old releases print
        ({"type": "text", "text": "hi", **IDS}, TextPart(**OF_PART, text="hi")),
        ({"type": "text", "text": "hi"}, TextPart(text="hi")),
        ({"type": "text", "content": "hi"}, TextPart(text="hi")),
        ({"type": "text", "delta": "hi"}, TextPart(text="hi")),
        ({"type": "text", "text": "a", "content": "b", "delta": "c"}, TextPart(text="a")),
        ({"type": "text", "text": "", "content": "b"}, TextPart(text="b")),
        ({"type": "text", "part": {}, "content": "b"}, TextPart(text="b")),
        ({"type": "text", "part": "x", "content": "b"}, TextPart(text="b")),
        ({"type": "text"}, TextPart(is_complete=False)),
        ({"type": "message", "content": "hi"}, TextPart(text="hi")),
        ({"type": "assistant", "content": "hi"}, TextPart(text="hi")),
        ({"type": "model", "content": "hi"}, TextPart(text="hi")),
        (
            {"type": "message", "content": [{"text": "h"}, "i", {"content": "!"}, {"x": 1}, 2]},
            TextPart(text="hi!"),
        ),
        ({"type": "tool_call", "tool": "bash"}, ToolPart(tool="bash")),
        ({"type": "tool_result", "tool": "bash"}, ToolPart(tool="bash")),
        ({"type": "tool", "tool": "bash"}, ToolPart(tool="bash")),
        ({"type": "step_finish", "cost": 1}, StepFinished(cost=1.0)),
        # the session: the part knows best, the envelope next, and none is an empty one
        (
            {"type": "step_start", "sessionID": "ses_2", "part": {"sessionID": "ses_1"}},
            StepStarted(session_id="ses_1"),
        ),
        (
            {"type": "step_start", "sessionID": "ses_2", "part": {"id": "prt_1"}},
            StepStarted(session_id="ses_2", part_id="prt_1"),
        ),
        ({"type": "step_start", "sessionID": ""}, StepStarted()),
        # errors
        (
            {"type": "error", "sessionID": "ses_1", "error": API_ERROR},
            ErrorReported(**OF_SESSION, error=API_ERROR_INFO),
        ),
        (
            {"type": "error", "error": {"type": "provider.auth", "message": "no"}},
            ErrorReported(error=ErrorInfo("provider.auth", "no")),
        ),
        (
            {"type": "error", "error": {"name": "X", "data": {"statusCode": True}}},
            ErrorReported(error=ErrorInfo("X", data={"statusCode": True})),
        ),
        (
            {
                "type": "error",
                "error": {"name": "X", "data": {"isRetryable": 1, "statusCode": "4"}},
            },
            ErrorReported(error=ErrorInfo("X", data={"isRetryable": 1, "statusCode": "4"})),
        ),
        ({"type": "error"}, ErrorReported(error=ErrorInfo("UnknownError"))),
        # what we do not know
        ({"type": "done", "sessionID": "ses_1"}, UnknownEvent(**OF_SESSION, type="done")),
        ({"type": ["text"]}, UnknownEvent()),
        ({"type": None}, UnknownEvent()),
        ({}, UnknownEvent()),
    ],
)
def test_run_records(record: Record, event: Event) -> None:
    found = run_event(record)
    assert found == event
    assert found.raw is record


INFO = {"id": "ses_1", "parentID": "ses_0", "title": "T", "agent": "build", "directory": "/w"}
OF_INFO: Record = {"parent_id": "ses_0", "title": "T", "agent": "build", "directory": "/w"}
ASSISTANT = {
    "id": "msg_2",
    "sessionID": "ses_1",
    "role": "assistant",
    "parentID": "msg_1",
    "cost": 0.25,
    "tokens": TOKENS,
    "finish": "stop",
    "time": {"created": 1, "completed": 2},
    "summary": True,
    "error": API_ERROR,
    "agent": "build",
    "providerID": "p",
    "modelID": "m",
    "structured": {"answer": 42},
}
CALL = {"messageID": "msg_1", "callID": "call_1"}
OF_CALL: Record = {"message_id": "msg_1", "call_id": "call_1"}

BUS: list[tuple[str, Record, Event]] = [
    ("server.connected", {}, ServerConnected()),
    ("server.heartbeat", {}, ServerHeartbeat()),
    ("server.instance.disposed", {"directory": "/w"}, InstanceDisposed(directory="/w")),
    ("global.disposed", {}, InstanceDisposed()),
    ("session.created", {"info": INFO}, SessionCreated(**OF_SESSION, **OF_INFO)),
    (
        "session.updated",
        {"sessionID": "ses_1", "info": {**INFO, "id": "ses_9"}},
        SessionUpdated(**OF_SESSION, **OF_INFO),
    ),
    ("session.deleted", {"sessionID": "ses_1"}, SessionDeleted(**OF_SESSION)),
    (
        "session.status",
        {"sessionID": "ses_1", "status": {"type": "busy"}},
        SessionBusy(**OF_SESSION),
    ),
    (
        "session.status",
        {"sessionID": "ses_1", "status": {"type": "idle"}},
        SessionIdle(**OF_SESSION),
    ),
    (
        "session.status",
        {
            "sessionID": "ses_1",
            "status": {"type": "retry", "attempt": 2, "message": "429", "next": 1500},
        },
        SessionRetrying(**OF_SESSION, attempt=2, message="429", next_at_s=1.5),
    ),
    (
        "session.status",
        {"sessionID": "ses_1", "status": {"type": "asleep"}},
        UnknownEvent(**OF_SESSION, type="session.status"),
    ),
    ("session.status", {}, UnknownEvent(type="session.status")),
    ("session.idle", {"sessionID": "ses_1"}, UnknownEvent(**OF_SESSION, type="session.idle")),
    (
        "session.error",
        {"sessionID": "ses_1", "error": API_ERROR},
        ErrorReported(**OF_SESSION, error=API_ERROR_INFO),
    ),
    ("session.error", {}, ErrorReported()),
    ("session.compacted", {"sessionID": "ses_1"}, SessionCompacted(**OF_SESSION)),
    (
        "message.updated",
        {"info": ASSISTANT},
        MessageUpdated(
            **OF_SESSION,
            message_id="msg_2",
            role="assistant",
            parent_id="msg_1",
            cost=0.25,
            tokens=USAGE,
            finish="stop",
            is_complete=True,
            is_summary=True,
            error=API_ERROR_INFO,
            agent="build",
            model="p/m",
            structured={"answer": 42},
        ),
    ),
    (
        "message.updated",
        {
            "sessionID": "ses_1",
            "info": {
                "id": "msg_1",
                "role": "user",
                "summary": {"diffs": []},
                "time": {"created": 1},
                "model": {"providerID": "p", "modelID": "m"},
                "error": "odd",
            },
        },
        MessageUpdated(**OF_SESSION, message_id="msg_1", role="user", model="p/m"),
    ),
    ("message.updated", {"info": {"providerID": "p"}}, MessageUpdated()),
    ("message.updated", {}, MessageUpdated()),
    (
        "message.part.delta",
        {
            "sessionID": "ses_1",
            "messageID": "msg_1",
            "partID": "prt_1",
            "field": "text",
            "delta": "h",
        },
        TextDelta(**OF_PART, delta="h"),
    ),
    (
        "message.part.delta",
        {"sessionID": "ses_1", "field": "state.raw", "delta": "h"},
        UnknownEvent(**OF_SESSION, type="message.part.delta"),
    ),
    *(
        (
            name,
            {
                "id": "per_1",
                "sessionID": "ses_1",
                "permission": "bash",
                "patterns": ["ls", 1],
                "metadata": {"command": "ls"},
                "always": ["ls *"],
                "tool": CALL,
            },
            PermissionAsked(
                **OF_SESSION,
                **OF_CALL,
                request_id="per_1",
                permission="bash",
                patterns=("ls",),
                metadata={"command": "ls"},
                always=("ls *",),
            ),
        )
        for name in ("permission.asked", "permission.updated")
    ),
    (
        "permission.replied",
        {"sessionID": "ses_1", "requestID": "per_1", "reply": "once"},
        PermissionReplied(**OF_SESSION, request_id="per_1", reply="once"),
    ),
    (
        "question.asked",
        {
            "id": "que_1",
            "sessionID": "ses_1",
            "questions": [
                {
                    "question": "Which?",
                    "header": "DB",
                    "options": [{"label": "pg", "description": "big"}, "odd", {}],
                    "multiple": True,
                    "custom": False,
                },
                {"question": "Why?"},
                "odd",
            ],
            "tool": CALL,
        },
        QuestionAsked(
            **OF_SESSION,
            **OF_CALL,
            request_id="que_1",
            questions=(
                Question(
                    "Which?",
                    "DB",
                    (QuestionOption("pg", "big"), QuestionOption("")),
                    multiple=True,
                    custom=False,
                ),
                Question("Why?"),
            ),
        ),
    ),
    (
        "question.replied",
        {"sessionID": "ses_1", "requestID": "que_1", "answers": [["pg", 1], [], "odd"]},
        QuestionReplied(**OF_SESSION, request_id="que_1", answers=(("pg",), (), ())),
    ),
    ("question.replied", {"answers": {}}, QuestionReplied()),
    (
        "question.rejected",
        {"sessionID": "ses_1", "requestID": "que_1"},
        QuestionRejected(**OF_SESSION, request_id="que_1"),
    ),
    (
        "todo.updated",
        {"sessionID": "ses_1", "todos": [{"content": "a"}, 1]},
        TodoUpdated(**OF_SESSION, todos=({"content": "a"},)),
    ),
    ("brand.new", {"sessionID": "ses_1"}, UnknownEvent(**OF_SESSION, type="brand.new")),
    ("", {}, UnknownEvent()),
]


@pytest.mark.parametrize(("kind", "properties", "event"), BUS)
def test_bus_records(kind: Any, properties: Record, event: Event) -> None:
    bare = {"id": "evt_1", "type": kind, "properties": properties}
    wrapped = {"directory": "/srv", "payload": bare}
    for record in (bare, wrapped):
        found = stream_event(record)
        assert found == event
        assert found.raw is record


@pytest.mark.parametrize("record", [{}, {"payload": {}}, {"payload": 3}, {"type": ["x"]}])
def test_a_bus_record_of_no_type(record: Record) -> None:
    assert stream_event(record) == UnknownEvent()


def test_the_tables_have_every_type() -> None:
    assert {kind for kind, _, _ in BUS} | {"message.part.updated"} >= set(STREAM_EVENTS)
    assert set(RUN_TYPES.values()) <= set(RUN_EVENTS)


def test_every_class_is_made_by_some_record() -> None:
    classes = {value for value in vars(events).values() if inspect.isclass(value)}
    leaves = {c for c in classes if issubclass(c, Event) and not c.__subclasses__()}
    made = {type(event) for _, _, event in BUS} | {type(event) for _, event in PARTS}
    # Whoever knows the part makes a piece of thinking of a `TextDelta`.
    assert leaves - made == {events.ReasoningDelta, Diagnostic, OtherPart}


def test_a_stored_message_is_told_from_its_parts_to_its_record() -> None:
    parts = [{**IDS, "type": "text", "text": "a"}, "odd", {**IDS, "type": "step-start"}]
    *told, last = message_events({"info": ASSISTANT, "parts": parts})
    assert told == [TextPart(**OF_PART, text="a"), StepStarted(**OF_PART)]
    assert isinstance(last, MessageUpdated)
    assert last.message_id == "msg_2"
    assert message_events({}) == [MessageUpdated()]
    assert message_events({"parts": {}}) == [MessageUpdated()]


# --- events as values -------------------------------------------------------------------------


def test_events_are_equal_by_class_and_fields_but_not_by_raw() -> None:
    event = TextPart(**OF_PART, text="a", raw={"n": 1})
    assert event == TextPart(**OF_PART, text="a", raw={"n": 2})
    assert event != TextPart(**OF_PART, text="b", raw={"n": 1})
    assert event != attrs.evolve(event, session_id="ses_2")
    assert SessionBusy() != SessionIdle()
    assert SessionBusy() != "SessionBusy()"


def test_events_show_what_they_hold() -> None:
    assert repr(SessionBusy(session_id="ses_1", raw={"n": 1})) == "SessionBusy(session_id='ses_1')"
    shown = repr(TextPart(**OF_PART, text="a", raw={"n": 1}, metadata={"m": 1}))
    assert "text='a'" in shown
    assert "'n'" not in shown
    assert "'m'" not in shown


@pytest.mark.parametrize("event", [event for _, event in PARTS] + [event for *_, event in BUS])
def test_events_travel(event: Event) -> None:
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301 - our own bytes
    assert attrs.evolve(event, raw={}) == event
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.session_id = "ses_2"  # type: ignore[misc]
    with pytest.raises(TypeError):
        hash(event)


# --- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((n, float(n)) for n in (0, 1, -1, 1.5, -2.5, 10**17, -(10**17))),
        *((odd, 0.0) for odd in (True, False, None, "1", [1], {"a": 1})),
        *(
            (huge, 0.0)
            for huge in (10**18, -(10**18), 10**400, 1e19, math.inf, -math.inf, math.nan)
        ),
    ],
)
def test_a_number_that_cannot_be_one_reads_as_none(value: Any, number: Any) -> None:
    tokens = {"input": value, "cache": {"read": value}}
    event = run_event({"type": "step_finish", "cost": value, "tokens": tokens})
    count = int(number)
    assert event == StepFinished(
        cost=number, tokens=TokenUsage(total=2 * count, input=count, cache_read=count)
    )


@pytest.mark.parametrize(
    ("tokens", "usage"),
    [
        (TOKENS, USAGE),
        ({**TOKENS, "total": 0}, USAGE),
        ({**TOKENS, "total": 100}, attrs.evolve(USAGE, total=100)),
        ({"output": 2, "cache": "odd"}, TokenUsage(total=2, output=2)),
        ([], TokenUsage()),
        (None, TokenUsage()),
    ],
)
def test_tokens(tokens: Any, usage: Any) -> None:
    assert run_event({"type": "step_finish", "tokens": tokens}) == StepFinished(tokens=usage)


def test_tokens_add_up() -> None:
    twice = USAGE + USAGE
    assert twice == TokenUsage(42, 2, 4, 6, 14, 16)


# --- recorded traffic ------------------------------------------------------------------------

# Told by opencode of things that no turn needs.
LEFT_UNKNOWN = {
    *("session.idle", "session.diff", "project.updated", "plugin.added", "catalog.updated"),
    *("integration.updated", "reference.updated", "vcs.branch.updated", "file.edited"),
}


@pytest.mark.parametrize("name", TRACES)
def test_what_was_recorded_is_known(name: str) -> None:
    translate = run_event if name in RUN_TRACES else stream_event
    for record in records_of(name):
        event = translate(record)
        assert event.raw is record
        assert not isinstance(event, OtherPart | Diagnostic)
        if isinstance(event, UnknownEvent):
            assert event.type in LEFT_UNKNOWN
        well_typed(event)


# --- any line --------------------------------------------------------------------------------

DEEP_LIST: list[Any] = []
DEEP_DICT: dict[str, Any] = {}
for _ in range(150):
    DEEP_LIST, DEEP_DICT = [DEEP_LIST], {"info": DEEP_DICT}

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 1e300, math.inf, -math.inf, math.nan, 10**400, -(10**30)),
    *(
        "",
        "text",
        "ses_1",
        "msg_1",
        "\ud800",
        "\udfff\0\u2028",
        "stop",
        "tool",
        "assistant",
        "user",
    ),
    *([], [None], [[]], [{}], [1, "a", {}, []], ["text"], {}, {"type": []}, {"type": "text"}),
    *({"text": ["a"]}, {"sessionID": {}}, {"completed": None}, {"name": 1, "data": []}),
    *(DEEP_LIST, DEEP_DICT),
]
KEYS = ["type", "part", "properties", "info", "id", "text", "state", "sessionID", "cost", "payload"]
GARBAGE = ["", " ", "null", "[", '"', "{", "\0", "[" * 5000, '{"a":' * 5000, "9" * 5000, "NaN"]


def mutate(rng: random.Random, value: Any) -> Any:
    """Return a copy with something wrong at some depth; what is not touched is shared."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.08:
        return rng.choice(ODD)
    if isinstance(value, list):
        index = rng.randrange(len(value))
        if rng.random() < 0.15:
            return value[:index]
        return [*value[:index], mutate(rng, value[index]), *value[index + 1 :]]
    key = rng.choice(list(value))
    dice = rng.random()
    if dice < 0.1:
        return {k: v for k, v in value.items() if k != key}
    if dice < 0.15:
        return {**value, rng.choice(KEYS): rng.choice(ODD)}
    return {**value, key: mutate(rng, value[key])}


def rows_of_recorded() -> list[list[Any]]:
    """Return the records by kind, so that none is rare for having been recorded once."""
    kinds: dict[str, list[Any]] = {}
    for name in TRACES:
        for record in records_of(name):
            payload = record.get("payload", record)
            props = payload.get("properties", {})
            of_part = props.get("part", {}).get("type")
            kinds.setdefault(f"{payload['type']} {of_part}", []).append(record)
    for name in SERVE_TRACES:
        for body in answers_of(name).values():
            kinds.setdefault("stored", []).extend(body if isinstance(body, list) else [])
    return list(kinds.values())


def random_lines(rng: random.Random, count: int) -> Iterator[str]:
    rows = rows_of_recorded()
    for _ in range(count):
        record = mutate(rng, rng.choice(rng.choice(rows)))
        if rng.random() < 0.5:
            record = mutate(rng, record)
        line = json.dumps(record)
        dice = rng.random()
        if dice < 0.03:
            place = rng.randrange(len(line) + 1)
            line = line[:place] + rng.choice(GARBAGE) + line[place + rng.randrange(3) :]
        elif dice < 0.04:
            line = rng.choice(GARBAGE)
        yield line


def plain_types(hint: Any) -> tuple[type, ...]:
    """Return the classes that a value of an annotated field may have."""
    origin = typing.get_origin(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return (object,)
    if origin is None:
        return (hint,)
    if origin is Literal:
        return tuple({type(word) for word in typing.get_args(hint)})
    if isinstance(origin, type) and issubclass(origin, Mapping | tuple | list):
        return (origin,)
    return tuple(kind for part in typing.get_args(hint) for kind in plain_types(part))


FIELDS: dict[type, list[tuple[str, tuple[type, ...]]]] = {}


def well_typed(value: Any) -> None:
    """Check that each field holds what its annotation says."""
    cls = type(value)
    if cls not in FIELDS:
        hints = typing.get_type_hints(cls)
        FIELDS[cls] = [(field.name, plain_types(hints[field.name])) for field in attrs.fields(cls)]
    for name, kinds in FIELDS[cls]:
        found = getattr(value, name)
        assert isinstance(found, kinds), (cls, name, found)
        if isinstance(found, TokenUsage | ErrorInfo):
            well_typed(found)


@pytest.mark.parametrize("seed", range(10))
def test_nothing_that_is_printed_raises(seed: int) -> None:
    """100,000 lines in all, each a recorded one with something wrong in it."""
    rng = random.Random(seed)  # noqa: S311 - to be repeatable is the point
    lines = list(random_lines(rng, 10_000))
    for start in range(0, len(lines), 100):
        folds = [TurnFold(), TurnFold(), TurnFold("ses_1")]
        for line in lines[start : start + 100]:
            record = parse_event_line(line)
            for fold, event in zip(folds, (run_event(record), stream_event(record)), strict=False):
                assert event.raw is record
                well_typed(event)
                fold.add(event)
            folds[2].replace(message_events(record))
        for fold in folds:
            result = result_of(fold)
            well_typed(result)
            assert result.stop_reason in (None, *typing.get_args(StopReason))
            assert math.isfinite(result.total_cost)
            assert all(map(math.isfinite, result.cost_by_session.values()))
            assert isinstance(run_result_fuzzy_text(result), str)
