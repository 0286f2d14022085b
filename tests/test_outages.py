"""Outages of the event stream, in memory and in virtual time: what it keeps from a turn is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import fake_server as fake
from fake_agent import ASK, ROOT, Agent, LateServer, allow_and_note, settled, talking
from opencode_trio._json import Json
from opencode_trio._session.pending_asks import AskHandlers
from opencode_trio._session.turn import Turn
from opencode_trio._turn.activity import Activity
from opencode_trio.errors import OpenCodeLimitError, OpenCodeServerError, OpenCodeTurnError
from opencode_trio.events import PermissionAsked, TextDelta

FIRST, SECOND = "msg_f00000000001zz", "msg_f00000000002zz"
"""Messages of the agent."""


def part(message: str, identifier: str, kind: str, **more: Any) -> Json:
    return {"id": identifier, "messageID": message, "sessionID": ROOT, "type": kind, **more}


def record(message: str, turn: Turn, *parts: Json, **more: Any) -> Json:
    return {"info": fake.assistant(ROOT, message, turn.message_id, **more), "parts": list(parts)}


def begun(message: str, turn: Turn) -> Json:
    return fake.assistant_message(ROOT, record(message, turn, done=False)["info"])


def told(part: Json) -> Json:
    return fake.event("message.part.updated", sessionID=ROOT, part=part)


def slowly(answer: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    async def route(*args: Any) -> Any:
        await trio.sleep(seconds)
        return answer(*args)

    return route


async def test_an_ask_during_an_outage_is_found(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    asked: list[Any] = []
    async with talking(agent, AskHandlers(allow_and_note(asked))) as (
        session,
        _,
    ):
        async with session.stream("x") as turn:
            await settled()
            agent.server.routes["GET /permission"] = lambda call: [
                ASK,
                {**ASK, "id": "per_2", "sessionID": "ses_other"},
                {**ASK, "id": "per_3", "tool": {"messageID": "msg_0former", "callID": "c"}},
            ]
            agent.server.hang_up()
            await settled(5)
            assert [request.request_id for request in asked] == ["per_1"]
            agent.finish()
            await turn.wait()
        assert turn.result.final_text == "answer to x"


async def test_what_was_told_and_is_found_again_is_asked_once(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _):
        async with session.stream("x", answer_by_hand=True) as turn:
            await settled()
            agent.server.say(fake.event("permission.asked", **ASK))
            agent.server.routes["GET /permission"] = lambda call: [ASK]
            await settled()
            agent.server.hang_up()
            await settled(5)
            agent.server.say(fake.event("permission.asked", **ASK))
            await settled()
            agent.finish()
            asked = [event async for event in turn if isinstance(event, PermissionAsked)]
        assert [ask.request_id for ask in asked] == ["per_1"]


@pytest.mark.parametrize("limit", ["max_retry_wait_s", "unknown_finishes", "max_steps"])
async def test_guards_count_what_an_outage_kept_from_them(
    limit: str, autojump_clock: trio.testing.MockClock
):
    agent = Agent()
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeLimitError) as failed:
            async with session.stream("x", max_steps=10) as turn:
                await settled()
                agent.server.hang_up()
                if limit == "max_retry_wait_s":
                    status = {"type": "retry", "attempt": 1, "message": "spent", "next": 9e15}
                    agent.server.routes["GET /session/status"] = lambda call: {ROOT: status}
                else:
                    agent.messages += steps_of(turn.message_id, limit)
                await trio.sleep(30)
                agent.finish()
                await turn.wait()
        assert (failed.value.limit, agent.aborts > 0) == (limit, True)


def steps_of(parent: str, limit: str) -> list[Json]:
    number, reason = (3, "unknown") if limit == "unknown_finishes" else (10, "tool-calls")
    found: list[Json] = []
    for n in range(number):
        message = f"msg_f{n:011x}zz"
        ids = {"messageID": message, "sessionID": ROOT}
        parts = [
            ids | {"type": "step-start", "id": f"prt_a{n}"},
            ids | {"type": "step-finish", "id": f"prt_b{n}", "reason": reason, "cost": 0.1},
        ]
        found.append({"info": fake.assistant(ROOT, message, parent), "parts": parts})
    return found


async def test_who_recovered_during_an_outage_is_no_longer_waited_for(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeLimitError):
            async with session.stream("x", fail_if_silent=20) as turn:
                await settled()
                agent.server.say(fake.status(ROOT, "retry", attempt=1, next=0, message="m"))
                await settled()
                agent.server.hang_up()
                await turn.wait()
        assert trio.current_time() < 25


@pytest.mark.parametrize("recovers", [True, False])
async def test_who_recovered_during_an_outage_is_not_shown_as_retrying(
    recovers: bool, autojump_clock: trio.testing.MockClock
):
    agent = Agent()
    activity = Activity()
    retry = {"type": "retry", "attempt": 1, "next": 0, "message": "m"}
    async with (
        talking(agent, on_event=activity.take) as (session, _),
        session.stream("x") as turn,
    ):
        await settled()
        agent.server.say(fake.event("session.status", sessionID=ROOT, status=retry))
        await settled()
        assert activity.is_retrying
        states = {} if recovers else {ROOT: retry}
        agent.server.routes["GET /session/status"] = lambda call: states
        agent.server.hang_up()
        await settled(5)
        assert activity.is_retrying is not recovers
        agent.finish()
        await turn.wait()


@pytest.mark.parametrize("kind", ["permission", "question"])
async def test_an_ask_that_somebody_else_answered_during_an_outage_is_settled(
    kind: str, autojump_clock: trio.testing.MockClock
):
    agent = Agent()
    activity = Activity()
    has_ended = trio.Event()

    async def think(request: Any) -> Any:
        try:
            await trio.sleep_forever()
        finally:
            has_ended.set()

    ask = ASK if kind == "permission" else {"id": "que_1", "sessionID": ROOT, "questions": []}
    async with talking(agent, AskHandlers(think, think), on_event=activity.take) as (session, _):
        with pytest.raises(OpenCodeLimitError) as failed:
            async with session.stream("x", fail_if_silent=20) as turn:
                await settled()
                agent.server.say(fake.event(f"{kind}.asked", **ask))
                await settled()
                assert (len(turn.pending_asks), activity.asks) == (1, 1)
                agent.server.hang_up()
                await settled(5)
                assert has_ended.is_set()
                assert (turn.pending_asks, activity.asks) == ([], 0)
                await turn.wait()
        assert failed.value.limit == "fail_if_silent"  # nobody is waited for any more


async def test_an_ask_that_comes_while_an_outage_is_looked_into_stays_open(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _), session.stream("x", answer_by_hand=True) as turn:
        await settled()
        agent.server.routes["GET /permission"] = slowly(lambda call: [], 1)
        agent.server.hang_up()
        await settled(0.5)
        agent.server.say(fake.event("permission.asked", **ASK))
        await settled(5)
        assert len(turn.pending_asks) == 1
        agent.finish()
        await turn.wait()


async def allow_by_hand(agent: Agent, turn: Turn) -> None:
    async for event in turn:
        if isinstance(event, PermissionAsked):
            await turn.answer(event, "once")
            agent.finish()


@pytest.mark.parametrize("told_again", ["when all was read", "while it is read"])
async def test_an_ask_is_shown_though_the_prompt_was_not_told(
    told_again: str, autojump_clock: trio.testing.MockClock
):
    server = LateServer(is_late=True)
    agent = Agent(server)
    async with talking(agent) as (session, _):
        async with session.stream("x", answer_by_hand=True) as turn:
            await settled()
            if told_again == "while it is read":
                agent.messages.append(record(FIRST, turn))
                agent.server.routes["GET /permission"] = slowly(lambda call: [ASK], 0.5)
            server.hang_up()
            await settled(0.3)
            server.is_late = False
            server.say(fake.event("permission.asked", **ASK))
            with trio.fail_after(60):
                await allow_by_hand(agent, turn)
        assert turn.result.final_text == "answer to x"


async def test_guards_count_though_the_prompt_was_not_told(autojump_clock: trio.testing.MockClock):
    server = LateServer(is_late=True)
    agent = Agent(server)
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeLimitError):
            async with session.stream("x", max_steps=3) as turn:
                await settled()
                server.hang_up()
                await settled(2)
                server.is_late = False
                for n in range(10):
                    message = f"msg_f{n:011x}zz"
                    calls = part(message, f"prt_b{n}", "step-finish", reason="tool-calls")
                    server.say(
                        begun(message, turn),
                        told(part(message, f"prt_a{n}", "step-start")),
                        told(calls),
                    )
                await turn.wait()


async def test_a_step_found_after_the_next_has_begun_is_not_followed_by_another(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _), session.stream("x", max_steps=2) as turn:
        await settled()
        start, next_start = part(FIRST, "prt_1", "step-start"), part(SECOND, "prt_3", "step-start")
        end = part(FIRST, "prt_2", "step-finish", reason="tool-calls", cost=0.1)
        agent.server.say(begun(FIRST, turn), told(start))
        agent.messages += [record(FIRST, turn, start, end), record(SECOND, turn, next_start)]
        agent.server.routes["GET /permission"] = slowly(lambda call: [], 0.5)
        agent.server.hang_up()
        await settled(0.3)
        agent.server.say(begun(SECOND, turn), told(next_start))
        await settled(2)
        agent.finish()
        await turn.wait()


async def test_a_session_that_was_deleted_meanwhile(autojump_clock: trio.testing.MockClock):
    agent = Agent()

    def gone(*args: Any) -> Json:
        raise OpenCodeServerError("404", status_code=404)

    async with talking(agent) as (session, _):
        with trio.fail_after(60), pytest.raises(OpenCodeServerError, match="deleted"):
            async with session.stream("x") as turn:
                await settled()
                for route in ("", "/children", "/message"):
                    agent.server.routes[rf"GET /session/(\w+){route}"] = gone
                agent.server.hang_up()
                await turn.wait()


async def test_what_cannot_be_read_is_tried_again_by_one_task(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    tries = 0

    def fails(*args: Any) -> Json:
        nonlocal tries
        tries += 1
        raise OpenCodeServerError("500", status_code=500)

    async with talking(agent) as (session, _), session.stream("x") as turn:
        await settled()
        agent.server.routes["GET /permission"] = fails
        for _ in range(5):
            agent.server.hang_up()
            await settled(1)
        await settled(5)
        assert tries <= 11
        agent.server.routes["GET /permission"] = lambda call: [ASK]
        await settled(2)
        agent.server.hang_up()
        await settled(2)
        assert tries <= 11
        agent.finish()
        await turn.wait()


async def test_what_was_read_before_the_answer_changes_nothing_after_it(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeTurnError):
            async with session.stream("x") as turn:
                await settled()
                agent.messages.append(record(SECOND, turn, part(SECOND, "prt_1", "step-start")))
                agent.server.routes["GET /permission"] = slowly(lambda call: [], 3)
                there = {"id": ROOT, "directory": "/w"}
                agent.server.routes[r"GET /session/(\w+)"] = slowly(lambda *args: there, 4)
                agent.server.hang_up()
                await settled(1)
                agent.messages.pop()
                agent.finish({"name": "APIError", "data": {"message": "no", "statusCode": 402}})
                await turn.wait()


async def test_pieces_of_a_part_that_was_found_are_shown(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    async with talking(agent) as (session, _), session.stream("x") as turn:
        await settled()
        words = part(FIRST, "prt_1", "text", text="a", time={"start": 1})
        agent.messages.append(record(FIRST, turn, words))
        agent.server.hang_up()
        await settled(1)
        agent.server.say(fake.delta(ROOT, FIRST, "prt_1", "b"))
        with trio.fail_after(5):
            async for event in turn:
                if isinstance(event, TextDelta):
                    break
        assert turn.result.text == "ab"
