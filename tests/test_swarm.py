"""The swarm: limits, failures, budgets, combinators and what can be watched."""

from __future__ import annotations

import gc
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from opencode_trio._swarm import server_pool as pool_module
from opencode_trio._swarm.agent import Agent
from opencode_trio._swarm.runner import RESTARTS
from opencode_trio._swarm.snapshots import SwarmSnapshot
from opencode_trio._swarm.task import AgentTask
from opencode_trio._turn.budgets import Spending, limit_spending
from opencode_trio.asks import Reject
from opencode_trio.config import RunConfig
from opencode_trio.errors import (
    OpenCodeCancelledError,
    OpenCodeConfigError,
    OpenCodeLimitError,
    OpenCodeServerError,
    OpenCodeTurnError,
)
from opencode_trio.events import (
    Event,
    PermissionAsked,
    PermissionReplied,
    SessionBusy,
    SessionRetrying,
    ToolPart,
)
from opencode_trio.results import RunResult
from opencode_trio.session import Session
from opencode_trio.swarm import Swarm, open_swarm
from swarming import COST_USD, FakeClient, FakeSession, World, after, failing, steps

FAILURE = OpenCodeTurnError("the model failed")


@pytest.fixture
def world() -> World:
    return World()


def texts(results: list[RunResult]) -> list[str]:
    return [result.final_text for result in results]


# --- agents ------------------------------------------------------------------------------------


async def test_prompts_and_functions(autojump_clock: MockClock, world: World) -> None:
    async def talk(session: Any, first: str, second: str) -> str:
        one = await session.send(first)
        two = await session.send(second)
        return f"{one.final_text}, {two.final_text}"

    async with open_swarm(world.server()) as swarm:
        prompt = swarm.start_soon("hello", name="greeter")
        function = swarm.start_soon(talk, "one", "two")
        assert (prompt.status, prompt.session_id, prompt.outcome) == ("waiting", None, None)
        result = await prompt.result()
        assert isinstance(result, RunResult)
        assert (result.final_text, result.events) == ("ok", [])
        assert await function.result() == "ok, ok"
    assert (prompt.name, prompt.status) == ("greeter", "completed")
    assert prompt.session_id == result.session_id
    assert (function.name, function.spent) == ("agent 2", Spending(2 * COST_USD, 200))
    assert [outcome.value for outcome in swarm.outcomes()] == [result, "ok, ok"]
    assert swarm.outcomes()[1].duration_s == pytest.approx(2)
    assert swarm.spent == Spending(3 * COST_USD, 300)


async def test_leaving_the_block_waits_for_all(autojump_clock: MockClock, world: World) -> None:
    world.programs["long"] = after(100)
    async with open_swarm(world.server()) as swarm:
        agent = swarm.start_soon("long")
    assert agent.status == "completed"
    assert trio.current_time() == pytest.approx(100)


async def test_agents_can_start_agents(autojump_clock: MockClock, world: World) -> None:
    async def delegate(session: Any) -> None:
        swarm.start_soon("sub")

    async with open_swarm(world.server(), limit=1) as swarm:
        swarm.start_soon(delegate)
    assert world.prompts == ["sub"]


async def test_options_reach_the_session(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    default, own = RunConfig(model="a/one"), RunConfig(model="a/two")
    client: Any = FakeClient(world)

    def refuse(request: Any) -> Reject:
        return Reject()

    async with open_swarm(
        client, workspace=tmp_path, run_cfg=default, on_permission=refuse
    ) as swarm:
        swarm.start_soon("one")
        swarm.start_soon("two", run_cfg=own, on_question=refuse)
        with pytest.raises(OpenCodeConfigError, match="does not exist"):
            swarm.start_soon("three", workspace=tmp_path / "none")
    with pytest.raises(OpenCodeConfigError, match="does not exist"):  # bare, and at once
        async with open_swarm(client, workspace=tmp_path / "none"):
            pass
    one, two = sorted(world.servers[0].sessions, key=lambda s: s.options["run_cfg"].model)
    assert one.directory == str(tmp_path.resolve())
    assert (one.options["run_cfg"], two.options["run_cfg"]) == (default, own)
    assert (one.options["on_permission"], one.options["on_question"]) == (refuse, None)
    assert (two.options["on_permission"], two.options["on_question"]) == (refuse, refuse)
    assert len(swarm.agents) == 2


async def test_what_cannot_be_right_is_refused_at_once(world: World) -> None:
    async with open_swarm(world.server()) as swarm:
        with pytest.raises(OpenCodeConfigError, match="empty"):
            swarm.start_soon(" ")
        with pytest.raises(OpenCodeConfigError, match="expected text"):
            swarm.start_soon(7)  # type: ignore[call-overload]
        with pytest.raises(OpenCodeConfigError, match="args"):
            swarm.start_soon("prompt", 1)  # type: ignore[call-overload]
        with pytest.raises(OpenCodeConfigError, match="args"):
            swarm.start_soon(AgentTask("prompt"), 1)
        with pytest.raises(OpenCodeConfigError, match="output"):
            swarm.start_soon(trio.sleep, 1, output={})  # type: ignore[call-overload]
        with pytest.raises(OpenCodeConfigError, match="output: expected a JSON schema or a class"):
            swarm.start_soon("prompt", output=int)  # type: ignore[type-var]
        with pytest.raises(OpenCodeConfigError, match="output: expected a JSON schema or a class"):
            await swarm.map(["one", "two"], output=int)
        with pytest.raises(OpenCodeConfigError, match="max_tokens"):
            swarm.start_soon("prompt", max_tokens=0)
        with pytest.raises(OpenCodeConfigError, match="at least one agent"):
            await swarm.race()
    assert swarm.agents == ()
    for wrong in ({"limit": 0}, {"on_failure": "ignore"}, {"per_provider": {"per_provider": 0}}):
        with pytest.raises(OpenCodeConfigError, match=next(iter(wrong))):
            async with open_swarm(world.server(), **wrong):
                pytest.fail("opened")


async def test_time_limit(autojump_clock: MockClock, world: World) -> None:
    world.programs["long"] = after(100)
    async with open_swarm(world.server(), limit=1, on_failure="collect") as swarm:
        swarm.start_soon("first")
        agent = swarm.start_soon("long", timeout_s=5)
        with pytest.raises(trio.TooSlowError, match=r"within 5 s \(timeout_s\)"):
            await agent.result()
    assert trio.current_time() == pytest.approx(6)
    assert world.aborted == ["long"]


# --- limits ------------------------------------------------------------------------------------


async def test_no_more_at_once_than_the_limit(autojump_clock: MockClock, world: World) -> None:
    server = world.server()
    async with open_swarm(server, limit=3) as swarm:
        await swarm.map([f"prompt {n}" for n in range(10)])
    assert server.most_sessions == 3
    assert trio.current_time() == pytest.approx(4)


async def test_a_provider_has_a_limit_of_its_own(autojump_clock: MockClock, world: World) -> None:
    async with open_swarm(world.server(), limit=4, per_provider={"slow": 1}) as swarm:
        for n in range(3):
            swarm.start_soon(f"slow {n}", run_cfg=RunConfig(model="slow/x"))
        for n in range(3):
            swarm.start_soon(f"fast {n}", run_cfg=RunConfig(model="fast/x"))
        await trio.sleep(0.5)
        assert swarm.snapshot().count == {"running": 4, "waiting": 2}
        assert sorted(world.prompts) == ["fast 0", "fast 1", "fast 2", "slow 0"]
    assert trio.current_time() == pytest.approx(3)


async def test_agents_are_spread_over_servers(autojump_clock: MockClock, world: World) -> None:
    servers: Any = [world.server() for _ in range(4)]
    async with open_swarm(servers, limit=8) as swarm:
        await swarm.map([f"prompt {n}" for n in range(16)])
    assert [server.most_sessions for server in servers] == [2, 2, 2, 2]


# --- failures ----------------------------------------------------------------------------------


async def test_a_failure_cancels_the_others(autojump_clock: MockClock, world: World) -> None:
    world.programs |= {"bad": failing(FAILURE, 2), "long": after(100)}
    with pytest.raises(ExceptionGroup) as info:
        async with open_swarm(world.server()) as swarm:
            swarm.start_soon("bad", name="culprit")
            victims = [swarm.start_soon("long") for _ in range(3)]
            await trio.sleep_forever()
    assert info.value.exceptions == (FAILURE,)
    culprit = swarm.agents[0].session_id
    assert FAILURE.__notes__[-1] == f"in agent 'culprit', session {culprit}"
    assert trio.current_time() == pytest.approx(2)
    assert world.aborted.count("long") == 3
    assert [agent.status for agent in victims] == ["cancelled"] * 3
    with pytest.raises(OpenCodeCancelledError):
        await victims[0].result()


async def test_who_awaits_a_failure_inside_is_cancelled_and_it_is_told_once(
    autojump_clock: MockClock, world: World
) -> None:
    error = OpenCodeTurnError("the model failed")
    world.programs["bad"] = failing(error)
    with pytest.raises(ExceptionGroup) as info:
        async with open_swarm(world.server()) as swarm:
            agent = swarm.start_soon("bad")
            await agent.result()
    assert info.value.exceptions == (error,)


async def test_the_block_fails_as_in_a_nursery(autojump_clock: MockClock, world: World) -> None:
    world.programs["long"] = after(100)
    with pytest.raises(ExceptionGroup) as info:
        async with open_swarm(world.server()) as swarm:
            agent = swarm.start_soon("long")
            await trio.sleep(1)
            raise KeyError("mine")
    assert isinstance(info.value.exceptions[0], KeyError)
    assert agent.status == "cancelled"
    assert trio.current_time() == pytest.approx(1)


async def test_collected_outcomes(autojump_clock: MockClock, world: World) -> None:
    """A hundred agents of which twenty fail in different ways give a hundred outcomes."""
    errors = [
        OpenCodeTurnError("provider"),
        OpenCodeServerError("refused", status_code=500),
        OpenCodeLimitError("too many", limit="max_steps"),
        ValueError("mine"),
    ]

    async def crash(session: Any) -> None:
        async with trio.open_nursery():
            raise RuntimeError("in a group")

    async with open_swarm(world.server(), on_failure="collect") as swarm:
        for n in range(100):
            if n % 5:
                swarm.start_soon(f"prompt {n}")
            elif n % 25 == 0:
                swarm.start_soon(crash)
            else:
                world.programs[f"prompt {n}"] = failing(errors[n // 5 % 4])
                swarm.start_soon(f"prompt {n}")
    outcomes = swarm.outcomes()
    assert len(outcomes) == 100
    assert sum(outcome.status == "completed" for outcome in outcomes) == 80
    assert sum(isinstance(outcome.error, ExceptionGroup) for outcome in outcomes) == 4
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert all(
        outcome.name in "".join(outcome.error.__notes__) for outcome in failed if outcome.error
    )


async def test_an_agent_can_be_cancelled(autojump_clock: MockClock, world: World) -> None:
    world.programs["long"] = steps(100)
    async with open_swarm(world.server(), limit=1) as swarm:
        running, waiting = swarm.start_soon("long"), swarm.start_soon("never")
        await trio.sleep(2.5)
        waiting.cancel()
        running.cancel()
        with pytest.raises(OpenCodeCancelledError) as info:
            await running.result()
        assert info.value.partial is not None
        assert info.value.partial.turns == 2
        outcome = await waiting.wait()
        assert (outcome.status, outcome.attempts) == ("cancelled", 0)
    assert world.prompts == ["long"]
    assert swarm.outcomes()[0].spent == Spending(2 * COST_USD, 200)


async def test_cancelling_the_swarm_cancels_all(autojump_clock: MockClock, world: World) -> None:
    world.programs["long"] = after(100)
    with trio.move_on_after(1) as scope:
        async with open_swarm(world.server(), limit=2) as swarm:
            for _ in range(4):
                swarm.start_soon("long")
    assert scope.cancelled_caught
    assert [agent.status for agent in swarm.agents] == ["cancelled"] * 4
    assert world.aborted == ["long", "long"]


# --- servers that end ----------------------------------------------------------------------------


@pytest.mark.parametrize("restartable", [False, True])
async def test_a_server_is_killed_twice(
    autojump_clock: MockClock, world: World, tmp_path: Path, restartable: bool
) -> None:
    client: Any = FakeClient(world)

    async def kill() -> None:
        for _ in range(2):
            await trio.sleep(2.5)
            world.running[-1].die()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        async with open_swarm(client, limit=8, workspace=tmp_path, on_failure="collect") as swarm:
            for n in range(40):
                swarm.start_soon(f"prompt {n}", restartable=restartable)
    outcomes = swarm.outcomes()
    failed = [outcome for outcome in outcomes if outcome.error]
    assert len(outcomes) == 40
    assert client.starts == 3
    if restartable:
        assert not failed
        assert sum(outcome.attempts - 1 for outcome in outcomes) == 16
        assert len(world.prompts) == 56
    else:
        assert len(failed) == 16
        assert all(isinstance(outcome.error, OpenCodeServerError) for outcome in failed)
        assert sorted(world.prompts) == sorted(f"prompt {n}" for n in range(40))


async def test_untouched_agents_are_begun_again(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    client: Any = FakeClient(world)
    world.stillborn = 2
    async with open_swarm(client, workspace=tmp_path) as swarm:
        agent = swarm.start_soon("hello")
    assert agent.outcome is not None
    assert agent.outcome.attempts == 3
    assert world.prompts == ["hello"]
    world.stillborn = 99
    async with open_swarm(client, workspace=tmp_path, on_failure="collect") as swarm:
        agent = swarm.start_soon("again")
    assert isinstance(swarm.outcomes()[0].error, OpenCodeServerError)
    assert swarm.outcomes()[0].attempts == RESTARTS + 1


async def test_a_server_that_cannot_start_is_not_tried_again(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    client: Any = FakeClient(world, OpenCodeServerError("not ready"))
    async with open_swarm(client, workspace=tmp_path, on_failure="collect") as swarm:
        for _ in range(3):
            swarm.start_soon("hello")
    assert client.starts == 1
    errors = [outcome.error for outcome in swarm.outcomes()]
    assert [str(error) for error in errors] == ["not ready"] * 3
    assert [len(error.__notes__) for error in errors if error] == [1, 1, 1]


async def test_cancelled_while_a_server_starts(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    client: Any = FakeClient(world)
    with trio.move_on_after(1):
        async with open_swarm(client, workspace=tmp_path) as swarm:
            swarm.start_soon("hello")
    assert trio.current_time() == pytest.approx(1)
    assert swarm.outcomes()[0].status == "cancelled"
    assert not world.servers


async def test_servers_wear_out_under_a_swarm(
    autojump_clock: MockClock, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_DIRECTORIES", 4)
    client: Any = FakeClient(world)
    async with open_swarm(client, limit=3) as swarm:
        for n in range(12):
            (tmp_path / str(n)).mkdir()
            swarm.start_soon(f"prompt {n}", workspace=tmp_path / str(n))
    assert [len(server.sessions) for server in world.servers] == [4, 4, 4]
    assert not world.running


# --- budgets -------------------------------------------------------------------------------------


async def test_a_budget_stops_within_a_step(autojump_clock: MockClock, world: World) -> None:
    world.programs["work"] = steps(100)
    with pytest.raises(ExceptionGroup) as info:
        async with open_swarm(world.server(), limit=4, max_cost_usd=5) as swarm:
            for _ in range(8):
                swarm.start_soon("work")
    assert 5 < swarm.spent.cost_usd <= 5 + 4 * COST_USD
    error = info.value.exceptions[0]
    assert isinstance(error, OpenCodeLimitError)
    assert (error.limit, error.allowed) == ("max_cost_usd", 5)
    outcomes = swarm.outcomes()
    assert all(isinstance(outcome.error, OpenCodeLimitError) for outcome in outcomes)
    assert sum(o.partial.total_cost for o in outcomes if o.partial) == swarm.spent.cost_usd
    assert [outcome.attempts for outcome in outcomes] == [1] * 4 + [0] * 4
    said = [str(outcome.error).partition(":")[0] for outcome in outcomes]
    assert said == ["stopped"] * 4 + ["not started"] * 4
    assert world.aborted == ["work"] * 4


async def test_a_spent_budget_lets_those_finish_who_are_in(
    autojump_clock: MockClock, world: World
) -> None:
    world.programs["work"] = steps(4)
    with pytest.raises(ExceptionGroup, match="not started") as info:
        async with open_swarm(world.server(), limit=2, max_cost_usd=10, soft=0.4) as swarm:
            for n in range(4):
                swarm.start_soon("work", name=f"number {n}")
    assert [outcome.status for outcome in swarm.outcomes()] == ["completed"] * 2 + ["failed"] * 2
    assert swarm.spent.cost_usd == 8 * COST_USD
    assert "'number 2'" in "".join(info.value.exceptions[0].__notes__)
    assert "not started: spent $" in str(info.value.exceptions[1])


async def test_an_agent_has_a_budget_of_its_own(autojump_clock: MockClock, world: World) -> None:
    world.programs["work"] = steps(5)
    async with open_swarm(world.server(), on_failure="collect") as swarm:
        swarm.start_soon("work", max_tokens=250)
        swarm.start_soon("work")
    first, second = swarm.outcomes()
    assert isinstance(first.error, OpenCodeLimitError)
    assert (first.spent.tokens, second.status) == (300, "completed")


async def test_swarms_in_agents_count_upward(autojump_clock: MockClock, world: World) -> None:
    world.programs["work"] = steps(100)

    async def manage(session: Any) -> None:
        async with open_swarm(world.server(), limit=2, max_cost_usd=1000) as inner:
            inner.start_soon("work")
            inner.start_soon("work")

    with limit_spending(max_tokens=100_000) as outermost:
        async with open_swarm(world.server(), max_cost_usd=5, on_failure="collect") as outer:
            manager = outer.start_soon(manage)
    assert 5 < outer.spent.cost_usd <= 5 + 2 * COST_USD
    assert manager.spent == outer.spent == outermost.spent
    assert isinstance(outer.outcomes()[0].error, OpenCodeLimitError)


async def test_an_outer_budget_stops_swarms_inside(autojump_clock: MockClock, world: World) -> None:
    world.programs["work"] = steps(100)
    with limit_spending(max_cost_usd=2) as budget:
        async with open_swarm(world.server(), on_failure="collect") as one:
            one.start_soon("work")
            async with open_swarm(world.server(), on_failure="collect") as other:
                other.start_soon("work")
    assert budget.is_exceeded
    assert [swarm.outcomes()[0].status for swarm in (one, other)] == ["failed", "failed"]


async def test_what_has_no_price_is_said(
    autojump_clock: MockClock, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.programs["free"] = steps(3, cost=0)
    async with open_swarm(world.server(), max_cost_usd=1) as swarm:
        swarm.start_soon("free")
    assert swarm.spent == Spending(0, 300, unpriced_tokens=300)
    assert "300 tokens" in caplog.text


# --- together --------------------------------------------------------------------------------------


async def test_map_keeps_the_order(autojump_clock: MockClock, world: World) -> None:
    world.programs = {str(n): after(10 - n, f"answer {n}") for n in range(5)}
    async with open_swarm(world.server()) as swarm:
        results = await swarm.map([*"01", AgentTask("2"), *"34"])
    assert texts(results) == [f"answer {n}" for n in range(5)]


async def test_map_that_collects_tells_all_failures(
    autojump_clock: MockClock, world: World
) -> None:
    world.programs["bad"] = failing(OpenCodeTurnError("no"))
    async with open_swarm(world.server(), on_failure="collect") as swarm:
        with pytest.raises(ExceptionGroup, match="2 of 4 agents failed"):
            await swarm.map(["bad", "good", "bad", "good"])
    assert len(swarm.outcomes()) == 4


async def test_a_cancelled_map_cancels_its_agents(autojump_clock: MockClock, world: World) -> None:
    world.programs["long"] = after(100)
    async with open_swarm(world.server()) as swarm:
        other = swarm.start_soon("other")
        with trio.move_on_after(0.5):
            await swarm.map(["long", "long"])
        assert [agent.status for agent in swarm.agents] == ["running", "cancelled", "cancelled"]
        await other.result()


async def test_the_first_good_answer_wins(autojump_clock: MockClock, world: World) -> None:
    world.programs = {
        "bad": failing(OpenCodeTurnError("no"), 1),
        "poor": after(2, "poor"),
        "good": after(3, "good"),
        "slow": after(100),
    }
    async with open_swarm(world.server()) as swarm:
        result = await swarm.race(
            "slow",
            AgentTask("good", run_cfg=RunConfig(model="a/b")),
            "poor",
            "bad",
            accept=lambda result: result.final_text == "good",
        )
        assert result.final_text == "good"
        assert trio.current_time() == pytest.approx(3)
        assert world.aborted == ["bad", "slow"]
    statuses = [outcome.status for outcome in swarm.outcomes()]
    assert statuses == ["cancelled", "completed", "completed", "failed"]


async def test_a_race_that_nobody_wins(autojump_clock: MockClock, world: World) -> None:
    world.programs["bad"] = failing(OpenCodeTurnError("no"))
    async with open_swarm(world.server()) as swarm:
        with pytest.raises(ExceptionGroup, match="no agent won") as info:
            await swarm.race("bad", "poor", accept=lambda _: False)
    assert len(info.value.exceptions) == 2


async def test_the_best_of_many(autojump_clock: MockClock, world: World) -> None:
    async def count(session: Any, factor: int) -> int:
        number = len(session.server.sessions)
        await trio.sleep(number)
        if session.session_id.endswith("3"):
            raise ValueError("not this one")
        return int(session.session_id[-1]) * factor

    async def judge(values: list[int]) -> int:
        await trio.sleep(1)
        return max(values)

    async with open_swarm(world.server()) as swarm:
        assert await swarm.best_of(3, count, 10, judge=judge) == 20
        assert await swarm.best_of(2, "prompt", judge=lambda results: results[0]) is not None
        with pytest.raises(ExceptionGroup, match="2 of 2 agents failed"):
            world.programs["bad"] = failing(OpenCodeTurnError("no"))
            await swarm.best_of(2, "bad", judge=max)


# --- to watch ----------------------------------------------------------------------------------------


async def test_updates_are_the_newest_state(autojump_clock: MockClock, world: World) -> None:
    seen: list[SwarmSnapshot] = []
    world.programs["work"] = steps(5)

    async def watch(swarm: Swarm) -> None:
        seen.extend([snapshot async for snapshot in swarm.updates(every_s=2)])

    async with trio.open_nursery() as nursery, open_swarm(world.server(), limit=2) as swarm:
        nursery.start_soon(watch, swarm)
        for _ in range(4):
            swarm.start_soon("work")
    assert len(seen) <= 8
    assert seen[-1].is_idle
    assert seen[-1].count == {"completed": 4}
    assert seen[-1].spent.cost_usd == 20 * COST_USD
    assert [agent.steps for agent in seen[-1].agents] == [5] * 4
    assert any(snapshot.count == {"running": 2, "waiting": 2} for snapshot in seen)


async def test_a_slow_watcher_holds_up_nobody(autojump_clock: MockClock, world: World) -> None:
    async with open_swarm(world.server()) as swarm:
        updates = swarm.updates()
        assert (await updates.receive()).agents == ()
        await swarm.map([f"prompt {n}" for n in range(50)])
        assert (await updates.receive()).is_idle
        with trio.move_on_after(1) as scope:
            await updates.receive()
        assert scope.cancelled_caught
        await updates.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await updates.receive()
    other = swarm.updates()
    assert (await other.receive()).is_idle
    with pytest.raises(trio.EndOfChannel):
        await other.receive()


async def test_what_an_agent_is_doing(autojump_clock: MockClock, world: World) -> None:
    heard: list[tuple[str, Event]] = []

    def on_event(agent: Agent, event: Event) -> None:
        heard.append((agent.name, event))

    async def work(session: FakeSession) -> str:
        session.tell(ToolPart(part_id="prt_1", tool="bash", status="running"))
        await trio.sleep(1)
        session.tell(PermissionAsked(request_id="per_1", permission="bash", patterns=("ls",)))
        await trio.sleep(1)
        session.tell(PermissionReplied(request_id="per_1"))
        session.tell(ToolPart(part_id="prt_1", tool="bash", status="completed"))
        await trio.sleep(1)
        session.step()
        return "ok"

    world.programs["work"] = work
    looks = []
    async with open_swarm(world.server(), on_event=on_event) as swarm:
        swarm.start_soon("work", name="worker")
        for _ in range(3):
            await trio.sleep(0.9)
            looks.append(swarm.snapshot().agents[0])
    assert [look.phase for look in looks] == ["waiting"] * 3
    assert looks[1].asked == "may it bash? ls"
    assert [(look.tool, look.asks) for look in looks] == [("bash", 0), ("bash", 1), (None, 0)]
    assert looks[2].elapsed_s == pytest.approx(2.7)
    assert len(heard) == 5
    assert heard[0][0] == "worker"


async def test_an_agent_that_waits_for_a_server_or_a_provider(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    async def overloaded(session: FakeSession) -> str:
        next_at = time.time() + 40
        session.tell(SessionRetrying(message="Overloaded", next_at_s=next_at))
        await trio.sleep(2)
        return "ok"

    world.programs["overloaded"] = overloaded
    client: Any = FakeClient(world)  # whose servers take two seconds
    looks = []
    async with open_swarm(client, workspace=tmp_path) as swarm:
        swarm.start_soon("overloaded")
        for _ in range(2):
            await trio.sleep(1.5)
            looks.append(swarm.snapshot().agents[0])
    assert [(look.status, look.phase) for look in looks] == [
        ("starting", "server"),
        ("running", "waiting"),
    ]
    assert (looks[1].is_retrying, looks[1].retry_reason) == (True, "Overloaded")
    assert 0 < (looks[1].retry_in_s or 0) <= 40


async def test_an_agent_between_its_turns_has_no_turn_open(
    autojump_clock: MockClock, world: World
) -> None:
    async def talk(session: Session) -> None:
        await session.send("hello")
        await trio.sleep(2)

    async with open_swarm(world.server()) as swarm:
        agent = swarm.start_soon(talk)
        await trio.sleep(0.5)
        session = world.servers[0].sessions[0]
        session.tell(SessionBusy())
        assert swarm.snapshot().agents[0].phase == "waiting"
        await trio.sleep(2)
        assert agent.status == "running"
        assert swarm.snapshot().agents[0].phase == "idle"


async def test_events_are_kept_on_request(autojump_clock: MockClock, world: World) -> None:
    async with open_swarm(world.server(), keep_events=True) as swarm:
        result = await swarm.start_soon("hello").result()
    assert result.events == [{"type": "a record"}]


async def test_representations(autojump_clock: MockClock, world: World) -> None:
    async with open_swarm(world.server(), max_cost_usd=1) as swarm:
        agent = swarm.start_soon("hello")
        assert repr(agent) == "<Agent 'agent 1', waiting>"
        assert repr(swarm) == "<Swarm, 0 of 1 agents are over>"
        assert "max_cost_usd=1" in repr(swarm.budget)


async def test_an_agent_that_is_refused_leaves_no_trace(
    autojump_clock: MockClock,
) -> None:
    world = World(long=after(9), bad=failing(ValueError("mine")))
    async with open_swarm(world.server(), on_failure="collect") as swarm:
        with pytest.raises(OpenCodeConfigError):
            swarm.start_soon("bad", max_tokens=0)
        swarm.start_soon("bad", name="first")
        swarm.start_soon("long", name="second")
    first, second = swarm.report().agents
    assert [span.kind for span in first.spans if span.is_failed] == ["error"]
    assert [span for span in second.spans if span.is_failed] == []


async def test_a_failed_agent_keeps_nothing_of_what_it_was_told(
    autojump_clock: MockClock,
) -> None:
    class Told:
        pass

    told: list[weakref.ref[Told]] = []

    async def agent(session: Any) -> None:
        story = Told()
        told.append(weakref.ref(story))
        try:
            int("inner")
        except ValueError as exc:
            raise LookupError("outer") from exc

    for keep in (True, False):
        async with open_swarm(World().server(), on_failure="collect", keep_events=keep) as swarm:
            failed = swarm.start_soon(agent)
        assert failed.outcome is not None
        assert "outer" in str(failed.outcome.error)
        gc.collect()
        assert (told[-1]() is not None) == keep
