"""The pool of servers: shared, spread, worn out and replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from opencode_trio._swarm import server_pool as pool_module
from opencode_trio._swarm.server_pool import GivenServers, resident_bytes, server_config
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError, OpenCodeProcessError, OpenCodeServerError
from swarming import FakeClient, World

CFG = RunConfig(model="a/one")


def open_pool(source: Any) -> Any:
    """Take fakes for what they stand for."""
    return pool_module.open_pool(source)


@pytest.fixture
def world() -> World:
    return World()


async def test_concurrent_demands_wait_for_one_start(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    client = FakeClient(world)
    got: list[Any] = []

    async def agent(pool: Any) -> None:
        async with pool.lease(CFG, str(tmp_path)) as server:
            got.append(server)
            await trio.sleep(1)

    async with open_pool(client) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(agent, pool)
        assert (client.starts, len(set(map(id, got)))) == (1, 1)
        assert world.running  # kept for those who may still come
    assert not world.running
    assert trio.current_time() == pytest.approx(3.5)


async def test_what_a_session_can_have_of_its_own_shares_a_server(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    shared = [
        CFG,
        attrs.evolve(CFG, model="b/two", agent="plan", variant="high", max_steps=3),
    ]
    other = [RunConfig(mcp={"x": {"type": "local"}}), RunConfig(extra_env={"A": "b"})]
    async with open_pool(FakeClient(world)) as pool:
        for cfg in [*shared, *other, *shared]:
            async with pool.lease(cfg, str(tmp_path)):
                pass
    assert len(world.servers) == 3
    served = world.servers[0].cfg
    assert served is not None
    assert (served.model, served.small_model) == (None, "a/one")


def test_a_key_is_a_value() -> None:
    one = RunConfig(model="a/b", config_overrides={"provider": {"a": {"x": [1]}}})
    other = RunConfig(model="c/d", config_overrides={"provider": {"a": {"x": [1]}}})
    assert server_config(one) == server_config(other)
    assert len({server_config(one), server_config(other)}) == 1
    assert server_config(one) != server_config(RunConfig())


@pytest.mark.parametrize(
    "asking", ["ask", {"bash": "ask"}, {"bash": {"*": "allow", "rm *": "ask"}}]
)
def test_what_is_to_be_asked_belongs_to_the_server(asking: Any) -> None:
    """Of a session's rules subagents get but the denials, and would not ask."""
    asks = server_config(RunConfig(permission=asking))
    assert asks == server_config(RunConfig(model="a/b", permission=asking))
    assert asks != server_config(RunConfig(permission={"bash": "deny"}))
    assert server_config(RunConfig(permission={"bash": "deny"})) == server_config(RunConfig())


async def test_a_failed_start_fails_all_who_wait_each_with_an_error_of_its_own(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    client = FakeClient(world, OpenCodeProcessError("boom", exit_code=7, stderr="tail"))
    errors: list[OpenCodeProcessError] = []

    async def agent(pool: Any) -> None:
        with pytest.raises(OpenCodeProcessError, match="boom") as info:
            async with pool.lease(CFG, str(tmp_path)):
                pass
        errors.append(info.value)

    async with open_pool(client) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(agent, pool)
        assert len(set(map(id, errors))) == 3
        assert {(e.exit_code, e.stderr) for e in errors} == {(7, "tail")}
        client.failure = None
        async with pool.lease(CFG, str(tmp_path)):
            pass
    assert client.starts == 2


async def test_a_machine_that_has_no_more_to_give_fails_only_who_waits_for_it(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    client = FakeClient(world)
    other = attrs.evolve(CFG, extra_env={"A": "b"})
    async with open_pool(client) as pool, pool.lease(CFG, str(tmp_path)) as server:
        client.failure = OSError(24, "Too many open files")
        with pytest.raises(OpenCodeProcessError, match=r"cannot be started.*Too many open files"):
            async with pool.lease(other, str(tmp_path)):
                pytest.fail("leased")
        assert not server.has_ended


async def test_who_is_cancelled_leaves_the_start_to_the_others(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    async with open_pool(FakeClient(world)) as pool:
        with trio.move_on_after(1):
            async with pool.lease(CFG, str(tmp_path)):
                pytest.fail("too early")
        async with pool.lease(CFG, str(tmp_path)):
            assert trio.current_time() == pytest.approx(2)
    assert len(world.servers) == 1


async def test_many_directories_wear_a_server_out(
    autojump_clock: MockClock, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is drained: who is on it stays, and only then it ends."""
    monkeypatch.setattr(pool_module, "MAX_DIRECTORIES", 2)
    directories = [str(tmp_path / name) for name in "abc"]
    for directory in directories:
        Path(directory).mkdir()
    async with open_pool(FakeClient(world)) as pool:
        async with pool.lease(CFG, directories[0]) as first:
            async with pool.lease(CFG, directories[1]) as second:
                assert second is first
            async with pool.lease(CFG, directories[0]) as again:
                assert again is first
            async with pool.lease(CFG, directories[2]) as third:
                assert third is not first
                assert world.running == [first, third]
                async with pool.lease(CFG, directories[0]) as new:
                    assert new is third
            await trio.sleep(1)
            assert world.running == [first, third]
        await trio.sleep(1)
        assert world.running == [third]


async def test_growth_wears_a_server_out(
    autojump_clock: MockClock, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 0
    monkeypatch.setattr(pool_module, "resident_bytes", lambda pid: size)
    async with open_pool(FakeClient(world)) as pool:
        async with pool.lease(CFG, str(tmp_path)) as first:
            pass
        async with pool.lease(CFG, str(tmp_path)) as second:
            assert second is first
        size = pool_module.MAX_RSS_BYTES + 1
        async with pool.lease(CFG, str(tmp_path)) as third:
            assert third is not first
        await trio.sleep(1)
        assert world.running == [third]


async def test_a_server_that_ended_is_replaced(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    async with open_pool(FakeClient(world)) as pool:
        with pytest.raises(OpenCodeServerError):
            async with pool.lease(CFG, str(tmp_path)) as first:
                first.die()
                raise OpenCodeServerError("gone")
        await trio.sleep(1)
        assert not first.is_open
        async with pool.lease(CFG, str(tmp_path)) as second:
            assert second is not first


async def test_a_client_needs_a_workspace_that_is_there(
    autojump_clock: MockClock, world: World, tmp_path: Path
) -> None:
    async with open_pool(FakeClient(world)) as pool:
        with pytest.raises(OpenCodeConfigError, match="workspace: missing"):
            pool.directory(None)
        with pytest.raises(OpenCodeConfigError, match="does not exist"):
            pool.directory(tmp_path / "none")
        assert pool.directory(tmp_path) == str(tmp_path.resolve())


async def test_of_servers_that_nobody_uses_only_the_latest_are_kept(
    autojump_clock: MockClock, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_IDLE", 2)
    configs = [RunConfig(extra_env={"N": str(n)}) for n in range(4)]
    async with open_pool(FakeClient(world)) as pool:
        for n in (0, 1, 0, 2):
            async with pool.lease(configs[n], str(tmp_path)):
                pass
        await trio.sleep(1)
        first, second, third = world.servers
        assert world.running == [first, third]
        async with pool.lease(configs[0], str(tmp_path)) as used:
            assert used is first
            for n in (3, 2):
                async with pool.lease(configs[n], str(tmp_path)):
                    pass
            await trio.sleep(1)
            assert world.running == [first, third, world.servers[3]]
    assert not second.is_open


# --- servers that are given ------------------------------------------------------------------


async def test_agents_go_where_the_fewest_are(autojump_clock: MockClock, world: World) -> None:
    servers: Any = [world.server() for _ in range(3)]
    async with open_pool(servers) as pool:
        async with pool.lease(None, None) as a, pool.lease(None, None) as b:
            async with pool.lease(None, None) as c:
                assert [a, b, c] == servers
            async with pool.lease(None, None) as again:
                assert again is c
        assert pool.directory("/on/another/machine") == "/on/another/machine"
        assert pool.directory(None) is None


async def test_a_server_that_does_not_answer_is_asked_last(
    autojump_clock: MockClock, world: World
) -> None:
    servers: Any = [world.server(), world.server()]
    pool: Any = GivenServers(servers)
    with pytest.raises(OpenCodeServerError):
        async with pool.lease(None, None):
            raise OpenCodeServerError("no route")
    async with pool.lease(None, None) as one, pool.lease(None, None) as other:
        assert one is other is servers[1]
    servers[1].has_ended = True
    async with pool.lease(None, None) as last:
        assert last is servers[0]
    with pytest.raises(OpenCodeServerError):
        async with pool.lease(None, None):
            raise OpenCodeServerError("your fault", status_code=400)
    servers[0].has_ended = True
    with pytest.raises(OpenCodeServerError, match="all servers that the swarm was given"):
        async with pool.lease(None, None):
            pass


@pytest.mark.parametrize("wrong", ["/ci/feature%2Fx", "/a\\b", "/caf\udce9"])
def test_a_directory_that_opencode_misreads_is_refused_by_given_servers(
    world: World, wrong: str
) -> None:
    pool: Any = GivenServers([world.server()])
    with pytest.raises(OpenCodeConfigError, match="rename the directory"):
        pool.directory(wrong)
    assert pool.directory("C:\\work\\100%") == "C:\\work\\100%"


def test_no_server_is_no_source() -> None:
    with pytest.raises(OpenCodeConfigError, match="source"):
        GivenServers([])


def test_memory() -> None:
    assert resident_bytes(os.getpid()) > 2**20
    assert resident_bytes(None) == 0
