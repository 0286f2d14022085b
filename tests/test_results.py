"""What came of a turn: every recorded one exactly, and what no order or repetition changes."""

from __future__ import annotations

import inspect
import random
import typing
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_trio._protocol.v1.run_lines import run_event
from opencode_trio._protocol.v1.stream_events import stream_event
from opencode_trio._turn.ending import (
    ANSWERED,
    ENDS_OF_A_STEP,
    FAILURES,
    OVER,
    RETURNED,
    end_if_nothing_follows,
)
from opencode_trio._turn.fold import TurnFold
from opencode_trio._turn.result import (
    aggregate_run_result,
    aggregate_server_result,
    result_of,
    run_result_fuzzy_text,
)
from opencode_trio.events import (
    ErrorInfo,
    ErrorReported,
    MessageUpdated,
    StepFinished,
    StepStarted,
    TokenUsage,
)
from opencode_trio.results import RunResult, StopReason, Teardown
from wire import (
    RUN_TRACES,
    SERVE_TRACES,
    TRACES,
    lines_of,
    records_of,
    result_of_lines,
    root_of,
    stored_messages,
)

Record = dict[str, Any]


def of_run(*records: Record) -> RunResult:
    return aggregate_run_result(events=records, raw_stdout_lines=[], exit_code=0, stderr="")


def of_server(
    *records: Record, root: str | None = "ses_1", final: list[Any] | None = None
) -> RunResult:
    return aggregate_server_result(events=records, session_id=root, final_messages=final)


# --- recorded traffic, exactly ---------------------------------------------------------------


@attrs.frozen
class Told:
    """What a trace says.  A step of the scripted model is 100 tokens in, 10 out, $0.00012."""

    final_text: str
    stop_reason: StopReason
    turns: int
    tool_calls: int = 0
    text: str | None = None  # where it differs from `final_text`
    paid_steps: int | None = None  # where they differ from `turns`
    subagents: tuple[str, ...] = ()  # each took two of the steps
    structured: Any = None


TASK_OUTPUT = (
    'Tool said: <task id="ses_dfd61873fffeEyRHv4rDuhKVyi" state="completed">\n'
    "<task_result>\nTool said: from-sub\n\n</task_result>\n</task>"
)
REJECTED = (
    "Tool said: The user rejected permission to use this specific tool call with the following "
    "feedback: use ls instead"
)
ANSWERED_QUESTION = (
    'Tool said: User has answered your questions: "Which db?"="pg". You can now continue with '
    "the user's answers in mind."
)

TOLD = {
    "run-bash": Told("done", "completed", 2, tool_calls=1),
    "run-drop": Told("partial", "incomplete", 99, text="\n".join(["partial"] * 99), paid_steps=0),
    "run-e401": Told("", "error", 0),
    "run-e429once": Told("ok", "completed", 1),
    "run-empty": Told("", "empty", 1),
    "run-filter": Told("x", "content_filter", 1),
    "run-length": Told("cut off", "length", 1),
    "run-ok": Told("hello", "completed", 1),
    "run-over": Told("", "error", 0),
    "run-overonce": Told("recovered", "completed", 2),
    "run-question": Told("done after q", "completed", 2, tool_calls=1),
    "serve-abort": Told("Calling tool.", "cancelled", 0, tool_calls=1),
    "serve-bad-model": Told("", "error", 0),
    "serve-permission-once": Told(
        "Tool said: hi\n", "completed", 2, tool_calls=1, text="Calling tool.\nTool said: hi\n"
    ),
    "serve-permission-reject-message": Told(
        REJECTED, "completed", 2, tool_calls=1, text=f"Calling tool.\n{REJECTED}"
    ),
    "serve-permission-reject": Told("Calling tool.", "blocked", 1, tool_calls=1),
    "serve-question": Told(
        ANSWERED_QUESTION,
        "completed",
        2,
        tool_calls=1,
        text=f"Calling tool.\n{ANSWERED_QUESTION}",
    ),
    "serve-structured": Told(
        "Calling tool.", "completed", 1, tool_calls=1, structured={"answer": 42}
    ),
    "serve-subagent-permission": Told(
        TASK_OUTPUT,
        "completed",
        4,
        tool_calls=2,
        text=f"Calling tool.\n{TASK_OUTPUT}",
        subagents=("ses_dfd61873fffeEyRHv4rDuhKVyi",),
    ),
    "serve-text": Told("w0 w1 w2 w3 w4 ", "completed", 1),
}


def test_every_trace_is_told() -> None:
    assert sorted(TOLD) == TRACES


@pytest.mark.parametrize(
    ("name", "is_stored"),
    [*((name, False) for name in TRACES), *((name, True) for name in SERVE_TRACES)],
)
def test_the_result_of_a_trace(name: str, is_stored: bool) -> None:
    told, records, lines = TOLD[name], records_of(name), lines_of(name)
    if name in RUN_TRACES:
        root = records[0]["sessionID"]
        result = aggregate_run_result(
            events=records, raw_stdout_lines=lines, exit_code=3, stderr="oh"
        )
    else:
        root, lines = root_of(name), []
        result = aggregate_server_result(
            events=records,
            session_id=root,
            final_messages=stored_messages(name) if is_stored else None,
            exit_code=3,
            stderr="oh",
        )
    paid = told.turns if told.paid_steps is None else told.paid_steps
    steps = {root: paid - 2 * len(told.subagents), **dict.fromkeys(told.subagents, 2)}
    costs: Any = {session: pytest.approx(0.00012 * count) for session, count in steps.items()}
    if told.turns + told.tool_calls == 0:
        costs = {}  # no message was begun
    assert result == RunResult(
        final_text=told.final_text,
        text=told.final_text if told.text is None else told.text,
        stop_reason=told.stop_reason,
        structured=told.structured,
        session_id=root,
        turns=told.turns,
        tool_calls=result.tool_calls,
        tool_parts=result.tool_parts,
        token_usage=TokenUsage(total=110 * paid, input=100 * paid, output=10 * paid),
        total_cost=pytest.approx(0.00012 * paid),  # type: ignore[arg-type]
        cost_by_session=costs,
        exit_code=3,
        stderr="oh",
        events=records,
        raw_stdout_lines=lines,
    )
    assert len(result.tool_calls) == len(result.tool_parts) == told.tool_calls
    assert sum(result.cost_by_session.values()) == pytest.approx(result.total_cost)


def test_a_tool_call_of_run_is_told_as_it_was_printed() -> None:
    printed = [record for record in records_of("run-bash") if record["type"] == "tool_use"]
    assert of_run(*records_of("run-bash")).tool_calls == printed
    for kind in ("tool", "tool_call", "tool_result"):
        record = {"type": kind, "tool": "bash", "odd": 1}
        assert of_run(record).tool_calls == [record]


@pytest.mark.parametrize("final", [None, stored_messages("serve-permission-once")])
def test_a_tool_call_of_a_session_is_told_in_its_last_state(final: Any) -> None:
    name = "serve-permission-once"
    (call,) = of_server(*records_of(name), root=root_of(name), final=final).tool_calls
    assert call.pop("state")["status"] == "completed"
    assert call == {
        "type": "tool",
        "tool": "bash",
        "callID": "call_1",
        "id": "prt_2029e68f4001NM4onitS0oSNFt",
        "sessionID": root_of(name),
    }


def test_tool_parts_read_the_same_in_both_modes() -> None:
    name = "serve-permission-once"
    (printed,) = of_run(*records_of("run-bash")).tool_parts
    (streamed,) = of_server(*records_of(name), root=root_of(name)).tool_parts
    for part in (printed, streamed):
        assert (part.tool, part.status) == ("bash", "completed")
        assert part.input["command"].startswith("echo hi")
        assert str(part.output).startswith("hi\n")
    assert (printed.metadata["exit"], streamed.metadata["exit"]) == (3, 0)


# --- one message, told many times ------------------------------------------------------------


def counts(result: RunResult) -> tuple[Any, ...]:
    calls = sorted(str(call.get("callID")) + str(call.get("id")) for call in result.tool_calls)
    costs = {key: pytest.approx(cost) for key, cost in result.cost_by_session.items()}
    return result.token_usage, pytest.approx(result.total_cost), costs, calls, result.turns


def words(result: RunResult) -> tuple[Any, ...]:
    return result.final_text, result.text, result.structured, result.stop_reason


@pytest.mark.parametrize("name", SERVE_TRACES)
def test_telling_a_session_twice_changes_nothing(name: str) -> None:
    records, root = records_of(name), root_of(name)
    once = of_server(*records, root=root)
    for again in (records * 2, [record for record in records for _ in range(2)]):
        twice = of_server(*again, root=root)
        assert counts(twice) == counts(once)
        assert words(twice) == words(once)


@pytest.mark.parametrize("name", SERVE_TRACES)
@settings(max_examples=10, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_no_order_or_repetition_changes_what_is_counted(name: str, rng: random.Random) -> None:
    records, root = records_of(name), root_of(name)
    shuffled = records + rng.choices(records, k=20)
    rng.shuffle(shuffled)
    once, found = of_server(*records, root=root), of_server(*shuffled, root=root)
    assert found.token_usage == once.token_usage
    assert found.total_cost == pytest.approx(once.total_cost)
    assert found.turns == once.turns
    assert len(found.tool_calls) == len(once.tool_calls)


@pytest.mark.parametrize("name", SERVE_TRACES)
@settings(max_examples=10, deadline=None)
@given(rng=st.randoms(use_true_random=False))
def test_the_order_among_messages_records_does_not_matter(name: str, rng: random.Random) -> None:
    """They trade places with each other, all else stays where it was told."""
    records, root = records_of(name), root_of(name)
    places = [i for i, r in enumerate(records) if r["payload"]["type"] == "message.updated"]
    traded = rng.sample(places, len(places))
    moved = list(records)
    for place, source in zip(places, traded, strict=True):
        moved[place] = records[source]
    once, found = of_server(*records, root=root), of_server(*moved, root=root)
    assert counts(found) == counts(once)
    assert found.structured == once.structured
    assert found.text.count("\n") == once.text.count("\n")


@pytest.mark.parametrize("name", [n for n in SERVE_TRACES if stored_messages(n)])
@pytest.mark.parametrize("seed", range(5))
def test_stored_messages_make_up_for_a_stream_with_holes(name: str, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - to be repeatable is the point
    told = TOLD[name]
    seen = [record for record in records_of(name) if rng.random() < seed / 5]
    result = of_server(*seen, root=root_of(name), final=stored_messages(name))
    assert result.final_text == told.final_text
    assert result.text == (told.final_text if told.text is None else told.text)
    if name != "serve-bad-model":  # its error is only on the stream
        assert result.stop_reason == told.stop_reason
    if not told.subagents:
        assert result.turns == told.turns
        assert len(result.tool_calls) == len(result.tool_parts) == told.tool_calls


# --- small turns -----------------------------------------------------------------------------


def updated(
    message: str, *, session: str = "ses_1", role: str = "assistant", **info: Any
) -> Record:
    info = {"id": message, "sessionID": session, "role": role, **info}
    return {"type": "message.updated", "properties": {"sessionID": session, "info": info}}


def done(message: str, cost: float = 0.0, **info: Any) -> Record:
    tokens = {"input": int(cost * 100)}
    told = {"time": {"completed": 1}, "finish": "stop", **info}
    return updated(message, cost=cost, tokens=tokens, **told)


def part(message: str, kind: str, part_id: str, *, session: str = "ses_1", **more: Any) -> Record:
    told = {"type": kind, "id": part_id, "messageID": message, "sessionID": session, **more}
    return {"type": "message.part.updated", "properties": {"part": told}}


def said(message: str, text: str, **more: Any) -> Record:
    return part(message, "text", f"text of {message}", text=text, **more)


def step(message: str, reason: str = "stop", cost: float = 0.0, **more: Any) -> Record:
    tokens = {"input": int(cost * 100)}
    part_id = f"step of {message}"
    return part(message, "step-finish", part_id, reason=reason, cost=cost, tokens=tokens, **more)


def delta(message: str, text: str, part_id: str | None = None) -> Record:
    properties = {
        "sessionID": "ses_1",
        "messageID": message,
        "partID": part_id or f"text of {message}",
        "field": "text",
        "delta": text,
    }
    return {"type": "message.part.delta", "properties": properties}


def stored(record: Record, *parts: Record) -> Record:
    info = record["properties"]["info"]
    return {"info": info, "parts": [part["properties"]["part"] for part in parts]}


CONTINUE = {"synthetic": True, "metadata": {"compaction_continue": True}}


def test_the_answer_is_the_last_message_that_says_something() -> None:
    result = of_server(said("m1", "one"), said("m2", "two"), said("m3", ""), updated("m3"))
    assert (result.final_text, result.text) == ("two", "one\ntwo")


def test_parts_of_a_message_are_joined_in_the_order_they_began() -> None:
    parts = [part("m", "text", str(i), text=text) for i, text in enumerate("abc")]
    again = part("m", "text", "0", text="A")
    assert of_server(*parts, again).final_text == "Abc"


def test_the_prompt_is_no_answer() -> None:
    assert of_server(updated("m", role="user"), said("m", "prompt")).text == ""
    assert of_server(said("m", "prompt"), updated("m", role="user")).text == ""


def test_a_record_without_a_role_changes_none() -> None:
    assert of_server(updated("m", role="user"), updated("m", role=""), said("m", "x")).text == ""
    assert of_server(updated("m", role=""), said("m", "x")).text == "x"


def test_thinking_is_no_answer() -> None:
    assert of_server(part("m", "reasoning", "p", text="hm")).text == ""


def test_a_subagent_s_words_are_no_answer_but_its_cost_counts() -> None:
    result = of_server(
        said("m1", "mine"),
        done("m1", 1.0),
        said("m2", "its", session="ses_2"),
        done("m2", 2.0, session="ses_2"),
        step("m2", "length", session="ses_2"),
    )
    assert result.final_text == result.text == "mine"
    assert result.cost_by_session == {"ses_1": 1.0, "ses_2": 2.0}
    assert result.total_cost == 3.0
    assert result.token_usage == TokenUsage(total=300, input=300)
    assert result.stop_reason is None
    assert result.turns == 1


@pytest.mark.parametrize("session", ["ses_1", None])
def test_the_first_session_seen_is_the_one_if_none_is_named(session: str | None) -> None:
    result = of_server(said("m1", "a"), said("m2", "b", session="ses_2"), root=session)
    assert (result.session_id, result.text) == ("ses_1", "a")


def test_a_message_s_own_record_knows_its_cost_best() -> None:
    assert of_server(step("m", cost=1.0)).total_cost == 1.0
    assert of_server(step("m", cost=1.0), updated("m", cost=0)).total_cost == 1.0
    assert of_server(step("m", cost=1.0), done("m", 3.0)).total_cost == 3.0
    assert of_server(done("m", 3.0), done("m", 3.0), step("m", cost=1.0)).total_cost == 3.0
    assert of_server(done("m", 3.0), updated("m", cost=0)).total_cost == 3.0


def test_the_user_s_messages_cost_nothing() -> None:
    assert of_server(done("m", 3.0, role="user")).total_cost == 0.0


def test_nothing_is_nothing() -> None:
    for result in (of_run(), of_server(root=None)):
        assert result == RunResult(exit_code=0)
        assert isinstance(result.total_cost, float)


# --- text while it grows ---------------------------------------------------------------------


def test_text_grows_with_its_deltas() -> None:
    start = said("m", "", time={"start": 1})
    assert of_server(start, delta("m", "he"), delta("m", "y")).final_text == "hey"
    whole = said("m", "hey!", time={"start": 1, "end": 2})
    assert of_server(start, delta("m", "he"), delta("m", "y"), whole).final_text == "hey!"


@pytest.mark.parametrize(
    "before",
    [
        [],
        [part("m", "reasoning", "text of m", text="")],
        [updated("m"), said("m", "", **CONTINUE)],
        [part("m", "text", "another", text="")],
    ],
)
def test_a_delta_of_what_is_no_text_adds_none(before: Any) -> None:
    assert of_server(*before, delta("m", "hm")).text == ""


# --- what opencode itself wrote --------------------------------------------------------------


def test_synthetic_text_is_no_answer() -> None:
    result = of_server(said("m1", "mine"), said("m2", "Go on", synthetic=True))
    assert result.final_text == result.text == "mine"


def test_a_compaction_summary_is_no_answer() -> None:
    summary = [updated("m1", summary=True), said("m1", "so far")]
    assert of_server(*summary).text == ""
    result = of_server(*summary, done("m1", 1.0), said("m2", "mine"))
    assert result.final_text == result.text == "mine"
    assert result.total_cost == 1.0
    assert of_server(*summary, updated("m1")).text == ""  # once it is one it stays one


def test_run_does_not_say_what_is_a_summary_but_what_follows_it_does() -> None:
    records = records_of("run-overonce")
    texts = [record["part"]["text"] for record in records if record["type"] == "text"]
    assert len(texts) == 3
    assert texts[1].startswith("The previous request exceeded")
    for record in records:
        if record["type"] == "text" and record is not records[-2]:
            record["part"]["text"] = "not this"
    assert of_run(*records).text == "recovered"
    assert of_run(*records[:-3]).text == ""


def test_synthetic_text_that_follows_no_compaction_leaves_the_answer_alone() -> None:
    record = {"type": "text", "part": {"synthetic": True, "text": "hm", "messageID": "m2"}}
    answer = {"type": "text", "part": {"text": "mine", "messageID": "m1"}}
    assert of_run(answer, record).text == "mine"
    assert of_run({"type": "text", "part": {"text": "go on", **CONTINUE}}).text == ""


COMPACTED = [
    stored(updated("m1", role="user"), said("m1", "prompt")),
    stored(updated("m2", summary=True), said("m2", "so far")),
    stored(updated("m3", role="user"), said("m3", "Go on", **CONTINUE)),
    stored(updated("m4"), said("m4", "mine"), step("m4")),
]


def test_an_answer_after_a_compaction_is_not_taken_for_its_summary() -> None:
    """The words that follow a summary may be told again, after the answer."""
    stream = [updated("m3", role="user"), updated("m4"), said("m4", "mine"), step("m4")]
    again = said("m3", "Go on", **CONTINUE)
    assert of_server(*stream, again).text == "mine"
    for seen in ([], stream, [*stream, again]):
        result = of_server(*seen, final=COMPACTED)
        assert (result.text, result.stop_reason) == ("mine", "completed")


def test_a_subagent_s_compaction_is_its_own() -> None:
    result = of_run(
        {"type": "text", "part": {"sessionID": "ses_1", "messageID": "m1", "text": "mine"}},
        {"type": "text", "part": {"sessionID": "ses_2", "messageID": "m2", **CONTINUE}},
    )
    assert result.text == "mine"


# --- stored messages -------------------------------------------------------------------------


def test_a_stored_message_replaces_what_was_seen_of_it() -> None:
    seen = [said("m", "draft"), part("m", "text", "removed later", text="?"), step("m", cost=9.0)]
    final = [stored(done("m", 1.0), said("m", "answer"), step("m", cost=1.0))]
    result = of_server(*seen, final=final)
    assert (result.text, result.total_cost, result.turns) == ("answer", 1.0, 1)
    assert result.events == seen


def test_stored_messages_tell_the_order() -> None:
    final = [stored(updated("m1"), said("m1", "one")), stored(updated("m2"), said("m2", "two"))]
    assert of_server(said("m2", "two"), final=final).text == "one\ntwo"


@pytest.mark.parametrize("final", [None, [], [3, "x", None], [{}], [{"parts": 3, "info": []}], {}])
def test_stored_messages_that_are_none_change_nothing(final: Any) -> None:
    result = of_server(said("m", "answer"), step("m"), final=final)
    assert (result.text, result.stop_reason) == ("answer", "completed")


def test_stored_messages_may_come_one_by_one() -> None:
    final = iter([stored(updated("m"), said("m", "answer"))])
    result = aggregate_server_result(events=[], session_id="ses_1", final_messages=final)
    assert result.final_text == "answer"


# --- shapes without ids ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "records",
    [
        [{"type": "text", "part": {"text": "a"}}, {"type": "text", "part": {"text": "b"}}],
        [{"type": "text", "content": "a"}, {"type": "text", "text": "b"}],
        [{"type": "text", "content": "a"}, {"type": "text", "sessionID": "ses_1", "delta": "b"}],
        [{"type": "step_start", "sessionID": "ses_1"}, {"type": "text", "text": "ab"}],
        [{"type": "message", "content": [{"text": "a"}, "b"]}],
        [{"type": "assistant", "content": "ab"}],
    ],
)
def test_they_are_joined(records: list[Record]) -> None:
    assert of_run(*records).final_text == "ab"


def test_each_counts() -> None:
    finish = {"type": "step_finish", "cost": 1.0, "tokens": {"input": 5}, "reason": "stop"}
    tool = {"type": "tool_use", "part": {"tool": "bash"}}
    session = {"type": "step_start", "sessionID": "ses_1"}
    result = of_run(finish, session, finish, tool, tool, finish)
    assert result.turns == 3
    assert result.total_cost == 3.0
    assert result.cost_by_session == {"ses_1": 3.0}
    assert result.token_usage == TokenUsage(total=15, input=15)
    assert len(result.tool_calls) == 2
    assert result.stop_reason == "empty"


def test_without_any_session_costs_have_no_name() -> None:
    assert of_run({"type": "step_finish", "cost": 1.0}).cost_by_session == {"": 1.0}


# --- how it ended ----------------------------------------------------------------------------


def failed(name: str, session: str | None = "ses_1") -> Record:
    properties = {"sessionID": session, "error": {"name": name}}
    return {"type": "session.error", "properties": properties}


START = part("m", "step-start", "start")


@pytest.mark.parametrize(
    ("records", "stop_reason"),
    [
        ([], None),
        ([said("m", "x")], None),
        ([START], "incomplete"),
        ([said("m", "x"), step("m", "stop")], "completed"),
        ([step("m", "stop")], "empty"),
        ([step("m", "length")], "length"),
        ([step("m", "content-filter")], "content_filter"),
        ([step("m", "tool-calls")], "blocked"),
        ([step("m", "unknown")], "incomplete"),
        ([step("m", "error")], "incomplete"),
        ([step("m", "brand-new")], "incomplete"),
        ([said("m", "x"), step("m", "stop"), START], "incomplete"),
        ([step("m", "tool-calls"), said("n", "x"), step("n", "stop")], "completed"),
        # the model is asked again after a compaction
        ([said("m", "x"), step("m"), said("n", "Go on", **CONTINUE)], "incomplete"),
        ([said("m", "x"), step("m"), said("n", "Go on", synthetic=True)], "completed"),
        # errors, by their name; the last word stands
        ([failed("APIError")], "error"),
        ([failed("MessageAbortedError")], "cancelled"),
        ([failed("ContentFilterError")], "content_filter"),
        ([failed("MessageOutputLengthError")], "length"),
        ([START, failed("APIError")], "error"),
        ([failed("ContextOverflowError"), said("m", "x"), step("m")], "completed"),
        ([said("m", "x"), step("m"), failed("APIError")], "error"),
        ([updated("m", error={"name": "StructuredOutputError"})], "error"),
        ([updated("m", error={"name": "MessageAbortedError"})], "cancelled"),
        ([updated("m", error={"name": "X"}), said("m", "x"), step("m")], "completed"),
        # what another session fares, or the server, is not the turn's end
        ([said("m", "x"), step("m"), failed("APIError", "ses_2")], "completed"),
        ([said("m", "x"), step("m"), failed("UnknownError", None)], "completed"),
        ([failed("UnknownError", None)], None),
        # a structured answer is one, though the step ended in a tool call
        ([step("m", "tool-calls"), updated("m", structured={"a": 1})], "completed"),
        ([updated("m", structured=0)], "completed"),
        ([updated("m", structured={"a": 1}), updated("m")], "completed"),
        # aborted while it waited for its provider to recover
        ([updated("m"), done("m", finish=None)], "cancelled"),
        ([said("m", "x"), step("m", "tool-calls"), done("n", finish=None)], "cancelled"),
        ([done("m", finish=None, error={"name": "APIError"})], "error"),
        ([done("m", finish=None, session="ses_2")], None),
        # these change nothing
        ([said("m", "x"), step("m"), updated("m"), said("m", "x")], "completed"),
        ([said("m", "x"), step("m"), done("m")], "completed"),
        (
            [step("m", "length"), {"type": "session.status", "properties": {"sessionID": "ses_1"}}],
            "length",
        ),
    ],
)
def test_the_end(records: list[Record], stop_reason: str | None) -> None:
    assert of_server(*records).stop_reason == stop_reason


@pytest.mark.parametrize(
    ("records", "stop_reason"),
    [
        ([{"type": "error", "error": {"name": "APIError"}}], "error"),
        ([{"type": "step_start", "sessionID": "ses_1"}, {"type": "error"}], "error"),
        ([{"type": "error", "sessionID": ""}, {"type": "step_finish"}], "incomplete"),
        ([{"type": "text", "text": "x"}, {"type": "step_finish", "reason": "stop"}], "completed"),
        ([{"type": "diagnostic", "kind": "empty_line"}, {"type": "done"}], None),
    ],
)
def test_all_that_run_prints_is_of_its_session(
    records: list[Record], stop_reason: str | None
) -> None:
    assert of_run(*records).stop_reason == stop_reason


def test_the_tables_of_ends() -> None:
    errors = {"error", "cancelled", "incomplete", "limit", "timeout"}
    assert set(typing.get_args(StopReason)) - RETURNED == errors
    assert {"completed", "length", "content_filter"} == ANSWERED
    assert ANSWERED | {"empty"} == OVER
    assert ANSWERED | {"empty", "blocked"} == RETURNED
    for reason, end in ENDS_OF_A_STEP.items():
        assert end_if_nothing_follows(StepFinished(reason=reason)) == end
    for name, end in FAILURES.items():
        assert end_if_nothing_follows(ErrorReported(error=ErrorInfo(name))) == end
        assert end_if_nothing_follows(MessageUpdated(error=ErrorInfo(name))) == end
    assert end_if_nothing_follows(StepStarted()) == "incomplete"
    assert end_if_nothing_follows(MessageUpdated()) is None


def last_error_of(*records: Record, root: str | None = "ses_1") -> str | None:
    fold = TurnFold(root)
    for record in records:
        fold.add(stream_event(record))
    return fold.last_error.name if fold.last_error else None


def test_the_last_error_is_remembered() -> None:
    assert last_error_of() is None
    assert last_error_of(failed("A"), failed("B")) == "B"
    assert last_error_of(failed("A"), updated("m", error={"name": "B"}), updated("m")) == "B"
    assert last_error_of(failed("A", None)) == "A"
    assert last_error_of(failed("A", "ses_2"), root="ses_1") is None
    other = updated("m", session="ses_2", error={"name": "B"}, structured=1)
    assert last_error_of(other) is None
    assert of_server(other).structured is None


def test_the_last_structured_answer_stands() -> None:
    answers = [updated("m", structured=answer) for answer in (1, 2)]
    assert of_server(*answers, updated("m")).structured == 2


# --- results ---------------------------------------------------------------------------------


def test_the_fields_that_users_know() -> None:
    assert {field.name for field in attrs.fields(RunResult)} >= {
        *("events", "final_text", "tool_calls", "exit_code", "stderr", "raw_stdout_lines"),
        *("token_usage", "total_cost", "turns", "session_id"),
    }
    assert attrs.asdict(RunResult(), recurse=False) == {
        **dict.fromkeys(("final_text", "text", "stderr"), ""),
        **dict.fromkeys(("stop_reason", "structured", "session_id", "duration_s", "exit_code")),
        **{name: [] for name in ("tool_calls", "events", "raw_stdout_lines")},
        "tool_parts": (),
        "turns": 0,
        "token_usage": TokenUsage(),
        "total_cost": 0.0,
        "cost_by_session": {},
        "teardown": None,
    }
    assert Teardown() == Teardown(terminated=0, killed=0, survivors=())
    assert [(field.name, field.default) for field in attrs.fields(TokenUsage)] == [
        *((name, 0) for name in ("total", "input", "output", "reasoning")),
        *(("cache_read", 0), ("cache_write", 0)),
    ]


def test_a_result_shows_what_fits_on_a_screen() -> None:
    shown = repr(RunResult(final_text="a", stop_reason="completed"))
    assert shown.startswith("RunResult(final_text='a', text='', stop_reason='completed', ")
    for field in ("tool_calls", "cost_by_session", "stderr", "events", "raw_stdout_lines"):
        assert f"{field}=" not in shown


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (
            aggregate_run_result,
            {"events": ..., "raw_stdout_lines": ..., "exit_code": ..., "stderr": ...},
        ),
        (
            aggregate_server_result,
            {
                "events": ...,
                "session_id": ...,
                "final_messages": None,
                "exit_code": 0,
                "stderr": "",
            },
        ),
    ],
)
def test_the_signatures_that_users_know(function: Any, parameters: Any) -> None:
    found = inspect.signature(function).parameters.values()
    assert {p.kind for p in found} == {inspect.Parameter.KEYWORD_ONLY}
    assert {p.name: ... if p.default is p.empty else p.default for p in found} == parameters


def test_a_result_does_not_change_with_the_fold_or_the_lists_it_was_made_of() -> None:
    fold = TurnFold()
    fold.add(run_event({"type": "text", "text": "a"}))
    lines = ["a"]
    before = result_of(fold)
    aggregated = aggregate_run_result(events=[], raw_stdout_lines=lines, exit_code=None, stderr="")
    lines.append("b")
    fold.add(run_event({"type": "tool_use", "cost": 1.0, "part": {"tool": "x"}}))
    fold.add(run_event({"type": "step_finish", "cost": 1.0}))
    assert before == RunResult(
        final_text="a",
        text="a",
        cost_by_session={"": 0.0},
        events=[{"type": "text", "text": "a"}],
    )
    assert aggregated.raw_stdout_lines == ["a"]
    assert aggregated.exit_code is None


def test_fields_that_no_event_tells_are_given() -> None:
    result = result_of(TurnFold(), stop_reason="limit", duration_s=1.5)
    assert (result.stop_reason, result.duration_s) == ("limit", 1.5)


def test_lines_make_the_result_of_their_records() -> None:
    result = result_of_lines("run-ok", lines_of("run-ok"))
    assert (result.final_text, result.raw_stdout_lines) == ("hello", lines_of("run-ok"))


# --- whatever shape --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([], ""),
        ([{"type": "x", "content": " a "}], "a"),
        *(
            ([{"type": "x", key: "a"}], "a")
            for key in ("content", "text", "delta", "output", "message", "result", "value")
        ),
        ([{"type": "x", "output": "a", "result": "b"}, {"value": "c"}], "a\nb\nc"),
        ([{"type": "x", "text": "a", "content": "a"}], "a"),
        ([{"type": "x", "text": "a"}, {"type": "x", "text": "a"}], "a\na"),
        ([{"type": "x", "part": {"text": "a"}}], "a"),
        ([{"type": "x", "message": {"content": "a"}}], "a"),
        ([{"type": "x", "message": {"content": [{"text": "a"}, {"text": "b"}]}}], "ab"),
        ([{"type": "x", "content": [{"text": "a"}, {"content": "b"}, "c", {"x": 1}, 2]}], "abc"),
        ([{"type": "x", "content": 1, "text": None, "part": 3, "message": []}], ""),
        ([{"type": "diagnostic", "raw": "a", "value": "b"}], ""),
        ([{"type": "x", "text": "  "}], ""),
    ],
)
def test_fuzzy_text_finds_it(records: list[Record], text: str) -> None:
    assert run_result_fuzzy_text(RunResult(events=records)) == text
    lines = RunResult(events=records, raw_stdout_lines=[" line ", "", " ", "more"])
    assert run_result_fuzzy_text(lines) == (text or "line\nmore")


def test_fuzzy_text_is_the_answer_if_there_is_one() -> None:
    events = [{"type": "x", "text": "a"}]
    assert run_result_fuzzy_text(RunResult(final_text=" b\n", events=events)) == "b"
    assert run_result_fuzzy_text(RunResult(final_text=" \n", events=events)) == "a"


@pytest.mark.parametrize("name", RUN_TRACES)
def test_fuzzy_text_of_a_trace(name: str) -> None:
    result = result_of_lines(name, lines_of(name))
    if TOLD[name].final_text:
        assert run_result_fuzzy_text(result) == TOLD[name].final_text


def test_the_signature_of_fuzzy_text() -> None:
    assert list(inspect.signature(run_result_fuzzy_text).parameters) == ["result"]
