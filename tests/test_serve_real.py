"""Sessions on the real opencode: what was promised, seen from outside."""

from __future__ import annotations

import base64
import logging
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

from opencode_trio import AsyncOpenCodeClient, OpenCodeSession
from opencode_trio._server import start as _serve
from opencode_trio.asks import PermissionAnswer, Reject
from opencode_trio.config import RunConfig
from opencode_trio.errors import (
    OpenCodeCancelledError,
    OpenCodeConfigError,
    OpenCodeLimitError,
    OpenCodeServerError,
    OpenCodeTurnError,
)
from opencode_trio.events import (
    OtherPart,
    PermissionAsked,
    QuestionAsked,
    SessionCreated,
    SessionRetrying,
    TextDelta,
    ToolPart,
)
from opencode_trio.results import RunResult
from opencode_trio.server import OpenCodeServer, connect_server
from opencode_trio.session import Session
from opencode_trio.testing import (
    Cut,
    Delay,
    HttpError,
    Reasoning,
    Reply,
    ScriptedModel,
    Stall,
    ToolCall,
    Usage,
    open_scripted_model,
)
from serving import Programs, serving
from tcp_proxy import open_proxy

pytestmark = pytest.mark.opencode

# Read before the suite hides it from opencode.
CANCELLATIONS = int(os.environ.get("OPENCODE_TRIO_CANCELLATIONS", "30"))


def is_before(server: OpenCodeServer, minor: int) -> bool:
    """Say whether a server is older than ``1.minor``, among the releases that are tested.

    This is all that old ones do otherwise; `docs/sessions.md` tells users what is weaker.

    ==========  ====================================================================================
    before 18   a reply that breaks off ends the turn; from 14 on, before it was asked for again
    before 17   an "unexpected error" is not explained, neither are the details of a request told
    before 15   what asked for a structured answer is told with the other messages
    before 14   a session takes no rules: a denied tool is offered, and refused only when called
    before 14   an aborted turn may have no answer, so that it takes a second more to be sure
    before 14   text is stored when it ends, so that of an aborted turn there is none
    before 14   what cannot run does not always say why
    ==========  ====================================================================================
    """
    return tuple(map(int, server.version.split(".")[:2])) < (1, minor)


def bash(command: str) -> ToolCall:
    return ToolCall("bash", {"command": command, "description": "a test"})


def task(prompt: str, agent: str = "general") -> ToolCall:
    return ToolCall("task", {"description": "sub", "subagent_type": agent, "prompt": prompt})


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)

QUESTION = ToolCall(
    "question",
    {
        "questions": [
            {
                "question": "Which database?",
                "header": "DB",
                "options": [
                    {"label": "pg", "description": "Postgres"},
                    {"label": "lite", "description": "SQLite"},
                ],
            }
        ]
    },
)


async def test_conversation_costs_and_tools(opencode_binary: str, tmp_path: Path):
    """Memory of former turns; exact cost, tokens and steps of plain, tool and subagent turns."""
    programs = {
        "plain": Reply("the answer", usage=Usage(input=70, output=7, cache_read=11)),
        "tool": [Reply("let me see", bash("echo hi"), usage=Usage(200, 20)), "it says hi"],
        "delegate": [Reply(task("child"), usage=Usage(300, 30)), Reply("done", usage=Usage(40, 4))],
        "child": [Reply(bash("echo sub"), usage=Usage(500, 50)), Reply("sub", usage=Usage(60, 6))],
        "think": Reply(Reasoning("hm, hm"), "thought", usage=Usage(input=5, output=5, reasoning=3)),
    }
    async with serving(opencode_binary, tmp_path, programs, permission="allow") as (server, model):
        async with server.open_session() as session:
            result = await session.send("plain")
            assert result.final_text == "the answer"
            assert result.stop_reason == "completed"
            assert result.turns == 1
            assert result.total_cost == pytest.approx(model.spent_usd, abs=1e-12)
            assert (result.token_usage.input, result.token_usage.output) == (70, 7)
            assert result.token_usage.cache_read == 11

            before = model.spent_usd
            result = await session.send("tool")
            assert result.final_text == "it says hi"
            assert result.turns == 2
            assert [call["state"]["output"] for call in result.tool_calls] == ["hi\n"]
            assert result.total_cost == pytest.approx(model.spent_usd - before, abs=1e-12)
            assert result.token_usage.total == 220 + 110
            said = [m.get("content") for m in model.requests[-1].messages]
            assert "the answer" in str(said)
            assert "plain" in str(said)

            before = model.spent_usd
            result = await session.send("delegate")
            assert result.final_text == "done"
            assert result.turns == 4
            assert result.total_cost == pytest.approx(model.spent_usd - before, abs=1e-12)
            assert result.token_usage.total == 330 + 44 + 550 + 66
            assert len(result.cost_by_session) == 2
            assert sum(result.cost_by_session.values()) == pytest.approx(result.total_cost)
            assert [child["parentID"] for child in await session.children()] == [session.session_id]

            deltas, kinds = "", set()
            async with session.stream("think") as turn:
                async for event in turn:
                    kinds.add(type(event).__name__)
                    if isinstance(event, TextDelta):
                        deltas += event.delta
            assert {"ReasoningDelta", "ReasoningPart", "StepFinished", "SessionIdle"} <= kinds | {
                "SessionIdle"
            }
            assert deltas == turn.result.final_text == "thought"
            assert turn.result.stop_reason == "completed"

            assert turn.result.token_usage.reasoning == 3
            statistics = server.statistics()
            assert (statistics.sessions, statistics.turns, statistics.steps) == (1, 4, 8)
            assert statistics.cost_usd > 0
            assert not model.title_requests
        listed = await server.sessions()
        assert session.session_id in {record["id"] for record in listed}


@pytest.mark.quiet
async def test_asks_of_the_whole_tree(  # noqa: C901 - many small handlers
    opencode_binary: str, tmp_path: Path
):
    programs = {
        "delegate": [task("child"), "done"],
        "child": [bash("echo sub"), "sub done"],
        "direct": [bash("echo direct"), "after"],
        "ask": [QUESTION, lambda request: f"so: {request.tool_results[-1]}"],
        "quick": "quick",
    }
    permission = {"*": "allow", "bash": "ask", "question": "allow"}
    async with serving(opencode_binary, tmp_path, programs, permission=permission) as (
        server,
        model,
    ):
        await server.warm()
        asked: list[Any] = []

        async def approve(request: Any) -> PermissionAnswer:
            asked.append(request)
            return "once"

        async with server.open_session(on_permission=approve) as session:
            result = await session.send("delegate")
            assert result.final_text == "done"
            assert result.turns == 4
            (request,) = asked
            assert (request.tool, request.patterns) == ("bash", ("echo sub",))
            assert (request["permission"], request["sessionID"]) == ("bash", request.session_id)
            assert is_before(server, 17) or request.metadata["command"] == "echo sub"
            assert (request.depth, request.parent_id) == (1, session.session_id)
            assert request.agent == "general"
            assert request.session_id != session.session_id

        # Nobody to ask: refused at once, at any depth.
        async with server.open_session() as session:
            for prompt in ("direct", "delegate"):
                started = trio.current_time()
                result = await session.send(prompt)
                assert trio.current_time() - started < 2
                assert result.stop_reason in {"blocked", "completed"}, prompt
            result = await session.send("quick")
            assert result.final_text == "quick"

        # A reason lets the agent go on.
        async with server.open_session(on_permission=lambda _: Reject("not here")) as session:
            result = await session.send("direct")
            assert result.final_text == "after"
            assert "not here" in model.requests[-1].tool_results[-1]

        # A handler that takes its time holds up nobody.
        async def slow(request: Any) -> PermissionAnswer:
            await trio.sleep(1.5)
            return "once"

        async with (
            server.open_session(on_permission=slow) as waiting,
            server.open_session() as other,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(waiting.send, "direct")
            await trio.sleep(0.3)
            started = trio.current_time()
            assert (await other.send("quick")).final_text == "quick"
            assert trio.current_time() - started < 1

        # A handler that crashes fails its turn, bare; the session goes on.
        async def crash(request: Any) -> PermissionAnswer:
            raise ZeroDivisionError("the handler's own")

        async with server.open_session(on_permission=crash) as session:
            with pytest.raises(ZeroDivisionError, match="own"):
                await session.send("delegate")
            assert (await session.send("quick")).final_text == "quick"

        unsure: Any = "maybe"
        async with server.open_session(on_permission=lambda _: unsure) as session:
            with pytest.raises(OpenCodeConfigError, match="maybe"):
                await session.send("direct")

        # Questions.
        async with server.open_session(on_question=lambda request: [["lite"]]) as session:
            assert "lite" in (await session.send("ask")).final_text
        async with server.open_session(on_question=lambda request: None) as session:
            assert (await session.send("ask")).stop_reason == "blocked"
        async with server.open_session() as session:
            started = trio.current_time()
            assert (await session.send("ask")).stop_reason == "blocked"
            assert trio.current_time() - started < 2

        # By hand.
        async with server.open_session() as session:
            async with session.stream("ask", answer_by_hand=True) as turn:
                async for event in turn:
                    if isinstance(event, QuestionAsked):
                        with pytest.raises(OpenCodeConfigError):
                            await turn.answer(event, [])
                        await turn.answer(event, [["pg"]])
            assert "pg" in turn.result.final_text
            async with session.stream("direct", answer_by_hand=True) as turn:
                async for event in turn:
                    if isinstance(event, PermissionAsked):
                        assert turn.pending_asks[0]["id"] == event.request_id
                        await turn.answer(event, "once")
            assert turn.result.final_text == "after"


def processes(marker: str) -> bytes:
    command = ["pgrep", "-f", f"sleep {marker}"]
    return subprocess.run(command, check=False, capture_output=True).stdout


@pytest.mark.quiet
async def test_cancellation_is_abort(  # noqa: C901 - a table of moments
    opencode_binary: str, tmp_path: Path
):
    marker = f"31{os.getpid()}"
    programs = {
        "stream": Reply("a ", "b ", Stall()),
        "tool": [bash(f"sleep {marker}"), "never"],
        "retry": HttpError(429, "slow down"),
        "ask": [bash("echo hi"), "never"],
        "delegate": [task("stream"), "never"],
        "overflow": HttpError(400, "too long", code="context_length_exceeded"),
        "*": Stall(),  # the summary, then
        "next": "next answer",
        "slow": Reply("x", Delay(4), "slow answer"),
    }
    permission = {"*": "allow", "bash": {"*": "allow", "echo *": "ask"}}

    async def think(request: Any) -> PermissionAnswer:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(opencode_binary, tmp_path, programs, permission=permission) as (
        server,
        model,
    ):
        async with (
            server.open_session(on_permission=think) as session,
            server.open_session() as other,
            trio.open_nursery() as nursery,
        ):
            await session.send("next")
            slow_result: list[str] = []

            async def undisturbed() -> None:
                slow_result.append((await other.send("slow")).final_text)

            nursery.start_soon(undisturbed)
            await model.wait_for_requests(2)

            def is_reached(prompt: str, event: Any) -> bool:
                match prompt, event:
                    case "delegate", TextDelta(session_id=other_id):
                        return other_id != session.session_id
                    case (
                        ("stream", TextDelta())
                        | ("tool", ToolPart(status="running"))
                        | ("retry", SessionRetrying())
                        | ("ask", PermissionAsked())
                        | ("overflow", OtherPart(part_type="compaction"))
                    ):
                        return True
                return False

            closed: dict[str, float] = {}

            async def watch(prompt: str) -> None:
                began = trio.current_time()
                while model.open_requests > (not slow_result):  # noqa: ASYNC110 - no event for this
                    await trio.sleep(0.01)
                closed[prompt] = trio.current_time() - began

            ancient = is_before(server, 14)  # knows of no such error
            patience = 3 if ancient else 2
            prompts = ["stream", "tool", "retry", "ask", "delegate", "overflow"]
            for prompt in prompts[:-1] if ancient else prompts:
                async with session.stream(prompt) as turn:
                    async for event in turn:
                        if is_reached(prompt, event):
                            break
                    left = trio.current_time()
                    nursery.start_soon(watch, prompt)
                assert trio.current_time() - left < patience, prompt
                assert turn.result.stop_reason == "cancelled", prompt
                assert model.open_requests <= 1, prompt  # the undisturbed one's
                assert not processes(marker), prompt
                result = await session.send("next")
                assert (result.final_text, result.turns) == ("next answer", 1), prompt

            # What is no turn, too.
            with trio.move_on_after(1) as scope:
                await session.shell(f"sleep {marker}")
            assert scope.cancelled_caught
            assert not processes(marker)
            result = await session.send("next")
            assert (result.final_text, result.turns) == ("next answer", 1)

            # By a cancel scope, and by a time limit.
            with trio.move_on_after(0.5) as scope:
                await session.send("stream")
            assert scope.cancelled_caught
            with pytest.raises(trio.TooSlowError) as caught:
                await session.send("stream", timeout_s=0.7)
            assert caught.value.partial.stop_reason == "timeout"  # type: ignore[attr-defined]
            partial = caught.value.partial  # type: ignore[attr-defined]
            assert partial.text == ("" if is_before(server, 14) else "a b ")
            # Somebody else's abort is an error.
            with pytest.raises(OpenCodeCancelledError):
                async with session.stream("stream") as turn:
                    async for event in turn:
                        if isinstance(event, TextDelta):
                            await session.abort()
            assert (await session.send("next")).final_text == "next answer"
        assert slow_result == ["xslow answer"]
        print("seconds until the model's request was closed:", closed)
        assert max(closed.values()) <= 0.5


async def test_failures_and_guards(opencode_binary: str, tmp_path: Path):
    programs = {
        "401": HttpError(401, "bad key"),
        "length": Reply("cut", finish="length"),
        "filter": Reply("filtered", finish="content_filter"),
        "empty": Reply(),
        "broken": Reply("x", Cut()),
        "loop": [bash("true")],
        "late": HttpError(429, "quota", headers={"retry-after": "86400"}),
        "silent": Reply("x", Stall()),
        "next": "next",
    }
    async with serving(opencode_binary, tmp_path, programs, permission="allow") as (server, model):
        async with server.open_session() as session:
            with pytest.raises(OpenCodeTurnError) as failed:
                await session.send("401")
            assert (failed.value.name, failed.value.status_code) == ("APIError", 401)
            assert failed.value.partial is not None
            assert failed.value.partial.stop_reason == "error"
            assert (await session.send("length")).stop_reason == "length"
            assert (await session.send("filter")).stop_reason == "content_filter"
            assert (await session.send("empty")).stop_reason == "empty"
            takes_it = is_before(server, 18) and not is_before(server, 14)
            if takes_it:
                with pytest.raises(OpenCodeServerError, match="before it was complete"):
                    await session.send("broken")
            for prompt, options, limit in (
                *([] if takes_it else [("broken", {}, "unknown_finishes")]),
                ("loop", {"max_steps": 3}, "max_steps"),
                ("loop", {"max_cost_usd": 0.0003}, "max_cost_usd"),
                ("late", {}, "max_retry_wait_s"),
                ("silent", {"fail_if_silent": 0.5}, "fail_if_silent"),
            ):
                with pytest.raises(OpenCodeLimitError) as limited:
                    await session.send(prompt, **options)  # type: ignore[arg-type]
                assert limited.value.limit == limit, prompt
                assert limited.value.partial is not None
                assert limited.value.partial.stop_reason == "limit", prompt
                assert model.open_requests == 0
                assert (await session.send("next")).final_text == "next", prompt
            assert model.requests
            # What cannot run at all says why.
            ancient = is_before(server, 14)
            failure = (OpenCodeTurnError, *([OpenCodeServerError] if ancient else []))
            with pytest.raises(failure, match=None if ancient else "nope"):
                await session.send("next", model="scripted/nope")
            with pytest.raises(failure, match=None if ancient else "nobody"):
                await session.send("next", agent="nobody")
            assert (await session.send("next")).final_text == "next"
            # What belongs to the server is not a turn's to change.
            with pytest.raises(OpenCodeConfigError, match="mcp"):
                await session.send("next", run_cfg=attrs.evolve(model.run_config(), mcp={}))
        with pytest.raises(OpenCodeServerError) as missing:
            async with server.open_session(session_id="ses_doesnotexist"):
                pass
        assert missing.value.status_code == 404
        with pytest.raises(OpenCodeConfigError):
            async with server.open_session(session_id="abc"):
                pass
        # 1.2 asks opencode's own web site for what it does not know.
        with pytest.raises(OpenCodeServerError, match=r"no such route|500"):
            await server.request("GET", "/no/such/route")
        # Of an "unexpected error" the answer has but a reference; the text is in the log.
        text = "400|500" if is_before(server, 17) else 'Expected a string starting with "ses"'
        with pytest.raises(OpenCodeServerError, match=text):
            await server.request("GET", "/session/abc")
        assert (await server.request("GET", "/global/health"))["healthy"]


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port that somebody else has taken a moment before the server could."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.quiet
async def test_the_server_dies_in_mid_turn(
    opencode_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: socket.socket
):
    programs = {"stall": Reply("so far", Stall())}
    ports = iter([taken.getsockname()[1]])
    free_port = _serve._free_port
    monkeypatch.setattr(_serve, "_free_port", lambda: next(ports, None) or free_port())
    async with (
        serving(opencode_binary, tmp_path, programs) as (server, _),
        server.open_session() as session,
    ):
        died = 0.0
        with pytest.raises(OpenCodeServerError) as failed:
            async with session.stream("stall") as turn:
                async for event in turn:
                    if isinstance(event, TextDelta):
                        died = trio.current_time()
                        os.kill(server_pid(tmp_path), signal.SIGKILL)
        assert trio.current_time() - died < 1
        assert failed.value.partial is not None
        assert failed.value.partial.text == "so far"
        with pytest.raises(OpenCodeServerError):
            await session.send("again")


def server_pid(workspace: Path) -> int:
    """Find the server by its working directory and command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            cwd = (entry / "cwd").readlink()
        except OSError:
            continue
        if cwd == workspace.resolve() and len(command) > 1 and command[1] == b"serve":
            return int(entry.name)
    raise AssertionError("no server runs here")


def environment_of(pid: int | None) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(pair.split("=", 1) for pair in text.rstrip("\0").split("\0"))


def password_of(workspace: Path) -> str:
    return environment_of(server_pid(workspace))["OPENCODE_SERVER_PASSWORD"]


def remote(model: ScriptedModel) -> RunConfig:
    """Return what of the model's settings a session on somebody else's server may name."""
    return RunConfig(model=model.run_config().model)


async def test_a_broken_way_to_the_server(
    opencode_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Streams cut and muted, answers lost: the result is exact all the same."""
    programs = {
        "long": [Reply("one ", Delay(1), "two"), "never"],
        "asks": [Reply("a", Delay(0.6), bash("echo hi")), Reply("b", Delay(0.6), "c")],
        "delegate": [task("child"), Reply(Delay(0.5), "done")],
        "child": [Reply(Delay(0.5), bash("echo sub")), "sub"],
    }
    permission = {"*": "allow", "bash": "ask"}
    async with (
        serving(opencode_binary, tmp_path, programs, permission=permission) as (server, model),
        open_proxy(server.url) as proxy,
    ):
        password = password_of(tmp_path)
        workspace = str(tmp_path.resolve())

        async def exact(session: Session, prompt: str, disturb: Any) -> RunResult:
            before = model.spent_usd
            async with session.stream(prompt) as turn, trio.open_nursery() as nursery:
                async for event in turn:
                    if disturb is not None and isinstance(event, TextDelta | SessionCreated):
                        nursery.start_soon(disturb)
                        disturb = None
            assert turn.result.total_cost == pytest.approx(model.spent_usd - before, abs=1e-12)
            assert turn.result.stop_reason == "completed"
            return turn.result

        async def cut() -> None:
            proxy.refuses = True
            assert await proxy.drop("/global/event") == 1
            await trio.sleep(1.2)
            proxy.refuses = False

        async def lose_answer() -> None:
            assert await proxy.drop(f"/session/{session.session_id}/message") == 1

        async def mute() -> None:
            assert proxy.mute("/global/event") == 1

        async with (
            connect_server(proxy.url, password=password, workspace=workspace) as through,
            through.open_session(run_cfg=remote(model), on_permission=lambda _: "once") as session,
        ):
            assert (await exact(session, "long", cut)).final_text == "one two"
            assert (await exact(session, "asks", cut)).final_text == "bc"
            result = await exact(session, "delegate", cut)
            assert (result.final_text, result.turns) == ("done", 4)
            assert len(result.cost_by_session) == 2
            assert through.statistics().reconnections == 3
            assert (await exact(session, "long", lose_answer)).final_text == "one two"

        monkeypatch.setattr("opencode_trio._server.event_stream.SILENCE_S", 1.0)
        async with (
            connect_server(proxy.url, password=password, workspace=workspace) as through,
            through.open_session(run_cfg=remote(model), on_permission=lambda _: "once") as session,
        ):
            assert (await exact(session, "asks", mute)).final_text == "bc"


async def test_password(opencode_binary: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    async with serving(opencode_binary, tmp_path, {}) as (server, model):
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as stranger:
            for path in ("/session", "/global/health", "/global/event", "/doc", "/", "/agent"):
                assert (await stranger.get(path)).status_code == 401, path
            answer = await stranger.post("/session", json={}, auth=("opencode", "guess"))
            assert answer.status_code == 401
        password = password_of(tmp_path).encode()
        assert len(password) > 30
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert password not in cmdline.read_bytes()
            except OSError:
                continue
        async with (
            connect_server(server.url, password=password.decode()) as again,
            again.open_session(str(tmp_path), run_cfg=remote(model)) as session,
        ):
            assert (await session.send("hello")).final_text == "ok"
        with pytest.raises(OpenCodeServerError, match="block that opened it was left"):
            await session.send("still there?")
        with pytest.raises(OpenCodeServerError, match="password"):
            async with connect_server(server.url, password="wrong"):
                pass
        assert "ours" in repr(server)
        # It is in no log, neither in ours and our libraries' nor in opencode's, and in no file.
        data = Path(environment_of(server.pid)["XDG_DATA_HOME"]) / "opencode"
        written = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
        assert written
        written += caplog.text.encode()
        for form in (password, base64.b64encode(b"opencode:" + password)):
            assert form not in written
    with pytest.raises(OpenCodeServerError, match="block that opened it was left"):
        await server.request("GET", "/config")


async def test_structured_output(opencode_binary: str, tmp_path: Path):
    @attrs.frozen
    class Verdict:
        answer: int
        why: str | None = None

    def structured(**answer: Any) -> ToolCall:
        return ToolCall("StructuredOutput", answer)

    again = [structured(answer=7, why="asked again"), structured(answer="still many"), "words"]
    ls = ToolCall("bash", {"command": "ls", "description": "a look before"})
    programs = {
        "good": structured(answer=42),
        "long": [ls, ls, structured(answer=43)],
        "plain": [ls, "just words"],
        "wrong": structured(answer="many"),
        "words": "forty-two",
        # Whatever else it is asked: to mend a wrong answer.
        "*": lambda request: again.pop(0),
    }
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    async with (
        serving(opencode_binary, tmp_path, programs) as (server, model),
        server.open_session() as session,
    ):
        result = await session.send("good", output=Verdict)
        assert (result.structured, result.stop_reason) == (Verdict(42), "completed")
        assert (await session.send("good", output=schema)).structured == {"answer": 42}
        async with server.open_session() as other:  # where it is the first thing that is asked
            result = await other.send("long", output=Verdict)
            assert (result.structured, result.turns) == (Verdict(43), 3)
            assert (await other.send("plain")).turns == 2
            told = 7 if is_before(server, 15) else 6  # the first is what asked for it
            assert len(await other.messages()) == told
        wary = RunConfig(permission={"*": "deny", "bash": "allow"})
        async with server.open_session(run_cfg=wary) as other:
            if is_before(server, 14):  # and we say so
                with pytest.raises(OpenCodeServerError, match="permission rules"):
                    await other.send("long", output=Verdict)
            else:
                result = await other.send("long", output=Verdict)
                assert (result.structured, result.turns) == (Verdict(43), 3)
                await other.send("plain")
                offered = [request.tools for request in model.requests[-2:]]
                assert offered == [("bash",), ("bash",)]  # and not what was for the answer alone
        before = model.spent_usd
        result = await session.send("wrong", output=Verdict)
        assert result.structured == Verdict(7, "asked again")
        assert "'many' is not of type 'integer'" in model.requests[-1].prompt
        assert result.total_cost == pytest.approx(model.spent_usd - before, abs=1e-12)
        for prompt in ("wrong", "words"):
            with pytest.raises(OpenCodeTurnError) as failed:
                await session.send(prompt, output=Verdict)
            assert failed.value.name == "StructuredOutputError"
            assert failed.value.partial is not None
            assert failed.value.partial.turns == 2
        assert not again


def said_by_user(model: ScriptedModel) -> list[Any]:
    """Return what the last request to the model has of the user."""
    return [m["content"] for m in model.requests[-1].messages if m["role"] == "user"]


async def test_the_life_of_a_session(opencode_binary: str, tmp_path: Path):
    """Resume, fork, rules of one turn, files, system, revert, shell, command, summarize."""
    workspace = tmp_path / "a project, ünd more"
    (workspace / ".opencode" / "command").mkdir(parents=True)
    (workspace / ".opencode" / "command" / "greet.md").write_text("Say hello to $ARGUMENTS")
    note = workspace / "note.txt"
    note.write_text("the note's text")
    programs = {
        "write": [ToolCall("write", {"filePath": "made.txt", "content": "made"}), "written"],
        "child": "ok",
        "Say hello to Bob": "hello Bob",
        "plan": [
            ToolCall(
                "todowrite", {"todos": [{"content": "a", "status": "pending", "priority": "low"}]}
            ),
            "planned",
        ],
        "list": lambda request: ",".join(sorted(request.tools)),
        "system": lambda request: "yes" if "Be terse." in request.system else "no",
    }
    async with serving(opencode_binary, workspace, programs, permission="allow") as (server, model):
        async with server.open_session(title="first") as session:
            await session.send("one")
            await session.send("two")
            first = session.session_id
        async with server.open_session(session_id=first) as session:
            await session.send("three")
            assert said_by_user(model) == ["one", "two", "three"]
            messages = await session.messages()
            assert len(messages) == 6
            assert len(await session.messages(limit=2)) == 2
            second = [m["info"]["id"] for m in messages if m["info"]["role"] == "user"][1]
        async with server.open_session(session_id=first, fork=second) as session:
            assert session.session_id != first
            await session.send("other")
            assert said_by_user(model) == ["one", "other"]

        # Rules of one turn are gone in the next, and so is what one session may not do.
        async with server.open_session() as session:
            everything = (await session.send("list")).final_text.split(",")
            assert {"bash", "write", "todowrite"} <= set(everything)
            without = RunConfig(tools={"bash": False})
            if is_before(server, 14):  # and we say so
                with pytest.raises(OpenCodeServerError, match="permission rules"):
                    await session.send("list", run_cfg=without)
            else:
                fewer = await session.send("list", run_cfg=without)
                assert set(everything) - set(fewer.final_text.split(",")) == {"bash"}
            assert (await session.send("list")).final_text.split(",") == everything
        async with server.open_session(run_cfg=RunConfig(permission={"bash": "deny"})) as session:
            allowed = (await session.send("list")).final_text.split(",")
            if not is_before(server, 14):
                assert set(everything) - set(allowed) == {"bash"}

        async with server.open_session() as session:
            assert (await session.send("system", system="Be terse.")).final_text == "yes"
            await session.send("look", files=[note, (PIXEL, "image/png"), (b"raw", "text/plain")])
            contents = str(model.requests[-1].messages)
            assert "the note's text" in contents
            with pytest.raises(OpenCodeConfigError, match=r"gone\.txt"):
                await session.send("look", files=[tmp_path / "gone.txt"])
            if not is_before(server, 18):  # they decode no images
                with pytest.raises(
                    OpenCodeServerError, match=r"cannot decode.*files\[0\] \(image/gif"
                ):
                    await session.send("look", files=[(b"GIF89a", "image/gif")])
                assert (await session.send("child")).final_text == "ok"
            assert (await session.command("greet", "Bob")).final_text == "hello Bob"
            shell = await session.shell("echo from the shell")
            assert "from the shell" in str(shell)
            await session.send("plan")
            assert [todo["content"] for todo in await session.todo()] == ["a"]
            await session.summarize()
            assert (await session.send("after")).final_text == "ok"
            latest = (await session.messages())[-2]["info"]["id"]
            assert (await session.revert(latest))["revert"]["messageID"] == latest
            assert "revert" not in await session.unrevert()
        assert session.session_id in {record["id"] for record in await server.sessions()}
        async with server.open_session(delete_on_exit=True) as session:
            pass
        assert session.session_id not in {record["id"] for record in await server.sessions()}


async def test_the_diff_of_a_session_and_of_a_turn(opencode_binary: str, tmp_path: Path):
    """Each file once, from before the first turn that changed it to after the last."""
    git = ["git", "-C", str(tmp_path)]
    await trio.run_process([*git, "init", "--quiet"])
    (tmp_path / "kept.txt").write_text("one\n")

    def script(request: Any) -> Any:
        run = ToolCall("bash", {"command": request.prompt, "description": "d"})
        return "done" if request.tool_results else run

    async with (
        serving(opencode_binary, tmp_path, {"*": script}, snapshot=True, permission="allow") as (
            server,
            _,
        ),
        server.open_session() as session,
    ):
        assert await session.diff() == []
        await session.send("echo two > kept.txt; echo x > passing.txt")
        await session.send("echo three > kept.txt; echo y > new.txt; rm passing.txt")
        changes = {change["file"]: change for change in await session.diff()}
        assert list(changes) == ["kept.txt", "new.txt"]
        assert changes["kept.txt"]["additions"] == changes["kept.txt"]["deletions"] == 1
        if not is_before(server, 14):
            (tmp_path / "kept.txt").write_text("one\n")
            (tmp_path / "new.txt").unlink()
            patch = "".join(change["patch"] for change in changes.values())
            await trio.run_process([*git, "apply", "-p0"], stdin=patch.encode())
            assert (tmp_path / "kept.txt").read_text() == "three\n"
            assert (tmp_path / "new.txt").read_text() == "y\n"
        last = (await session.messages())[-1]["info"]["parentID"]
        assert "passing.txt" in {change["file"] for change in await session.diff(last)}


@pytest.mark.quiet
async def test_cancelled_at_any_moment(opencode_binary: str, tmp_path: Path):
    """No hang, no word of an old turn in a later one, no request left open."""
    chance = random.Random(CANCELLATIONS)  # noqa: S311
    programs: dict[str, Any] = {
        "stream": Reply("a ", "b ", Delay(0.1), "c ", Delay(0.3), "d"),
        "tool": [bash("sleep 0.3"), "slept"],
        "delegate": [task("stream"), "delegated"],
        "ask": [bash("echo hi"), "never"],
    }
    permission = {"*": "allow", "bash": {"*": "allow", "echo *": "ask"}}

    async def think(request: Any) -> PermissionAnswer:
        await trio.sleep(0.2)
        return "reject"

    async with (
        serving(opencode_binary, tmp_path, programs, permission=permission) as (server, model),
        server.open_session(on_permission=think) as first,
        server.open_session(on_permission=think) as second,
    ):
        slowest = 0.0

        async def cancel_at_random(session: Session, name: str) -> None:
            nonlocal slowest
            for number in range(CANCELLATIONS // 2):
                prompt = chance.choice(["stream", "tool", "delegate", "ask"])
                with trio.move_on_after(chance.random() * 0.8) as scope:
                    await session.send(prompt)
                if scope.cancelled_caught:
                    slowest = max(slowest, trio.current_time() - scope.deadline)
                if number % 3 == 0:
                    unique = f"{name}{number}"
                    programs[unique] = answer = f"{unique} answered"
                    result = await session.send(unique)
                    assert (result.final_text, result.turns) == (answer, 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at_random, first, "first")
            nursery.start_soon(cancel_at_random, second, "second")
        assert model.open_requests == 0
        assert slowest < 2
        print(f"{CANCELLATIONS} cancellations, the slowest took {slowest:.2f} s")


@pytest.mark.parametrize("example", ["memory", "permission", "question"])
async def test_examples_for_those_who_move_here(
    opencode_binary: str, tmp_path: Path, example: str, capsys: pytest.CaptureFixture[str]
):
    programs = {
        "My name is Bob.": "Hello Bob.",
        "What is my name?": lambda request: "Bob" if "Bob" in str(request.messages) else "?",
        "Run `echo hi` and tell me the output.": [bash("echo hi"), "It says hi."],
        "Ask me which database to use, then scaffold it.": [
            QUESTION,
            lambda request: f"Scaffolded. {request.tool_results[-1]}",
        ],
    }
    async with open_scripted_model(Programs(programs)) as model:
        client = AsyncOpenCodeClient(opencode_binary)

        async def chat() -> None:
            async with OpenCodeSession(client, tmp_path, run_cfg=model.run_config()) as s:
                r1 = await s.send("My name is Bob.")
                r2 = await s.send("What is my name?")  # continues natively -> "Bob"
                print(s.session_id, r1.final_text, r2.final_text)
            assert "Bob" in str(model.requests[1].messages)
            assert r2.final_text == "Bob"

        # It gets the wire's own fields, as a mapping.
        async def approve(props: Any) -> PermissionAnswer:
            assert {"id", "sessionID", "permission"} <= set(props)
            return "once"

        async def human_in_the_loop() -> None:
            async with OpenCodeSession(
                client,
                tmp_path,
                run_cfg=model.run_config(permission={"bash": "ask"}),
                on_permission=approve,
            ) as s:
                r = await s.send("Run `echo hi` and tell me the output.")
            assert r.final_text == "It says hi."
            assert r.tool_calls[0]["state"]["output"] == "hi\n"

        async def answer(props: Any) -> list[list[str]]:
            out = []
            for q in props["questions"]:
                out.append([q["options"][0]["label"]])  # noqa: PERF401 - as it is written
            return out

        async def questions() -> None:
            async with OpenCodeSession(
                client, tmp_path, run_cfg=model.run_config(), on_question=answer
            ) as s:
                r = await s.send("Ask me which database to use, then scaffold it.")
            assert "pg" in r.final_text

        examples = {"memory": chat, "permission": human_in_the_loop, "question": questions}
        await examples[example]()


SESSION_IN = """
import sys, trio
from opencode_trio import AsyncOpenCodeClient, OpenCodeSession
from opencode_trio.testing import open_scripted_model

async def main(binary, workspace):
    assert sys.getfilesystemencoding() == "ascii"
    client = AsyncOpenCodeClient(binary)
    async with open_scripted_model("hi") as model:
        async with OpenCodeSession(client, workspace, run_cfg=model.run_config()) as session:
            print((await session.send("go")).final_text)

trio.run(main, *sys.argv[1:])
"""


def test_a_session_works_where_the_locale_cannot_write_its_workspace(
    opencode_binary: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "café"
    workspace.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", SESSION_IN, opencode_binary, workspace],
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.stdout, ran.returncode) == ("hi\n", 0), ran.stderr
