"""What type checkers make of the public face.  Checked by mypy and pyright, and never run.

`assert_type` says what they must infer.  Each wrong use must be reported: both checkers also
report a comment that silences nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack, assert_never, assert_type

import attrs
import pydantic
import trio

from opencode_trio import (
    Agent,
    AgentStatus,
    AgentTask,
    AsyncOpenCodeClient,
    ErrorReported,
    Event,
    OpenCodeError,
    OpenCodeServer,
    OpenCodeSession,
    OpenCodeTimeoutError,
    OpenCodeTurnError,
    Outcome,
    PermissionAnswer,
    PermissionRequest,
    QuestionRequest,
    Reject,
    Report,
    Run,
    RunConfig,
    RunResult,
    Session,
    SessionIdle,
    Span,
    StepFinished,
    StopReason,
    Swarm,
    SwarmSnapshot,
    TextPart,
    ToolPart,
    Turn,
    TurnOptions,
    connect_server,
    limit_spending,
    open_swarm,
    parse_event_line,
)
from opencode_trio.progress import show_progress
from opencode_trio.testing import ModelRequest, Reply, ScriptedModel, ToolCall, open_scripted_model


@attrs.frozen
class Review:
    error_of_end: Literal["good", "bad"]
    score: int


@dataclass
class AsDataclass:
    score: int


class AsTypedDict(TypedDict):
    score: int


class AsModel(pydantic.BaseModel):
    score: int


SCHEMA: Mapping[str, Any] = {"type": "object"}


# --- runs -----------------------------------------------------------------------------------------


async def runs(client: AsyncOpenCodeClient) -> None:
    result = await client.async_run("prompt", ".", run_cfg=RunConfig(model="p/m"), timeout_s=1)
    assert_type(result, RunResult[Any])
    assert_type(result.final_text, str)
    assert_type(result.stop_reason, StopReason | None)
    assert_type(result.total_cost, float)
    assert_type(result.events, list[dict[str, Any]])

    async with client.async_stream("prompt", ".") as run:
        assert_type(run, Run)
        async for event in run:
            assert_type(event, Event)
        assert_type(await run.receive(), Event)
        channel: trio.abc.ReceiveChannel[Event] = run
        objects: trio.abc.ReceiveChannel[object] = run
        print(channel, objects)
    assert_type(run.result, RunResult[Any])


async def wrong_runs(client: AsyncOpenCodeClient) -> None:
    await client.async_run("prompt")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.async_run("prompt", ".", RunConfig())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await client.async_run(b"prompt", ".")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.async_run("prompt", ".")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    RunConfig(modell="p/m")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RunConfig(max_steps="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RunConfig().model = "p/m"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def settings() -> None:
    config = attrs.evolve(
        RunConfig(permission={"bash": "deny"}, tools={"web": False}), agent="plan"
    )
    assert_type(config, RunConfig)
    assert_type(config.instructions, Sequence[str] | None)


# --- events and ends ------------------------------------------------------------------------------


def matched(event: Event) -> str | None:
    """`Event` is open: a `match` over it needs no last case, and narrows in each."""
    match event:
        case TextPart(text=text, message_id=message):
            assert_type(text, str)
            assert_type(message, str | None)
            return text
        case ToolPart(tool=tool, status="completed"):
            assert_type(tool, str)
            return tool
        case StepFinished():
            return str(event.tokens.total)
        case ErrorReported(error=error):
            return error.message
        case SessionIdle():
            return event.session_id
        case _:
            return None


def named_end(reason: StopReason) -> str:
    """Why a turn ended is closed: a program can be sure that it knows all reasons."""
    match reason:
        case "completed" | "length" | "content_filter" | "empty" | "blocked":
            return "a result"
        case "error" | "cancelled" | "incomplete" | "limit" | "timeout":
            return "an error"
        case _:
            assert_never(reason)


def misspelt_end(result: RunResult) -> bool:
    return result.stop_reason == "complete"  # type: ignore[comparison-overlap]  # pyright: ignore[reportUnnecessaryComparison]


def failures(error: OpenCodeError) -> RunResult | None:
    match error:
        case OpenCodeTurnError():
            assert_type(error.status_code, int | None)
        case OpenCodeTimeoutError():
            too_slow: trio.TooSlowError = error
            print(too_slow)
        case _:
            assert_type(error.argv, tuple[str, ...])
    return error.partial


# --- servers and sessions -------------------------------------------------------------------------


async def servers(client: AsyncOpenCodeClient) -> None:
    async with client.open_server(".", run_cfg=RunConfig(), warm=True) as server:
        assert_type(server, OpenCodeServer)
        assert_type(server.pid, int | None)
        async with server.open_session(title=None) as session:
            assert_type(session, Session)
        assert_type(await server.sessions(), list[dict[str, Any]])
    async with connect_server("http://localhost:4096", password="x") as server:
        assert_type(server, OpenCodeServer)
    async with OpenCodeSession(client, ".") as own:
        assert_type(own, OpenCodeSession)
        assert_type(await own.send("hello"), RunResult[Any])


async def sessions(session: Session) -> None:
    assert_type(await session.send("prompt"), RunResult[Any])
    review = await session.send("prompt", output=Review, model="p/m", max_steps=3)
    assert_type(review, RunResult[Review])
    assert_type(review.structured, Review)
    assert_type(review.structured.score, int)
    assert_type((await session.send("a", output=AsDataclass)).structured, AsDataclass)
    assert_type((await session.send("a", output=AsTypedDict)).structured["score"], int)
    assert_type((await session.send("a", output=AsModel)).structured, AsModel)
    assert_type(await session.send("prompt", output=SCHEMA), RunResult[Any])
    assert_type(await session.send("prompt", output={"type": "object"}), RunResult[Any])

    any_result: RunResult = review
    an_object: RunResult[object] = review
    print(any_result, an_object)

    async with session.stream("prompt", files=["a.txt", (b"", "image/png")]) as turn:
        assert_type(turn, Turn)
        async for event in turn:
            assert_type(event, Event)
        assert_type(await turn.wait(), RunResult[Any])
    assert_type(turn.result, RunResult[Any])
    assert_type(await session.command("init"), RunResult[Any])


async def passed_on(session: Session, **options: Unpack[TurnOptions]) -> RunResult:
    """A function around `send` can take what `send` takes."""
    return await session.send("prompt", **options)


async def left_open(session: Session, model: str | None, limit: float | None) -> None:
    """``None`` leaves an option out, so that programs can hand on what they may not have."""
    await session.send("prompt", model=model, agent=None, timeout_s=limit, max_cost_usd=limit)


async def wrong_sessions(session: Session) -> None:
    await session.send("prompt", output=int)  # type: ignore[type-var]
    await session.send("prompt", output=Review("good", 1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.send("prompt", modell="p/m")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await session.send("prompt", max_steps="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await session.stream("prompt")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    review = await session.send("prompt", output=Review)
    print(review.structured.scores)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    other: RunResult[ToolCall] = review  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    print(other)


# --- permissions and questions --------------------------------------------------------------------


async def approve(request: PermissionRequest) -> PermissionAnswer:
    assert_type(request.patterns, tuple[str, ...])
    return "once" if request.tool == "bash" else Reject("no")


def choose(request: QuestionRequest) -> list[list[str]] | None:
    return [[question.options[0].label] for question in request.questions] or None


async def typo(request: PermissionRequest) -> Literal["allow"]:
    return "allow"


async def handlers(client: AsyncOpenCodeClient, server: OpenCodeServer) -> None:
    OpenCodeSession(client, ".", on_permission=approve, on_question=choose)
    server.open_session(on_permission=lambda request: "once" if request.tool else Reject())
    server.open_session(on_question=lambda _: None)
    open_swarm(client, on_permission=approve, on_question=choose)

    server.open_session(on_permission=typo)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    server.open_session(on_permission=choose)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    server.open_session(on_question=approve)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- swarms ---------------------------------------------------------------------------------------


async def count(session: Session) -> int:
    return len(await session.messages())


async def repeat(session: Session, text: str, times: int = 1) -> list[str]:
    return [(await session.send(text)).final_text for _ in range(times)]


def best(values: list[int]) -> str:
    return str(max(values))


async def slow_best(values: list[int]) -> str:
    return best(values)


def cheapest(results: list[RunResult]) -> RunResult:
    return min(results, key=lambda result: result.total_cost)


async def top(results: list[RunResult[Review]]) -> RunResult[Review]:
    return max(results, key=lambda result: result.structured.score)


def is_good(result: RunResult[Review]) -> bool:
    return result.structured.score > 3


def is_many(number: int) -> bool:
    return number > 3


def heard(agent: Agent, event: Event) -> None:
    assert_type(agent.name, str)
    assert_type(event, Event)


async def swarms(client: AsyncOpenCodeClient) -> None:
    async with open_swarm(client, limit=4, max_cost_usd=1, on_event=heard) as swarm:
        assert_type(swarm, Swarm)
        async for state in swarm.updates():
            assert_type(state, SwarmSnapshot)
        assert_type(swarm.report(), Report)
        assert_type(swarm.report().agents[0].spans, tuple[Span, ...])
    async with show_progress(open_swarm([])) as shown:
        assert_type(shown, Swarm)
    with limit_spending(max_cost_usd=1) as budget:
        assert_type(budget.spent.cost_usd, float)


async def agents(swarm: Swarm) -> None:
    prompt = swarm.start_soon("prompt", name="first", max_tokens=1000)
    assert_type(prompt, Agent[RunResult[Any]])
    assert_type(await prompt.result(), RunResult[Any])

    review = swarm.start_soon("prompt", output=Review)
    assert_type(review, Agent[RunResult[Review]])
    assert_type((await review.result()).structured.error_of_end, Literal["good", "bad"])

    number = swarm.start_soon(count, timeout_s=60)
    assert_type(number, Agent[int])
    assert_type(await number.wait(), Outcome[int])
    assert_type((await number.wait()).value, int | None)
    assert_type((await number.wait()).unwrap(), int)

    assert_type(swarm.start_soon(repeat, "text"), Agent[list[str]])
    assert_type(swarm.start_soon(repeat, "text", 2, worktree=True), Agent[list[str]])
    assert_type(swarm.start_soon(AgentTask(count)), Agent[int])
    task: AgentTask[RunResult[Review]] = AgentTask("prompt", output=Review)
    assert_type(swarm.start_soon(attrs.evolve(task, name="x")), Agent[RunResult[Review]])

    assert_type(swarm.agents, Sequence[Agent[Any]])
    assert_type(swarm.outcomes(), list[Outcome[Any]])


async def together(swarm: Swarm, tasks: list[AgentTask[int]]) -> None:
    assert_type(await swarm.map(["a", "b"]), list[RunResult[Any]])
    assert_type(await swarm.map(("a", "b"), output=Review), list[RunResult[Review]])
    assert_type(await swarm.map([count, count]), list[int])
    assert_type(await swarm.map(tasks, restartable=True), list[int])
    assert_type(await swarm.map([count, "prompt", AgentTask("prompt", name="a")]), list[Any])

    assert_type(await swarm.race("a", "b"), RunResult[Any])
    assert_type(await swarm.race("a", "b", output=Review, accept=is_good), RunResult[Review])
    assert_type(await swarm.race(count, *tasks, accept=is_many), int)
    assert_type(await swarm.race("a", count), Any)

    assert_type(await swarm.best_of(3, count, judge=best), str)
    assert_type(await swarm.best_of(3, count, judge=slow_best), str)
    assert_type(await swarm.best_of(3, repeat, "text", judge=len), int)
    assert_type(await swarm.best_of(3, tasks[0], judge=best), str)
    assert_type(await swarm.best_of(3, "prompt", judge=cheapest), RunResult[Any])
    assert_type(await swarm.best_of(3, "prompt", judge=lambda found: found[0]), RunResult[Any])
    assert_type(await swarm.best_of(3, "prompt", output=Review, judge=top), RunResult[Review])


async def wrong_swarms(client: AsyncOpenCodeClient, swarm: Swarm) -> None:
    open_swarm(client, on_failure="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    swarm.start_soon(repeat)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    swarm.start_soon(repeat, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    swarm.start_soon(count(client))  # type: ignore[call-overload, arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    swarm.start_soon("prompt", 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    swarm.start_soon(count, output=Review)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    swarm.start_soon("prompt", nane="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def ended(outcome: Outcome, status: AgentStatus) -> str:
    """An outcome has one of three ends; an agent may also be on its way."""
    match outcome.status:
        case "completed" | "failed" | "cancelled":
            return status
        case _:
            assert_never(outcome.status)


# --- testing --------------------------------------------------------------------------------------


def script(request: ModelRequest) -> Reply:
    assert_type(request.prompt, str)
    return Reply("text", ToolCall("bash", {"command": "ls"}), finish="tool_calls")


async def slow_script(request: ModelRequest) -> str:
    await trio.lowlevel.checkpoint()
    return request.prompt


async def scripted() -> None:
    scripts: list[Callable[[ModelRequest], Reply] | Callable[[ModelRequest], Awaitable[str]]] = [
        script,
        slow_script,
    ]
    print(scripts)
    async with open_scripted_model(script) as model, open_scripted_model(slow_script):
        assert_type(model, ScriptedModel)
        assert_type(model.run_config(agent="plan"), RunConfig)
    open_scripted_model(["one", ToolCall("bash")])
    open_scripted_model(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- values ---------------------------------------------------------------------------------------


def values() -> None:
    assert_type(parse_event_line("{}"), dict[str, Any])
