"""Sessions around their turns, in memory and in virtual time: rules, preparations, proxies."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fake_agent import ROOT, Agent, hear_heartbeats, talking
from opencode_trio._json import Json
from opencode_trio._protocol.calls import Call, anything
from opencode_trio._server.connection import Connection
from opencode_trio._server.http import open_api
from opencode_trio.config import RunConfig
from opencode_trio.errors import (
    OpenCodeCancelledError,
    OpenCodeConfigError,
    OpenCodeProcessError,
    OpenCodeServerError,
)
from opencode_trio.server import OpenCodeServer, open_server
from serving import serve_plan

ASKS_FIRST = {"permission": "bash", "pattern": "*", "action": "ask"}
ANYTHING = RunConfig(permission="allow")


def keep_rules(agent: Agent, *, answers: Callable[[], Awaitable[None]] | None = None) -> list[Json]:
    """Have the server keep what rules it is given, and answer then."""
    stored: list[Json] = []

    async def add(call: Any, session: str) -> Json:
        stored.extend(call.body["permission"])
        if answers is not None:
            await answers()
        return {"id": session, "directory": "/w", "permission": list(stored)}

    agent.server.routes |= {
        r"PATCH /session/(\w+)": add,
        "GET /config": lambda call: {},
        "GET /agent": lambda call: [{"name": "build", "permission": [ASKS_FIRST]}],
    }
    return stored


async def never_answers() -> None:
    await trio.sleep_forever()


async def breaks() -> None:
    await trio.lowlevel.checkpoint()
    raise OpenCodeServerError("no answer")


@pytest.mark.parametrize("answers", [never_answers, breaks])
async def test_rules_whose_answer_was_not_heard_are_covered_all_the_same(
    answers: Callable[[], Awaitable[None]], autojump_clock: trio.testing.MockClock
):
    agent = Agent()
    async with talking(agent) as (session, _):
        first = keep_rules(agent, answers=answers)
        with pytest.raises((trio.TooSlowError, OpenCodeServerError)):
            await session.send("x", run_cfg=ANYTHING, timeout_s=1)
        assert first[-1]["action"] == "allow"
        second = keep_rules(agent)
        agent.finish()
        await session.send("y")
        assert second[-1] == ASKS_FIRST


async def test_rules_of_a_turn_are_not_found_by_who_opens_the_session_again(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent) as (session, connection):
        stored = keep_rules(agent)
        server = OpenCodeServer(connection, workspace="/w", version="1.18.33")
        async with server.open_session(session_id=ROOT) as again:
            agent.finish()
            await again.send("x", run_cfg=ANYTHING)
            assert stored[-1]["action"] == "allow"
        assert stored[-1] == ASKS_FIRST
        told = len(stored)
        async with server.open_session(session_id=ROOT) as again:
            agent.finish()
            await again.send("y")
        assert len(stored) == told
        assert session.session_id == ROOT


async def test_a_session_in_a_directory_that_opencode_misreads_is_not_resumed(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    async with talking(agent, ours=False) as (_, connection):
        record = {"id": "ses_2", "directory": "/ci/feature%2Fx"}
        agent.server.routes["GET /session/(\\w+)"] = lambda call, name: record
        server = OpenCodeServer(connection, workspace="/w", version="1.18.33")
        with pytest.raises(OpenCodeConfigError, match="would work in '/ci/feature/x'"):
            async with server.open_session(session_id="ses_2"):
                pytest.fail("opened")
        with pytest.raises(OpenCodeConfigError, match="would work in '/ci/feature/x'"):
            async with server.open_session("/ci/feature%2Fx"):
                pytest.fail("opened")


async def test_a_turn_that_is_being_prepared_can_be_aborted(autojump_clock: trio.testing.MockClock):
    agent = Agent()

    async def slowly(call: Any) -> Json:
        await trio.sleep(2)
        return {}

    async with talking(agent) as (session, _):
        agent.server.routes["GET /config/providers"] = slowly
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def abort() -> None:
                await trio.sleep(1)
                await session.abort()

            with pytest.raises(OpenCodeCancelledError):
                await session.send("x")
        assert agent.prompts == []
        agent.finish()
        await session.send("y")
        assert agent.prompts == ["y"]


async def test_an_old_server_that_takes_no_rules_has_none_to_put_back(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    agent.server.routes[r"PATCH /session/(\w+)"] = lambda call, session: {"id": session}
    async with talking(agent) as (session, _):
        with pytest.raises(OpenCodeServerError, match="does not take permission rules"):
            await session.send("x", run_cfg=ANYTHING)
        agent.finish()
        assert (await session.send("y")).final_text == "answer to y"


def behind_an_impatient_proxy(agent: Agent, *, status: int, seconds: float) -> None:
    prompt = agent.prompt

    async def gateway(call: Any, session: str) -> Json:
        with trio.move_on_after(seconds):
            return await prompt(call, session)
        raise OpenCodeServerError("no explanation", status_code=status)

    agent.server.routes[r"POST /session/(\w+)/message"] = gateway


async def test_a_proxy_that_loses_its_patience_costs_no_result(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()
    behind_an_impatient_proxy(agent, status=504, seconds=60)
    async with talking(agent, ours=False) as (session, _), trio.open_nursery() as nursery:
        nursery.start_soon(hear_heartbeats, agent, 100)

        @nursery.start_soon
        async def answer_late() -> None:
            await trio.sleep(90)
            user = agent.messages[-1]["info"]["id"]
            agent.messages.append(agent.message("at last", user, None))
            agent.busy.clear()

        assert (await session.send("x")).final_text == "at last"
        assert agent.prompts == ["x"]


async def test_what_a_failed_prompt_still_does_is_aborted(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    behind_an_impatient_proxy(agent, status=500, seconds=5)
    async with talking(agent, ours=False) as (session, _):
        with pytest.raises(OpenCodeServerError):
            await session.send("x")
        # The agent in memory is deaf by now: what it was working on was dropped by the proxy.
        assert agent.aborts > 0


async def test_a_server_that_was_away_is_warmed_again(autojump_clock: trio.testing.MockClock):
    agent = Agent()
    async with talking(agent) as (session, _):
        for warmings in (1, 1, 2):
            if warmings == 2:
                agent.server.hang_up()
                await trio.sleep(1)
            agent.finish()
            await session.send("x")
            assert len(agent.server.called("GET /config/providers")) == warmings


def test_ctrl_c_aborts_what_the_agent_works_on() -> None:
    agent = Agent()

    async def shell(call: Any, session: str) -> Json:
        agent.busy.add(session)
        await trio.sleep_forever()
        raise AssertionError

    def abort(call: Any, session: str) -> bool:
        agent.aborts += 1
        agent.busy.discard(session)
        return True

    async def main() -> None:
        agent.server.routes[r"POST /session/(\w+)/shell"] = shell
        agent.server.routes[r"POST /session/(\w+)/abort"] = abort
        async with talking(agent, ours=False) as (session, _):
            trio.lowlevel.spawn_system_task(press)
            await session.shell("sleep 1000")

    async def press() -> None:
        await trio.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert agent.aborts > 0


async def test_what_was_not_answered_in_time_is_not_tried_for_minutes(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()

    async def slowly(call: Any) -> Json:
        await trio.sleep(60)
        raise OpenCodeServerError("no answer")

    async with talking(agent) as (_, connection), trio.open_nursery() as nursery:
        nursery.start_soon(hear_heartbeats, agent, 100)
        agent.server.routes["GET /x"] = slowly
        start = trio.current_time()
        with pytest.raises(OpenCodeServerError):
            await server_of(connection).request("GET", "/x")
        assert trio.current_time() - start < 61
        nursery.cancel_scope.cancel()


def server_of(connection: Connection) -> OpenCodeServer:
    return OpenCodeServer(connection, workspace="/w", version="1.18.33")


async def test_nothing_is_left_of_a_session_that_could_not_be_prepared(
    autojump_clock: trio.testing.MockClock,
):
    agent = Agent()

    def fails(call: Any, *names: str) -> Json:
        raise OpenCodeServerError("500", status_code=500)

    async with talking(agent) as (_, connection):
        agent.server.routes |= {
            "POST /session": lambda call: {"id": "ses_new", "directory": "/w", "permission": []},
            r"DELETE /session/(\w+)": lambda call, session: True,
        }
        with pytest.raises(OpenCodeServerError, match="permission"):
            async with server_of(connection).open_session("/", run_cfg=ANYTHING):
                pass
        agent.server.routes[r"POST /session/(\w+)/message"] = fails
        with pytest.raises(OpenCodeServerError):
            await server_of(connection).warm("/")
        assert len(agent.server.called(r"DELETE /session/ses_new")) == 2


async def test_what_is_no_json_is_told_before_it_is_sent() -> None:
    async with open_api("http://127.0.0.1:9", password=None, username="x") as api:
        for body in ("\ud800", float("nan"), {1, 2}):
            with pytest.raises(OpenCodeConfigError, match="cannot be written as JSON"):
                await api.call(Call("POST", "/x", anything, body={"text": body}))


SERVE = """\
import http.server, os, sys
port = int(sys.argv[-1].partition("=")[2])

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/global/health":
            end()
        body = b'{"healthy": true, "version": "1.18.33"}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

def end():
    print("panic: out of memory", file=sys.stderr, flush=True)
    os._exit(7)

server = http.server.HTTPServer(("127.0.0.1", port), Health)
print(f"opencode server listening on http://127.0.0.1:{port}", flush=True)
"""


@pytest.mark.parametrize("end", ["end()", "server.serve_forever()"])
async def test_a_server_that_ends_while_it_starts_says_why(end: str, tmp_path: Path) -> None:
    binary = tmp_path / "opencode"
    binary.write_text(f"#!{sys.executable}\n{SERVE}{end}\n")
    binary.chmod(0o755)
    start = trio.current_time()
    with pytest.raises(OpenCodeProcessError, match="out of memory") as failed:
        async with open_server(serve_plan(str(binary), tmp_path, RunConfig())):
            pytest.fail("started")
    assert failed.value.exit_code == 7
    assert trio.current_time() - start < 15
