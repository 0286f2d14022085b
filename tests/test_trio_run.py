"""Callers outside of `trio.run`, and in another one: what works, and what says so at once."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from fake_agent import Agent, talking
from fake_opencode import FakeOpencode, fake_opencode, play
from opencode_trio import AsyncOpenCodeClient, OpenCodeSession, limit_spending, open_swarm
from opencode_trio.server import OpenCodeServer, connect_server
from opencode_trio.testing import open_scripted_model
from swarming import World, after

Use = Callable[[], Awaitable[object]]


@pytest.fixture
def hello(tmp_path: Path) -> FakeOpencode:
    return fake_opencode(tmp_path / "fake", play("run-ok"))


# --- in no trio.run at all ------------------------------------------------------------------------


async def entered(opening: AbstractAsyncContextManager[object]) -> None:
    async with opening:
        raise AssertionError("it was entered")


ENTRY_POINTS: dict[str, Callable[[AsyncOpenCodeClient], Any]] = {
    "async_run": lambda client: client.async_run("go", "."),
    "async_stream": lambda client: entered(client.async_stream("go", ".")),
    "open_server": lambda client: entered(client.open_server(".")),
    "OpenCodeSession": lambda client: entered(OpenCodeSession(client, ".")),
    "open_swarm": lambda client: entered(open_swarm(client, workspace=".")),
    "connect_server": lambda client: entered(connect_server("http://127.0.0.1:1")),
    "open_scripted_model": lambda client: entered(open_scripted_model("ok")),
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_asyncio_is_told_to_use_trio(name: str, hello: FakeOpencode) -> None:
    async def main() -> None:
        await ENTRY_POINTS[name](AsyncOpenCodeClient(hello.path))

    with pytest.raises(RuntimeError, match=r"trio\.run\(main\).* instead of `asyncio\.run"):
        asyncio.run(main())


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_a_call_without_an_event_loop_is_told_to_use_trio(name: str, hello: FakeOpencode) -> None:
    call = ENTRY_POINTS[name](AsyncOpenCodeClient(hello.path))
    with pytest.raises(RuntimeError, match=r"trio is not running.* `trio\.run\(main\)`"):
        call.send(None)


def test_asyncio_is_told_while_trio_is_its_guest(hello: FakeOpencode) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        scope = trio.CancelScope()

        async def guest() -> None:
            with scope:
                await trio.sleep_forever()

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        try:
            with pytest.raises(RuntimeError, match="this is asyncio"):
                await AsyncOpenCodeClient(hello.path).async_run("go", ".")
        finally:
            scope.cancel()
            await done

    asyncio.run(main())


# --- in several, one for each thread --------------------------------------------------------------


def in_threads(*functions: Callable[[], object]) -> list[object]:
    """Run each in a thread of its own; return what each returned or raised."""
    results: dict[int, object] = {}

    def run(number: int) -> None:
        try:
            results[number] = functions[number]()
        except BaseException as exc:  # noqa: BLE001 - for the test to look at
            results[number] = exc

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [results.get(number, "it hangs") for number in range(len(functions))]


def test_threads_share_a_client(hello: FakeOpencode, tmp_path: Path) -> None:
    # With one database for all, each waits until the one before it has started.
    client = AsyncOpenCodeClient(hello.path, isolate_db=False, startup_delay_s=0.2)

    async def run() -> list[str]:
        texts: list[str] = []

        async def one() -> None:
            texts.append((await client.async_run("go", tmp_path)).final_text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        return texts

    assert in_threads(*[partial(trio.run, run)] * 3) == [["hello", "hello"]] * 3


async def in_another_run(use: Use) -> None:
    await trio.to_thread.run_sync(lambda: contextvars.Context().run(partial(trio.run, use)))


@asynccontextmanager
async def a_run(tmp_path: Path) -> AsyncGenerator[dict[str, Use]]:
    fake = fake_opencode(tmp_path / "fake", "exec sleep 1000\n")
    async with AsyncOpenCodeClient(fake.path).async_stream("go", tmp_path) as run:
        yield {"receive": run.receive, "aclose": run.aclose}


@asynccontextmanager
async def a_session(tmp_path: Path) -> AsyncGenerator[dict[str, Use]]:
    async with talking(Agent()) as (session, link):
        server = OpenCodeServer(link, workspace=str(tmp_path), version="1.18.33")
        yield {
            "send": lambda: session.send("x"),
            "stream": lambda: entered(session.stream("x")),
            "messages": session.messages,
            "abort": session.abort,
            "open_session": lambda: entered(server.open_session()),
            "warm": server.warm,
            "request": lambda: server.request("GET", "/session"),
        }


@asynccontextmanager
async def a_turn(tmp_path: Path) -> AsyncGenerator[dict[str, Use]]:
    async with talking(Agent()) as (session, _), session.stream("x") as turn:
        ask: Any = None
        yield {
            "receive": turn.receive,
            "wait": turn.wait,
            "answer": lambda: turn.answer(ask, "once"),
            "aclose": turn.aclose,
        }


@asynccontextmanager
async def a_swarm(tmp_path: Path) -> AsyncGenerator[dict[str, Use]]:
    async with open_swarm(World(x=after(1000)).server()) as swarm:
        agent = swarm.start_soon("x")

        async def start() -> None:
            swarm.start_soon("y")

        async def cancel() -> None:
            agent.cancel()

        yield {
            "start_soon": start,
            "map": lambda: swarm.map(["y"]),
            "updates": swarm.updates().receive,
            "wait": agent.wait,
            "result": agent.result,
            "cancel": cancel,
        }
        assert [one.outcome for one in swarm.agents] == [None]
        agent.cancel()


@pytest.mark.parametrize("opened", [a_run, a_session, a_turn, a_swarm])
async def test_what_another_run_has_opened_says_so_at_once(
    opened: Callable[[Path], AbstractAsyncContextManager[dict[str, Use]]], tmp_path: Path
) -> None:
    async with opened(tmp_path) as uses:
        await trio.testing.wait_all_tasks_blocked()
        for use in uses.values():
            with pytest.raises(RuntimeError, match=r"belongs to another trio\.run\(\)"):
                await in_another_run(use)


async def test_an_agent_cannot_be_cancelled_by_a_thread_without_trio(tmp_path: Path) -> None:
    async with open_swarm(World(x=after(1000)).server()) as swarm:
        agent = swarm.start_soon("x")
        with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run"):
            await trio.to_thread.run_sync(agent.cancel)
        agent.cancel()


# --- budgets --------------------------------------------------------------------------------------


async def one_swarm() -> str:
    async with open_swarm(World().server()) as swarm:
        agent = swarm.start_soon("x")
    return agent.status


def test_a_budget_serves_one_run_after_another() -> None:
    with limit_spending(max_cost_usd=10) as budget:
        assert [trio.run(one_swarm), trio.run(one_swarm)] == ["completed"] * 2
    assert budget.spent.cost_usd == 1.0


async def test_a_budget_does_not_serve_two_runs_at_once() -> None:
    """The second could be stopped by the first, from another thread."""
    with limit_spending(max_cost_usd=10):
        async with open_swarm(World(x=after(1000)).server()) as swarm:
            agent = swarm.start_soon("x")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match=r"in use in another trio\.run"):
                await trio.to_thread.run_sync(trio.run, one_swarm)
            await in_another_run(one_swarm)  # in a context without the budget
            agent.cancel()
        await trio.to_thread.run_sync(trio.run, one_swarm)
