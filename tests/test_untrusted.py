"""Workspaces that are not trusted: what they bring neither runs nor counts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from hostile import Hostile
from opencode_trio import AsyncOpenCodeClient, OpenCodeVersionError, build_env, open_swarm
from opencode_trio._checks import LOCKS, UNTRUSTED_SINCE
from opencode_trio._process.binary import check_release
from opencode_trio._process.untrusted_workspace import (
    MAX_CONFIG_BYTES,
    asks_of,
    check_project,
    git_environment,
)
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.testing import (
    ModelRequest,
    Reply,
    ReplyLike,
    ScriptedModel,
    ToolCall,
    open_scripted_model,
)

# --- settings --------------------------------------------------------------------------------


def test_the_environment_of_an_untrusted_workspace() -> None:
    env = build_env(RunConfig(untrusted=True, extra_env={"A": "b"}), {"GIT_CONFIG_COUNT": "1"})
    assert env.items() >= {**LOCKS, "A": "b", "GIT_CONFIG_COUNT": "4"}.items()
    assert not build_env(RunConfig(), {}).keys() & {*LOCKS, "GIT_CONFIG_COUNT"}


@pytest.mark.parametrize(("count", "first"), [(None, 0), ("2", 2), ("many", 0)])
def test_gits_locks_come_last(count: str | None, first: int) -> None:
    env = git_environment({} if count is None else {"GIT_CONFIG_COUNT": count})
    assert env["GIT_CONFIG_COUNT"] == str(first + 3)
    assert env[f"GIT_CONFIG_KEY_{first}"] == "core.fsmonitor"
    assert env[f"GIT_CONFIG_VALUE_{first}"] == "false"


def test_programs_of_the_workspaces_choice_are_off_unless_the_caller_wants_them() -> None:
    wanted = {"formatter": {"mine": {"command": ["mine"]}}, "model": "p/m"}
    config = RunConfig(untrusted=True, config_overrides=wanted).build_opencode_config_dict()
    assert config == {**wanted, "lsp": False, "small_model": "p/m"}
    assert RunConfig().build_opencode_config_dict() == {}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"extra_env": {"OPENCODE_DISABLE_PROJECT_CONFIG": "0"}}, "extra_env['OPENCODE_DISABLE"),
        ({"instructions": ["/a.md", "RULES.md"]}, "instructions[1]: 'RULES.md' is a file of the"),
        ({"config_overrides": {"instructions": ["**/*.md"]}}, "instructions[0]"),
        ({"config_overrides": {"skills": {"paths": ["s"]}}}, "skills.paths[0]"),
        ({"config_overrides": {"plugin": ["ok", "./x.js"]}}, "plugin[1]"),
        ({"config_overrides": {"plugin": [["../x.js", {}]]}}, "plugin[0]"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(OpenCodeConfigError, match=re.escape(f"RunConfig.untrusted: {problem}")):
        RunConfig(untrusted=True, **settings)
    trusting = RunConfig(**settings)
    with pytest.raises(OpenCodeConfigError):
        attrs.evolve(trusting, untrusted=True)


def test_what_the_caller_gives_is_accepted() -> None:
    RunConfig(
        untrusted=True,
        extra_env={"OPENCODE_DISABLE_CLAUDE_CODE": "TRUE"},
        instructions=["/a.md", "~/b/*.md", "https://example.org/c.md", "{env:RULES}"],
        mcp={"mine": {"type": "local", "command": ["mine"]}},
        config_overrides={
            "plugin": ["a-package", "file:///x.js", ["another", {"a": 1}], []],
            "skills": {"paths": ["/skills"]},
            "agent": {"mine": {"prompt": "x"}},
        },
    )


@pytest.mark.parametrize("version", ["1.15.12", "1.2.27"])
def test_older_releases_are_refused(version: str) -> None:
    with pytest.raises(OpenCodeVersionError, match=rf"needs opencode 1.15.13 .* is {version}"):
        check_release(version, at_least=UNTRUSTED_SINCE, needed_for="RunConfig.untrusted")
    check_release("1.15.13", at_least=UNTRUSTED_SINCE, needed_for="RunConfig.untrusted")


async def test_a_client_asks_for_the_release(tmp_path: Path) -> None:
    binary = tmp_path / "opencode"
    binary.write_text("#!/bin/sh\necho 1.14.41\n")
    binary.chmod(0o755)
    with pytest.raises(OpenCodeVersionError, match=r"RunConfig\.untrusted needs"):
        await AsyncOpenCodeClient(str(binary)).async_run(
            "x", tmp_path, run_cfg=RunConfig(untrusted=True)
        )


# --- what no setting stops -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ('{"plugin": ["x"]}', "plugin"),
        ('{"plugins" /* x */ : []}', "plugins"),
        (r'{"\u0070lugin": []}', "plugin"),
        ('{"a": 1, // x\r"references": {}}', "references"),
        ('{"reference": {}}', "reference"),
        ('{"agent": {"a": {"prompt": "write a plugin"}}}', None),
        ("", None),
    ],
)
def test_what_a_config_asks_for(text: str, asked: str | None) -> None:
    assert asks_of(text) == asked


def put(path: Path, text: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "is_refused"),
    [
        ("repo/sub/.opencode/plugin/x.js", "", True),
        ("repo/.opencode/plugins/x.TS", "", True),
        ("repo/.opencode/plugins/README.md", "", False),
        ("repo/.opencode/plugin", "a file", False),
        ("repo/sub/opencode.json", '{"plugin": []}', True),
        ("repo/opencode.jsonc", '// x\n{"references": {}}', True),
        ("repo/.opencode/opencode.json", '{"plugins": []}', True),
        ("repo/sub/opencode.json", '{"permission": "allow", "mcp": {}}', False),
        ("repo/sub/opencode.json", " " * (MAX_CONFIG_BYTES + 1), True),
        # A `.git` that is none does not stop opencode, nor this.
        ("opencode.json", '{"plugin": []}', True),
        # The host's own is not the workspace's.
        ("home/.opencode/plugin/x.js", "", False),
    ],
)
def test_what_cannot_be_stopped_is_refused(
    tmp_path: Path, name: str, text: str, is_refused: bool
) -> None:
    root = tmp_path / "home" if name.startswith("home") else tmp_path
    workspace = root / "repo" / "sub"
    workspace.mkdir(parents=True)
    (root / "repo" / ".git").touch()
    file = put(tmp_path / name, text)
    check = partial(check_project, workspace, home=tmp_path / "home")
    check(untrusted=False)
    if is_refused:
        with pytest.raises(OpenCodeConfigError, match=re.escape(str(file))):
            check(untrusted=True)
    else:
        check(untrusted=True)


def test_a_config_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "opencode.json").symlink_to("/dev/zero")
    with pytest.raises(OpenCodeConfigError, match="no file that can be looked through"):
        check_project(tmp_path, home=Path("/nowhere"), untrusted=True)


# --- other users of this machine -------------------------------------------------------------


@pytest.fixture
def somebody_elses(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a file away; who may not do that becomes somebody else."""

    def give_away(path: Path) -> None:
        if os.getuid() == 0:
            os.lchown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "getuid", lambda: 12345)

    return give_away


@pytest.mark.parametrize("untrusted", [False, True])
def test_files_of_other_users_above_the_workspace_are_refused(
    tmp_path: Path, untrusted: bool, somebody_elses: Any
) -> None:
    workspace = tmp_path / "job"
    workspace.mkdir()
    mine = put(workspace / "AGENTS.md")
    check = partial(check_project, workspace, home=Path("/nowhere"), untrusted=untrusted)
    somebody_elses(mine)
    check()
    trap = put(tmp_path / "opencode.json")
    somebody_elses(trap)
    with pytest.raises(OpenCodeConfigError, match=rf"take {trap} for .*belongs to user.*git init"):
        check()
    (workspace / ".git").mkdir()
    check()


def test_the_owner_of_the_workspace_is_trusted_as_it_is(
    tmp_path: Path, somebody_elses: Any
) -> None:
    """As root in a container: a package of a repository that another user's machine mounted."""
    package = tmp_path / "repository" / "packages" / "api"
    package.mkdir(parents=True)
    above = put(tmp_path / "repository" / "AGENTS.md")
    for path in (package, above):
        somebody_elses(path)
    check_project(package, home=Path("/nowhere"), untrusted=False)


# --- the real opencode -----------------------------------------------------------------------


def script(hostile: Hostile) -> Any:
    """Return a model that has a tool called for whatever a workspace may lie in wait for."""
    workspace = hostile.path
    calls = [
        ToolCall("write", {"filePath": str(workspace / "new.txt"), "content": "x"}),
        ToolCall(
            "bash", {"command": "git status; git commit -m x --allow-empty", "description": "x"}
        ),
        ToolCall("read", {"filePath": str(workspace / "below" / "x.evil")}),
        ToolCall("read", {"filePath": str(hostile.outside)}),
    ]

    def answer(request: ModelRequest) -> ReplyLike:
        steps = len(request.tool_results)
        return Reply(calls[steps]) if steps < len(calls) else "done"

    return answer


@attrs.frozen
class Scene:
    """A hostile workspace, the model of the host, and one that wants to be taken for it."""

    hostile: Hostile
    model: ScriptedModel
    evil: ScriptedModel
    fetched: list[bytes]

    def words(self) -> set[str]:
        """Return what the workspace has said to the model."""
        requests = [*self.model.requests, *self.evil.requests]
        text = json.dumps([request.body for request in requests])
        return set(re.findall(r"EVIL-[-A-Za-z]*[A-Za-z]", text))


KEY = "sk-the-key-of-the-host"


@asynccontextmanager
async def open_scene(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    fetched: list[bytes] = []

    async def refuse(stream: trio.SocketStream) -> None:
        fetched.append(await stream.receive_some())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            trio.serve_tcp,
            refuse,
            0,
        )
        port = listeners[0].socket.getsockname()[1]
        box: list[Any] = []

        def answer(request: ModelRequest) -> ReplyLike:
            reply: ReplyLike = box[0](request)
            return reply

        async with (
            open_scripted_model(answer) as model,
            open_scripted_model(answer) as evil,
        ):
            hostile = Hostile(
                root, evil_url=evil.base_url, reference_url=f"http://127.0.0.1:{port}/x.git"
            )
            box.append(script(hostile))
            config = model.opencode_config
            config["provider"]["scripted"]["options"]["apiKey"] = KEY
            put(root / "config" / "opencode" / "opencode.json", json.dumps(config))
            monkeypatch.setenv("XDG_CONFIG_HOME", str(root / "config"))
            yield Scene(hostile, model, evil, fetched)
        nursery.cancel_scope.cancel()


TRUSTING = RunConfig(model="scripted/scripted", small_model="scripted/scripted-title")
CAREFUL = attrs.evolve(
    TRUSTING,
    untrusted=True,
    # What the caller gives applies.
    config_overrides={"agent": {"mine": {"description": "MINE", "mode": "subagent"}}},
)

PROGRAMS = {"plugin", "plugins", "plugin-by-config", "tool", "module", "mcp", "mcp-in-directory"}
PROGRAMS |= {"formatter", "lsp", "fsmonitor", "hook"}
WORDS = {"EVIL-PROMPT", "EVIL-AGENTS-MD", "EVIL-RULES", "EVIL-AGENT", "EVIL-CLAUDE-MD-BELOW"}
WORDS |= {f"EVIL-SKILL-{where}" for where in ("opencode-skill", "claude-skills", "agents-skills")}


@pytest.mark.opencode
@pytest.mark.timeout(600)  # on a busy machine; alone a tenth will do
async def test_a_hostile_workspace_in_run_mode(
    opencode_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = AsyncOpenCodeClient(opencode_binary)
    async with open_scene(tmp_path, monkeypatch) as scene:
        hostile = scene.hostile
        result = await client.async_run("go", hostile.path, run_cfg=TRUSTING)
        assert result.stop_reason == "completed"  # it allowed itself to read outside
        assert hostile.marks == PROGRAMS
        assert scene.words() == WORDS
        assert {r.headers["authorization"] for r in scene.evil.requests} == {f"Bearer {KEY}"}
        assert scene.model.requests == []
        assert b"GET /x.git/info/refs" in b"".join(scene.fetched)

    async with open_scene(tmp_path / "again", monkeypatch) as scene:
        hostile = scene.hostile
        with pytest.raises(OpenCodeConfigError, match=r"plugin/x\.js, .*plugins/y\.ts, .*plugin"):
            await client.async_run("go", hostile.path, run_cfg=CAREFUL)
        hostile.remove_what_cannot_be_stopped()
        result = await client.async_run("go", hostile.path, run_cfg=CAREFUL)
        assert result.stop_reason == "blocked"  # reading outside is still asked for, and refused
        assert [part.status for part in result.tool_parts] == ["completed"] * 3 + ["error"]
        assert hostile.marks == set()
        assert scene.words() == set()
        assert len(scene.model.requests) == 4
        assert "MINE" in json.dumps(scene.model.requests[0].body)
        assert scene.evil.requests == []
        assert scene.fetched == []


@pytest.mark.opencode
@pytest.mark.timeout(600)  # on a busy machine; alone a tenth will do
async def test_a_hostile_workspace_on_a_server(
    opencode_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = AsyncOpenCodeClient(opencode_binary)
    async with open_scene(tmp_path, monkeypatch) as scene:
        hostile = scene.hostile
        async with client.open_server(hostile.path, run_cfg=TRUSTING) as server:
            async with server.open_session() as session:
                await session.send("go")
            known = await known_to(server, hostile.path)
        assert hostile.marks == PROGRAMS
        assert scene.words() == WORDS
        assert known == {"evil-agent", "evil-command", "evil-command-by-config"}
        assert scene.model.requests == []

    async with open_scene(tmp_path / "again", monkeypatch) as scene:
        hostile = scene.hostile
        with pytest.raises(OpenCodeConfigError, match="is not trusted"):
            async with client.open_server(hostile.path, run_cfg=CAREFUL):
                pass
        clean = put(tmp_path / "clean" / "x").parent
        async with client.open_server(clean, run_cfg=CAREFUL) as server:
            # Each directory is looked at, not only the first; a session cannot trust it more.
            with pytest.raises(OpenCodeConfigError, match="is not trusted"):
                async with server.open_session(hostile.path):
                    pass
            hostile.remove_what_cannot_be_stopped()
            async with server.open_session(hostile.path, run_cfg=TRUSTING) as session:
                result = await session.send("go")
                resumed = session.session_id
            async with server.open_session(session_id=resumed) as session:
                assert session.directory == str(hostile.path)
            known = await known_to(server, hostile.path)
        assert result.stop_reason == "blocked"
        assert hostile.marks == set()
        assert scene.words() == set()
        assert known == set()
        assert scene.evil.requests == []
        assert scene.fetched == []


async def known_to(server: Any, workspace: Path) -> set[str]:
    """Return which agents and commands of the workspace a server knows."""
    where = {"directory": str(workspace)}
    found = [await server.request("GET", path, query=where) for path in ("/agent", "/command")]
    return {entry["name"] for entries in found for entry in entries if "evil" in entry["name"]}


@pytest.mark.opencode
@pytest.mark.timeout(600)  # on a busy machine; alone a tenth will do
async def test_trusted_and_untrusted_agents_share_no_server(
    opencode_binary: str, tmp_path: Path
) -> None:
    workspaces = [put(tmp_path / name / "AGENTS.md", "EVIL-RULES").parent for name in "ab"]
    async with open_scripted_model("ok") as model:
        cfg = model.run_config(snapshot=False)
        async with open_swarm(AsyncOpenCodeClient(opencode_binary), run_cfg=cfg) as swarm:
            swarm.start_soon("trusted", workspace=workspaces[0])
            careful = attrs.evolve(cfg, untrusted=True)
            swarm.start_soon("untrusted", workspace=workspaces[1], run_cfg=careful)
        heard = {r.prompt: "EVIL-RULES" in r.system for r in model.requests}
        assert heard == {"trusted": True, "untrusted": False}
        async with AsyncOpenCodeClient(opencode_binary).open_server(
            workspaces[0], run_cfg=cfg
        ) as server:
            with pytest.raises(OpenCodeConfigError, match="untrusted: belongs to the whole server"):
                async with server.open_session(run_cfg=careful):
                    pass
