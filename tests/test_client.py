"""The client with programs that pass for opencode: what they are given, and how it ends."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from fake_opencode import FakeOpencode, fake_opencode, play
from opencode_trio import (
    AsyncOpenCodeClient,
    OpenCodeBinaryNotFoundError,
    OpenCodeConfigError,
    OpenCodeLimitError,
    OpenCodeProcessError,
    OpenCodeTimeoutError,
    OpenCodeTurnError,
    OpenCodeVersionError,
    Run,
    RunConfig,
    StepStarted,
)
from opencode_trio._process.binary import parse_version, probe_version, resolve_binary
from opencode_trio._process.child import open_child
from opencode_trio._run.event_log import EventLog
from opencode_trio._turn.guards import MAX_STEPS
from opencode_trio.client import SQLITE_CRASHES, is_startup_crash
from wire import lines_of, records_of

SHORT_S = 10.0
"""A bound on what takes a tenth of a second when nobody else uses the machine."""

FOR_EVER = "exec sleep 1000\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., FakeOpencode]:
    return partial(fake_opencode, tmp_path / "fake")


@pytest.fixture
def hello(make: Callable[..., FakeOpencode]) -> FakeOpencode:
    """Answer "hello" to everything."""
    return make(play("run-ok"))


@pytest.fixture(autouse=True)
def no_scratch_is_left() -> Iterator[None]:
    before = scratch_directories()
    yield
    assert scratch_directories() <= before


def scratch_directories() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("opencode-trio-*"))


def processes_with(text: str) -> list[str]:
    """List the processes whose command line holds a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command and int(path.parent.name) != os.getpid():
            found.append(command)
    return found


# --- what opencode is given ------------------------------------------------------------------


async def test_a_run(hello, workspace):
    result = await AsyncOpenCodeClient(hello.path).async_run("say hello", workspace)

    assert (result.final_text, result.stop_reason, result.turns) == ("hello", "completed", 1)
    assert (result.exit_code, result.total_cost) == (0, 0.00012)
    assert result.events == records_of("run-ok")
    assert result.raw_stdout_lines == lines_of("run-ok")
    assert result.teardown is not None
    assert not result.teardown.survivors
    assert hello.argv[:3] == ["run", "--format", "json"]
    assert "say hello" not in " ".join(hello.argv)
    assert hello.stdin == b"say hello"
    assert hello.env["PWD"] == (hello.folder / "pwd").read_text().strip() == str(workspace)
    assert hello.env["OPENCODE_TRIO_RUN"]


@pytest.mark.parametrize(
    ("prompt", "stdin"),
    [
        ("say \"hi\" and 'bye' $HOME \\n `id`", None),
        ("--help me now", None),
        ("-", None),
        ("a\u2028b\u0085c\U0001f600\r\n\n\ttail \n", None),
        ("\x00".replace("\x00", "\x01\x7f"), None),
        ("\ufeffhello", b"\xef\xbb\xbf\xef\xbb\xbfhello"),  # opencode takes one off
        ("\ufeff", b"\xef\xbb\xbf\xef\xbb\xbf"),
        ("mid\ufeffdle", None),
        ("x" * 2_000_000, None),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_the_prompt_goes_to_stdin_byte_for_byte(hello, workspace, prompt, stdin):
    await AsyncOpenCodeClient(hello.path).async_run(prompt, workspace)
    assert hello.stdin == (prompt.encode() if stdin is None else stdin)


async def test_a_long_prompt_that_nobody_reads_holds_nothing_up(make, workspace):
    fake = make(play("run-ok"), reads_stdin=False)
    with trio.fail_after(SHORT_S):
        result = await AsyncOpenCodeClient(fake.path).async_run("x" * 2_000_000, workspace)
    assert result.final_text == "hello"


async def test_the_hosts_own_stdin_is_not_inherited(hello, workspace):
    reader, writer = os.pipe()
    saved = os.dup(0)
    os.dup2(reader, 0)  # an open pipe that never closes
    try:
        with trio.fail_after(SHORT_S):
            await AsyncOpenCodeClient(hello.path).async_run("hi", workspace)
    finally:
        os.dup2(saved, 0)
        for fd in (reader, writer, saved):
            os.close(fd)
    assert hello.stdin == b"hi"


@pytest.mark.parametrize(
    ("flags", "titles"),
    [({}, 1), ({"title": "mine"}, 1), ({"session": "ses_1"}, 0), ({"continue": True}, 0)],
)
async def test_a_title_keeps_opencode_from_asking_for_one(hello, workspace, flags, titles):
    cfg = RunConfig(model="a/b", agent="plan", cli_kwargs=flags)
    await AsyncOpenCodeClient(hello.path).async_run("hi", workspace, run_cfg=cfg)
    assert sum(word.startswith("--title") for word in hello.argv) == titles
    assert hello.argv[3:7] == ["-m", "a/b", "--agent", "plan"]


async def test_the_working_directory_is_named_without_links(hello, workspace, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(workspace)
    await AsyncOpenCodeClient(hello.path).async_run("hi", link)
    assert hello.env["PWD"] == str(workspace.resolve())


async def test_a_relative_workspace_and_home(hello, workspace, monkeypatch):
    monkeypatch.chdir(workspace.parent)
    await AsyncOpenCodeClient(hello.path).async_run("hi", "workspace")
    assert hello.env["PWD"] == str(workspace)
    monkeypatch.setenv("HOME", str(workspace.parent))
    await AsyncOpenCodeClient(hello.path).async_run("hi", "~/workspace")
    assert hello.starts == 2


# --- bad input: an error before anything is started ------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("a\0b", "NUL"),
        ("a\ud800b", "UTF-8"),
        (7, "expected text, got 7"),
    ],
)
async def test_prompts_that_cannot_be(hello, workspace, prompt, words):
    with pytest.raises(OpenCodeConfigError, match=words) as caught:
        await AsyncOpenCodeClient(hello.path).async_run(prompt, workspace)
    assert isinstance(caught.value, ValueError)
    assert hello.starts == 0


async def test_an_empty_prompt_will_do_for_a_command(hello, workspace):
    cfg = RunConfig(cli_kwargs={"command": "review"})
    await AsyncOpenCodeClient(hello.path).async_run("", workspace, run_cfg=cfg)
    assert hello.stdin == b""


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("missing", "does not exist"),
        ("file", "is not a directory"),
        ("a\0b", "NUL|null"),
        ("loop", "(?i)loop|symbolic|does not exist"),
        ("~nobody-of-that-name/x", "workspace"),
        ("x" * 5000, "workspace"),
        ("feature%2Fx", "would work in '.*/feature/x' instead"),
        ("a\\b", "backslash"),
        ("caf\udce9", "is not UTF-8"),
    ],
)
async def test_workspaces_that_cannot_be(hello, tmp_path, monkeypatch, place, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("feature%2Fx", "a\\b", "caf\udce9"):
        (tmp_path / name).mkdir()
    client = AsyncOpenCodeClient(hello.path)
    with pytest.raises(OpenCodeConfigError, match=words):
        await client.async_run("hi", place)
    with pytest.raises(OpenCodeConfigError, match=words):
        async with client.open_server(place):
            pass
    assert hello.starts == 0


@pytest.mark.parametrize("seconds", [-1, -math.inf, math.nan])
async def test_timeouts_that_cannot_be(hello, workspace, seconds):
    with pytest.raises(OpenCodeConfigError, match="timeout_s"):
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace, timeout_s=seconds)
    with pytest.raises(OpenCodeConfigError, match="timeout_s"):
        async with AsyncOpenCodeClient(hello.path).async_stream("hi", workspace, timeout_s=seconds):
            pytest.fail("the block was entered")
    assert hello.starts == 0


@pytest.mark.parametrize(
    "options",
    [{"max_retries": -1}, {"retry_delay_s": -1}, {"retry_delay_s": math.nan}],
    ids=str,
)
async def test_retries_that_cannot_be(hello, workspace, options):
    with pytest.raises(OpenCodeConfigError, match=next(iter(options))):
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace, **options)
    assert hello.starts == 0


@pytest.mark.parametrize(
    "options",
    [
        {"startup_concurrency": 0},
        {"startup_delay_s": -0.1},
        {"startup_delay_s": math.nan},
        {"startup_delay_s": math.inf},
    ],
    ids=str,
)
def test_clients_that_cannot_be(options):
    with pytest.raises(OpenCodeConfigError, match=next(iter(options))):
        AsyncOpenCodeClient(**options)


def test_a_client_can_be_a_key():
    one, other = AsyncOpenCodeClient(), AsyncOpenCodeClient()
    assert len({one, other}) == 2
    assert one != other


async def test_asking_is_for_sessions(hello, workspace):
    cfg = RunConfig(permission={"bash": "ask"})
    with pytest.raises(OpenCodeConfigError, match="ask"):
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace, run_cfg=cfg)
    assert hello.starts == 0


async def test_settings_are_in_a_file(make, workspace):
    """However long they are; unless there is a directory of the caller's, or of the host's."""
    fake = make('cp "$OPENCODE_CONFIG_DIR/opencode.json" "$HERE/settings"\n' + play("run-ok"))
    cfg = RunConfig(config_overrides={"x": "y" * 3_000_000})
    await AsyncOpenCodeClient(fake.path).async_run("hi", workspace, run_cfg=cfg)
    assert json.loads((fake.folder / "settings").read_text())["x"] == "y" * 3_000_000
    assert "OPENCODE_CONFIG_CONTENT" not in fake.env
    assert not Path(fake.env["OPENCODE_CONFIG_DIR"]).exists()

    small = RunConfig(permission="deny")
    for choice in ({"extra_env": {"OPENCODE_CONFIG_DIR": "/x"}}, {"inherit_user_config": True}):
        fake = make(play("run-ok"))
        cfg = attrs.evolve(small, **choice)
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace, run_cfg=cfg)
        assert json.loads(fake.env["OPENCODE_CONFIG_CONTENT"]) == {"permission": "deny"}


async def test_an_environment_too_long_for_the_system(hello, workspace):
    cfg = RunConfig(extra_env={"X": "y" * 3_000_000})
    with pytest.raises(OpenCodeConfigError, match="too long"):
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace, run_cfg=cfg)
    assert hello.starts == 0


async def test_a_data_home_that_is_a_file(hello, workspace, tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(OpenCodeConfigError, match="data_home"):
        await AsyncOpenCodeClient(hello.path).async_run(
            "hi", workspace, data_home=tmp_path / "data"
        )
    assert hello.starts == 0


async def test_no_room_for_a_scratch_directory(hello, workspace, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(OpenCodeConfigError, match="temporary directory"):
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_temporary_directory_is_named(hello, workspace, monkeypatch, number):
    def full(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    words = rf"temporary directory {tempfile.gettempdir()}: .*no space is left.*TMPDIR"
    with pytest.raises(OpenCodeConfigError, match=words):
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace)


@pytest.mark.parametrize(
    "said", ["ENOSPC: no space left on device, write", "SQLiteError: database or disk is full"]
)
async def test_an_opencode_that_is_short_of_space(make, workspace, said):
    fake = make(f"echo '{said}' >&2; exit 1")
    words = f"status 1 before the model was asked: no space .* {tempfile.gettempdir()}; TMPDIR"
    with pytest.raises(OpenCodeProcessError, match=words):
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace, retry_delay_s=60)
    with pytest.raises(OpenCodeProcessError, match=r"before it was ready: no space .* TMPDIR"):
        async with AsyncOpenCodeClient(fake.path).open_server(workspace):
            pass
    assert fake.starts == 2  # trying again would not help


# --- binaries that are none ------------------------------------------------------------------


async def test_no_binary(workspace, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere:/else")
    with pytest.raises(OpenCodeBinaryNotFoundError, match="npm install") as caught:
        await AsyncOpenCodeClient("opencode-of-nobody").async_run("hi", workspace)
    assert "/nowhere:/else" in str(caught.value)
    assert "opencode-of-nobody" in str(caught.value)


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.touch(0o644), "not executable"),
        (lambda path: path.symlink_to("/nowhere"), "does not exist"),
    ],
)
async def test_paths_that_are_no_binary(tmp_path, workspace, make_it, words):
    path = tmp_path / "opencode"
    make_it(path)
    with pytest.raises(OpenCodeBinaryNotFoundError, match=words):
        await AsyncOpenCodeClient(str(path)).async_run("hi", workspace)


async def test_a_file_of_that_name_in_the_working_directory_is_none(hello, tmp_path, monkeypatch):
    (tmp_path / "opencode").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{hello.folder}:{os.environ['PATH']}")
    assert resolve_binary("opencode") == hello.path


async def test_a_relative_path_is_made_absolute(hello, workspace, monkeypatch):
    monkeypatch.chdir(hello.folder.parent)
    assert resolve_binary("fake/opencode") == hello.path
    monkeypatch.setenv("PATH", f"fake:{os.environ['PATH']}")
    assert resolve_binary("opencode") == hello.path
    # opencode is started in the workspace, from where a relative path leads elsewhere.
    await AsyncOpenCodeClient("opencode").async_run("hi", workspace)


def test_a_home_is_expanded(hello, monkeypatch):
    monkeypatch.setenv("HOME", str(hello.folder))
    assert resolve_binary("~/opencode") == hello.path
    with pytest.raises(OpenCodeBinaryNotFoundError):
        resolve_binary("~nobody-of-that-name/opencode")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("2.0.3", r"is opencode 2\.0\.3, and this library supports only 1\.x"),
        ("opencode v2.0.15", r"is opencode 2\.0\.15, .*at least 1\.0\.0, below 2\.0\.0"),
        ("0.9.1", r"supports only 1\.x"),
        ("", "is not opencode"),
        ("git version 1.39.2", "is not opencode"),
        ("this is fine", "is not opencode"),
    ],
)
async def test_other_versions_are_refused(make, workspace, version, words):
    fake = make(play("run-ok"), version=version)
    with pytest.raises(OpenCodeVersionError, match=words) as caught:
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace)
    assert fake.path in str(caught.value)
    assert fake.starts == 0
    bare = version.removeprefix("opencode v")
    assert caught.value.version == (bare if parse_version(version) else "")


async def test_other_programs_are_refused(workspace):
    with pytest.raises(OpenCodeVersionError, match="is not opencode"):
        await AsyncOpenCodeClient("/bin/echo").async_run("hi", workspace)


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("echo 'node: not found' >&2; exit 127", "exited with status 127"),
        ("echo 'node: not found' >&2; echo 1.18.33; exit 1", "exited with status 1"),
        ("echo 'node: not found'; kill -ILL $$", "was killed by SIGILL"),
    ],
)
async def test_a_broken_one_is_quoted(tmp_path, workspace, script, how):
    path = tmp_path / "opencode"
    path.write_text(f"#!/bin/sh\nulimit -c 0\n{script}\n")
    path.chmod(0o755)
    with pytest.raises(OpenCodeVersionError, match=how) as caught:
        await AsyncOpenCodeClient(str(path)).async_run("hi", workspace)
    assert "node: not found" in str(caught.value)


async def test_a_version_is_asked_in_a_place_of_its_own(tmp_path, monkeypatch):
    """opencode makes its directories first, and refuses to start in one that is gone."""
    names = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"]
    lines = [f'mkdir -p "${name}/opencode" || exit 3' for name in names]
    path = tmp_path / "opencode"
    path.write_text("\n".join(["#!/bin/sh", *lines, '[ -d "$PWD" ] || exit 4', "echo 1.18.33\n"]))
    path.chmod(0o755)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert await probe_version(str(path)) == "1.18.33"


async def test_a_run_from_a_directory_that_is_gone(hello, workspace, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert (await AsyncOpenCodeClient(hello.path).async_run("hi", workspace)).final_text == "hello"


@pytest.mark.parametrize("content", [b"#!/nowhere/sh\n", b"\x7fELF nonsense"])
async def test_what_the_system_cannot_execute(tmp_path, workspace, content):
    path = tmp_path / "opencode"
    path.write_bytes(content)
    path.chmod(0o755)
    with pytest.raises(OpenCodeBinaryNotFoundError, match="cannot be executed"):
        await AsyncOpenCodeClient(str(path)).async_run("hi", workspace)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.18.33", (1, 18, 33)),
        (" v1.2.3-beta.4+x\n", (1, 2, 3)),
        ("opencode v2.0.15\n", (2, 0, 15)),
        ("1.2", None),
        ("git version 2.39.2", None),
        ("1.2.3 but not really", None),
        ("", None),
    ],
)
def test_parse_version(text, version):
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("package", "is_trusted"),
    [
        ('{"name": "opencode-ai", "version": "1.5.0"}', True),
        ('{"name": "opencode-linux-x64-musl", "version": "1.5.0"}', True),
        ('{"name": "@opencode/cli-linux-x64-baseline", "version": "1.5.0"}', True),
        ('{"name": "opencode-plugin-mine", "version": "7.5.0"}', False),
        ('{"name": "opencode-ai", "version": 3}', False),
        ("nonsense", False),
        ("[]", False),
    ],
)
async def test_npm_knows_the_version(tmp_path, package, is_trusted):
    (tmp_path / "package.json").write_text(package)
    fake = fake_opencode(tmp_path / "bin")
    assert await probe_version(fake.path) == ("1.5.0" if is_trusted else "1.18.33")


async def test_a_version_is_asked_once_and_again_after_an_update(tmp_path, workspace):
    fake = fake_opencode(tmp_path / "bin", play("run-ok"))
    count = f'[ "$1" = --version ] && echo x >> "{tmp_path}/asked"\n'
    script = Path(fake.path).read_text().replace("#!/bin/sh\n", "#!/bin/sh\n" + count)
    Path(fake.path).write_text(script)
    client = AsyncOpenCodeClient(fake.path)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(client.async_run, "hi", workspace)
    assert (tmp_path / "asked").read_text() == "x\n"

    Path(fake.path).write_text(script.replace("1.18.33", "2.0.0 "))
    os.utime(fake.path, (1, 1))
    with pytest.raises(OpenCodeVersionError, match=r"2\.0\.0"):
        await client.async_run("hi", workspace)


async def test_a_binary_that_hangs_is_no_opencode(tmp_path, workspace, monkeypatch):
    monkeypatch.setattr("opencode_trio._process.binary.PROBE_TIMEOUT_S", 0.2)
    path = tmp_path / "opencode"
    path.write_text("#!/bin/sh\nexec sleep 5678.75\n")
    path.chmod(0o755)
    with pytest.raises(OpenCodeVersionError, match=r"no answer to --version in 0\.2 s"):
        await AsyncOpenCodeClient(str(path)).async_run("hi", workspace)
    assert not processes_with("sleep 5678.75")


async def test_what_a_binary_unpacks_to_tell_its_version_is_taken_away(tmp_path):
    fake = fake_opencode(tmp_path / "bin")
    unpack = f'echo "$BUN_TMPDIR" > "{tmp_path}/where"; touch "$BUN_TMPDIR/.library.so"\n'
    script = Path(fake.path).read_text().replace("#!/bin/sh\n", "#!/bin/sh\n" + unpack)
    Path(fake.path).write_text(script)
    assert await probe_version(fake.path) == "1.18.33"
    where = Path((tmp_path / "where").read_text().strip())
    assert where.parent == Path(tempfile.gettempdir())
    assert not where.exists()


async def test_a_binary_that_hangs_can_be_cancelled(tmp_path, workspace):
    path = tmp_path / "opencode"
    path.write_text("#!/bin/sh\nsleep 1234.5 & wait\n")
    path.chmod(0o755)
    began = trio.current_time()
    with trio.move_on_after(0.5) as scope:
        await AsyncOpenCodeClient(str(path)).async_run("hi", workspace)
    assert scope.cancelled_caught
    assert trio.current_time() - began < SHORT_S
    with trio.fail_after(SHORT_S):
        while processes_with("sleep 1234.5"):  # noqa: ASYNC110 - the kernel rings no bell
            await trio.sleep(0.05)


# --- the log file ----------------------------------------------------------------------------


async def test_the_log_has_every_event_as_it_came(hello, workspace, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("before\n")
    log.chmod(0o640)
    client = AsyncOpenCodeClient(hello.path)

    await client.async_run("hi", workspace, log_file=log)
    assert log.read_text().split("\n") == ["before", *_dumped("run-ok"), ""]
    assert stat.S_IMODE(log.stat().st_mode) == 0o640, "it is the user's: left as it was"

    await client.async_run("hi", workspace, log_file=str(log))
    assert log.read_text().split("\n") == ["before", *_dumped("run-ok") * 2, ""]


def _dumped(trace: str) -> list[str]:
    return [json.dumps(event, ensure_ascii=False) for event in records_of(trace)]


async def test_a_new_log_is_private_and_excluded_types_stay_in_the_result(
    hello, workspace, tmp_path
):
    log = tmp_path / "log.jsonl"
    old = os.umask(0)
    try:
        result = await AsyncOpenCodeClient(hello.path).async_run(
            "hi", workspace, log_file=log, log_exclude_types=["text", "nonsense"]
        )
    finally:
        os.umask(old)
    kinds = [json.loads(line)["type"] for line in log.read_text().splitlines()]
    assert kinds == ["step_start", "step_finish"]
    assert len(result.events) == 3
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_an_agent_that_runs_in_circles_is_ended(make, workspace):
    """Also where nobody set a limit: opencode itself has none."""
    circles = """while :; do
      echo '{"type":"step_start","part":{}}'
      echo '{"type":"step_finish","part":{"reason":"tool-calls"}}'
    done"""
    with pytest.raises(OpenCodeLimitError, match=f"max_steps={MAX_STEPS}") as caught:
        await AsyncOpenCodeClient(make(circles).path).async_run("hi", workspace)
    assert caught.value.partial.turns == MAX_STEPS


async def test_each_event_is_on_disk_before_it_is_handed_out(make, workspace, tmp_path):
    fake = make(play("run-ok") + FOR_EVER)
    log = tmp_path / "log.jsonl"
    events = 0
    async with AsyncOpenCodeClient(fake.path).async_stream("hi", workspace, log_file=log) as run:
        async for _ in run:
            events += 1
            assert len(log.read_text().splitlines()) == events
            if events == 3:
                break


@pytest.mark.parametrize("where", ["missing/log", ".", "a\0b", "~nobody-of-that-name/log"])
async def test_a_log_that_cannot_be_written(hello, workspace, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OpenCodeConfigError, match="log_file"):
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace, log_file=where)
    assert hello.starts == 0


async def test_types_to_exclude_are_no_string(hello, workspace, tmp_path):
    with pytest.raises(OpenCodeConfigError, match="log_exclude_types"):
        await AsyncOpenCodeClient(hello.path).async_run(
            "hi", workspace, log_file=tmp_path / "log", log_exclude_types="text"
        )


async def test_a_full_disk_costs_the_log_not_the_run(hello, workspace, caplog):
    with caplog.at_level(logging.WARNING, "opencode_trio"):
        result = await AsyncOpenCodeClient(hello.path).async_run(
            "hi", workspace, log_file="/dev/full"
        )
    assert result.stop_reason == "completed"
    assert [record.getMessage() for record in caplog.records if "log_file" in record.getMessage()]
    assert caplog.text.count("writing has stopped") == 1


def test_a_log_can_write_whatever_json_can_say(tmp_path):
    odd: list[Any] = ["\ud800", "\u2028", math.nan, 10**400]
    deep: Any = "x"
    for _ in range(2000):
        deep = [deep]
    with EventLog(tmp_path / "log") as log:
        log.write({"x": odd}, "text")
        log.write({"x": deep}, "text")
        log.write({"x": 1}, "text")
    first, second, last = (tmp_path / "log").read_bytes().splitlines()
    assert b"\\ud800" in first
    assert b"too_deep" in second
    assert last == b'{"x": 1}'


async def test_a_garbage_line_is_logged_as_what_it_became(make, workspace, tmp_path):
    fake = make("echo garbage; printf 'bad \\377\\n'\n" + play("run-ok"))
    await AsyncOpenCodeClient(fake.path).async_run("hi", workspace, log_file=tmp_path / "log")
    first, second, *_ = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert (first["type"], first["raw"]) == ("diagnostic", "garbage")
    assert second["raw"] == "bad \ufffd"


# --- retries ---------------------------------------------------------------------------------

CRASH_ONCE = """
if [ ! -e "$HERE/crashed" ]; then touch "$HERE/crashed"; {}; exit 1; fi
"""


@pytest.mark.parametrize("words", ["SQLiteError: database is locked", "PRAGMA journal_mode = WAL"])
async def test_a_crash_opening_the_database_is_tried_again(make, workspace, caplog, words):
    fake = make(CRASH_ONCE.format(f"echo '{words}' >&2") + play("run-ok"))
    client = AsyncOpenCodeClient(fake.path)
    with caplog.at_level(logging.WARNING, "opencode_trio"):
        result = await client.async_run("hi", workspace, retry_delay_s=0)
    assert (result.final_text, fake.starts) == ("hello", 2)
    assert "starting it again" in caplog.text
    assert words in caplog.text


async def test_retries_are_counted_and_the_last_failure_is_raised(make, workspace):
    fake = make("echo 'database is locked' >&2; exit 1\n")
    client = AsyncOpenCodeClient(fake.path)
    with pytest.raises(OpenCodeProcessError, match="database is locked") as caught:
        await client.async_run("hi", workspace, retry_delay_s=0.01)
    assert fake.starts == 3
    assert caught.value.exit_code == 1
    with pytest.raises(OpenCodeProcessError):
        await client.async_run("hi", workspace, max_retries=0)
    assert fake.starts == 4


async def test_the_delay_between_retries_is_kept(make, workspace):
    fake = make(CRASH_ONCE.format("echo 'database is locked' >&2") + play("run-ok"))
    began = time.monotonic()
    await AsyncOpenCodeClient(fake.path).async_run("hi", workspace, retry_delay_s=0.4)
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize(
    "crash",
    [
        "echo 'Error: something else' >&2",
        "echo 'database is locked' >&2; echo '{\"type\":\"step_start\"}'",
        "echo 'database is locked'",  # on stdout: something has been said
    ],
)
async def test_nothing_else_is_tried_again(make, workspace, crash):
    fake = make(CRASH_ONCE.format(crash) + play("run-ok"))
    with pytest.raises(OpenCodeProcessError):
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace, retry_delay_s=0)
    assert fake.starts == 1


async def test_the_model_s_own_failure_is_not_tried_again(make, workspace):
    fake = make("echo 'database is locked' >&2\n" + play("run-e401") + "exit 1\n")
    with pytest.raises(OpenCodeTurnError):
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace, retry_delay_s=0)
    assert fake.starts == 1


@pytest.mark.parametrize("sign", SQLITE_CRASHES)
def test_signs_of_a_startup_crash(sign):
    assert is_startup_crash(OpenCodeProcessError("x", stderr=f"ERROR {sign.upper()}!"))
    assert not is_startup_crash(OpenCodeProcessError(sign))


# --- pacing ----------------------------------------------------------------------------------


async def _seconds(*jobs: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(job)
    return time.monotonic() - began


async def test_children_that_share_a_database_start_one_after_the_other(hello, workspace, tmp_path):
    def run(client: AsyncOpenCodeClient, **options: Any) -> Callable[[], Awaitable[object]]:
        return partial(client.async_run, "hi", workspace, **options)

    shared = AsyncOpenCodeClient(hello.path, startup_delay_s=0.5, isolate_db=False)
    assert await _seconds(*[run(shared)] * 3) >= 1.5

    client = AsyncOpenCodeClient(hello.path, startup_delay_s=0.5)
    assert await _seconds(*[run(client, data_home=tmp_path / "data")] * 3) >= 1.5

    at_once = AsyncOpenCodeClient(
        hello.path, startup_concurrency=3, startup_delay_s=2, isolate_db=False
    )
    assert 2 <= await _seconds(*[run(at_once)] * 3) < 6


async def test_children_with_databases_of_their_own_are_not_held_up(hello, workspace):
    client = AsyncOpenCodeClient(hello.path, startup_delay_s=60)
    with trio.fail_after(SHORT_S):
        await _seconds(*[partial(client.async_run, "hi", workspace)] * 3)


async def test_a_place_in_the_queue_is_given_back(make, workspace):
    fake = make("exit 3\n")
    client = AsyncOpenCodeClient(fake.path, startup_delay_s=0, isolate_db=False)
    for _ in range(3):
        with trio.fail_after(SHORT_S), pytest.raises(OpenCodeProcessError):
            await client.async_run("hi", workspace)
        with trio.move_on_after(0):
            await client.async_run("hi", workspace)


# --- the ways out ----------------------------------------------------------------------------


def half_of(trace: str) -> str:
    return play(trace).replace("cat", "head -n 2")


async def test_a_timeout_keeps_what_had_arrived(make, workspace):
    fake = make(half_of("run-ok") + "echo trouble >&2\n" + FOR_EVER)
    began = time.monotonic()
    with pytest.raises(OpenCodeTimeoutError, match=r"within 1 s \(timeout_s\)") as caught:
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace, timeout_s=1)
    assert 1 <= time.monotonic() - began < SHORT_S
    assert isinstance(caught.value, trio.TooSlowError)
    assert caught.value.partial is not None
    assert caught.value.partial.stop_reason == "timeout"
    assert caught.value.partial.final_text == "hello"
    assert caught.value.partial.teardown is not None
    assert "trouble" in caught.value.stderr


async def test_no_time_at_all_starts_nothing(hello, workspace):
    with pytest.raises(OpenCodeTimeoutError, match=r"within 0 s \(timeout_s\)") as caught:
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace, timeout_s=0)
    assert caught.value.partial is None
    assert hello.starts == 0


@pytest.mark.parametrize("seconds", [None, math.inf, 1e9])
async def test_all_the_time_there_is(hello, workspace, seconds):
    await AsyncOpenCodeClient(hello.path).async_run("hi", workspace, timeout_s=seconds)


async def test_a_timeout_in_the_block_of_a_stream(make, workspace):
    fake = make(half_of("run-ok") + FOR_EVER)
    run: Run | None = None
    with pytest.raises(OpenCodeTimeoutError) as caught:
        async with AsyncOpenCodeClient(fake.path).async_stream("hi", workspace, timeout_s=1) as run:
            await run.receive()
            await run.receive()
            await trio.sleep_forever()
    assert run is not None
    assert caught.value.partial is not None
    assert caught.value.partial.final_text == "hello"
    assert run.result.stop_reason == "incomplete"


async def test_an_error_of_ones_own_under_a_timeout_is_that_error(make, workspace):
    fake = make(half_of("run-ok") + FOR_EVER)
    with pytest.raises(KeyError):
        async with AsyncOpenCodeClient(fake.path).async_stream(
            "hi", workspace, timeout_s=30
        ) as run:
            await run.receive()
            raise KeyError


async def test_killed_in_the_middle(make, workspace):
    fake = make(half_of("run-ok") + "kill -KILL $$\n")
    with pytest.raises(OpenCodeProcessError, match="killed by SIGKILL") as caught:
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace)
    assert caught.value.exit_code == -signal.SIGKILL
    assert caught.value.partial is not None
    assert caught.value.partial.final_text == "hello"
    assert caught.value.argv[0] == fake.path
    assert not fake.scratch.exists()


async def test_a_program_that_says_nothing_is_no_success(make, workspace):
    fake = make("exit 0\n")
    with pytest.raises(OpenCodeProcessError, match="status 0 before the model was asked"):
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace)


async def test_the_wrong_agent_is_stopped_before_it_costs_anything(make, workspace):
    words = 'agent "x" not found. Falling back to default agent'
    fallback = rf"printf '\033[93m\033[1m!\033[0m {words}\n' >&2"
    fake = make(fallback + "\nsleep 1000\n" + play("run-ok"))
    began = time.monotonic()
    with pytest.raises(OpenCodeConfigError, match="no primary agent 'x'") as caught:
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace)
    assert time.monotonic() - began < SHORT_S
    assert caught.value.partial is not None
    assert caught.value.partial.events == []


async def test_of_ten_megabytes_of_stderr_the_end_is_kept(make, workspace):
    fake = make("yes 'a line of no great interest' | head -c 10000000 >&2; echo end >&2; exit 7\n")
    began = time.process_time()
    with pytest.raises(OpenCodeProcessError, match="status 7") as caught:
        await AsyncOpenCodeClient(fake.path).async_run("hi", workspace)
    assert caught.value.stderr.endswith("interest\nend\n") or caught.value.stderr.endswith("end\n")
    assert 65536 - 100 < len(caught.value.stderr) <= 65536
    assert len(str(caught.value)) < 3000
    assert time.process_time() - began < 5


async def test_a_line_of_five_megabytes_from_a_pipe(make, workspace):
    text = '\'{"type":"text","part":{"type":"text","text":"\''
    big = f"printf {text}; head -c 5000000 /dev/zero | tr '\\0' y; printf '\"}}}}\\n'\n"
    fake = make(half_of("run-ok") + big + play("run-ok"))
    result = await AsyncOpenCodeClient(fake.path).async_run("hi", workspace)
    assert len(result.text) > 5_000_000
    assert result.stop_reason == "completed"


async def test_a_reader_who_comes_after_the_exit_finds_everything(make, workspace):
    fake = make(
        "head -n 1 " + play("run-ok")[4:] + "sleep 0.3\n" + "tail -n 2 " + play("run-ok")[4:]
    )
    async with AsyncOpenCodeClient(fake.path).async_stream("hi", workspace) as run:
        assert isinstance(await run.receive(), StepStarted)
        await trio.sleep(2.5)  # it has ended meanwhile, and the time to drain its pipes is over
        assert run.result.exit_code == 0
        rest = [event async for event in run]
    assert len(rest) == 2
    assert run.result.stop_reason == "completed"


# More than one read takes: the pipe is made larger than it usually is.
MUCH_STDERR = """
import fcntl, os
fcntl.fcntl(2, fcntl.F_SETPIPE_SZ, 1 << 20)
os.write(2, b"x" * 900_000 + b"the reason")
"""


async def test_the_end_of_stderr_is_known_when_the_run_is_over(make, workspace, tmp_path):
    (tmp_path / "talk.py").write_text(MUCH_STDERR)
    fake = make(f"'{sys.executable}' -I '{tmp_path}/talk.py'; exit 1\n")
    async with AsyncOpenCodeClient(fake.path).async_stream("hi", workspace) as run:
        time.sleep(1.5)  # noqa: ASYNC251 - exit and stderr are then there at once
        with pytest.raises(OpenCodeProcessError, match="the reason"):
            await run.receive()


async def test_leaving_early_ends_the_family(make, workspace):
    family = "(trap '' TERM; sleep 4321.25; :) & setsid sleep 4321.25 & sleep 0.3\n"
    fake = make(family + half_of("run-ok") + "wait\n")
    async with AsyncOpenCodeClient(fake.path).async_stream("hi", workspace) as run:
        async for _ in run:
            break
        scratch = fake.scratch
        assert scratch.stat().st_mode & 0o777 == 0o700
        began = time.monotonic()
    assert time.monotonic() - began < SHORT_S
    assert not processes_with("sleep 4321.25")
    assert not scratch.exists()
    assert run.result.stop_reason == "incomplete"
    assert run.result.teardown is not None
    assert run.result.teardown.terminated >= 3


class MineError(Exception):
    pass


@pytest.mark.parametrize("error", [MineError("x"), StopAsyncIteration("x"), StopIteration("x")])
async def test_an_error_of_ones_own_leaves_bare(make, workspace, error):
    fake = make(half_of("run-ok") + FOR_EVER)
    cause = KeyError("cause")
    with pytest.raises(type(error)) as caught:
        async with AsyncOpenCodeClient(fake.path).async_stream("hi", workspace) as run:
            await run.receive()
            try:
                raise cause
            except KeyError:
                raise error  # noqa: B904 - its context is what is tested
    assert caught.value is error
    assert error.__context__ is cause
    assert error.__cause__ is None
    assert cause.__context__ is None
    assert not fake.scratch.exists()


async def test_an_error_of_another_agent_keeps_its_own_stderr(make, hello, workspace, tmp_path):
    talks = fake_opencode(tmp_path / "talks", "echo mine >&2\n" + half_of("run-ok") + FOR_EVER)
    client = AsyncOpenCodeClient(talks.path)
    with pytest.raises(OpenCodeConfigError) as caught:
        async with client.async_stream("hi", workspace) as run:
            await run.receive()
            await client.async_run("", workspace)
    assert caught.value.stderr == ""


async def test_groups_of_errors_stay_as_they_were(make, workspace):
    fake = make(half_of("run-ok") + FOR_EVER)
    with pytest.raises(ExceptionGroup) as caught:
        async with (
            AsyncOpenCodeClient(fake.path).async_stream("hi", workspace) as run,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(trio.sleep_forever)
            await run.receive()
            raise MineError
    assert [type(error) for error in caught.value.exceptions] == [MineError]


async def test_the_error_of_a_run_comes_out_of_the_iteration(make, workspace):
    fake = make(play("run-drop"))
    with pytest.raises(OpenCodeLimitError) as caught:
        async with AsyncOpenCodeClient(fake.path).async_stream("hi", workspace) as run:
            async for _ in run:
                pass
    assert caught.value.limit == "unknown_finishes"
    assert run.result.stop_reason == "limit"


async def test_a_run_handed_to_another_task(make, workspace):
    fake = make(play("run-bash") + FOR_EVER)
    send, receive = trio.open_memory_channel[object](math.inf)

    async def read(run: Run) -> None:
        async with send:
            async for event in run:
                await send.send(event)

    async with (
        AsyncOpenCodeClient(fake.path).async_stream("hi", workspace) as run,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read, run)
        with trio.fail_after(SHORT_S):
            for _ in range(6):
                await receive.receive()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await run.receive()
        nursery.cancel_scope.cancel()


async def test_closing_from_the_outside(make, workspace):
    fake = make(half_of("run-ok") + FOR_EVER)
    async with AsyncOpenCodeClient(fake.path).async_stream("hi", workspace) as run:
        await run.receive()
        await run.aclose()
        with pytest.raises(trio.ClosedResourceError):
            async for _ in run:
                pass
    assert run.result.exit_code == -signal.SIGTERM


async def test_a_cancelled_scope_starts_nothing(hello, workspace):
    client = AsyncOpenCodeClient(hello.path)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.async_run("hi", workspace)
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        async with client.async_stream("hi", workspace):
            pytest.fail("the block was entered")
    assert hello.starts == 0


async def test_cancelled_at_any_time_nothing_is_left(make, workspace):
    fake = make("sleep 0.02\n" + half_of("run-ok") + "sleep 5678.5 & sleep 0.05\n" + play("run-ok"))
    client = AsyncOpenCodeClient(fake.path)
    await probe_version(fake.path)

    async def run_for(seconds: float) -> None:
        with trio.move_on_after(seconds):
            await client.async_run("hi", workspace)

    with trio.fail_after(60):
        for delay in range(0, 320, 8):
            await run_for(delay / 1000)
            assert not processes_with("sleep 5678.5")
            assert not processes_with(fake.path)
            assert not scratch_directories()


async def test_two_runs_in_one_workspace(hello, workspace):
    client = AsyncOpenCodeClient(hello.path)
    results = []

    async def run() -> None:
        results.append(await client.async_run("hi", workspace))

    await _seconds(run, run)
    assert [result.final_text for result in results] == ["hello", "hello"]


async def test_streams_can_be_nested(hello, workspace):
    client = AsyncOpenCodeClient(hello.path)
    async with (
        client.async_stream("hi", workspace) as outer,
        client.async_stream("hi", workspace) as inner,
    ):
        async for _ in outer:
            pass
        async for _ in inner:
            pass
    assert outer.result.final_text == inner.result.final_text == "hello"


async def test_fifty_at_once_leave_no_descriptor(hello, workspace):
    client = AsyncOpenCodeClient(hello.path)
    await client.async_run("hi", workspace)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with trio.fail_after(90):
        await _seconds(*[partial(client.async_run, "hi", workspace)] * 50)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert hello.starts == 51


# --- the host itself is odd ------------------------------------------------------------------


@pytest.mark.parametrize("interpreter", [None, ""])
async def test_a_host_that_does_not_know_its_interpreter(
    hello, workspace, monkeypatch, interpreter
):
    monkeypatch.setattr(sys, "executable", interpreter)
    await AsyncOpenCodeClient(hello.path).async_run("hi", workspace)
    assert hello.starts == 1


async def test_a_host_whose_interpreter_is_gone(hello, workspace, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OpenCodeConfigError, match="/nowhere/python"):
        await AsyncOpenCodeClient(hello.path).async_run("hi", workspace)
    assert hello.starts == 0


async def test_a_host_without_descriptors(hello, workspace, tmp_path):
    def no_keeper(*_: object) -> Any:
        raise OSError(24, "Too many open files")

    scratch = Path(tempfile.mkdtemp(prefix="opencode-trio-"))
    with pytest.raises(OSError, match="Too many open files"):
        async with open_child(
            [hello.path], cwd=workspace, env={}, scratch=scratch, make_supervisor=no_keeper
        ):
            pytest.fail("the block was entered")
    assert not scratch.exists()
