"""The pure parts of a session: what it may, what it is asked, what was said in a turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

import fake_server as fake
from opencode_trio._json import Json
from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.v1 import routes
from opencode_trio._protocol.v1.rules import (
    SessionRules,
    check_taken,
    rule,
    rules_of,
    rules_to_answer,
)
from opencode_trio._protocol.v1.stored import messages_of_turn, messages_since, newest_messages
from opencode_trio._protocol.v1.stream_events import message_events, stream_event
from opencode_trio._session.pending_asks import checked_answers, refusal, reply
from opencode_trio._session.settings import check_scope, turn_settings
from opencode_trio._turn.fold import TurnFold
from opencode_trio._turn.guards import MAX_STEPS, TurnGuard, TurnLimits
from opencode_trio._turn.session_tree import SessionTree
from opencode_trio._turn.state import DeltaSorter, TurnState
from opencode_trio.asks import PermissionRequest, QuestionRequest, Reject
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError, OpenCodeLimitError, OpenCodeServerError
from opencode_trio.events import (
    Event,
    MessageUpdated,
    OtherPart,
    Question,
    QuestionOption,
    ReasoningDelta,
    ReasoningPart,
    SessionRetrying,
    StepFinished,
    StepStarted,
    TextDelta,
    TextPart,
)

# --- rules of permission ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cfg", "rules"),
    [
        (RunConfig(), []),
        (RunConfig(permission="ask"), [rule("*", "*", "ask")]),
        (
            RunConfig(permission={"bash": {"*": "deny", "git *": "allow"}, "*": "allow"}),
            [rule("*", "*", "allow"), rule("bash", "*", "deny"), rule("bash", "git *", "allow")],
        ),
        (
            RunConfig(
                tools={"bash": False, "write": True}, permission={"*": "ask", "edit": "deny"}
            ),
            [
                rule("*", "*", "ask"),
                rule("bash", "*", "deny"),
                rule("edit", "*", "allow"),
                rule("edit", "*", "deny"),
            ],
        ),
    ],
)
def test_settings_as_rules(cfg: RunConfig, rules: list[Json]):
    assert rules_of(cfg) == rules


async def test_rules_of_one_turn_are_covered_by_those_of_the_next():
    base, agent, turn = [rule("a", "*", "ask")], [rule("*", "*", "allow")], [rule("b", "*", "deny")]
    server: list[Json] = []  # the rules that it has
    calls: list[str] = []
    is_lost = False

    async def send(call: Call[Any], /) -> Any:
        calls.append(f"{call.method} {call.path}")
        if call.path == "/agent":
            return call.read([{"name": "build", "permission": agent}])
        if call.path == "/session/ses_1":
            server.extend((call.body or {})["permission"])
            if is_lost:
                raise OpenCodeServerError("lost")
            return call.read({"id": "ses_1", "permission": server})
        return call.read({})

    rules = SessionRules(send, "ses_1", own=base, server=[])
    await rules.apply([], None)
    assert calls == []  # nothing to do, nothing to undo
    await rules.apply(turn, None)
    assert server == [*base, *turn]
    is_lost = True
    with pytest.raises(OpenCodeServerError):
        await rules.apply([], None)
    is_lost = False
    del server[:]
    await rules.apply([], None)  # nobody heard that they were added: they are added again
    assert server == [*agent, *base]
    calls.clear()
    await rules.apply([], None)
    assert [call for call in calls if call.startswith("PATCH")] == []  # they stand last already


@pytest.mark.parametrize(
    ("permission", "is_denied"),
    [
        ({}, False),
        ("ask", False),
        ({"bash": "deny"}, False),
        ("deny", True),
        ({"*": "deny", "bash": "allow"}, True),
        ({"*": "deny", "Structured*": "allow"}, False),
        ({"*": {"*.env": "deny"}}, False),
    ],
)
def test_a_structured_answer_can_be_given(permission: Any, is_denied: bool):
    added = rules_to_answer(rules_of(RunConfig(permission=permission)))
    assert added == ([rule("StructuredOutput", "*", "allow")] if is_denied else [])


# --- what belongs to whom --------------------------------------------------------------------


@pytest.mark.parametrize(
    "cfg",
    [
        RunConfig(mcp={"x": {}}),
        RunConfig(instructions=["a.md"]),
        RunConfig(config_overrides={"provider": {}}),
        RunConfig(snapshot=False),
        RunConfig(extra_env={"A": "b"}),
    ],
)
def test_a_turn_cannot_change_the_server(cfg: RunConfig):
    for server in (None, RunConfig(model="p/m")):
        with pytest.raises(OpenCodeConfigError, match="whole server"):
            check_scope(cfg, server, what="run_cfg")
    check_scope(attrs.evolve(cfg, model="p/other"), cfg, what="run_cfg")


def test_options_lie_over_the_sessions_settings():
    session = RunConfig(model="p/session", agent="plan", max_steps=9)
    settings = turn_settings(session, None, {}, rules_of)
    assert (settings.cfg, settings.limits.max_steps) == (session, 9)
    settings = turn_settings(
        session,
        None,
        {"model": "p/turn", "run_cfg": RunConfig(agent="build"), "max_cost_usd": 1},
        rules_of,
    )
    assert (settings.cfg.model, settings.cfg.agent) == ("p/turn", "build")
    assert settings.limits == TurnLimits(max_steps=9, max_cost_usd=1)
    assert turn_settings(RunConfig(), None, {}, rules_of).limits.max_steps == MAX_STEPS
    with pytest.raises(TypeError, match="modle"):
        turn_settings(session, None, {"modle": "x"}, rules_of)
    for wrong in (0, -1, "1", True, float("nan")):
        with pytest.raises(OpenCodeConfigError, match="max_cost_usd"):
            turn_settings(session, None, {"max_cost_usd": wrong}, rules_of)


# --- asks ------------------------------------------------------------------------------------

PERMISSION = PermissionRequest(request_id="per_1", session_id="ses_1", raw={"id": "per_1"})
ASKED = Question(
    "Which?", "W", (QuestionOption("a"), QuestionOption("b")), multiple=False, custom=False
)
QUESTION = QuestionRequest(request_id="que_1", session_id="ses_1", questions=(ASKED,))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ("once", {"reply": "once"}),
        ("always", {"reply": "always"}),
        ("reject", {"reply": "reject"}),
        (Reject(), {"reply": "reject"}),
        (Reject("why"), {"reply": "reject", "message": "why"}),
    ],
)
def test_answers_to_a_request_for_permission(answer: Any, body: Json):
    call = reply(routes, PERMISSION, answer)
    assert (call.path, call.body) == ("/permission/per_1/reply", body)


@pytest.mark.parametrize("answer", ["yes", True, None, ["once"]])
def test_what_is_no_answer_is_refused(answer: Any):
    with pytest.raises(OpenCodeConfigError, match="on_permission"):
        reply(routes, PERMISSION, answer)


def test_answers_to_questions():
    assert reply(routes, QUESTION, [["a"]]).body == {"answers": [["a"]]}
    assert reply(routes, QUESTION, None).path == "/question/que_1/reject"
    assert reply(routes, QUESTION, Reject("no")).path == "/question/que_1/reject"
    assert refusal(routes, QUESTION).path == "/question/que_1/reject"
    assert refusal(routes, PERMISSION).body == {"reply": "reject"}
    assert dict(PERMISSION) == {"id": "per_1"}
    assert len(PERMISSION) == 1


@pytest.mark.parametrize(
    "answers", ["a", [], [["a"], ["b"]], ["a"], [["c"]], [["a", "b"]], [[1]], 3]
)
def test_impossible_answers(answers: Any):
    with pytest.raises(OpenCodeConfigError):
        checked_answers([ASKED], answers)


def test_own_words_and_several_labels_where_they_are_welcome():
    free = attrs.evolve(ASKED, custom=True, multiple=True)
    assert checked_answers([free], [("a", "my own")]) == [["a", "my own"]]
    assert checked_answers([ASKED], [[]]) == [[]]


def test_a_request_is_a_mapping_too():
    assert dict(PERMISSION) == {"id": "per_1"}
    assert "sessionID" not in PERMISSION


# --- the tree --------------------------------------------------------------------------------


def test_the_tree_survives_a_circle():
    tree = SessionTree()
    tree.add("a", "b")
    tree.add("b", "a", "general")
    assert tree.depth("a", "x") == 0
    assert set(tree.descendants("a")) == {"b"}
    tree.add("b", None)
    assert (tree.agent_of("b"), tree.parent_of("b")) == ("general", "a")
    tree.forget("a")
    assert len(tree) == 0


# --- deltas ----------------------------------------------------------------------------------


def test_deltas_are_told_apart_and_wait_for_their_part():
    sorter = DeltaSorter()
    early = TextDelta(part_id="r", delta="h")
    assert sorter.sort(early) == []
    begun = ReasoningPart(part_id="r", text="", is_complete=False)
    assert sorter.sort(begun) == [begun, ReasoningDelta(part_id="r", delta="h")]
    assert sorter.sort(TextDelta(part_id="r", delta="m")) == [
        ReasoningDelta(part_id="r", delta="m")
    ]
    sorter.sort(TextDelta(part_id="t", delta="gone"))
    whole = TextPart(part_id="t", text="gone", is_complete=True)
    assert sorter.sort(whole) == [whole]
    sorter.sort(TextDelta(part_id="o", delta="x"))
    assert len(sorter.sort(OtherPart(part_id="o"))) == 1


# --- guards ----------------------------------------------------------------------------------


def run_guard(limits: TurnLimits, *events: Event, cost: float = 0.0) -> str | None:
    guard = TurnGuard(limits)
    try:
        for item in events:
            guard.check(item, cost_usd=lambda: cost, now_s=1000.0)
    except OpenCodeLimitError as exc:
        return exc.limit
    return None


def test_guards():
    step, done = StepStarted(session_id="a"), StepFinished(session_id="a", reason="stop")
    calls = StepFinished(session_id="a", reason="tool-calls")
    broken = StepFinished(session_id="a", reason="unknown")
    elsewhere = attrs.evolve(broken, session_id="b")
    assert run_guard(TurnLimits(max_steps=2), step, calls, step, done) is None
    assert run_guard(TurnLimits(max_steps=1), step, calls) == "max_steps"
    assert (
        run_guard(TurnLimits(max_steps=1), step, attrs.evolve(step, session_id="b")) == "max_steps"
    )
    assert run_guard(TurnLimits(), broken, broken, elsewhere, elsewhere) is None
    assert run_guard(TurnLimits(), broken, elsewhere, broken, broken) == "unknown_finishes"
    assert run_guard(TurnLimits(max_cost_usd=1), step, done, cost=1) is None
    assert run_guard(TurnLimits(max_cost_usd=1), step, calls, cost=1) == "max_cost_usd"
    assert run_guard(TurnLimits(max_cost_usd=1), MessageUpdated(is_complete=True), cost=2)
    assert run_guard(TurnLimits(), SessionRetrying(next_at_s=1010)) is None
    assert run_guard(TurnLimits(), SessionRetrying(next_at_s=90_000)) == "max_retry_wait_s"
    told_twice = [attrs.evolve(step, part_id="prt_1"), attrs.evolve(broken, part_id="prt_2")]
    assert run_guard(TurnLimits(max_steps=2), *told_twice, *told_twice, *told_twice) is None
    assert run_guard(TurnLimits(max_steps=2), *told_twice, step, step) == "max_steps"
    assert run_guard(TurnLimits(max_retry_wait_s=None), SessionRetrying(next_at_s=90_000)) is None


# --- what is of a turn -----------------------------------------------------------------------

OLD, MINE, NEW = "msg_100000000000aa", "msg_200000000000aa", "msg_300000000000aa"


def test_late_words_of_an_old_turn_are_not_heard():
    live = TurnState("ses_1", MINE, TurnGuard(TurnLimits()))
    late = [
        fake.status("ses_1", "idle"),
        fake.event("session.error", sessionID="ses_1", error={"name": "MessageAbortedError"}),
        fake.assistant_message("ses_1", fake.assistant("ses_1", OLD, OLD)),
    ]
    assert [e for record in late for e in live.take(stream_event(record), 0)] == []
    assert live.fold.stop_reason is None
    assert [error.name for error in live.errors] == ["MessageAbortedError"]
    live.take(stream_event(fake.user_message("ses_1", MINE)), 0)
    assert live.take(stream_event(late[2]), 0) == []
    assert live.take(stream_event(late[0]), 0) != []
    live.take(stream_event(fake.assistant_message("ses_1", fake.assistant("ses_1", NEW, MINE))), 0)
    assert (live.answers, live.complete) == ({NEW}, {NEW})
    assert live.fold.total_cost == 0.5


def stored(info: Json, *parts: Json) -> Json:
    return {"info": info, "parts": list(parts)}


def test_the_messages_of_a_turn():
    def user(identifier: str, *parts: Json) -> Json:
        return stored({"id": identifier, "role": "user"}, *parts)

    def answer(identifier: str, parent: str) -> Json:
        return stored(fake.assistant("ses_1", identifier, parent))

    text = {"type": "text", "text": "x"}
    messages = [
        user("msg_1", text),
        answer("msg_2", "msg_1"),
        user("msg_3", text),  # ours
        answer("msg_4", "msg_3"),
        user("msg_5", {**text, "synthetic": True}),  # opencode's own
        answer("msg_6", "msg_5"),
        user("msg_7", text),  # another client's
        answer("msg_8", "msg_7"),
    ]

    def found(messages: list[Json]) -> list[str]:
        return [m["info"]["id"] for m in messages_of_turn(messages, "msg_3")]

    assert found(messages) == ["msg_4", "msg_6"]
    compaction = user("msg_65", {"type": "compaction"})
    assert found([*messages[:6], compaction, *messages[6:]]) == ["msg_4", "msg_6", "msg_8"]
    assert [m["info"]["id"] for m in messages_since(messages, "msg_3")] == [
        "msg_4",
        "msg_6",
        "msg_8",
    ]


TRACES = Path(__file__).parent / "traces"


def test_a_recorded_turn_folds_alike_from_its_stream_and_from_its_messages():
    lines = (TRACES / "serve-subagent-permission.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if "payload" in record]
    prompts = [
        e
        for e in map(stream_event, records)
        if isinstance(e, MessageUpdated) and e.role == "user" and e.session_id
    ]
    root, message = prompts[0].session_id, prompts[0].message_id
    assert root is not None
    assert message is not None
    live = TurnState(root, message, TurnGuard(TurnLimits()))
    for record in records:
        live.take(stream_event(record), 0)
    messages: dict[str, Json] = {}
    parts: dict[str, dict[str, Json]] = {}
    for record in records:
        properties = record["payload"].get("properties", {})
        if record["payload"].get("type") == "message.updated":
            messages[properties["info"]["id"]] = properties["info"]
        if record["payload"].get("type") == "message.part.updated":
            part = properties["part"]
            parts.setdefault(part["messageID"], {})[part["id"]] = part
    whole = [stored(i, *parts.get(i["id"], {}).values()) for i in messages.values()]
    own = [m for m in whole if m["info"]["sessionID"] == root]
    others = [m for m in whole if m["info"]["sessionID"] != root]
    fold = TurnFold(root)
    for found in [*messages_since(others, message), *messages_of_turn(own, message)]:
        fold.replace(message_events(found))
    for name in ("total_cost", "steps", "final_text", "stop_reason", "token_usage"):
        assert getattr(fold, name) == getattr(live.fold, name), name
    assert fold.total_cost == pytest.approx(0.00048)


@pytest.mark.parametrize("total", range(1, 12))
@pytest.mark.parametrize("readable", [False, True])
@pytest.mark.parametrize("limit", [None, 3])
async def test_as_many_messages_as_opencode_can_tell(total: int, readable: bool, limit: int | None):
    story = [{"info": {"id": f"msg_{n}"}} for n in range(total)]
    calls = 0

    async def ask(call: Call[Any], /) -> Any:
        nonlocal calls
        calls += 1
        wanted = int(call.query.get("limit", total))
        if wanted >= total and not (readable and calls > 1):  # another client deleted the prompt
            raise OpenCodeServerError("400, OutputFormatJsonSchema", status_code=400)
        return story[max(0, total - wanted) :]

    found = await newest_messages(ask, "ses_1", limit)
    if limit is not None and limit < total:
        assert found == story[-limit:]
    else:
        assert found == (story if readable else story[1:])
    assert calls < 10


async def test_other_refusals_are_errors():
    async def ask(call: Call[Any], /) -> Any:
        raise OpenCodeServerError("500", status_code=500)

    with pytest.raises(OpenCodeServerError, match="500"):
        await newest_messages(ask, "ses_1", None)


def test_an_old_opencode_passes_over_permission_rules():
    rules = [rule("bash", "*", "deny")]
    check_taken(routes.session_record({}), [])
    taken = {"permission": [rule("*", "*", "allow"), *rules]}
    check_taken(routes.session_record(taken), rules)
    with pytest.raises(OpenCodeServerError, match="does not take permission rules"):
        check_taken(routes.session_record({"id": "ses_1"}), rules)
