"""The programs in docs/examples, each run as its reader runs it: a process, opencode on PATH."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

import leftovers
from opencode_trio._process.environment import RUN_MARKER
from opencode_trio._process.scratch import SCRATCH_PREFIX
from opencode_trio.testing import Delay, ModelRequest, Reply, ScriptedModel, open_scripted_model

pytestmark = pytest.mark.opencode

EXAMPLES = Path(__file__).resolve().parent.parent / "docs/examples"
PASSWORD = "correct horse"


@pytest.fixture
def env(opencode_binary: str, tmp_path: Path) -> dict[str, str]:
    """Return the environment of somebody who has opencode, and works in a project."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/opencode").symlink_to(opencode_binary)
    (tmp_path / "project").mkdir()
    return os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}


@attrs.frozen
class Done:
    """What came of a program."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments]


async def run(env: Mapping[str, str], directory: Path, name: str, *arguments: str) -> Done:
    done = await trio.run_process(
        command(name, *arguments),
        cwd=directory / "project",
        env=env,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_demo(env: dict[str, str], tmp_path: Path) -> None:
    done = await run(env, tmp_path, "demo")
    assert done.code == 0, done
    _, told, _ = done.out.split("\n\n", 2)
    answers = dict(re.findall(r"^(.*[?]) +(.*)$", told, re.MULTILINE))
    assert answers["Which line is the first?"] == "Tyger Tyger, burning bright,"
    assert answers["How many words are there?"] == "48 poem.txt"
    assert len(re.findall(r"[?]: completed [(]", done.out)) == 8
    [page] = re.findall(r"^Who did what, and when: (.*)$", done.out, re.MULTILINE)
    assert Path(page).read_text("utf-8").count('class="row completed"') == 8


async def test_weather(env: dict[str, str], tmp_path: Path) -> None:
    done = await run(env, tmp_path, "weather", "--limit", "5")
    assert done.code == 0, done
    degrees = {
        city: int(number)
        for city, number in re.findall(r"^(\w+): (\d+) °C", done.out, re.MULTILINE)
    }
    assert len(degrees) == 10
    coldest, *_, warmest = sorted(degrees, key=degrees.__getitem__)
    assert f"It is warmest in {warmest}, and coldest in {coldest}." in done.out
    assert "11 turns cost $0.0013." in done.out


async def test_race(env: dict[str, str], tmp_path: Path) -> None:
    done = await run(env, tmp_path, "race")
    assert done.code == 0, done
    assert r"The first right answer: ([01]\d|2[0-3]):[0-5]\d" in done.out
    fared = dict(re.findall(r"^scripted/(\w+) +(was wrong|won|cancelled) ", done.out, re.MULTILINE))
    assert fared == {"hare": "was wrong", "fox": "won", "tortoise": "cancelled"}


async def test_structured(env: dict[str, str], tmp_path: Path) -> None:
    done = await run(env, tmp_path, "structured")
    assert done.code == 0, done
    assert done.out == "Verdict(risk=8, summary='Removes the lock.', files=[])\n"


async def test_review(env: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    code = {
        "one": "x = 1  # TODO: 2\n",
        "two": "try:\n    eval(x)\nexcept:\n    pass\n",
        "three": "",
    }
    for name, text in code.items():
        (project / name).mkdir()
        (project / name / "it.py").write_text(text)
        if text:  # else it is no repository
            git = partial(subprocess.run, check=True, cwd=project / name, capture_output=True)
            for arguments in ("init", "add .", "commit -m first"):
                git(["git", *arguments.split()])
    done = await run(env, tmp_path, "review", *code)
    assert done.code == 1, done
    assert done.out.splitlines() == [
        "high   two/it.py:2: runs whatever it is given",
        "medium two/it.py:3: catches Ctrl+C, too",
        "low    one/it.py:1: is not finished",
    ]
    assert "three was not reviewed: worktree" in done.err
    assert not list((project / "one/.git").glob("worktrees/*"))


# --- a human at the terminal -------------------------------------------------------------------


async def test_approval(env: dict[str, str], tmp_path: Path) -> None:
    said = await at_terminal(env, tmp_path, {"which? ": "2", "why not? ": "yes"})
    assert "May it use bash: echo PostgreSQL > database.txt" in said
    assert said.endswith("It wrote: PostgreSQL")


async def test_approval_refused(env: dict[str, str], tmp_path: Path) -> None:
    said = await at_terminal(env, tmp_path, {"which? ": "Redis", "why not? ": "not on a Sunday"})
    assert "echo none yet > database.txt" in said  # an answer of the human's own
    assert "not on a Sunday" in said.partition("The agent, completed:")[2]
    assert said.endswith("It wrote: nothing")


async def test_approval_without_a_terminal(env: dict[str, str], tmp_path: Path) -> None:
    done = await run(env, tmp_path, "approval")
    assert done.code == 0, done
    assert "The agent, blocked:" in done.out
    assert done.out.endswith("It wrote: nothing\n")


async def at_terminal(env: Mapping[str, str], directory: Path, answers: dict[str, str]) -> str:
    """Run the example in a terminal, type answers to its questions; return all that is on it."""
    ours, theirs = pty.openpty()
    said = ""
    async with trio.lowlevel.FdStream(ours) as terminal, trio.open_nursery() as nursery:
        ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        program = partial(trio.run_process, cwd=directory / "project", env=env, **ends)
        nursery.start_soon(program, command("approval"))
        await trio.testing.wait_all_tasks_blocked()
        while "It wrote: " not in said or not said.endswith("\n"):
            said += (await terminal.receive_some()).decode().replace("\r", "")
            for question, answer in answers.items():
                if said.endswith(question):
                    await terminal.send_all(answer.encode() + b"\n")
        os.close(theirs)
    return said.strip()


# --- a service -----------------------------------------------------------------------------------


async def test_service(env: dict[str, str], tmp_path: Path) -> None:
    """It serves, and ends in the middle of its work when it is told to, leaving nothing."""
    for name in range(12):
        (tmp_path / f"project/{name:02}").touch()
    async with (
        served(env, tmp_path) as (process, url),
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        assert (await client.get("/health")).json() == {"healthy": True}
        assert (await client.get("/")).status_code == 404
        for wrong in (b"", b"{}", b'{"prompt": " "}'):
            assert (await client.post("/ask", content=wrong)).status_code == 400

        async with trio.open_nursery() as nursery:
            await nursery.start(ask, client, "think for ever", [])
            nursery.cancel_scope.cancel()
        # That client has left.  These two are there when the service is told to stop.
        last: list[Any] = []
        stuck: list[Any] = []
        async with trio.open_nursery() as nursery:
            await nursery.start(ask, client, "What is there?", last)
            await nursery.start(ask, client, "think for ever", stuck)
            process.send_signal(signal.SIGTERM)
            began = trio.current_time()
            await wait_until_refused(url)
        assert trio.current_time() - began < 3 + 5
        assert last[-1]["answer"].split()[-1] == "11"
        assert stuck[-1] == {"error": "the service stops"}
        assert await process.wait() == 0
        assert trio.current_time() - began < 3 + 10


async def test_approval_service(env: dict[str, str], tmp_path: Path) -> None:
    """The agent waits for an answer that comes by another request; who leaves aborts it."""
    note = tmp_path / "project/note.txt"
    async with (
        served(env, tmp_path, "approval_service") as (process, url),
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        assert (await client.post("/answer/per_nobody", content="yes")).status_code == 404
        for answer, was_made in (("not today", False), ("yes", True)):
            async with events_of(client) as events:
                kind, data = await events.receive()
                assert (kind, data["wants"]) == ("ask", ["echo noted > note.txt"])
                assert not note.exists()
                answered = await client.post(f"/answer/{data['id']}", content=answer)
                assert answered.status_code == 204
                *_, (last, done) = [event async for event in events]
            assert last == "done"
            assert ("not today" in done["answer"]) is not was_made
            assert note.exists() is was_made
        async with events_of(client) as events:
            _, data = await events.receive()
        with trio.fail_after(30):  # that client has left: its turn is aborted, nobody waits
            while (await client.post(f"/answer/{data['id']}")).status_code != 404:  # noqa: ASYNC110
                await trio.sleep(0.05)  # the state is the service's
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


@asynccontextmanager
async def events_of(
    client: httpx.AsyncClient,
) -> AsyncIterator[trio.MemoryReceiveChannel[tuple[str, Any]]]:
    """Have a note made, and listen to what is told meanwhile; leaving hangs up."""

    async def listen() -> None:
        async with told, client.stream("POST", "/run", content="Make a note.") as response:
            kind = ""
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "data":
                    await told.send((kind, json.loads(value)))
                kind = value

    told, events = trio.open_memory_channel[tuple[str, Any]](100)
    async with trio.open_nursery() as nursery, events:
        nursery.start_soon(listen)
        yield events
        nursery.cancel_scope.cancel()


def test_shared_server(env: dict[str, str], tmp_path: Path) -> None:
    """Two tests on one server: it is started once, and nothing of it is left."""
    plugin = ["-p", "no:cacheprovider", "-p", "trio", "--import-mode=prepend", "-o", "addopts="]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, EXAMPLES / "shared_server"],
        env=env,
        cwd=tmp_path / "project",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@asynccontextmanager
async def served(
    env: Mapping[str, str], directory: Path, name: str = "service"
) -> AsyncIterator[tuple[trio.Process, str]]:
    """Start the service; when the block is left, nothing of it is there any more."""
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            command(name, "--port", "0", "--workspace", str(directory / "project")),
            env=env,
            stdout=subprocess.PIPE,
            check=False,
        )
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        try:
            [url] = re.findall(r"ready at (\S+)", (await process.stdout.receive_some()).decode())
            yield process, url
            assert not leftovers.find(f"{RUN_MARKER}={process.pid}.", directory / "project")
            assert not list(Path(os.environ["TMPDIR"]).glob(f"{SCRATCH_PREFIX}{process.pid}-*"))
        finally:
            nursery.cancel_scope.cancel()


async def ask(
    client: httpx.AsyncClient, prompt: str, lines: list[Any], *, task_status: trio.TaskStatus[None]
) -> None:
    """Ask, and collect the lines of the answer; it has started with the first word."""
    async with client.stream("POST", "/ask", json={"prompt": prompt}) as answer:
        async for line in answer.aiter_lines():
            lines.append(json.loads(line))
            if [more for more in lines if "text" in more] == lines[-1:]:
                task_status.started()


async def wait_until_refused(url: str) -> None:
    with trio.fail_after(2):
        while True:
            try:
                async with httpx.AsyncClient(trust_env=False) as stranger:
                    await stranger.get(f"{url}/health")
            except httpx.ConnectError:
                return


# --- servers elsewhere ---------------------------------------------------------------------------


async def test_remote(env: dict[str, str], tmp_path: Path) -> None:
    """Two servers as docs/remote.md has them; one is killed while agents are at work on it."""

    def think(request: ModelRequest) -> Reply:
        return Reply(Delay(1.0), f"done: {request.prompt}")

    env |= {"OPENCODE_SERVER_PASSWORD": PASSWORD}
    tasks = [f"task {number}" for number in range(12)]
    async with (
        open_scripted_model(think, model_id="model") as model,
        elsewhere(env, tmp_path / "one", model) as (_, one),
        elsewhere(env, tmp_path / "two", model) as (process, two),
        trio.open_nursery() as nursery,
    ):
        model_of_it = f"--model=scripted/{model.model_id}"
        nobody = f"http://127.0.0.1:{free_port()}"
        arguments = [f"--workspace={tmp_path / 'project'}", model_of_it, one, two, nobody]
        done: list[subprocess.CompletedProcess[bytes]] = []

        async def swarm() -> None:
            run = partial(trio.run_process, env=env, capture_stdout=True, capture_stderr=True)
            text = "\n".join(tasks).encode()
            done.append(await run(command("remote", *arguments), stdin=text, check=False))

        nursery.start_soon(swarm)
        await model.wait_for_requests(6)  # of eight at once, so that some are on each
        process.kill()
    out, err = done[0].stdout.decode(), done[0].stderr.decode()
    assert done[0].returncode == 0, out + err
    assert f"going on without it: GET {nobody}" in err or nobody in err
    told = dict(re.findall(r"^(task \d+)(?: \(begun \d times\))?: done: (.*)$", out, re.MULTILINE))
    assert told == {task: task for task in tasks}
    assert "(begun 2 times)" in out


@asynccontextmanager
async def elsewhere(
    env: Mapping[str, str], home: Path, model: ScriptedModel
) -> AsyncIterator[tuple[trio.Process, str]]:
    """Run a server by hand, as a machine of its own would."""
    (home / ".config/opencode").mkdir(parents=True)
    (home / ".config/opencode/opencode.json").write_text(json.dumps(model.opencode_config))
    url = f"http://127.0.0.1:{(port := free_port())}"
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            ["opencode", "serve", "--hostname", "127.0.0.1", "--port", str(port)],
            cwd=home,
            env={**env, "HOME": str(home), "BUN_TMPDIR": str(home)},  # its libraries stay there
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            deliver_cancel=kill,
        )
        process: trio.Process = await nursery.start(start)
        await wait_until_healthy(url)
        yield process, url
        nursery.cancel_scope.cancel()


async def kill(process: trio.Process) -> None:
    process.kill()  # at SIGTERM, a server may take its time


async def wait_until_healthy(url: str) -> None:
    """Ask as the health check of docs/remote.md does."""
    async with httpx.AsyncClient(trust_env=False, auth=("opencode", PASSWORD)) as client:
        while True:
            try:
                (await client.get(f"{url}/global/health")).raise_for_status()
            except httpx.TransportError:
                await trio.sleep(0.1)
            else:
                return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
