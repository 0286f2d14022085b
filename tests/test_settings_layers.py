"""Settings lie over one another in one way, wherever they do: a table of levels and fields."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from fake_server import FakeServer
from opencode_trio._cli.task_file import read_run_config, read_tasks
from opencode_trio._protocol.v1 import V1
from opencode_trio._server.connection import Connection
from opencode_trio._session.settings import OF_A_TURN, turn_settings
from opencode_trio._swarm.task import AgentTask, settings_of
from opencode_trio._tasks import open_background
from opencode_trio.config import RunConfig, layered, setting_names
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.server import OpenCodeServer

# What the outer level has, what the inner one has, and what holds.
FIELDS: dict[str, tuple[Any, Any, Any]] = {
    "agent": ("plan", "build", "build"),
    "model": ("p/outer", "p/inner", "p/inner"),
    "disable_autoupdate": (False, True, True),
    "inherit_user_config": (True, False, False),
    "extra_env": ({"A": "1", "B": "1"}, {"B": "2"}, {"A": "1", "B": "2"}),
    "permission": ({"bash": "deny"}, "allow", {"*": "allow", "bash": "deny"}),
    "mcp": ({"a": {"url": "x"}}, {"b": {"url": "y"}}, {"a": {"url": "x"}, "b": {"url": "y"}}),
    "tools": ({"bash": False}, {"edit": False}, {"bash": False, "edit": False}),
    "instructions": (["outer.md"], ["inner.md"], ["inner.md"]),
    "config_overrides": (
        {"provider": {"a": {}}, "share": "disabled"},
        {"provider": {"b": {}}},
        {"share": "disabled", "provider": {"a": {}, "b": {}}},
    ),
    "cli_kwargs": ({"title": "x"}, {"print-logs": True}, {"title": "x", "print-logs": True}),
    "variant": ("low", "high", "high"),
    "small_model": ("p/outer", "p/inner", "p/inner"),
    "snapshot": (True, False, False),
    "thinking": (True, False, False),
    "max_steps": (5, 50, 50),
    "untrusted": (False, True, True),
}
KEYWORDS = ("model", "agent", "permission", "tools")


async def of_function(outer: RunConfig, inner: RunConfig, folder: Path) -> RunConfig:
    return layered(outer, inner)


async def swarm_to_agent(outer: RunConfig, inner: RunConfig, folder: Path) -> RunConfig:
    return settings_of(AgentTask("Go.", run_cfg=inner), outer)


async def command_line_to_task(outer: RunConfig, inner: RunConfig, folder: Path) -> RunConfig:
    config, tasks = folder / "config.json", folder / "tasks.jsonl"
    config.write_text(json.dumps(given(outer)))
    tasks.write_text(json.dumps({"prompt": "Go.", "run_cfg": given(inner)}))
    (task,) = read_tasks(tasks, workspace=folder, run_cfg=read_run_config(config))
    return settings_of(task.agent)


async def server_to_session(outer: RunConfig, inner: RunConfig, folder: Path) -> RunConfig:
    fake = FakeServer()
    fake.routes["POST /session"] = lambda call: {
        "id": "ses_1",
        "directory": str(folder),
        **(call.body or {}),
    }
    async with open_background() as tasks:
        link = Connection(fake, V1, url="fake", tasks=tasks, cfg=outer)
        server = OpenCodeServer(link, workspace=str(folder), version="1.18.33")
        async with server.open_session(run_cfg=inner) as session:
            return session._plan.cfg


async def session_to_turn(outer: RunConfig, inner: RunConfig, folder: Path) -> RunConfig:
    return turn_settings(outer, outer, {"run_cfg": inner}, V1.rules.rules_of).cfg


def given(cfg: RunConfig) -> dict[str, Any]:
    return {name: getattr(cfg, name) for name in setting_names() if cfg.is_set(name)}


Level = Callable[[RunConfig, RunConfig, Path], Awaitable[RunConfig]]
EVERY_FIELD: list[Level] = [of_function, swarm_to_agent, command_line_to_task]
FIELDS_OF_A_TURN: list[Level] = [server_to_session, session_to_turn]
LEVELS = [*EVERY_FIELD, *FIELDS_OF_A_TURN]


def test_every_field_has_its_row() -> None:
    assert set(FIELDS) == setting_names()


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.__name__)
async def test_what_is_set_lies_over_what_is_below(level: Level, name: str, tmp_path: Path) -> None:
    below, own, expected = FIELDS[name]
    outer, inner = RunConfig(**{name: below}), RunConfig(**{name: own})
    if level in FIELDS_OF_A_TURN and name not in OF_A_TURN:
        with pytest.raises(OpenCodeConfigError, match=f"{name}: belongs to the whole server"):
            await level(outer, inner, tmp_path)
        return
    assert getattr(await level(outer, inner, tmp_path), name) == expected


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.__name__)
async def test_what_is_unset_comes_from_below(level: Level, name: str, tmp_path: Path) -> None:
    outer = RunConfig(**{name: FIELDS[name][0]})
    assert await level(outer, RunConfig(), tmp_path) == outer


@pytest.mark.parametrize("name", KEYWORDS)
def test_keywords_of_an_agent_lie_over_its_settings(name: str) -> None:
    below, own, expected = FIELDS[name]
    task = AgentTask("Go.", run_cfg=RunConfig(**{name: below}), **{name: own})
    assert getattr(settings_of(task, RunConfig(variant="high")), name) == expected
    assert settings_of(task, RunConfig(variant="high")).variant == "high"


def test_an_invalid_keyword_of_an_agent_is_refused_at_once() -> None:
    with pytest.raises(OpenCodeConfigError, match="model"):
        AgentTask("Go.", model="no-slash")


FLAGS = {"disable_autoupdate", "inherit_user_config", "thinking", "untrusted"}


@pytest.mark.parametrize("name", sorted(FLAGS))
def test_set_to_its_default_is_not_unset(name: str) -> None:
    default = getattr(RunConfig(), name)
    assert not RunConfig().is_set(name)
    given: dict[str, Any] = {name: default}
    explicit = RunConfig(**given)
    assert explicit.is_set(name)
    assert explicit == RunConfig()
    assert hash(explicit) == hash(RunConfig())
    assert attrs.evolve(explicit).is_set(name)
    assert not attrs.evolve(RunConfig(), model="p/m").is_set(name)
    other: dict[str, Any] = {name: not default}
    assert attrs.evolve(RunConfig(), **other).is_set(name)
    assert getattr(layered(RunConfig(**other), explicit), name) is default


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("deny", "allow", {"*": "allow"}),
        ({"*": "deny"}, {"bash": "allow"}, {"*": "deny", "bash": "allow"}),
        ({"bash": "deny"}, {"*": "allow"}, {"*": "allow", "bash": "deny"}),
        ({"bash": "deny"}, {"bash": "allow"}, {"bash": "allow"}),
        ({"bash": "deny"}, {"bash": {"git *": "allow"}}, {"bash": {"*": "deny", "git *": "allow"}}),
        ({"bash": {"rm *": "deny"}}, {"bash": "allow"}, {"bash": "allow"}),
        (
            {"bash": {"rm *": "deny", "ls": "ask"}},
            {"bash": {"rm *": "ask"}},
            {"bash": {"ls": "ask", "rm *": "ask"}},
        ),
        ({"git_*": "deny"}, {"*": "allow"}, {"*": "allow", "git_*": "deny"}),
        ({"git_push_*": "deny"}, {"git_*": "allow"}, {"git_*": "allow", "git_push_*": "deny"}),
        ({"*": "deny"}, {"git_*": "allow"}, {"*": "deny", "git_*": "allow"}),
    ],
)
def test_a_denial_is_lifted_only_by_name(outer: Any, inner: Any, expected: Any) -> None:
    cfg = layered(RunConfig(permission=outer), RunConfig(permission=inner))
    assert isinstance(cfg.permission, dict)
    assert list(cfg.permission.items()) == list(expected.items())
    for name, setting in expected.items():
        if isinstance(setting, dict):
            assert list(cfg.permission[name].items()) == list(setting.items())


async def test_a_session_repeats_the_denials_of_its_server(tmp_path: Path) -> None:
    """Its rules come after the server's own, and would lift them."""
    fake = FakeServer()
    fake.routes["POST /session"] = lambda call: {"id": "ses_1", "directory": "/w", **call.body}
    async with open_background() as tasks:
        cfg = RunConfig(permission={"bash": "deny"})
        link = Connection(fake, V1, url="fake", tasks=tasks, cfg=cfg)
        server = OpenCodeServer(link, workspace=str(tmp_path), version="1.18.33")
        async with server.open_session(run_cfg=RunConfig(permission="allow")):
            pass
    (call,) = fake.called("POST /session")
    assert [(r["permission"], r["action"]) for r in (call.body or {})["permission"]] == [
        ("*", "allow"),
        ("bash", "deny"),
    ]


def test_a_turn_repeats_the_denials_of_its_session() -> None:
    session = RunConfig(permission={"bash": "deny"})
    settings = turn_settings(
        session, None, {"run_cfg": RunConfig(permission="allow")}, V1.rules.rules_of
    )
    assert [(r["permission"], r["action"]) for r in settings.rules] == [
        ("*", "allow"),
        ("bash", "deny"),
    ]
    assert (
        turn_settings(session, None, {"run_cfg": RunConfig(model="p/m")}, V1.rules.rules_of).rules
        == ()
    )
