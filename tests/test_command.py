"""The command line and the environment that a config makes."""

from __future__ import annotations

import inspect
import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from opencode_trio._process.environment import build_argv, settings_environment
from opencode_trio.config import RunConfig

START = ["opencode", "run", "--format", "json"]


@pytest.mark.parametrize(
    ("cli_kwargs", "flags"),
    [
        (None, []),
        ({}, []),
        ({"fork": True}, ["--fork"]),
        ({"title": "demo"}, ["--title=demo"]),
        ({"title": "two words"}, ["--title=two words"]),
        ({"title": ""}, ["--title="]),
        ({"f": "a.txt"}, ["-f", "a.txt"]),
        ({"f": ["a.txt", "b.txt"]}, ["-f", "a.txt", "-f", "b.txt"]),
        ({"f": ("a.txt", "b.txt")}, ["-f", "a.txt", "-f", "b.txt"]),
        ({"file": ["a", "b"]}, ["--file=a", "--file=b"]),
        ({"f": []}, []),
        ({"c": True}, ["-c"]),
        ({"c": False}, []),
        ({"c": None}, []),
        ({"fork": False, "share": None, "title": "t"}, ["--title=t"]),
        ({"x": [True, False, None, "v", 1]}, ["-x", "-x", "v", "-x", "1"]),
        ({"port": 0}, ["--port=0"]),
        ({"n": 0}, ["-n", "0"]),
        ({"port": 1.5}, ["--port=1.5"]),
        ({"print-logs": True, "log_level": "x"}, ["--print-logs", "--log_level=x"]),
        ({"b": 1, "a": 2}, ["-b", "1", "-a", "2"]),
    ],
)
def test_flags(cli_kwargs: Any, flags: list[str]) -> None:
    assert build_argv("opencode", "", RunConfig(cli_kwargs=cli_kwargs)) == START + flags


@pytest.mark.parametrize(
    ("cfg", "flags"),
    [
        (RunConfig(model="p/m"), ["-m", "p/m"]),
        (RunConfig(agent="plan"), ["--agent", "plan"]),
        (RunConfig(variant="high"), ["--variant=high"]),
        (RunConfig(thinking=True), ["--thinking"]),
        (RunConfig(thinking=False), []),
        (
            RunConfig(
                cli_kwargs={"fork": True},
                thinking=True,
                variant="max",
                agent="plan",
                model="p/m",
                max_steps=3,
                small_model="p/s",
                permission={"bash": "deny"},
            ),
            ["-m", "p/m", "--agent", "plan", "--variant=max", "--thinking", "--fork"],
        ),
    ],
)
def test_fields(cfg: Any, flags: list[str]) -> None:
    assert build_argv("opencode", "", cfg) == START + flags


@pytest.mark.parametrize("prompt", ["hello", "--help me", 'say "hi"', " ", "a\nb"])
def test_a_prompt_is_the_last_argument_as_it_is(prompt: str) -> None:
    cfg = RunConfig(model="p/m", cli_kwargs={"f": "a"})
    assert build_argv("/bin/oc", prompt, cfg) == [
        *("/bin/oc", "run", "--format", "json", "-m", "p/m", "-f", "a"),
        prompt,
    ]


def test_no_prompt_no_argument() -> None:
    assert build_argv("opencode", "", RunConfig()) == START


def test_the_signature_is_the_one_that_users_know() -> None:
    assert list(inspect.signature(build_argv).parameters) == [
        *("binary_resolved", "prompt", "run_cfg")
    ]


# --- the environment -------------------------------------------------------------------------


def test_the_environment_of_a_plain_config() -> None:
    base = {"PATH": "/bin"}
    env = settings_environment(RunConfig(), base)
    assert env == {"PATH": "/bin", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    assert base == {"PATH": "/bin"}


def test_opencode_may_update_itself_when_asked() -> None:
    assert settings_environment(RunConfig(disable_autoupdate=False), {}) == {}


def test_the_config_goes_into_one_variable() -> None:
    cfg = RunConfig(permission={"bash": "deny"}, instructions=["ä\u2028.md"])
    env = settings_environment(cfg, {})
    content = env["OPENCODE_CONFIG_CONTENT"]
    assert content == cfg.opencode_config_content_json()
    assert json.loads(content) == {
        "permission": {"bash": "deny"},
        "instructions": ["ä\u2028.md"],
    }


def test_a_home_of_the_child_s_own_does_not_move_the_host_s() -> None:
    cfg = RunConfig(instructions=["~/a.md", "b.md"])
    contents = [
        json.loads(settings_environment(cfg, {}, home=home)["OPENCODE_CONFIG_CONTENT"])
        for home in (None, "/home/me")
    ]
    assert contents == [
        {"instructions": ["~/a.md", "b.md"]},
        {"instructions": ["/home/me/a.md", "b.md"]},
    ]


@pytest.mark.parametrize("cwd", ["/a/workspace", PurePosixPath("/a/workspace")])
def test_the_workspace_is_pinned(cwd: Any) -> None:
    assert (
        settings_environment(RunConfig(), {"PWD": "/elsewhere"}, cwd=cwd)["PWD"] == "/a/workspace"
    )


def test_without_a_workspace_nothing_is_pinned() -> None:
    assert settings_environment(RunConfig(), {"PWD": "/elsewhere"})["PWD"] == "/elsewhere"


def test_extra_env_has_the_last_word() -> None:
    names = ["OPENCODE_DISABLE_AUTOUPDATE", "OPENCODE_CONFIG_CONTENT", "PATH", "NEW"]
    cfg = RunConfig(model="p/m", extra_env=dict.fromkeys(names, "mine"))
    assert settings_environment(cfg, {"PATH": "/bin"}) == dict.fromkeys(names, "mine")


def test_extra_env_does_not_move_the_agent() -> None:
    # `extra_env=os.environ` would take it to where the host is.
    cfg = RunConfig(extra_env={"PWD": "/elsewhere"})
    assert settings_environment(cfg, {}, cwd="/w") == {
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "PWD": "/w",
    }
