"""Ways to run agents of one turn, as a program: `programs.run_program(module("ways"), job)`.

Each does the same: so many agents in one directory, each prompted once on a session of its own.
The bare ways are the least that gets an answer; they look at nothing else.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import trio

from bench.programs import answer_job, read_job
from opencode_trio import AsyncOpenCodeClient, RunConfig, RunResult, open_swarm
from opencode_trio.config import split_model

READY = re.compile(rb"listening on (http\S+)")
PATIENT = httpx.Timeout(3600)


@attrs.frozen
class Job:
    """How many agents, and of what."""

    way: str
    binary: str
    cfg: RunConfig
    config: Mapping[str, Any]
    """What opencode makes of that, for programs that know no `RunConfig`."""
    workspace: str
    agents: int
    limit: int
    """The most at once."""
    prompt: str
    answer: str


@attrs.define
class Tally:
    """What came of a job."""

    right: str
    """The answer that all should get."""
    seconds: float = 0.0
    """For the agents alone, when what they share was there."""
    wrong: list[str] = attrs.field(factory=list)
    """What others got."""

    def check(self, answer: object) -> None:
        if answer != self.right:
            self.wrong.append(repr(answer))


@asynccontextmanager
async def timed(tally: Tally) -> AsyncIterator[trio.Nursery]:
    began = time.perf_counter()
    async with trio.open_nursery() as agents:
        yield agents
    tally.seconds = time.perf_counter() - began


async def all_at_once(job: Job, tally: Tally, agent: Callable[[], Awaitable[str]]) -> None:
    places = trio.CapacityLimiter(job.limit)

    async def one() -> None:
        async with places:
            try:
                tally.check(await agent())
            except Exception as error:  # noqa: BLE001 - a failure is counted, whatever it is
                tally.check(error)

    async with timed(tally) as agents:
        for _ in range(job.agents):
            agents.start_soon(one)


# --- on a shared server ---------------------------------------------------------------------


async def library_swarm(job: Job, tally: Tally) -> None:
    client = AsyncOpenCodeClient(job.binary)
    async with client.open_server(job.workspace, run_cfg=job.cfg) as server:
        async with open_swarm(server) as swarm:
            await swarm.start_soon(job.prompt).result()  # the first turn has the server read a lot
        async with (
            timed(tally),
            open_swarm(server, limit=job.limit, on_failure="collect") as swarm,
        ):
            for _ in range(job.agents):
                swarm.start_soon(job.prompt)
    for outcome in swarm.outcomes():
        result = outcome.value
        tally.check(result.final_text if isinstance(result, RunResult) else outcome.error)


async def bare_http(job: Job, tally: Tally) -> None:
    async with bare_server(job.binary, job.cfg, job.workspace) as (http, _):

        async def agent() -> str:
            return await bare_turn(http, job.workspace, job.cfg, job.prompt)

        await agent()  # the first, as above
        await all_at_once(job, tally, agent)


async def bare_turn(http: httpx.AsyncClient, workspace: str, cfg: RunConfig, prompt: str) -> str:
    """Make a session and prompt it."""
    query = {"directory": workspace}
    session = (await http.post("/session", params=query, json={"title": "bench"})).json()
    body = {"model": split_model(str(cfg.model)), "parts": [{"type": "text", "text": prompt}]}
    path = f"/session/{session['id']}/message"
    answer = (await http.post(path, params=query, json=body)).json()
    return "".join(part.get("text", "") for part in answer["parts"])


@asynccontextmanager
async def bare_server(
    binary: str, cfg: RunConfig, workspace: str
) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    """Start a server as the library does; give a client, and the server's pid."""
    argv = [binary, "serve", "--hostname=127.0.0.1", f"--port={free_port()}"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = await trio.lowlevel.open_process(
            argv, stdout=subprocess.PIPE, **bare_options(cfg, workspace, home)
        )
        try:
            url = await announced(process)
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(
                base_url=url, timeout=PATIENT, limits=limits, trust_env=False
            ) as http:
                yield http, process.pid
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


async def announced(process: trio.Process) -> str:
    """Read where the server is."""
    said = b""
    while not (found := READY.search(said)):
        assert process.stdout is not None
        said += await process.stdout.receive_some()
    return found[1].decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- processes ------------------------------------------------------------------------------


async def library_runs(job: Job, tally: Tally) -> None:
    client = AsyncOpenCodeClient(job.binary)

    async def agent() -> str:
        result = await client.async_run(job.prompt, job.workspace, run_cfg=job.cfg)
        return result.final_text

    await all_at_once(job, tally, agent)


async def bare_runs(job: Job, tally: Tally) -> None:
    """Run `opencode run`, each with a data directory of its own, as the library does."""
    model = str(job.cfg.model)
    argv = [job.binary, "run", "--format", "json", "-m", model, "--title", "bench"]

    async def agent() -> str:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            done = await trio.run_process(
                argv,
                stdin=job.prompt.encode(),
                capture_stdout=True,
                **bare_options(job.cfg, job.workspace, home),
            )
        texts = re.findall(rb'"type":"text","text":"([^"]*)"', done.stdout)
        return b"".join(texts).decode()

    await all_at_once(job, tally, agent)


def bare_options(cfg: RunConfig, workspace: str, home: str) -> dict[str, Any]:
    """Start a process as the library does, as far as that costs time."""
    own = {
        "OPENCODE_CONFIG_CONTENT": str(cfg.opencode_config_content_json()),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "XDG_DATA_HOME": f"{home}/data",
        "XDG_CONFIG_HOME": f"{home}/config",
        "XDG_STATE_HOME": f"{home}/state",
        "PWD": workspace,
    }
    return {
        "stderr": subprocess.DEVNULL,
        "cwd": workspace,
        "env": os.environ | own,
        # The scheduler gives each session its share: one for all would get less, on a busy machine.
        "start_new_session": True,
    }


WAYS: Mapping[str, Callable[[Job, Tally], Awaitable[None]]] = {
    way.__name__: way for way in (library_swarm, bare_http, library_runs, bare_runs)
}


async def main(given: dict[str, Any]) -> Tally:
    job = Job(**{**given, "cfg": RunConfig(**given["cfg"])})
    tally = Tally(job.answer)
    await WAYS[job.way](job, tally)
    return tally


if __name__ == "__main__":
    answer_job(attrs.asdict(trio.run(main, read_job())))
