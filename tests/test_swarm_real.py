"""Swarms on the real opencode: what was promised, seen from outside."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from opencode_trio._swarm.task import AgentTask
from opencode_trio.asks import PermissionAnswer, PermissionRequest
from opencode_trio.client import AsyncOpenCodeClient
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeLimitError, OpenCodeServerError, OpenCodeTurnError
from opencode_trio.server import OpenCodeServer, connect_server, open_server
from opencode_trio.swarm import Swarm, open_swarm
from opencode_trio.testing import (
    Delay,
    HttpError,
    ModelRequest,
    Reply,
    Stall,
    ToolCall,
    Usage,
    open_scripted_model,
)
from serving import Programs, serve_plan, serving

pytestmark = pytest.mark.opencode

STEP = Usage(input=1000, output=100)


def bash(command: str) -> ToolCall:
    return ToolCall("bash", {"command": command, "description": "a test"})


async def test_many_on_one_server(opencode_binary: str, tmp_path: Path) -> None:
    """Answers in order, true costs, and a race whose losers are aborted."""
    programs: dict[str, Any] = {f"prompt {n}": f"answer {n}" for n in range(12)}
    programs |= {
        "slow": Stall(),
        "delegate": [
            ToolCall("task", {"description": "sub", "subagent_type": "general", "prompt": "sub"}),
            "done",
        ],
        "sub": Reply("subdone", usage=Usage(500, 50)),
    }
    async with serving(opencode_binary, tmp_path, programs, permission="allow") as (server, model):
        async with open_swarm(server, limit=6) as swarm:
            results = await swarm.map([f"prompt {n}" for n in range(12)])
            assert [r.final_text for r in results] == [f"answer {n}" for n in range(12)]
            winner = await swarm.race("slow", "prompt 3", "slow")
            assert winner.final_text == "answer 3"
            with trio.fail_after(1):
                await model.wait_until_quiet()
            before = model.spent_usd
            delegate = swarm.start_soon("delegate")
            await delegate.result()
            assert delegate.spent.cost_usd == pytest.approx(model.spent_usd - before, abs=1e-12)
        assert swarm.spent.cost_usd == pytest.approx(model.spent_usd, abs=1e-12)
        assert swarm.spent.tokens == model.spent_tokens.total


@pytest.mark.quiet  # an answer that is aborted as it ends costs what opencode never learns of
async def test_a_budget_stops_within_a_step(opencode_binary: str, tmp_path: Path) -> None:
    def step(request: ModelRequest) -> Reply:
        return Reply(Delay(0.3), bash(f"echo {len(request.tool_results)}"), usage=STEP)

    async with serving(opencode_binary, tmp_path, {"work": step}, permission="allow") as (
        server,
        model,
    ):
        price = model.prices.cost_usd(STEP)
        limit = 10.5 * price
        with pytest.raises(ExceptionGroup) as info:
            async with open_swarm(server, limit=4, max_cost_usd=limit) as swarm:
                for _ in range(8):
                    swarm.start_soon("work")
        assert limit < swarm.spent.cost_usd <= limit + 4 * price
        assert swarm.spent.cost_usd == pytest.approx(model.spent_usd, abs=1e-12)
        assert isinstance(info.value.exceptions[0], OpenCodeLimitError)
        partials = [o.partial for o in swarm.outcomes() if o.partial]
        assert len(partials) == 4
        assert sum(p.total_cost for p in partials) == pytest.approx(model.spent_usd, abs=1e-12)
        assert model.open_requests == 0


@pytest.mark.quiet
async def test_a_failure_closes_the_others_requests(opencode_binary: str, tmp_path: Path) -> None:
    programs = {"bad": HttpError(401, "no such key"), "long": Stall()}
    async with serving(opencode_binary, tmp_path, programs) as (server, model):
        async with server.open_session() as session:
            await session.send("warm")
        began = 0.0
        with pytest.raises(ExceptionGroup) as info:
            async with open_swarm(server) as swarm:
                for _ in range(5):
                    swarm.start_soon("long")
                await model.wait_for_requests(6)
                bad = swarm.start_soon("bad", name="culprit")
                with trio.CancelScope(shield=True):
                    await bad.wait()
                    began = trio.current_time()
                    await model.wait_until_quiet()
                    took = trio.current_time() - began
        assert took <= 1
        error = info.value.exceptions[0]
        assert isinstance(error, OpenCodeTurnError)
        assert error.__notes__ == [f"in agent 'culprit', session {bad.session_id}"]


@pytest.mark.timeout(300)
async def test_a_hundred_outcomes(opencode_binary: str, tmp_path: Path) -> None:
    """Of a hundred agents twenty fail, in different ways."""
    programs: dict[str, Any] = {
        "key": HttpError(401, "no such key"),
        "loop": lambda request: bash(f"echo {len(request.tool_results)}"),
        "stall": Stall(),
    }
    limited = RunConfig(max_steps=2)
    bad: list[AgentTask] = [
        AgentTask("key"),
        AgentTask("loop", run_cfg=limited),
        AgentTask("stall", timeout_s=1),
        AgentTask(crash),
    ]
    async with serving(opencode_binary, tmp_path, programs, permission="allow") as (server, model):
        async with open_swarm(server, on_failure="collect") as swarm:
            for n in range(100):
                swarm.start_soon(f"prompt {n}" if n % 5 else bad[n // 5 % 4])
        outcomes = swarm.outcomes()
        kinds = Counter(type(outcome.error).__name__ for outcome in outcomes)
        assert kinds == {
            "NoneType": 80,
            "OpenCodeTurnError": 5,
            "OpenCodeLimitError": 5,
            "OpenCodeTimeoutError": 5,
            "ValueError": 5,
        }
        assert all(outcome.unwrap().final_text == "ok" for outcome in outcomes if not outcome.error)
        assert model.open_requests == 0
        assert server.statistics().open_sessions == 0


async def crash(session: Any) -> None:
    raise ValueError(session.session_id)


async def test_spread_over_servers_that_somebody_else_runs(
    opencode_binary: str, tmp_path: Path
) -> None:
    """Two processes, one of them reached as it would be on another machine; then that one dies."""
    async with (
        open_scripted_model(lambda request: Reply(Delay(0.3), f"re: {request.prompt}")) as model,
        open_server(serve_plan(opencode_binary, tmp_path, model.run_config())) as here,
        open_server(serve_plan(opencode_binary, tmp_path, model.run_config())) as elsewhere,
        connect_server(elsewhere.url, password=password_of(elsewhere)) as there,
    ):
        cfg = model.run_config()
        async with open_swarm([here, there], limit=4, workspace=tmp_path) as swarm:
            tasks = [AgentTask(f"prompt {n}", run_cfg=RunConfig(model=cfg.model)) for n in range(8)]
            results = await swarm.map(tasks)
            assert [r.final_text for r in results] == [f"re: prompt {n}" for n in range(8)]
        turns = [server.statistics().turns for server in (here, there)]
        assert sum(turns) == 8
        assert min(turns) >= 2  # at once two on each; then whoever is done first gets the next
        assert there.pid is None
        assert elsewhere.pid is not None
        os.kill(elsewhere.pid, signal.SIGKILL)
        async with open_swarm([there, here], limit=4, workspace=tmp_path) as swarm:
            results = await swarm.map(tasks)
            assert [r.final_text for r in results] == [f"re: prompt {n}" for n in range(8)]
        assert max(outcome.attempts for outcome in swarm.outcomes()) == 2
        assert here.statistics().turns == turns[0] + 8


def password_of(server: OpenCodeServer) -> str:
    environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    [found] = [v for v in environment if v.startswith(b"OPENCODE_SERVER_PASSWORD=")]
    return found.partition(b"=")[2].decode()


@pytest.mark.timeout(300)
async def test_a_server_is_killed_twice(opencode_binary: str, tmp_path: Path) -> None:
    """None of forty is lost, and none done twice without being reported."""
    limit, number = 8, 40

    def is_restartable(n: int) -> bool:
        return n % 2 == 0

    async with open_scripted_model(lambda r: Reply(Delay(1.0), f"re: {r.prompt}")) as model:

        async def kill(swarm: Swarm) -> None:
            for requests in (6, 20):
                await model.wait_for_requests(requests)
                pool: Any = swarm._runner.pool
                [slot] = pool._slots.values()
                os.kill(slot.server.pid, signal.SIGKILL)
                await trio.sleep(0.2)

        async with (
            trio.open_nursery() as nursery,
            open_swarm(
                AsyncOpenCodeClient(opencode_binary),
                limit=limit,
                workspace=tmp_path,
                run_cfg=model.run_config(snapshot=False),
                on_failure="collect",
            ) as swarm,
        ):
            nursery.start_soon(kill, swarm)
            for n in range(number):
                swarm.start_soon(f"prompt {n}", restartable=is_restartable(n))
        outcomes = swarm.outcomes()
        assert len(outcomes) == number
        for n, outcome in enumerate(outcomes):
            if outcome.error is None:
                assert outcome.unwrap().final_text == f"re: prompt {n}"
            else:
                assert isinstance(outcome.error, OpenCodeServerError)
        failed = [n for n, outcome in enumerate(outcomes) if outcome.error]
        assert 1 <= len(failed) <= 2 * limit
        assert not any(map(is_restartable, failed))
        asked = Counter(request.prompt for request in model.requests)
        twice = {n for n in range(number) if asked[f"prompt {n}"] > 1}
        assert twice
        assert all(is_restartable(n) and outcomes[n].attempts > 1 for n in twice)
        assert not any(asked[f"prompt {n}"] == 0 for n in set(range(number)) - set(failed))


async def test_a_worktree_for_each_agent(opencode_binary: str, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    (tmp_path / "file").write_text("before\n")
    for command in (["init"], ["add", "."], ["commit", "-m", "first"]):
        git(*command)
    programs = {f"write {n}": [bash(f"echo agent {n} > file"), "done"] for n in range(3)}
    async with open_scripted_model(Programs(programs)) as model:
        cfg = model.run_config(snapshot=False, permission="allow")
        async with open_swarm(
            AsyncOpenCodeClient(opencode_binary), workspace=tmp_path, run_cfg=cfg
        ) as swarm:
            for prompt in programs:
                swarm.start_soon(prompt, worktree=True)
    for n, outcome in enumerate(swarm.outcomes()):
        assert f"-before\n+agent {n}\n" in (outcome.diff or "")
    assert (tmp_path / "file").read_text() == "before\n"


async def test_subagents_ask_as_their_agent_does(opencode_binary: str, tmp_path: Path) -> None:
    programs = {
        "delegate": [
            ToolCall("task", {"description": "sub", "subagent_type": "general", "prompt": "sub"}),
            "done",
        ],
        "sub": [bash("touch made"), "sub done"],
    }
    asked: list[int] = []

    def refuse(request: PermissionRequest) -> PermissionAnswer:
        asked.append(request.depth)
        return "reject"

    async with (
        open_scripted_model(Programs(programs)) as model,
        open_swarm(AsyncOpenCodeClient(opencode_binary), workspace=tmp_path) as swarm,
    ):
        cfg = model.run_config(snapshot=False, permission={"*": "allow", "bash": "ask"})
        await swarm.start_soon("delegate", run_cfg=cfg, on_permission=refuse).result()
    assert asked == [1]
    assert not (tmp_path / "made").exists()


async def test_a_denial_holds_for_subagents(opencode_binary: str, tmp_path: Path) -> None:
    """Agents with different permissions share a server, so those are rules of their sessions."""
    programs = {
        "delegate": [
            ToolCall("task", {"description": "sub", "subagent_type": "general", "prompt": "sub"}),
            "done",
        ],
        "sub": [bash("touch made"), "sub done"],
    }
    client = AsyncOpenCodeClient(opencode_binary)
    async with (
        open_scripted_model(Programs(programs)) as model,
        open_swarm(client, workspace=tmp_path) as swarm,
    ):
        base = model.run_config(snapshot=False)
        allow = model.run_config(snapshot=False, permission="allow")
        deny = model.run_config(snapshot=False, permission={"*": "allow", "bash": "deny"})
        await swarm.start_soon("hello", run_cfg=base).result()
        await swarm.start_soon("delegate", run_cfg=deny).result()
        assert not (tmp_path / "made").exists()
        await swarm.start_soon("delegate", run_cfg=allow).result()
        assert (tmp_path / "made").exists()
        pool: Any = swarm._runner.pool
        assert len(pool._slots) == 1


async def test_a_swarms_settings_lie_under_an_agents_own(
    opencode_binary: str, tmp_path: Path
) -> None:
    """Its denials hold, and its providers are there, in an agent that names a model of its own."""

    def script(request: ModelRequest) -> Any:
        return "done" if request.tool_results else bash("touch made-by-agent")

    async with open_scripted_model(script) as model:
        cfg = model.run_config(permission={"bash": "deny"})
        client = AsyncOpenCodeClient(opencode_binary)
        async with open_swarm(client, workspace=tmp_path, run_cfg=cfg) as swarm:
            denied = swarm.start_soon("Go.", run_cfg=RunConfig(model=cfg.model))
            wild = swarm.start_soon("Go.", run_cfg=RunConfig(permission="allow"))
            for agent in (denied, wild):
                await agent.wait()
                assert not (tmp_path / "made-by-agent").exists()
            lifted = swarm.start_soon("Go.", model=cfg.model, permission={"bash": "allow"})
            await lifted.wait()
    assert (tmp_path / "made-by-agent").exists()
