"""Turns on a server in memory, in virtual time: order, asks, silence, goodbyes."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
import trio.testing

import fake_server as fake
from fake_agent import (
    ASK,
    ROOT,
    Agent,
    LateServer,
    allow_and_note,
    hear_heartbeats,
    settled,
    talking,
)
from opencode_trio._json import Json
from opencode_trio._session.pending_asks import AskHandlers
from opencode_trio.asks import PermissionAnswer
from opencode_trio.errors import (
    OpenCodeCancelledError,
    OpenCodeConfigError,
    OpenCodeLimitError,
    OpenCodeServerError,
    OpenCodeTurnError,
)
from opencode_trio.events import ErrorInfo, MessageUpdated, SessionIdle, StepStarted, TextDelta
from opencode_trio.session import Session


async def test_a_turn_and_its_result(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    async with talking(agent) as (session, _), session.stream("hello") as turn:
        await settled(3)
        assert turn.result.stop_reason is None
        agent.finish()
        events = [event async for event in turn]
    assert turn.result.final_text == "answer to hello"
    result = turn.result
    assert (result.stop_reason, result.total_cost) == ("completed", 0.5)
    assert turn.result.duration_s is not None
    assert 3 <= turn.result.duration_s < 4
    assert agent.aborts == 0
    assert len(events) == len(turn.result.events)


async def test_one_turn_at_a_time_and_in_order(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    answers: list[str] = []
    async with talking(agent) as (session, _), trio.open_nursery() as nursery:

        async def send(prompt: str) -> None:
            answers.append((await session.send(prompt)).final_text)

        for prompt in ("1", "2", "3"):
            nursery.start_soon(send, prompt)
            await settled()
        for number in range(3):
            assert agent.prompts == ["1", "2", "3"][: number + 1]
            agent.finish()
            await settled(2)
    assert answers == ["answer to 1", "answer to 2", "answer to 3"]


async def test_late_words_of_the_turn_before_change_nothing(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _):
        agent.finish()
        await session.send("first")
        async with session.stream("second") as turn:
            agent.server.say(
                fake.status(ROOT, "idle"),
                fake.event("session.error", sessionID=ROOT, error={"name": "MessageAbortedError"}),
                fake.event("session.error", error={"name": "UnknownError"}),
            )
            await settled(5)
            assert turn.result.stop_reason is None or not turn.result.final_text
            agent.finish()
            async for _ in turn:
                pass
        assert turn.result.final_text == "answer to second"
        assert turn.result.stop_reason == "completed"


async def test_a_session_that_somebody_deletes_is_the_end_of_its_turn(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeServerError, match="deleted") as caught:
            async with session.stream("x") as turn:
                await settled()
                agent.server.say(fake.event("session.deleted", info={"id": "ses_other"}))
                await settled()
                assert not agent.aborts
                agent.server.say(fake.event("session.deleted", info={"id": ROOT}))
                async for _ in turn:
                    pass
        assert caught.value.status_code == 404
        assert agent.aborts  # what it was at goes on for a while, else


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_session_that_is_deleted_fails_as_such(
    autojump_clock: trio.testing.MockClock, is_answered: bool
):
    """Before it tells of the deletion, opencode tells of what its database refuses."""
    agent = Agent()
    refused = {"name": "UnknownError", "data": {"message": "Failed query: insert"}}
    prompt = agent.server.routes[r"POST /session/(\w+)/message"]

    async def gone(call: Any, session: str) -> Json:
        agent.server.routes[r"GET /session/(\w+)"] = fail
        agent.server.say(fake.event("session.error", sessionID=session, error=refused))
        if not is_answered:
            raise OpenCodeServerError("500", status_code=500)
        agent.finish(refused)
        answered: Json = await prompt(call, session)
        return answered

    def fail(call: Any, session: str) -> Json:
        raise OpenCodeServerError("404", status_code=404)

    async with talking(agent) as (session, _):
        agent.server.routes[r"POST /session/(\w+)/message"] = gone
        with pytest.raises(OpenCodeServerError, match="session was deleted") as caught:
            await session.send("x")
    assert caught.value.status_code == 404


@pytest.mark.parametrize("ends", [True, False])
async def test_a_compaction_that_is_broken_off_is_forgotten(
    autojump_clock: trio.testing.MockClock, ends: bool
):
    """opencode would take it up again with the next prompt, and answer that one's answer to it."""
    agent = Agent()
    agent.server.routes[r"DELETE /session/(\w+)/message/(\w+)"] = lambda call, *_: True
    former, begun = "msg_000000000001aa", "msg_f00000000000aa"
    summary = fake.assistant(ROOT, "msg_f00000000001aa", begun, done=ends, summary=True)
    async with talking(agent) as (session, _):
        with trio.move_on_after(5):
            async with session.stream("x"):
                await settled()
                older, newer = (
                    {"info": {"id": name, "role": "user"}, "parts": [{"type": "compaction"}]}
                    for name in (former, begun)
                )
                agent.messages = [older, *agent.messages, newer, {"info": summary, "parts": []}]
                await trio.sleep_forever()
    forgotten = [call.path for call in agent.server.called("DELETE .*")]
    assert forgotten == ([] if ends else [f"/session/{ROOT}/message/{begun}"])


async def test_leaving_aborts_and_waits(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    async with talking(agent) as (session, _):
        with pytest.raises(ZeroDivisionError):  # bare, though tasks were running
            async with session.stream("x") as turn:
                await settled()
                raise ZeroDivisionError
        assert (agent.aborts, turn.result.stop_reason, agent.busy) == (1, "cancelled", set())
        with trio.move_on_after(5) as scope:
            await session.send("y")
        assert scope.cancelled_caught
        assert (agent.aborts, agent.busy) == (2, set())
        agent.finish()
        assert (await session.send("z")).final_text == "answer to z"
        with pytest.raises(trio.TooSlowError):
            await session.send("slow", timeout_s=3)


@pytest.mark.parametrize("has_former", [False, True])
async def test_somebody_aborts_before_the_agent_has_said_anything(
    autojump_clock: trio.testing.MockClock, has_former: bool
):
    """The prompt is then answered with the session's last message: of a former turn, or itself."""
    agent = Agent()

    async def aborted(call: Any, session: str) -> Json:
        message = call.body["messageID"]
        agent.server.say(fake.user_message(session, message), fake.status(session, "idle"))
        await settled()
        if has_former:
            return {"info": fake.assistant(ROOT, "msg_000000000002aa", "msg_1"), "parts": []}
        return {"info": {"id": message, "role": "user", "time": {"created": 1}}, "parts": []}

    agent.server.routes[r"POST /session/(\w+)/message"] = aborted
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeCancelledError) as caught:
            await session.send("x")
    assert caught.value.partial is not None
    assert caught.value.partial.stop_reason == "cancelled"


async def test_an_abort_that_overtakes_its_prompt_is_said_again(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    answer = agent.server.routes[r"POST /session/(\w+)/message"]

    async def late(call: Any, session: str) -> Json:
        await trio.sleep(1)  # on its way
        answered: Json = await answer(call, session)
        return answered

    agent.server.routes[r"POST /session/(\w+)/message"] = late
    async with talking(agent) as (session, _):
        with trio.move_on_after(0.5):
            await session.send("x")
        assert agent.aborts > 1
        assert agent.busy == set()


async def test_a_prompt_that_is_never_answered_is_let_go_when_its_session_is_idle(
    autojump_clock: trio.testing.MockClock,
):
    """So it is in opencode 1.14, when an abort meets the first moment of a run."""
    agent = Agent()

    async def never(call: Any, session: str) -> None:
        if call.path.endswith("/message"):
            agent.server.say(fake.user_message(session, call.body["messageID"]))
        await trio.sleep_forever()

    async def abort(call: Any, session: str) -> bool:
        agent.aborts += 1
        if agent.aborts == 1:
            await never(call, session)
        return True

    answer = agent.server.routes[r"POST /session/(\w+)/message"]
    agent.server.routes[r"POST /session/(\w+)/message"] = never
    agent.server.routes[r"POST /session/(\w+)/abort"] = abort
    async with talking(agent) as (session, _):
        for who in ("the reader leaves", "another task aborts"):
            agent.aborts = 0
            began = trio.current_time()
            if who == "the reader leaves":
                async with session.stream("x") as turn:
                    await settled()
            else:
                with pytest.raises(OpenCodeCancelledError):
                    async with session.stream("x") as turn:
                        await settled()
                        await session.abort()
                        await turn.wait()
            assert 1 < trio.current_time() - began < 2, who
            assert turn.result.stop_reason == "cancelled", who
            assert not agent.has_ended, who
        agent.server.routes[r"POST /session/(\w+)/message"] = answer
        agent.finish()
        assert (await session.send("y")).final_text == "answer to y"


async def test_no_abort_reaches_the_turn_after(autojump_clock: trio.testing.MockClock):
    """A slow server is told twice; the second abort is waited for, too."""
    agent = Agent()
    aborting = 0

    async def slowly(call: Any, session: str) -> bool:
        nonlocal aborting
        aborting += 1
        await trio.sleep(0.4)
        await agent.abort(call, session)
        aborting -= 1
        return True

    agent.server.routes[r"POST /session/(\w+)/abort"] = slowly
    async with talking(agent) as (session, _):
        async with session.stream("x"):
            await settled()
        assert (agent.aborts, aborting) == (2, 0)


async def test_what_the_agent_works_on_is_kept_until_it_has_been_aborted(
    autojump_clock: trio.testing.MockClock,
):
    """opencode 1.18 calls a session busy for ever whose shell was dropped in its first moments."""
    agent = Agent()
    story: list[str] = []

    async def shell(call: Any, session: str) -> Json:
        agent.busy.add(session)
        try:
            await agent._answer.wait()
        except trio.Cancelled:
            story.append("dropped")
            raise
        agent.busy.discard(session)
        story.append("answered")
        return {"info": {}, "parts": []}

    agent.server.routes[r"POST /session/(\w+)/shell"] = shell
    async with talking(agent) as (session, _):
        with trio.move_on_after(1) as scope:
            await session.shell("sleep 60")
        assert scope.cancelled_caught
        assert (agent.aborts, story) == (1, ["answered"])
        agent.finish()
        assert await session.shell("true") == {"info": {}, "parts": []}


@pytest.mark.parametrize("answers", [True, False])
async def test_a_shell_that_is_called_busy_for_ever(
    answers: bool, autojump_clock: trio.testing.MockClock
):
    """So it is in opencode 1.18, when an abort meets its start.  A stuck server is ended."""
    agent = Agent()

    async def never(call: Any, session: str) -> None:
        agent.busy.add(session)
        await trio.sleep_forever()

    async def abort(call: Any, session: str) -> bool:
        agent.aborts += 1
        if agent.aborts == 1 or not answers:
            await trio.sleep_forever()
        return True

    agent.server.routes[r"POST /session/(\w+)/shell"] = never
    agent.server.routes[r"POST /session/(\w+)/abort"] = abort
    async with talking(agent) as (session, _):
        with trio.move_on_after(1) as scope:
            await session.shell("sleep 60")
        took = trio.current_time() - scope.deadline
        assert (5 < took < 6) if answers else (10 <= took < 11)
        assert agent.has_ended is not answers


@pytest.mark.parametrize("left", ["a message just begun", "the prompt itself"])
async def test_an_answer_without_an_end_is_that_of_an_aborted_turn(
    left: str, autojump_clock: trio.testing.MockClock
):
    agent = Agent()

    async def prompt(call: Any, session: str) -> Json:
        mine = call.body["messageID"]
        agent.server.say(fake.user_message(session, mine))
        if left == "the prompt itself":
            return {"info": {"id": mine, "role": "user", "time": {"created": 1}}, "parts": []}
        begun = fake.assistant(session, "msg_f1", mine, done=False)
        agent.server.say(fake.assistant_message(session, begun))
        return {"info": begun, "parts": []}

    agent.server.routes[r"POST /session/(\w+)/message"] = prompt
    async with talking(agent) as (session, _):
        began = trio.current_time()
        with pytest.raises(OpenCodeCancelledError):
            await session.send("x")
        assert trio.current_time() - began < 0.5  # there is no end to wait for


async def test_subagents_of_former_turns_are_left_alone(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    async with talking(agent) as (session, _):
        for number in range(3):
            async with session.stream("x") as turn:
                await settled()
                agent.server.say(fake.created(f"ses_kid{number}", ROOT))
                await settled()
                agent.finish()
                await turn.wait()
        read = [call.path for call in agent.server.called(r"GET /session/ses_kid\d/message")]
        assert read == [f"/session/ses_kid{number}/message" for number in range(3)]
        async with session.stream("x"):
            await settled()
            agent.busy.add("ses_kid1")  # it works on, in the background
            agent.server.say(fake.status("ses_kid1", "busy"))
            await settled()

            def abort(call: Any) -> bool:
                agent.busy.discard("ses_kid1")
                return True

            agent.server.routes = {
                r"POST /session/ses_kid1/abort": abort,
                **agent.server.routes,
            }
        aborted = {call.path for call in agent.server.called(r"POST /session/\w+/abort")}
        assert aborted == {f"/session/{ROOT}/abort", "/session/ses_kid1/abort"}


@pytest.mark.parametrize("has_gap", [False, True])
async def test_a_turn_whose_messages_sort_before_its_prompt(
    autojump_clock: trio.testing.MockClock, has_gap: bool
):
    """As after a clock was set back: parents tell what belongs to the turn, not ids."""
    agent = Agent(ids_begin_with="msg_0")
    asked: list[Any] = []
    async with talking(agent, AskHandlers(allow_and_note(asked))) as (session, _):
        kid = fake.assistant("ses_kid", "msg_0kid", "msg_0k")
        agent.server.routes |= {
            r"GET /session/ses_kid/message": lambda call: [{"info": kid, "parts": []}],
            r"GET /session/ses_root/children": lambda call: [{"id": "ses_kid"}],
        }
        agent.server.routes = dict(reversed(agent.server.routes.items()))
        async with session.stream("hello") as turn:
            await settled()
            agent.server.say(fake.created("ses_kid", ROOT), fake.assistant_message("ses_kid", kid))
            if has_gap:
                ask = {**ASK, "sessionID": "ses_kid", "tool": {"messageID": "msg_0kid"}}
                agent.server.routes["GET /permission"] = lambda call: [ask]
                agent.server.hang_up()
                await settled(5)
            agent.finish()
            events = [event async for event in turn]
        assert (turn.result.stop_reason, turn.result.final_text) == ("completed", "answer to hello")
        assert turn.result.total_cost == 1.0
        assert {event.session_id for event in events if isinstance(event, MessageUpdated)} == {
            ROOT,
            "ses_kid",
        }
        assert len(asked) == has_gap
        # In the next turn, that subagent's message is an old one.
        agent.ids_begin_with = "msg_f"
        agent.finish()
        assert (await session.send("again")).total_cost == 0.5


async def test_a_prompt_that_opencode_passed_over_is_no_aborted_turn(
    autojump_clock: trio.testing.MockClock,
):
    """After its clock was set back it takes the session's former prompt for the latest."""
    agent = Agent()
    async with talking(agent) as (session, _):
        created = (time.time() + 600) * 1000
        info = fake.assistant(ROOT, "msg_0answer", "msg_0former")
        info["time"] = {"created": created, "completed": created}
        agent.server.routes[r"POST /session/(\w+)/message"] = lambda call, name: {
            "info": info,
            "parts": [],
        }
        with pytest.raises(OpenCodeServerError, match=r"clock was set back, and is \d+ s behind"):
            await session.send("x")


@pytest.mark.parametrize("ours", [True, False])
async def test_a_server_that_does_not_obey_is_ended_if_it_is_ours(
    autojump_clock: trio.testing.MockClock, ours: bool
):
    agent = Agent(obeys=False)
    async with talking(agent, ours=ours) as (session, _):
        with trio.move_on_after(1):
            await session.send("x")
        assert 10 < trio.current_time() < 13
        assert agent.has_ended is ours
        if ours:
            with pytest.raises(OpenCodeServerError, match="did not abort"):
                await session.send("y")
        agent.obeys = True


async def test_a_handler_holds_up_nobody_and_is_cancelled_when_others_answer(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    story: list[str] = []

    async def human(request: Any) -> PermissionAnswer:
        story.append(f"asked {request.request_id} at {trio.current_time():.0f}")
        try:
            await trio.sleep(60)
        except trio.Cancelled:
            story.append("dismissed")
            raise
        story.append("answered")
        return "once"

    async with talking(agent, AskHandlers(human)) as (session, _):
        start = trio.current_time()
        async with session.stream("x") as turn:
            await settled()
            agent.server.say(fake.event("permission.asked", **ASK))
            agent.server.say(fake.event("permission.asked", **ASK))  # told twice
            for number in range(30):
                await settled(1)
                agent.server.say(fake.delta(ROOT, "msg_z", "prt_1", str(number)))
            agent.server.say(fake.part(ROOT, "msg_z", "prt_1", "text", text="", time={"start": 1}))
            await settled()
            assert len(turn.pending_asks) == 1
            await hear_heartbeats(agent, 60)
            replies = agent.server.called("POST /permission/per_1/reply")
            assert [call.body for call in replies] == [{"reply": "once"}]
            agent.server.say(fake.event("permission.asked", **{**ASK, "id": "per_2"}))
            await settled(1)
            agent.server.say(
                fake.event("permission.replied", sessionID=ROOT, requestID="per_2", reply="once")
            )
            await settled(1)
            assert story[-1] == "dismissed"
            assert not turn.pending_asks
            agent.finish()
            kinds = [event async for event in turn]
        assert sum(isinstance(event, TextDelta) for event in kinds) >= 1
        assert "".join(e.delta for e in kinds if isinstance(e, TextDelta)).startswith("012")
        assert trio.current_time() - start > 90
    assert story[1] == "answered"


async def test_a_handler_that_crashes_fails_the_turn_bare(autojump_clock: trio.testing.MockClock):
    agent = Agent()

    def human(request: Any) -> Any:
        raise LookupError("mine")

    async with talking(agent, AskHandlers(human)) as (session, _):
        with pytest.raises(LookupError, match="mine"):
            async with session.stream("x"):
                await settled()
                agent.server.say(fake.event("permission.asked", **ASK))
                await settled(1)
        (call,) = agent.server.called("POST /permission/per_1/reply")
        assert call.body == {"reply": "reject"}
        assert agent.aborts == 1


async def test_a_turn_cannot_wait_for_itself(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    session: Session

    async def human(request: Any) -> Any:
        await session.send("from the handler")

    async with talking(agent, AskHandlers(human)) as (session, _):
        async with session.stream("x"):
            with pytest.raises(OpenCodeConfigError, match="wait for itself"):
                await session.send("from within")
        with pytest.raises(OpenCodeConfigError, match="wait for itself"):
            async with session.stream("y") as turn:
                await settled()
                agent.server.say(fake.event("permission.asked", **ASK))
                await turn.wait()


async def test_silence_is_an_error_unless_somebody_is_waited_for(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()

    async def human(request: Any) -> PermissionAnswer:
        await trio.sleep(300)
        return "once"

    async with talking(agent, AskHandlers(human)) as (session, _):
        start = trio.current_time()
        with pytest.raises(OpenCodeLimitError) as failed:
            await session.send("x", fail_if_silent=20)
        assert failed.value.limit == "fail_if_silent"
        assert 20 <= trio.current_time() - start < 22

        start = trio.current_time()
        with pytest.raises(OpenCodeLimitError):
            async with session.stream("y", fail_if_silent=20) as turn:
                await settled(10)
                agent.server.say(fake.event("permission.asked", **ASK))
                await hear_heartbeats(agent, 290)
                await settled(9)
                agent.server.say(fake.status(ROOT, "retry", attempt=1, next=0, message="m"))
                await hear_heartbeats(agent, 200)
                agent.server.say(fake.status(ROOT, "busy"))
                await turn.wait()
        assert 525 < trio.current_time() - start < 540


async def test_the_first_failure_of_a_provider_is_a_warning(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
):
    agent = Agent()
    async with talking(agent) as (session, _), session.stream("x"):
        await settled(1)
        for attempt in (1, 2, 3):
            agent.server.say(fake.status(ROOT, "retry", attempt=attempt, next=0, message="refused"))
        await settled(1)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("a request to the provider ")
    assert warning.endswith(
        "opencode may repeat it up to five times, for more than a minute: refused"
    )


async def test_a_failed_turn(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    async with talking(agent) as (session, _):
        agent.finish({"name": "APIError", "data": {"message": "no", "statusCode": 402}})
        with pytest.raises(OpenCodeTurnError) as failed:
            await session.send("x")
        assert failed.value.error == ErrorInfo(
            "APIError", "no", 402, None, {"message": "no", "statusCode": 402}
        )
        assert failed.value.partial is not None
        assert failed.value.partial.stop_reason == "error"
        agent.finish({"name": "MessageAbortedError"})
        with pytest.raises(OpenCodeCancelledError):
            await session.send("y")


async def test_a_prompt_that_is_refused_says_why(autojump_clock: trio.testing.MockClock):
    agent = Agent()

    async def refuse(call: Any, session: str) -> Json:
        await trio.sleep(0.1)
        error = {"name": "UnknownError", "data": {"message": "no such agent"}}
        agent.server.say(fake.event("session.error", sessionID=session, error=error))
        raise OpenCodeServerError("500, see the log", status_code=500)

    agent.server.routes[r"POST /session/(\w+)/message"] = refuse
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeTurnError, match="no such agent"):
            await session.send("x")


@pytest.mark.parametrize("is_structured", [False, True])
async def test_a_lost_answer_is_looked_up(
    autojump_clock: trio.testing.MockClock, is_structured: bool
):
    agent = Agent(is_structured=is_structured)
    answer = agent.server.routes[r"POST /session/(\w+)/message"]
    attempts = 0

    async def lose(call: Any, session: str) -> Json:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OpenCodeServerError("broken before it arrived")
        await answer(call, session)
        raise OpenCodeServerError("broken on the way back")

    agent.server.routes[r"POST /session/(\w+)/message"] = lose
    async with talking(agent) as (session, _):
        agent.finish()
        result = await session.send("x")
    assert (result.final_text, attempts, agent.prompts) == ("answer to x", 2, ["x"])


async def test_a_server_that_ends_fails_its_turns_at_once(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    async with talking(agent) as (session, connection):
        with pytest.raises(OpenCodeServerError, match="killed") as failed:
            async with session.stream("x") as turn:
                await settled()
                agent.server.say(
                    fake.part(ROOT, "msg_z", "prt_1", "text", text="so far", time={"start": 1})
                )
                await settled()
                started = trio.current_time()
                connection.fail(OpenCodeServerError("killed", stderr="tail"))
                async for event in turn:
                    assert not isinstance(event, SessionIdle)
        assert trio.current_time() - started < 1
        assert failed.value.partial is not None
        assert failed.value.partial.text == "so far"
        assert failed.value.stderr == "tail"


async def test_an_unknown_subagent_that_asks_is_looked_up(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    asked: list[Any] = []
    family = {"ses_c": "ses_b", "ses_b": ROOT, "ses_x": ""}
    async with talking(agent, AskHandlers(allow_and_note(asked))) as (
        session,
        _,
    ):
        agent.server.routes[r"GET /session/(\w+)"] = lambda call, name: {
            "id": name,
            "agent": "explore",
            **({"parentID": family[name]} if family.get(name) else {}),
        }
        async with session.stream("x") as turn:
            await settled()
            for number, name in enumerate(("ses_c", "ses_x")):
                ask = {**ASK, "id": f"per_{number}", "sessionID": name}
                agent.server.say(fake.event("permission.asked", **ask))
            await settled(5)
            agent.finish()
            await turn.wait()
    (request,) = asked
    assert (request.session_id, request.parent_id, request.depth) == ("ses_c", "ses_b", 2)
    assert request.agent == "explore"


async def test_a_stream_that_lags_is_waited_for_while_it_tells_of_anything(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
):
    server = LateServer()
    agent = Agent(server)
    async with talking(agent) as (session, _), session.stream("x") as turn:
        await settled()
        read_before = len(server.called("GET .*"))
        server.is_late = True
        agent.finish()
        nursery.start_soon(server.catch_up, 4)
        result = await turn.wait()
    assert result.final_text == "answer to x"
    assert result.duration_s is not None
    assert 3.6 < result.duration_s < 4
    assert len(server.called("GET .*")) == read_before


async def test_who_leaves_does_not_wait_for_a_stream_that_lags(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
):
    server = LateServer()
    agent = Agent(server)
    async with talking(agent) as (session, _):
        async with session.stream("x"):
            await settled()
            server.is_late = True
            nursery.start_soon(server.catch_up, 5)
            left = trio.current_time()
        assert trio.current_time() - left < 1.5
    assert not agent.has_ended


@pytest.mark.parametrize("stream", ["says nothing more", "is broken"])
async def test_a_subagent_that_the_stream_did_not_tell_of_in_time_is_counted(
    stream: str, autojump_clock: trio.testing.MockClock
):
    server = LateServer()
    agent = Agent(server)
    wrote = {"info": fake.assistant("ses_kid", "msg_fzz", "msg_fzy", cost=0.25), "parts": []}
    async with talking(agent) as (session, _), session.stream("x") as turn:
        await settled()
        agent.server.routes = {
            r"GET /session/ses_root/children": lambda call: [{"id": "ses_kid"}],
            r"GET /session/ses_kid/message": lambda call: [wrote],
            **agent.server.routes,
        }
        server.is_late = True
        if stream == "is broken":
            server.refuses = True
            server.hang_up()
        agent.finish()
        result = await turn.wait()
    assert result.cost_by_session == {ROOT: 0.5, "ses_kid": 0.25}


async def test_a_turn_that_fails_is_aborted_though_its_reader_is_slow(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeLimitError) as failed:
            async with session.stream("x", fail_if_silent=20) as turn:
                await settled(23)
                assert (agent.aborts, agent.busy) == (1, set())
                await trio.sleep(60)
                async for _event in turn:
                    await trio.sleep(60)
        assert failed.value.limit == "fail_if_silent"
        assert agent.aborts == 1
        agent.finish()
        assert (await session.send("y")).final_text == "answer to y"


async def test_the_event_that_is_too_much_is_shown(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    shown: set[str | None] = set()
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeLimitError):
            async with session.stream("x", max_steps=1) as turn:
                await settled()
                for name in ("prt_1", "prt_2"):
                    agent.server.say(fake.part(ROOT, "msg_f00000000001zz", name, "step-start"))
                async for event in turn:
                    if isinstance(event, StepStarted):
                        shown.add(event.part_id)
    assert shown == {"prt_1", "prt_2"}


async def test_a_stall_of_this_program_is_no_silence_of_the_agent(
    autojump_clock: trio.testing.MockClock,
):
    """It was stopped, or blocked: what was told meanwhile could not be heard."""
    agent = Agent()
    async with talking(agent) as (session, _):
        async with session.stream("x", fail_if_silent=20) as turn:
            await settled(15)
            autojump_clock.jump(100)
            await settled(3)
            agent.finish()
            await turn.wait()
        start = trio.current_time()
        with pytest.raises(OpenCodeLimitError):
            await session.send("y", fail_if_silent=20)
        assert 20 <= trio.current_time() - start < 22


async def test_the_watch_for_silence_ends_with_the_turn(autojump_clock: trio.testing.MockClock):
    agent = Agent(obeys=False)
    async with talking(agent) as (session, _):
        start = trio.current_time()
        async with session.stream("x", fail_if_silent=1):
            await settled()
        # Whoever watched on would be busy with it, and virtual time would stand still.
        assert 10 <= trio.current_time() - start < 11


@pytest.mark.parametrize("crash", [KeyboardInterrupt, ZeroDivisionError])
async def test_a_task_that_crashes_leaves_nobody_waiting(
    crash: type[BaseException], autojump_clock: trio.testing.MockClock
):
    agent = Agent()

    async def prompt(call: Any, session: str) -> Json:
        await trio.sleep(1)
        raise crash

    agent.server.routes[r"POST /session/(\w+)/message"] = prompt
    with trio.fail_after(60), pytest.raises(BaseExceptionGroup) as failed:
        async with talking(agent) as (session, _):
            await session.send("x")
    assert failed.group_contains(crash)


async def test_an_ask_that_nobody_can_answer_fails_the_turn(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeConfigError, match="not a permission id"):
            async with session.stream("x") as turn:
                await settled()
                agent.server.say(fake.event("permission.asked", **(ASK | {"id": "ask_1"})))
                await turn.wait()
        assert agent.aborts == 1
