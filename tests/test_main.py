"""The command line: the task file, the result file, a batch, what stops it, and the doctor."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from opencode_trio.__main__ import build_parser, main, run_batch
from opencode_trio._cli.doctor import EXTRAS, advice_on
from opencode_trio._cli.result_file import encode, open_results
from opencode_trio._cli.task_file import KEYS, PROBLEMS_TOLD, read_tasks
from opencode_trio._swarm.task import AgentOptions, settings_of
from opencode_trio._tasks import OpenCodeTimeoutError
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError, OpenCodeServerError, OpenCodeTurnError
from opencode_trio.events import ErrorInfo
from opencode_trio.testing import ModelRequest, Reply, Stall, open_scripted_model
from swarming import FakeClient, FakeSession, World, after, failing, steps


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return tmp_path / "tasks.jsonl"


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- the file of tasks ---------------------------------------------------------------------------


def test_a_task_says_what_an_agent_can_be_told(tasks: Path, tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    write(
        tasks,
        {"prompt": "one"},
        "",
        {
            "prompt": "two",
            "name": "second",
            "workspace": "repo",
            "model": "p/other",
            "run_cfg": {"max_steps": 3},
            "output": {"type": "object"},
            "timeout_s": 5,
            "max_cost_usd": 0.5,
            "max_tokens": 100,
            "restartable": True,
            "worktree": True,
        },
    )
    cfg = RunConfig(model="p/m", variant="high")
    one, two = read_tasks(tasks, workspace=tmp_path, run_cfg=cfg)
    assert (one.line, one.agent.work, one.agent.workspace, one.agent.run_cfg) == (
        (1, "one", tmp_path.resolve(), cfg)
    )
    assert (two.line, two.agent.name, two.agent.workspace) == (
        (3, "second", tmp_path.resolve() / "repo")
    )
    assert settings_of(two.agent) == RunConfig(model="p/other", variant="high", max_steps=3)
    assert (two.agent.timeout_s, two.agent.max_cost_usd, two.agent.max_tokens) == (5, 0.5, 100)
    assert (two.agent.output, two.agent.restartable, two.agent.worktree) == (
        ({"type": "object"}, True, True)
    )


def test_the_options_of_an_agent_can_all_be_given() -> None:
    callbacks = {"on_permission", "on_question"}
    assert set(AgentOptions.__annotations__) - callbacks <= set(KEYS)


def test_a_task_keeps_its_id(tasks: Path, tmp_path: Path) -> None:
    def ids(*lines: dict[str, Any]) -> list[str]:
        write(tasks, *lines)
        return [task.task_id for task in read_tasks(tasks, workspace=tmp_path, run_cfg=RunConfig())]

    [first] = ids({"prompt": "one", "timeout_s": 5})
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert ids({"timeout_s": 5, "name": "x", "prompt": "one"}) == [first]
    other, again, twice = ids({"prompt": "two"}, *[{"prompt": "one", "timeout_s": 5}] * 2)
    assert (again, twice) == (first, f"{first}-2")
    assert other != first
    assert ids({"prompt": "one", "id": "mine"}) == ["mine"]
    same = {"prompt": "one", "timeout_s": 5}
    taken = ids({"prompt": "x", "id": f"{first}-2"}, same, same, same)
    assert taken == [f"{first}-2", first, f"{first}-3", f"{first}-4"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is not JSON: Expecting property name"),
        ("[" * 100_000, "is not JSON: "),
        ("[]", "is not a JSON object"),
        ("{}", "the prompt is missing"),
        ({"prompt": ""}, "prompt: expected text, got ''"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "x", "workspace": "~nobody-of-this-name"}, "~nobody-of-this-name"),
        ({"prompt": "x", "workspace": "a\0b"}, "workspace: "),
        ({"prompt": "x", "promt": 1}, "unknown key 'promt'; there are: prompt, id, name"),
        ({"prompt": "x", "timeout_s": "5"}, "timeout_s: expected a positive number, got str"),
        ('{"prompt": "x", "timeout_s": Infinity}', "timeout_s: expected a positive number"),
        ({"prompt": "x", "max_tokens": 1.5}, "max_tokens: expected a positive integer, got 1.5"),
        ({"prompt": "x", "max_tokens": True}, "max_tokens: expected a positive integer, got True"),
        ({"prompt": "x", "worktree": 1}, "worktree: expected true or false, got 1"),
        ({"prompt": "x", "output": "s"}, "output: expected an object, got str"),
        ({"prompt": "x", "output": {"type": 5}}, "output: no valid JSON schema"),
        ({"prompt": "x", "workspace": "nowhere"}, "nowhere' does not exist"),
        ({"prompt": "x", "model": "nonsense"}, "model: "),
        ({"prompt": "x", "run_cfg": {"modle": 1}}, "unknown setting 'modle'; there are: agent"),
        ({"prompt": "x", "run_cfg": {"max_steps": -1}}, "max_steps: "),
        ({"prompt": "x", "id": "a"}, "id: 'a' is already the id of a task above"),
    ],
)
def test_a_wrong_line_is_named(
    tasks: Path, line: Any, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tasks, {"prompt": "fine", "id": "a"}, line)
    assert main(["swarm", str(tasks), "--workspace", str(tasks.parent)]) == 2
    assert f"error: {tasks}:2: " in (told := capsys.readouterr().err)
    assert problem in told


def test_a_task_may_trust_less_than_the_command_and_not_more(
    tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tasks, {"prompt": "x"}, {"prompt": "y", "run_cfg": {"untrusted": True}})
    read = partial(read_tasks, tasks, workspace=tmp_path)
    trust = [task.agent.run_cfg for task in read(run_cfg=RunConfig())]
    assert [cfg and cfg.untrusted for cfg in trust] == [False, True]
    trust = [task.agent.run_cfg for task in read(run_cfg=RunConfig(untrusted=True))]
    assert [cfg and cfg.untrusted for cfg in trust] == [True, True]
    write(tasks, {"prompt": "x", "run_cfg": {"untrusted": False}})
    assert main(["swarm", str(tasks), "--workspace", str(tmp_path), "--untrusted"]) == 2
    assert f"{tasks}:1: run_cfg: untrusted: a task cannot switch off" in capsys.readouterr().err


def test_all_wrong_lines_are_named_but_not_without_end(tasks: Path, tmp_path: Path) -> None:
    write(tasks, *["{}"] * (PROBLEMS_TOLD + 5))
    with pytest.raises(OpenCodeConfigError) as info:
        read_tasks(tasks, workspace=tmp_path, run_cfg=RunConfig())
    assert f"{tasks}:{PROBLEMS_TOLD}: " in str(info.value)
    assert str(info.value).endswith("\nand 5 more lines are wrong")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: No such file or directory"),
        (["empty.jsonl"], "empty.jsonl: contains no task"),
        (["tasks.jsonl", "--config", "bad.json"], "bad.json: unknown setting 'x'"),
        (["tasks.jsonl", "--config", "gone.json"], "gone.json: No such file or directory"),
        (["tasks.jsonl", "--model", "nonsense"], "model: "),
        (
            ["tasks.jsonl", "--opencode", "./nowhere"],
            "opencode not found: 'nowhere' does not exist",
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("tasks.jsonl"), {"prompt": "x"})
    Path("empty.jsonl").touch()
    Path("bad.json").write_text('{"x": 1}')
    assert main(["swarm", *arguments]) == 2
    assert problem in capsys.readouterr().err
    assert not Path("tasks.results.jsonl").exists()


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--limit", "x"], ["--budget", "nan"]])
def test_wrong_numbers_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as info:
        main(["swarm", "tasks.jsonl", *arguments])
    assert info.value.code == 2
    assert arguments[1] in capsys.readouterr().err


# --- the file of results -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tail", ["", '{"id": "c", "st', '{"i', "{", '{"id": "c", "status": "completed"}']
)
def test_a_torn_line_is_cut_off(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "results.jsonl"
    lines = [{"id": "a", "status": "completed"}, {"id": "b", "status": "failed"}]
    write(path, *lines)
    path.write_text(path.read_text() + tail)
    kept = {"c"} if tail.endswith("}") else set()
    with open_results(path) as results:
        assert results.completed == {"a"} | kept
        results.append({"id": "b", "status": "completed"})
    with open_results(path) as results:
        assert results.completed == {"a", "b"} | kept
    assert len(read(path)) == 3 + len(kept)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no such file exists for all")
def test_a_file_that_cannot_be_read_is_named() -> None:
    unreadable = Path("/proc/self/mem")  # for everybody, at its beginning
    with refused(f"{unreadable}: Input/output error"), open_results(unreadable):
        pass


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"id": "a", "status": "completed"}\n{"id": "b\n{"id": "c", "status": "failed"}\n', 2),
        ('{"prompt": "x"}', 1),
        ('{"id": "x", "prompt": "x"}', 1),
        ("a letter", 1),
        ("[1]\n", 1),
        ('{"id": ["a"], "status": "completed"}\n', 1),
    ],
)
def test_other_files_are_left_alone(tmp_path: Path, content: str, line: int) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(content)
    with refused(f"results.jsonl:{line}: is not a result"), open_results(path):
        pass
    assert path.read_text() == content


def refused(problem: str) -> Any:
    return pytest.raises(OpenCodeConfigError, match=problem)


def test_only_one_run_writes(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with open_results(path), refused("another run is writing to it"), open_results(path):
        pass
    with open_results(path):
        pass


@pytest.mark.parametrize(
    ("path", "problem"),
    [("/", "Is a directory"), ("/dev/zero", "not a regular file"), ("/nowhere/x", "No such file")],
)
def test_where_no_results_can_be(path: str, problem: str) -> None:
    with refused(problem), open_results(Path(path)):
        pass


@pytest.mark.parametrize("text", ["ö\u2028", "\ud800"])
def test_any_text_can_be_written(text: str) -> None:
    line = encode({"id": text})
    assert json.loads(line) == {"id": text}
    assert line.count(b"\n") == 1


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with open_results(path) as results, full_disk(60):
        results.append({"id": "a", "status": "completed"})
        with pytest.raises(OSError, match="File too large"):
            results.append({"id": "b", "status": "completed", "text": "x" * 100})
    assert read(path) == [{"id": "a", "status": "completed"}]


# --- a batch -------------------------------------------------------------------------------------


def arguments(tasks: Path, *more: str) -> argparse.Namespace:
    return build_parser().parse_args(["swarm", str(tasks), "--progress", "none", *more])


async def run(world: World, tasks: Path, *more: str) -> int:
    given = read_tasks(tasks, workspace=tasks.parent, run_cfg=RunConfig(model="p/m"))
    return await run_batch(FakeClient(world), given, arguments(tasks, *more))


async def test_done_failed_and_done_again(
    autojump_clock: MockClock, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(bad=failing(OpenCodeTurnError("the model failed")), good=steps(2))
    write(tasks, {"prompt": "good", "name": "one"}, {"prompt": "bad", "id": "b"})
    assert await run(world, tasks) == 1
    out = tasks.with_name("tasks.results.jsonl")
    told = capsys.readouterr().out
    assert told == f"2 tasks: 1 completed, 1 failed; $1.00 spent; results: {out}\n"
    bad, good = read(out)
    assert (bad["id"], bad["status"], bad["text"]) == ("b", "failed", "")
    assert bad["error"] == {"type": "OpenCodeTurnError", "message": "the model failed"}
    assert bad["task"] == {"prompt": "bad", "id": "b"}
    assert (good["name"], good["status"], good["text"], good["error"]) == (
        ("one", "completed", "ok", None)
    )
    assert (good["cost_usd"], good["tokens"], good["duration_s"]) == (1.0, 200, 4.0)

    world.programs["bad"] = steps(1)
    assert await run(world, tasks) == 0
    told = capsys.readouterr().out
    assert told.startswith("2 tasks: 1 completed, 1 completed earlier; $0.5000 spent")
    assert world.prompts.count("good") == 1

    assert await run(world, tasks) == 0
    assert len(world.prompts) == 3
    assert [record["status"] for record in read(out)] == ["failed", "completed", "completed"]


async def test_results_come_as_tasks_end(autojump_clock: MockClock, tasks: Path) -> None:
    world = World(**{f"p{n}": after(n) for n in (1, 2, 3)})
    write(tasks, *[{"prompt": f"p{n}"} for n in (3, 2, 1)])
    out = tasks.with_name("out.jsonl")
    seen = []

    async def look() -> None:
        await trio.sleep(2.5)  # when the server is there
        for _ in range(3):
            seen.append([record["task"]["prompt"] for record in read(out)])
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        assert await run(world, tasks, "--out", str(out)) == 0
    assert seen == [[], ["p1"], ["p1", "p2"]]


async def test_no_more_than_the_budget_and_the_limit(
    autojump_clock: MockClock, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    write(tasks, *[{"prompt": f"p{n}"} for n in range(10)])
    assert await run(world, tasks, "--budget", "2", "--limit", "2") == 1
    assert capsys.readouterr().out.startswith("10 tasks: 4 completed, 6 not started; $2.00 spent")
    assert max(server.most_sessions for server in world.servers) == 2
    assert len(read(tasks.with_name("tasks.results.jsonl"))) == 4
    assert await run(world, tasks) == 0
    assert sorted(world.prompts) == sorted({f"p{n}" for n in range(10)})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_it_and_the_next_run_goes_on(
    autojump_clock: MockClock,
    tasks: Path,
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def stall(session: FakeSession) -> str:
        await trio.sleep(1.5)
        session.step()
        signal.raise_signal(number)
        signal.raise_signal(number)
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    world = World(two=stall)
    write(tasks, *[{"prompt": prompt} for prompt in ("one", "two", "three")])
    assert await run(world, tasks, "--limit", "2") == 128 + number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    told = capsys.readouterr().out
    assert told.startswith("3 tasks: 2 cancelled, 1 completed; $1.00 spent")
    assert told.endswith(f"stopped by {number.name}; the same command goes on from here\n")
    assert world.running == []
    one, *others = read(tasks.with_name("tasks.results.jsonl"))
    assert (one["task"]["prompt"], one["status"]) == ("one", "completed")
    assert {record["status"] for record in others} == {"cancelled"}
    assert sum(record["cost_usd"] for record in others) == 0.5
    world.programs["two"] = steps(1)
    assert await run(world, tasks) == 0
    assert world.prompts.count("one") == 1


async def test_when_results_cannot_be_written_it_stops(
    autojump_clock: MockClock, tasks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(long=after(1000))
    write(tasks, {"prompt": "short"}, {"prompt": "long"})
    with full_disk(60):
        assert await run(world, tasks) == 1
    assert "tasks.results.jsonl: File too large" in capsys.readouterr().err
    assert trio.current_time() < 10


@pytest.mark.parametrize("progress", ["lines", "table"])
async def test_progress_is_shown(
    mock_clock: MockClock, tasks: Path, progress: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mock_clock.autojump_threshold = 0.15  # drawing happens in a thread
    write(tasks, {"prompt": "x", "name": "the task"})
    assert await run(World(), tasks, "--progress", progress) == 0
    told = capsys.readouterr().out
    assert "the task" in told
    assert "1 of 1 over" in told


def test_a_reader_who_leaves_is_no_failure(tasks: Path) -> None:
    program = "import sys; from opencode_trio.__main__ import say; say('x'); say('y')"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, check=False)
    os.close(writer)
    assert done.returncode == 0


# --- the doctor ----------------------------------------------------------------------------------


def fake_opencode(path: Path, version: str) -> str:
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return str(path)


def test_a_healthy_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = fake_opencode(tmp_path / "opencode", "1.18.33")
    assert main(["doctor", "--opencode", binary]) == 0
    told = capsys.readouterr().out
    assert f"1.18.33 at {binary} (supported: 1.x)" in told
    assert re.search(r"ok  progress +rich \d", told)
    assert "to try one: --model PROVIDER/MODEL" in told


@pytest.mark.parametrize(
    ("version", "advice"), [("2.0.1", "npm install -g opencode-ai@1"), (None, "npm install -g")]
)
def test_an_opencode_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: str | None, advice: str
) -> None:
    path = tmp_path / "opencode"
    binary = fake_opencode(path, version) if version else str(path)
    assert main(["doctor", "--opencode", binary, "--model", "p/m"]) == 1
    told = capsys.readouterr().out
    assert "BAD   opencode    cannot be used" in told
    assert advice in told
    assert "BAD   model       p/m does not answer: " in told


def test_the_doctor_knows_the_extras() -> None:
    import tomllib  # noqa: PLC0415

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    named = {name: [re.split(r"[\[>]", text)[0] for text in extras[name]] for name in extras}
    assert named == EXTRAS


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OpenCodeTimeoutError("no"), "reachable"),
        (OpenCodeTurnError("no", error=ErrorInfo("APIError", status_code=401)), "auth login"),
        (OpenCodeTurnError("Model not found"), "opencode models"),
        (OpenCodeServerError("no"), "opencode serve"),
    ],
)
def test_advice(error: Any, advice: str) -> None:
    assert advice in advice_on(error)


# --- the real thing ------------------------------------------------------------------------------


@pytest.mark.opencode
async def test_a_batch_is_interrupted_and_resumed(opencode_binary: str, tmp_path: Path) -> None:
    """As at a terminal: Ctrl+C reaches everything in the foreground, and the same command again."""
    tasks = write(tmp_path / "tasks.jsonl", *[{"prompt": p} for p in ("one", "two", "three")])
    out = tmp_path / "results.jsonl"
    is_stalling = True

    def reply(request: ModelRequest) -> Reply | str:
        stalls = is_stalling and request.prompt != "one"
        return Reply(Stall()) if stalls else f"re: {request.prompt}"

    home = tmp_path / "home"
    (home / ".config/opencode").mkdir(parents=True)
    (tmp_path / "repo").mkdir()

    async def start(command: str, *more: str) -> trio.Process:
        options = ["--model", "scripted/scripted", "--workspace", str(tmp_path / "repo")]
        options += ["--opencode", opencode_binary]
        return await trio.lowlevel.open_process(
            [sys.executable, "-W", "error", "-m", "opencode_trio", command, *more, *options],
            env=os.environ | {"HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    async def finish(process: trio.Process) -> str:
        assert process.stdout is not None
        text = b"".join([part async for part in process.stdout]).decode()
        await process.wait()
        return text

    async with open_scripted_model(reply) as model:
        config = json.dumps(model.opencode_config)
        (home / ".config/opencode/opencode.json").write_text(config)
        batch = [str(tasks), "--out", str(out), "--budget", "5"]
        first = await start("swarm", *batch)
        with trio.fail_after(60):
            await model.wait_for_requests(3)
            while not out.read_bytes():  # noqa: ASYNC110 - another process writes it
                await trio.sleep(0.05)
        os.killpg(first.pid, signal.SIGINT)
        with trio.fail_after(20):
            told = await finish(first)
            await model.wait_until_quiet()
        assert first.returncode == 130, told
        assert "agent 1: completed" in told
        assert "3 tasks: 2 cancelled, 1 completed" in told
        assert [record["status"] for record in read(out)].count("completed") == 1
        assert read(out)[0]["text"] == "re: one"

        is_stalling = False
        out.write_bytes(out.read_bytes() + b'{"id": "torn')  # as if it had been killed instead
        second = await start("swarm", *batch)
        told = await finish(second)
        assert second.returncode == 0, told
        assert "3 tasks: 2 completed, 1 completed earlier" in told
        done = {r["text"] for r in read(out) if r["status"] == "completed"}
        assert done == {"re: one", "re: two", "re: three"}
        assert [request.prompt for request in model.requests].count("one") == 1

        doctor = await start("doctor")
        told = await finish(doctor)
        assert doctor.returncode == 0, told
        assert "scripted/scripted answers 're: This is a test" in told
