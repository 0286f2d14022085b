"""Run mode with the real opencode and a scripted model.

A run takes some five seconds of a core, so the runs of a test share its time, two at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from opencode_trio import (
    AsyncOpenCodeClient,
    OpenCodeConfigError,
    OpenCodeLimitError,
    OpenCodeProcessError,
    OpenCodeTurnError,
    RunConfig,
    RunResult,
    TokenUsage,
    ToolPart,
)
from opencode_trio.results import StopReason
from opencode_trio.testing import (
    Cut,
    HttpError,
    Reasoning,
    Reply,
    Script,
    ScriptedModel,
    Stall,
    Text,
    ToolCall,
    Usage,
    open_scripted_model,
)
from opencode_trio.testing._leaks import processes

# The timeouts allow for a machine that is busy with something else: alone a tenth will do.
pytestmark = [pytest.mark.opencode, pytest.mark.timeout(600)]

ONE_RUN_S = 120.0

Job = Callable[[], Awaitable[object]]


async def together(*jobs: Job, at_once: int = 2) -> None:
    limit = trio.CapacityLimiter(at_once)

    async def run(job: Job) -> None:
        async with limit:
            with trio.fail_after(ONE_RUN_S):
                await job()

    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(run, job)


@pytest.fixture
def workspaces(tmp_path: Path) -> Callable[[], Path]:
    """Make a new workspace at each call."""

    def make() -> Path:
        path = tmp_path / f"workspace-{len(list(tmp_path.iterdir()))}"
        path.mkdir()
        return path

    return make


@pytest.fixture
def client(opencode_binary: str) -> AsyncOpenCodeClient:
    return AsyncOpenCodeClient(opencode_binary)


# --- what the model says is what you get ------------------------------------------------------


async def test_a_long_answer_arrives_whole(client, workspaces):
    """opencode exits without waiting for its reader."""

    async def slowly(text: str) -> None:
        async with open_scripted_model(Text(text, chunks=40)) as model:
            cfg = model.run_config()
            async with client.async_stream("go", workspaces(), run_cfg=cfg) as run:
                async for _ in run:
                    await trio.sleep(2)
            assert run.result.final_text == text
            assert run.result.stop_reason == "completed"

    async def at_once(text: str) -> None:
        async with open_scripted_model(Text(text, chunks=40)) as model:
            result = await client.async_run("go", workspaces(), run_cfg=model.run_config())
            assert result.final_text == text

    await together(partial(slowly, "x" * 300_000), partial(at_once, "y" * 4_000_000))


async def test_a_home_that_cannot_be_written(client, workspaces, monkeypatch):
    monkeypatch.setenv("HOME", "/proc")
    async with open_scripted_model("hello") as model:
        result = await client.async_run("go", workspaces(), run_cfg=model.run_config())
    assert result.final_text == "hello"


# --- what you send is what the model gets ----------------------------------------------------

PROMPTS = [
    "say \"hi\" and 'bye' $HOME \\n",
    "--help me now",
    "\ufeffa\u2028b\u0085c \U0001f600 \r\n\n\tend \n\n",
    "0123456789abcde\n" * 125_000,  # 2 MB
]


async def test_prompts_arrive_byte_for_byte(client, workspaces):
    async def send(prompt: str) -> None:
        async with open_scripted_model("ok") as model:
            result = await client.async_run(prompt, workspaces(), run_cfg=model.run_config())
            assert [request.prompt == prompt for request in model.requests] == [True]
            assert result.final_text == "ok"
            assert not model.title_requests

    # All the while, this process's own stdin is an open pipe that never closes.
    with stdin_that_never_closes():
        await together(*(partial(send, prompt) for prompt in PROMPTS))


@contextmanager
def stdin_that_never_closes():
    reader, writer = os.pipe()
    saved = os.dup(0)
    os.dup2(reader, 0)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        for fd in (reader, writer, saved):
            os.close(fd)


# --- what you get is what happened -----------------------------------------------------------

USAGE = Usage(input=1000, output=50, reasoning=20, cache_read=300)


async def test_ends_that_are_a_result(client, workspaces):
    async def run(
        script: Script,
        stop_reason: StopReason,
        final_text: str,
        steps: int = 1,
        check: Callable[[RunResult, ScriptedModel, Path], None] = lambda *_: None,
        **settings: Any,
    ) -> None:
        workspace = workspaces()
        async with open_scripted_model(script) as model:
            result = await client.async_run("go", workspace, run_cfg=model.run_config(**settings))
            assert (result.stop_reason, result.final_text) == (stop_reason, final_text)
            assert result.turns == len(model.requests) == steps
            assert result.total_cost == pytest.approx(model.spent_usd)
            assert result.token_usage.total == 110 * steps or check is exact
            assert result.teardown is not None
            assert not result.teardown.survivors
            check(result, model, workspace)

    def exact(result: RunResult, model: ScriptedModel, _: Path) -> None:
        assert model.spent_tokens == USAGE
        assert result.token_usage == TokenUsage(
            total=1370, input=1000, output=50, reasoning=20, cache_read=300
        )
        assert result.total_cost > 0
        assert list(result.cost_by_session.values()) == [result.total_cost]
        assert list(result.cost_by_session) == [result.session_id]
        assert result.exit_code == 0

    def worked(result: RunResult, model: ScriptedModel, workspace: Path) -> None:
        (call,) = result.tool_calls
        assert call["part"]["state"]["output"].split() == [str(workspace)] * 2
        assert model.requests[1].tool_results == (call["part"]["state"]["output"],)

    def thought(result: RunResult, _: ScriptedModel, __: Path) -> None:
        kinds = [event["type"] for event in result.events]
        assert kinds == ["step_start", "reasoning", "text", "step_finish"]
        assert result.text == "yes"

    def refused(result: RunResult, _: ScriptedModel, __: Path) -> None:
        assert result.tool_calls[0]["part"]["state"]["status"] == "error"

    def blocked(result: RunResult, _: ScriptedModel, __: Path) -> None:
        assert "auto-rejecting" in result.stderr
        assert result.exit_code == 0

    pwd = ToolCall("bash", {"command": "pwd; echo $PWD", "description": "d"})
    remove = ToolCall("bash", {"command": "rm x", "description": "d"})
    reasoned = Reply(Reasoning("hm"), "yes")
    outside = ToolCall("read", {"filePath": "/etc/hostname"})
    await together(
        partial(run, Reply("a b c", usage=USAGE), "completed", "a b c", check=exact),
        partial(run, [pwd, "done"], "completed", "done", 2, worked),
        partial(run, [reasoned], "completed", "yes", 1, thought, thinking=True),
        partial(run, Reply("cut o", finish="length"), "length", "cut o"),
        partial(run, Reply("no", finish="content_filter"), "content_filter", "no"),
        partial(run, Reply(), "empty", ""),
        # A rule that denies is told to the model, which goes on ...
        partial(
            run,
            [remove, "done"],
            "completed",
            "done",
            2,
            refused,
            permission={"bash": {"*": "allow", "rm *": "deny"}},
        ),
        # ... and a question that nobody can answer ends the turn.
        partial(run, [outside, "done"], "blocked", "", 1, blocked),
    )


async def test_ends_that_are_an_error(client, workspaces):
    async def fails(
        script: Script, kind: type[Exception], words: str, asked: range, **settings: Any
    ) -> Any:
        async with open_scripted_model(script) as model:
            with pytest.raises(kind, match=words) as caught:
                await client.async_run("go", workspaces(), run_cfg=model.run_config(**settings))
            assert len(model.requests) in asked
            with trio.fail_after(5):
                await model.wait_until_quiet()
            return caught.value

    async def unauthorized() -> None:
        error = await fails(HttpError(401, "bad key"), OpenCodeTurnError, "bad key", range(1, 2))
        assert (error.name, error.status_code, error.is_retryable) == ("APIError", 401, False)
        assert error.partial.stop_reason == "error"

    async def unknown_model() -> None:
        error = await fails(
            "x",
            OpenCodeTurnError,
            "Model not found: scripted/nope",
            range(1),
            model="scripted/nope",
        )
        assert "Unexpected server error" not in str(error)

    async def wrong_agent() -> None:
        error = await fails("x", OpenCodeConfigError, "'nope'", range(1), agent="nope")
        assert error.partial.events == []

    async def bad_config() -> None:
        error = await fails(
            "x",
            OpenCodeProcessError,
            "Expected string .* got 3 model",
            range(1),
            config_overrides={"model": 3},
        )
        assert error.stderr.startswith("Error: Configuration is invalid")
        assert "\x1b" not in error.stderr
        assert error.exit_code == 1

    async def cut_stream() -> None:
        # opencode is quick to ask again, so a fourth request may be under way already.
        error = await fails(
            Reply("partial", Cut()), OpenCodeLimitError, "3 steps in a row", range(3, 5)
        )
        assert error.limit == "unknown_finishes"
        assert error.partial.turns == 3
        assert error.partial.final_text == "partial"

    async def too_many_steps() -> None:
        call = ToolCall("bash", {"command": "true", "description": "d"})
        error = await fails(call, OpenCodeLimitError, "max_steps=2", range(2, 4), max_steps=2)
        assert error.partial.turns == 2

    await together(unauthorized, unknown_model, wrong_agent, bad_config, cut_stream, too_many_steps)


# --- leaving the block means it has stopped --------------------------------------------------


@pytest.mark.quiet
async def test_leaving_early(client, workspaces):
    async with open_scripted_model(Reply(Text("thinking"), Stall())) as model:
        with trio.fail_after(ONE_RUN_S):
            async with client.async_stream("go", workspaces(), run_cfg=model.run_config()) as run:
                await model.wait_for_requests(1)
                await trio.sleep(0.2)
                assert model.open_requests == 1
                left_at = time.monotonic()
        assert time.monotonic() - left_at < 2
        with trio.fail_after(1):
            await model.wait_until_quiet()
    assert run.result.stop_reason == "incomplete"


@pytest.mark.quiet
async def test_leaving_while_a_tool_runs(client, workspaces):
    command = "setsid sleep 7654.25 & sleep 7654.25"
    script = [[ToolCall("bash", {"command": command, "description": "d"})], "done"]
    async with open_scripted_model(script) as model:
        with trio.fail_after(ONE_RUN_S):
            async with client.async_stream("go", workspaces(), run_cfg=model.run_config()) as run:
                while len(_running("sleep 7654.25")) < 2:  # noqa: ASYNC110 - the kernel rings no bell
                    await trio.sleep(0.05)
                left_at = time.monotonic()
    assert time.monotonic() - left_at < 2
    assert not _running("sleep 7654.25")
    assert not [event for event in run.result.events if isinstance(event, ToolPart)]


def _running(command: str) -> list[str]:
    return [p.command for p in processes() if p.command == command and p.state != "Z"]


@pytest.mark.quiet
async def test_cancelled_at_any_moment_no_child_is_left(client, workspaces):
    async def cancel_after(seconds: float) -> None:
        mark = f"{seconds:g}"
        cfg = model.run_config(extra_env={"SWEEP": mark})
        with trio.move_on_after(seconds):
            await client.async_run("go", workspaces(), run_cfg=cfg)
        left = [p for p in processes() if f"SWEEP={mark}" in p.environ]
        assert not left

    async with open_scripted_model(Stall()) as model:
        delays = [3.0 * step / 19 for step in range(20)]
        await together(*(partial(cancel_after, delay) for delay in delays), at_once=4)
        with trio.fail_after(1):
            await model.wait_until_quiet()
    children = [p for p in processes() if p.parent == os.getpid()]
    assert not children


# --- on other people's machines -------------------------------------------------------------------


async def test_a_provider_on_this_machine_is_not_asked_through_a_proxy(
    client, workspaces, monkeypatch
):
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with open_scripted_model("hi") as model:
        cfg = model.run_config()
        result = await client.async_run("go", workspaces(), run_cfg=cfg, timeout_s=60)
    assert result.final_text == "hi"


async def test_a_model_without_credentials_is_told_which_it_needs(client, workspaces, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    cfg = RunConfig(model="anthropic/claude-haiku-4-5")
    with pytest.raises(OpenCodeTurnError, match="has no credentials: set ANTHROPIC_API_KEY"):
        await client.async_run("go", workspaces(), run_cfg=cfg, timeout_s=60)
