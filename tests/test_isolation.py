"""What a child sees of the host: its providers and credentials, and nothing else of its setup."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from opencode_trio._process import isolation as _isolation
from opencode_trio._process import scratch as _scratch
from opencode_trio._process.child_setup import prepare_child
from opencode_trio._process.environment import (
    RUN_MARKER,
    child_environment,
    reach_loopback_directly,
)
from opencode_trio._process.host_config import (
    expand_home,
    parse_config,
    provider_config,
    render_config,
    settings_file,
    variables_of,
)
from opencode_trio._process.isolation import ChildHome, home_of, prepare_child_home
from opencode_trio._process.scratch import link, make_scratch, mirror, remove_scratch
from opencode_trio._process.untrusted_workspace import host_files_above
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError

# Everything in it is the host's own business.
EVIL = {
    "model": "evil/model",
    "small_model": "evil/small",
    "default_agent": "evil",
    "share": "auto",
    "username": "evil",
    "instructions": ["/evil.md"],
    "permission": {"bash": "deny"},
    "mcp": {"evil": {"type": "local", "command": ["evil"], "enabled": False}},
    "agent": {"evil": {"prompt": "evil"}},
    "command": {"evil": {"template": "evil"}},
    "lsp": {"evil": {"command": ["evil"], "extensions": [".evil"]}},
    "skills": {"paths": ["/evil"]},
}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


# --- the host's config, pure -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ('{"a": 1}', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('{"a": "x // y", /* c */ "b": [1, 2,], // d\n}', {"a": "x // y", "b": [1, 2]}),
        ('// c\n{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{"a": {env:N}, "b": "{env:N}"}', {"a": 5, "b": "{env:N}"}),
        ('{"a": "\\\\", "b": {env:N} /* {env:N} */ } // "{env:N}', {"a": "\\", "b": 5}),
        ('{"a": "\\"{env:N}", "b": [{env:N},{env:N}]}', {"a": '"{env:N}', "b": [5, 5]}),
    ],
)
def test_json_with_comments_is_a_config(text: str, config: dict[str, Any]) -> None:
    assert parse_config(text, environ={"N": "5"}) == config


@pytest.mark.parametrize("text", ["", "[]", '"x"', "null", "{", "{a: 1}", '{"a": {env:N}}'])
def test_what_is_not_a_config(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_config(text, environ={})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud83d"])
def test_what_opencode_could_not_read_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        render_config({"provider": value})


def test_a_path_is_written_as_opencode_looks_for_it_in_the_text() -> None:
    assert "{file:/é}" in render_config({"provider": "{file:/é}"})


def of_directory(config: dict[str, Any]) -> dict[str, Any]:
    environ = {"KEYS": "/keys", "SUB": "sub"}
    return provider_config(config, directory="/etc/oc", home="/home/me", environ=environ)


def test_only_the_provider_keys_are_kept() -> None:
    kept = {"$schema": "s", "provider": {}, "disabled_providers": [], "enabled_providers": ["x"]}
    others = dict.fromkeys(EVIL.keys() | {"tools", "plugin", "mode", "keybinds", "unknown"}, "x")
    assert of_directory(others | kept) == kept
    assert of_directory(others) == {}


@pytest.mark.parametrize(
    ("placed", "expected"),
    [
        ("{file:./key}", "{file:/etc/oc/key}"),
        ("{file:key é}", "{file:/etc/oc/key é}"),
        ("{file:../k/key}", "{file:/etc/k/key}"),
        ("{file:~/key}", "{file:/home/me/key}"),
        ("{file:/abs/key}", "{file:/abs/key}"),
        ("{file:{env:KEYS}/key}", "{file:/keys/key}"),
        ("{file:{env:SUB}/key}", "{file:/etc/oc/sub/key}"),
        ("{file:{env:UNSET}key}", "{file:/etc/oc/key}"),
        ("Bearer {file:a}{file:b}", "Bearer {file:/etc/oc/a}{file:/etc/oc/b}"),
        ("{env:KEYS}", "{env:KEYS}"),
        ("~/x", "~/x"),
        ("{file:}", "{file:}"),
    ],
)
def test_placeholders_work_from_any_directory(placed: str, expected: str) -> None:
    config = {"provider": {"p": {"options": {"headers": {"h": [placed, 1, None, True]}}}}}
    wanted = {"provider": {"p": {"options": {"headers": {"h": [expected, 1, None, True]}}}}}
    assert of_directory(config) == wanted


def test_settings_mean_in_a_file_what_they_mean_in_a_variable() -> None:
    given: dict[str, Any] = {
        "provider": {"p": {"options": {"apiKey": "{file:key}", "x": "{file:{env:SUB}/x}"}}},
        "plugin": ["./a.js", ["../b.js", {"c": "./d"}], "package", "file:///e.js", [], 5],
        "instructions": ["RULES.md"],
    }
    written = settings_file(given, directory="/srv", home="/home/me", environ={"SUB": "sub"})
    assert written == {
        "$schema": "https://opencode.ai/config.json",
        "provider": {"p": {"options": {"apiKey": "{file:/srv/key}", "x": "{file:/srv/sub/x}"}}},
        "plugin": ["/srv/./a.js", ["/srv/../b.js", {"c": "./d"}], *given["plugin"][2:]],
        "instructions": ["RULES.md"],
    }
    odd = settings_file({"$schema": "mine", "plugin": "x"}, directory="/srv", home="/", environ={})
    assert odd == {"$schema": "mine", "plugin": "x"}


def test_the_variables_that_providers_ask_for() -> None:
    config = {
        "provider": {
            "a": {"options": {"apiKey": "{env:A_KEY}", "headers": {"x": ["{env:B_KEY}/{env:C}"]}}},
            "b": {"env": ["D_KEY", 5]},
            "c": {"env": "no list"},
            "d": None,
        }
    }
    assert variables_of(config) == {"A_KEY", "B_KEY", "C", "D_KEY"}
    assert variables_of({"provider": []}) == frozenset()


def test_the_home_is_expanded_where_opencode_takes_the_private_one() -> None:
    config = {
        "instructions": ["~/rules.md", "docs/~/x", "~", "https://x/~/y"],
        "skills": {"paths": ["~/skills", "here"], "urls": ["~/no"]},
        "references": {"a": "~/a", "b": {"path": "~/b"}, "c": "owner/repo"},
        "permission": {"read": {"~/secret": "deny"}},
        "provider": {"p": {"options": {"apiKey": "{file:~/key}"}}},
    }
    before = json.dumps(config)
    assert expand_home(config, "/home/me") == config | {
        "instructions": ["/home/me/rules.md", "docs/~/x", "~", "https://x/~/y"],
        "skills": {"paths": ["/home/me/skills", "here"], "urls": ["~/no"]},
        "references": {"a": "/home/me/a", "b": {"path": "/home/me/b"}, "c": "owner/repo"},
    }
    assert json.dumps(config) == before
    assert expand_home({"skills": [], "instructions": 3}, "/h") == {"skills": [], "instructions": 3}


# --- the environment, pure -------------------------------------------------------------------

isolated = partial(child_environment, inherit_user_config=False, own_data=True)
inherited = partial(child_environment, inherit_user_config=True, own_data=True)
with_its_data = partial(child_environment, inherit_user_config=False, own_data=False)


@pytest.mark.parametrize(
    ("names", "if_isolated", "if_inherited", "if_its_data"),
    [
        (["PATH", "HOME", "XDG_CACHE_HOME", "HTTPS_PROXY", "OPENAI_API_KEY"], True, True, True),
        (["OPENCODE_TRIO_TEST_SUITE"], True, True, True),
        (["OPENCODE_API_KEY", "OPENCODE_AUTH_CONTENT"], True, True, True),
        (["OPENCODE_GITLAB_AUTH_CLIENT_ID"], True, True, True),
        (["OPENCODE_MODELS_URL", "OPENCODE_MODELS_PATH"], True, True, True),
        (["OPENCODE_DISABLE_MODELS_FETCH", "OPENCODE_GIT_BASH_PATH"], True, True, True),
        (["OPENCODE_PURE", "OPENCODE_DISABLE_PROJECT_CONFIG"], True, True, True),
        (["OPENCODE_DISABLE_CLAUDE_CODE"], True, True, True),
        (["OPENCODE_DB", "OPENCODE_DISABLE_CHANNEL_DB"], False, False, True),
        (["OPENCODE_CONFIG", "OPENCODE_CONFIG_DIR"], False, True, False),
        (["OPENCODE_CONFIG_CONTENT", "OPENCODE_PERMISSION"], False, True, False),
        (["OPENCODE_EXPERIMENTAL", "OPENCODE_EXPERIMENTAL_PLAN_MODE"], False, True, False),
        (["OPENCODE_CLIENT", "OPENCODE_AUTO_SHARE", "OPENCODE_PRINT_LOGS"], False, True, False),
        (["OPENCODE_DISABLE_EMBEDDED_WEB_UI", "OPENCODE_WORKSPACE_ID"], False, True, False),
        (["OPENCODE_TEST_HOME", "OPENCODE_CONSOLE_TOKEN"], False, True, False),
        (["OPENCODE_MADE_UP_TOMORROW", "OPENCODE_"], False, True, False),
        (["AGENT", "OPENCODE", "OPENCODE_PID", "OPENCODE_TERMINAL"], False, False, False),
        (["OPENCODE_SERVER_PASSWORD", "OPENCODE_SERVER_USERNAME"], False, False, False),
        ([RUN_MARKER], False, False, False),
    ],
)
def test_which_variables_pass(
    names: list[str], if_isolated: bool, if_inherited: bool, if_its_data: bool
) -> None:
    base = dict.fromkeys(names, "x")
    passed = [env(base).keys() & base.keys() for env in (isolated, inherited, with_its_data)]
    expected = [if_isolated, if_inherited, if_its_data]
    assert passed == [set(names) if passes else set() for passes in expected]


def test_what_a_provider_asks_for_passes_but_not_the_outer_run() -> None:
    base = {"OPENCODE_CORP_KEY": "k", "OPENCODE_SERVER_PASSWORD": "p", "OPENCODE_OTHER": "o"}
    env = isolated(base, asked_for=frozenset(base) - {"OPENCODE_OTHER"})
    assert env.keys() & base.keys() == {"OPENCODE_CORP_KEY"}


def test_defaults_are_for_isolated_children_and_yield_to_the_host() -> None:
    defaults = {"OPENCODE_DISABLE_SHARE": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"}
    assert isolated({}) == defaults
    assert inherited({}) == {}
    host = {"OPENCODE_DISABLE_SHARE": "0"}
    assert isolated(host) == defaults | host


LOOPBACK = "127.0.0.1,localhost,::1,[::1]"


@pytest.mark.parametrize(
    ("given", "no_proxy", "upper"),
    [
        ({}, None, None),
        ({"NO_PROXY": "corp.example"}, None, "corp.example"),
        ({"HTTP_PROXY": ""}, None, None),
        ({"HTTP_PROXY": "p"}, LOOPBACK, LOOPBACK),
        ({"https_proxy": "p"}, LOOPBACK, LOOPBACK),
        ({"ALL_PROXY": "p"}, LOOPBACK, LOOPBACK),
        ({"HTTP_PROXY": "p", "NO_PROXY": "a, b"}, f"a, b,{LOOPBACK}", f"a, b,{LOOPBACK}"),
        ({"HTTP_PROXY": "p", "no_proxy": "a", "NO_PROXY": "b"}, f"a,{LOOPBACK}", f"b,{LOOPBACK}"),
        (
            {"HTTP_PROXY": "p", "NO_PROXY": "::1 ,localhost"},
            "::1 ,localhost,127.0.0.1,[::1]",
            "::1 ,localhost,127.0.0.1,[::1]",
        ),
        ({"HTTP_PROXY": "p", "NO_PROXY": "*"}, "*", "*"),
    ],
)
def test_loopback_is_reached_without_a_proxy(
    given: dict[str, str], no_proxy: str | None, upper: str | None
) -> None:
    env = reach_loopback_directly(given)
    assert (env.get("no_proxy"), env.get("NO_PROXY")) == (no_proxy, upper)
    assert env == given | {k: v for k, v in env.items() if k.upper() == "NO_PROXY"}


# --- links and their removal -----------------------------------------------------------------


def test_a_link_yields_to_what_works_and_replaces_what_does_not(tmp_path: Path) -> None:
    target, other = write(tmp_path / "target", "t"), write(tmp_path / "other", "o")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "live").symlink_to(other)
    write(tmp_path / "file", "f")
    for name in ("new", "dangling", "file", "live"):
        link(tmp_path / name, target)
    found = {name: (tmp_path / name).read_text() for name in ("new", "dangling", "file", "live")}
    assert found == {"new": "t", "dangling": "t", "file": "f", "live": "o"}
    assert entries(tmp_path) == {"target", "other", *found}


def test_a_mirror_never_holds_itself(tmp_path: Path) -> None:
    host = tmp_path / "host"
    for name in ("git", "opencode", "app"):
        (host / name).mkdir(parents=True)
    private = host / "app" / "deep" / "data"
    mirror(host, private, leave_out={"opencode"})
    assert entries(private) == {"git"}
    (host / "dangling").symlink_to(tmp_path / "gone")
    mirror(host, host, leave_out=())
    assert (host / "dangling").readlink() == tmp_path / "gone"


def test_removal_follows_no_link(tmp_path: Path) -> None:
    precious = write(tmp_path / "precious" / "file", "x")
    precious.parent.chmod(0o500)
    scratch = make_scratch()
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
    (scratch / "dir").symlink_to(precious.parent)
    (scratch / "file").symlink_to(precious)
    (scratch / "gone").symlink_to(tmp_path / "gone")
    remove_scratch(scratch)
    assert not scratch.exists()
    assert precious.read_text() == "x"
    assert stat.S_IMODE(precious.parent.stat().st_mode) == 0o500
    remove_scratch(scratch)


def test_a_scratch_directory_that_became_a_link_is_left_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    precious = write(tmp_path / "precious" / "file", "x")
    precious.parent.chmod(0o500)
    path = tmp_path / "scratch"
    path.symlink_to(precious.parent)
    remove_scratch(path)
    assert precious.exists()
    assert stat.S_IMODE(precious.parent.stat().st_mode) == 0o500
    assert [str(path) in record.message for record in caplog.records] == [True]


LOCKED = """
import os, pathlib
from opencode_trio._process import scratch as _scratch
if os.geteuid() == 0:  # root needs no permission
    os.setegid(65534)
    os.seteuid(65534)
scratch, precious = pathlib.Path("scratch"), pathlib.Path("precious")
(scratch / "a" / "b").mkdir(parents=True)
(scratch / "a" / "b" / "file").write_text("x")
(scratch / "a" / "link").symlink_to(precious.absolute())
for folder, mode in (("a/b", 0o000), ("a", 0o500), (".", 0o500)):
    (scratch / folder).chmod(mode)
precious.mkdir(mode=0o500)
_scratch.remove_scratch(scratch)
print(scratch.exists(), oct(precious.stat().st_mode & 0o777))
"""


def test_removal_opens_directories_that_are_locked(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", LOCKED],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(_scratch.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("False 0o500\n", "")


def test_removal_wins_against_a_family_that_is_still_writing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = make_scratch()
    late = iter(["a/late", "b/late"])
    real = shutil.rmtree

    def rmtree(path: Path, *, ignore_errors: bool) -> None:
        real(path, ignore_errors=ignore_errors)
        for name in late:
            write(scratch / name, "x")
            break

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    remove_scratch(scratch)
    assert not scratch.exists()


# --- the home of a child ---------------------------------------------------------------------


@attrs.frozen
class Host:
    """A host with a setup that no child shall see, and providers that it shall."""

    root: Path
    home: Path
    env: dict[str, str]

    @property
    def config(self) -> Path:
        return self.home / ".config" / "opencode"

    @property
    def data(self) -> Path:
        return self.home / ".local" / "share" / "opencode"

    @property
    def state(self) -> Path:
        return self.home / ".local" / "state" / "opencode"


SKILL = "---\nname: {0}\ndescription: {0}\n---\n{0}\n"
AGENT = "---\ndescription: evil\n---\nevil\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    home = tmp_path / "home"
    host = Host(tmp_path, home, {"PATH": os.environ["PATH"], "HOME": str(home)})
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "models": {"m": {}},
        "options": {
            "baseURL": "http://127.0.0.1:9/v1",
            "beside": "{file:./key é}",
            "at_home": "{file:~/key2}",
            "from_env": "{env:OPENCODE_CORP_KEY}",
        },
    }
    # No escapes: opencode reads the path in {file:...} from the text as it stands.
    text = json.dumps(
        {**EVIL, "provider": {"corp": provider}, "disabled_providers": ["other"]},
        ensure_ascii=False,
    )
    write(host.config / "opencode.jsonc", "// the host's\n" + text.removesuffix("}") + ",}")
    write(host.config / "opencode.json", json.dumps({"theme": "evil", "keybinds": {"leader": "q"}}))
    write(host.config / "key é", "one\n")
    write(home / "key2", "two\n")
    for folder in (host.config, home / ".opencode"):
        write(folder / "agent" / "evil.md", AGENT)
        write(folder / "command" / "evil.md", AGENT)
        write(folder / "plugin" / "evil.js", "throw new Error('evil')")
        write(folder / "skill" / "evil" / "SKILL.md", SKILL.format("evil"))
        write(folder / "AGENTS.md", "evil")
    second = {"provider": {"corp2": {"options": {"beside": "{file:key3}"}}}, "mcp": EVIL["mcp"]}
    write(home / ".opencode" / "opencode.json", json.dumps(second))
    write(home / ".opencode" / "key3", "three")
    write(home / ".claude" / "CLAUDE.md", "evil")
    write(home / ".claude" / "skills" / "evil1" / "SKILL.md", SKILL.format("evil1"))
    write(home / ".agents" / "skills" / "evil2" / "SKILL.md", SKILL.format("evil2"))
    write(host.data / "auth.json", json.dumps({"openai": {"type": "api", "key": "secret"}}))
    write(host.data / "opencode.db", "the host's")
    write(host.state / "model.json", json.dumps({"recent": [{"providerID": "e", "modelID": "m"}]}))
    for name in (".config/git", ".config/gh", ".local/share/uv", ".local/state/nvim", "skills"):
        (home / name).mkdir(parents=True)
    return host


Prepare = Callable[..., ChildHome]


@pytest.fixture
def prepare(host: Host) -> Iterator[Prepare]:
    """Prepare children of `host`, removed after the test."""
    made = []

    def prepare(**options: Any) -> ChildHome:
        env = host.env | options.pop("env", {})
        settings: dict[str, Any] = {
            "workspace": host.home / "workspace",
            "inherit_user_config": False,
            "isolate_db": True,
            "data_home": None,
        } | options
        made.append(prepare_child_home(base_env=env, **settings))
        return made[-1]

    yield prepare
    for child in made:
        remove_scratch(child.scratch)


def test_a_child_has_directories_of_its_own(host: Host, prepare: Prepare) -> None:
    child = prepare()
    places = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "OPENCODE_TEST_HOME")
    config, data, state, home = (Path(child.env[name]) for name in places)
    assert {folder.parent for folder in (config, data, state, home)} == {child.scratch}
    assert "XDG_CACHE_HOME" not in child.env
    assert Path(child.env["BUN_TMPDIR"]).parent == child.scratch
    assert child.env["HOME"] == str(host.home)

    linked = {
        config: ({"git", "gh"}, host.config.parent),
        data: ({"uv"}, host.data.parent),
        state: ({"nvim"}, host.state.parent),
        home: ({".cache", ".config", ".local", "key2", "skills"}, host.home),
    }
    for folder, (names, source) in linked.items():
        links = {entry.name: entry.readlink() for entry in folder.iterdir() if entry.is_symlink()}
        assert links == {name: source / name for name in names}
        assert entries(folder) - names == {".opencode" if folder == home else "opencode"}

    assert entries(config / "opencode") == {
        "opencode.json",
        "opencode.jsonc",
        "package-lock.json",
        "node_modules",
    }
    assert entries(home / ".opencode") == {"opencode.json", "package-lock.json", "node_modules"}
    assert (data / "opencode" / "auth.json").readlink() == host.data / "auth.json"
    assert entries(data / "opencode") == {"auth.json"}
    assert (state / "opencode" / "locks").readlink() == host.state / "locks"
    assert entries(state / "opencode") == {"locks"}


def test_the_copies_hold_providers_alone(host: Host, prepare: Prepare) -> None:
    child = prepare(env={"OPENCODE_CORP_KEY": "k"})
    config = Path(child.env["XDG_CONFIG_HOME"], "opencode")
    copy = json.loads((config / "opencode.jsonc").read_text())
    assert copy.keys() == {"provider", "disabled_providers"}
    assert copy["provider"]["corp"]["options"] == {
        "baseURL": "http://127.0.0.1:9/v1",
        "beside": f"{{file:{host.config}/key é}}",
        "at_home": f"{{file:{host.home}/key2}}",
        "from_env": "{env:OPENCODE_CORP_KEY}",
    }
    assert json.loads((config / "opencode.json").read_text()) == {}
    nested = Path(child.env["OPENCODE_TEST_HOME"], ".opencode", "opencode.json")
    beside = f"{{file:{host.home}/.opencode/key3}}"
    assert json.loads(nested.read_text()) == {
        "provider": {"corp2": {"options": {"beside": beside}}}
    }
    assert child.env["OPENCODE_CORP_KEY"] == "k"


def test_a_number_from_the_environment_loses_no_provider(host: Host, prepare: Prepare) -> None:
    write(host.config / "opencode.json", '{"provider": {"p": {"options": {"timeout": {env:MS}}}}}')
    child = prepare(env={"MS": "5000"})
    copy = Path(child.env["XDG_CONFIG_HOME"], "opencode", "opencode.json")
    assert json.loads(copy.read_text()) == {"provider": {"p": {"options": {"timeout": 5000}}}}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: file.write_text("[]"), "object"),
        (lambda file: file.write_text("{,"), "line"),
        (lambda file: file.write_bytes(b'{"provider": "\xff"}'), "utf-8"),
        (lambda file: file.write_text('{"provider": NaN}'), "JSON compliant"),
        (lambda file: file.write_text('{"provider":' + "[" * 3000 + "]" * 3000 + "}"), "recursion"),
        (lambda file: (file.unlink(), file.mkdir()), "directory"),
    ],
)
def test_a_host_file_that_cannot_be_read_is_left_out_and_named(
    host: Host,
    prepare: Prepare,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], object],
    reason: str,
) -> None:
    file = host.config / "opencode.json"
    spoil(file)
    config = Path(prepare().env["XDG_CONFIG_HOME"], "opencode")
    assert "opencode.jsonc" in entries(config)
    assert "opencode.json" not in entries(config)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("opencode_trio", logging.WARNING)
    assert str(file) in record.message
    assert reason in record.message


def test_a_host_without_any_setup(tmp_path: Path, prepare: Prepare, caplog: Any) -> None:
    write(tmp_path / "bare" / ".opencode", "a file, of all things")
    child = prepare(env={"HOME": str(tmp_path / "bare")})
    assert entries(Path(child.env["XDG_DATA_HOME"])) == {"opencode"}
    assert not caplog.records


def test_the_hosts_own_xdg_directories_count(host: Host, prepare: Prepare) -> None:
    for name in ("config", "data"):
        (host.home / "xdg" / name).mkdir(parents=True)
    write(host.home / "xdg/config/opencode/config.json", '{"provider": {"x": {}}}')
    write(host.home / "xdg/data/opencode/mcp-auth.json", "{}")
    xdg = {f"XDG_{n.upper()}_HOME": str(host.home / "xdg" / n) for n in ("config", "data")}
    child = prepare(env=xdg)
    copy = Path(child.env["XDG_CONFIG_HOME"], "opencode", "config.json")
    assert json.loads(copy.read_text()) == {"provider": {"x": {}}}
    assert entries(Path(child.env["XDG_DATA_HOME"], "opencode")) == {"mcp-auth.json"}


def test_a_config_file_that_is_a_link_counts_from_where_the_link_is(
    host: Host, prepare: Prepare
) -> None:
    file = host.config / "config.json"
    file.symlink_to(write(host.root / "dotfiles" / "oc.json", '{"provider": "{file:./key é}"}'))
    copy = Path(prepare().env["XDG_CONFIG_HOME"], "opencode", "config.json")
    assert json.loads(copy.read_text()) == {"provider": f"{{file:{host.config}/key é}}"}


def test_the_home_that_opencode_was_given_counts(host: Host, prepare: Prepare) -> None:
    write(host.root / "given" / ".opencode" / "opencode.jsonc", '{"provider": {"given": {}}}')
    child = prepare(env={"OPENCODE_TEST_HOME": str(host.root / "given")})
    home = Path(child.env["OPENCODE_TEST_HOME"])
    assert home.parent == child.scratch
    assert "opencode.jsonc" in entries(home / ".opencode")
    assert entries(home) == {".opencode"}


def test_a_child_of_a_child_sees_what_the_child_sees(host: Host, prepare: Prepare) -> None:
    outer = prepare(env={"OPENCODE_CORP_KEY": "k"})
    inner = prepare(env=outer.env | {"OPENCODE_PID": "1", "AGENT": "1", "OPENCODE": "1"})
    assert inner.scratch != outer.scratch
    assert inner.env[RUN_MARKER] != outer.env[RUN_MARKER]
    assert not {"OPENCODE_PID", "AGENT", "OPENCODE"} & inner.env.keys()
    for name, file in (
        ("XDG_CONFIG_HOME", "opencode/opencode.jsonc"),
        ("OPENCODE_TEST_HOME", ".opencode/opencode.json"),
        ("XDG_DATA_HOME", "opencode/auth.json"),
    ):
        assert Path(inner.env[name], file).read_text() == Path(outer.env[name], file).read_text()


def test_inherited_config_leaves_all_but_the_data(host: Host, prepare: Prepare) -> None:
    env = {"OPENCODE_PERMISSION": "{}", "XDG_STATE_HOME": "/s", "OPENCODE_DB": "/db"}
    child = prepare(inherit_user_config=True, env=env)
    moved = {"XDG_DATA_HOME", "BUN_TMPDIR", RUN_MARKER}
    assert child.env.keys() - host.env.keys() == moved | {"OPENCODE_PERMISSION", "XDG_STATE_HOME"}
    assert entries(child.scratch) == {"data", "unpacked"}
    assert not (host.state / "locks").exists()


def test_the_hosts_database_on_request(host: Host, prepare: Prepare) -> None:
    child = prepare(isolate_db=False, env={"OPENCODE_DB": "/db"})
    assert "XDG_DATA_HOME" not in child.env
    assert child.env["OPENCODE_DB"] == "/db"
    assert entries(child.scratch) == {"config", "state", "home", "unpacked"}


@pytest.mark.parametrize("isolate_db", [True, False])
def test_a_data_directory_of_the_callers(host: Host, prepare: Prepare, isolate_db: bool) -> None:
    data_home = host.root / "mine" / "data"
    child = prepare(data_home=data_home, isolate_db=isolate_db, env={"OPENCODE_DB": "/db"})
    assert child.env["XDG_DATA_HOME"] == str(data_home)
    assert "OPENCODE_DB" not in child.env
    assert stat.S_IMODE(data_home.stat().st_mode) == 0o700
    auth = data_home / "opencode" / "auth.json"
    assert auth.readlink() == host.data / "auth.json"
    remove_scratch(child.scratch)
    assert auth.exists()

    auth.unlink()
    auth.symlink_to(host.root / "gone")
    prepare(data_home=data_home)
    assert auth.readlink() == host.data / "auth.json"
    auth.unlink()
    auth.write_text("the caller's")
    prepare(data_home=data_home)
    assert auth.read_text() == "the caller's"
    assert (host.data / "auth.json").exists()


def test_a_data_directory_given_relative_to_here(
    host: Host, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host.root)
    assert prepare(data_home=Path("mine")).env["XDG_DATA_HOME"] == str(host.root / "mine")


def test_the_hosts_data_directory_given_by_name(host: Host, prepare: Prepare) -> None:
    before = {path: path.lstat().st_mtime_ns for path in host.data.parent.rglob("*")}
    prepare(data_home=host.data.parent)
    assert {path: path.lstat().st_mtime_ns for path in host.data.parent.rglob("*")} == before


@pytest.mark.parametrize(
    ("given", "original", "seen"), [("/app", "/opt/lib", "/opt/lib"), ("/app", None, None)]
)
def test_libraries_of_a_frozen_host_are_its_own(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: str,
    original: str | None,
    seen: str | None,
) -> None:
    monkeypatch.setattr(sys, "_MEIPASS", given, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", given)
    if original is not None:
        monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", original)
    child = prepare_child(RunConfig(), tmp_path, isolate_db=True, data_home=None)
    remove_scratch(child.scratch)
    assert child.env.get("LD_LIBRARY_PATH") == seen
    assert "LD_LIBRARY_PATH_ORIG" not in child.env


# --- a home that cannot be used --------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_replaced(host: Host, prepare: Prepare) -> None:
    assert "XDG_CACHE_HOME" not in prepare().env
    shutil.rmtree(host.home / ".cache")
    write(host.home / ".cache" / "opencode" / "models.json", "{}")
    write(host.home / ".cache" / "opencode" / "bin", "a file in its place")
    write(host.home / ".cache" / "uv", "another program's")
    for options in ({}, {"inherit_user_config": True}):
        child = prepare(**options)
        cache = Path(child.env["XDG_CACHE_HOME"])
        assert cache.parent == child.scratch
        assert (cache / "opencode" / "models.json").read_text() == "{}"
        assert (cache / "uv").read_text() == "another program's"


@pytest.mark.parametrize("home", ["/proc", "/dev/null"])
def test_a_home_that_cannot_be_written_does_not_matter(prepare: Prepare, home: str) -> None:
    child = prepare(env={"HOME": home})
    names = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")
    assert {Path(child.env[name]).parent for name in names} == {child.scratch}


@pytest.mark.parametrize(
    ("options", "environ", "words"),
    [
        ({"isolate_db": False}, {}, "HOME: .* /proc/.local/share/opencode"),
        ({"isolate_db": False}, {"XDG_DATA_HOME": "/proc/d"}, "XDG_DATA_HOME: .* /proc/d/opencode"),
        ({"inherit_user_config": True}, {}, "HOME: .* /proc/.config/opencode"),
        (
            {"inherit_user_config": True, "isolate_db": False},
            {"XDG_DATA_HOME": "{root}/d", "XDG_CONFIG_HOME": "{root}/c", "XDG_STATE_HOME": "/proc"},
            "XDG_STATE_HOME: ",
        ),
    ],
)
def test_a_home_that_matters_is_named(
    prepare: Prepare, tmp_path: Path, options: dict[str, bool], environ: dict[str, str], words: str
) -> None:
    environ = {name: value.format(root=tmp_path) for name, value in environ.items()}
    with pytest.raises(OpenCodeConfigError, match=words):
        prepare(env={"HOME": "/proc"} | environ, **options)


@pytest.mark.parametrize(
    ("environ", "home"), [({"HOME": "/x"}, "/x"), ({}, "/p"), ({"HOME": ""}, "/p")]
)
def test_whose_home_it_is(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], home: str
) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_dir="/p"))
    assert home_of(environ) == home


def test_a_user_whom_the_system_does_not_know(
    monkeypatch: pytest.MonkeyPatch, prepare: Prepare
) -> None:
    """opencode does not start for one."""
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    child = prepare(env={"HOME": ""})
    assert Path(child.env["HOME"]).parent == child.scratch
    assert Path(child.env["HOME"]).is_dir()


def test_a_failure_half_way_leaves_nothing(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OpenCodeConfigError, match="data_home: cannot be used"):
        prepare_child_home(
            base_env=host.env,
            workspace=tmp_path,
            inherit_user_config=False,
            isolate_db=True,
            data_home=write(tmp_path / "file", "") / "data",
        )
    monkeypatch.setattr(_isolation, "_copy_providers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare_child_home(
            base_env=host.env,
            workspace=tmp_path,
            inherit_user_config=False,
            isolate_db=True,
            data_home=None,
        )
    assert not list(tmp_path.glob(_scratch.SCRATCH_PREFIX + "*"))


@pytest.mark.parametrize(
    ("workspace", "repository", "seen"),
    [
        ("home/work/project", None, True),
        ("home/work/project", "home/work/project", False),
        ("home/work/project", "home/work", False),
        ("home/work/project", "home", True),
        ("home", None, False),
        ("elsewhere", None, False),
        ("homework", None, False),
    ],
)
def test_host_files_that_pass_for_the_projects(
    host: Host, workspace: str, repository: str | None, seen: bool
) -> None:
    if repository:
        (host.root / repository / ".git").mkdir(parents=True)
    write(host.home / "AGENTS.md", "evil")
    expected = [".opencode", "AGENTS.md", ".claude/skills", ".agents/skills"] if seen else []
    found = host_files_above(host.root / workspace, host.home)
    assert found == [host.home / name for name in expected]


# --- the real opencode -----------------------------------------------------------------------

HOSTILE_ENV = {
    "OPENCODE_CORP_KEY": "four",
    "OPENCODE_PERMISSION": '{"edit": "deny"}',
    "OPENCODE_CONFIG_CONTENT": json.dumps(EVIL),
    "OPENCODE_EXPERIMENTAL": "1",
    "OPENCODE_DISABLE_AUTOCOMPACT": "1",
    "OPENCODE_CLIENT": "acp",
}


@pytest.fixture
def debug(opencode_binary: str, tmp_path: Path) -> Callable[..., Any]:
    """Ask the real opencode what it sees, in a workspace that is a git repository."""
    workspace = tmp_path / "workspace"
    (workspace / ".git").mkdir(parents=True)
    write(workspace / "AGENTS.md", "the project's")
    (workspace / ".claude" / "skills").mkdir(parents=True)
    write(workspace / ".claude" / "skills" / "project" / "SKILL.md", SKILL.format("project"))

    def debug(child: ChildHome, *arguments: str, **env: str) -> str:
        done = subprocess.run(
            [opencode_binary, *arguments],
            cwd=workspace,
            env=child.env | {"PWD": str(workspace)} | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return debug


@pytest.mark.opencode
def test_the_real_opencode_sees_providers_and_credentials_alone(
    host: Host, prepare: Prepare, debug: Callable[..., Any]
) -> None:
    def providers(providers: dict[str, Any]) -> str:
        return json.dumps(EVIL | {"provider": providers})

    by_file = providers({"by-file": {"options": {"beside": "{file:five}", "timeout": "N"}}})
    write(host.home / "evil" / "evil.json", by_file.replace('"N"', "{env:N}"))
    write(host.home / "evil" / "five", "five")
    folder = host.home / "evil-dir"
    write(folder / "agent" / "evil.md", AGENT)
    seven = {"options": {"beside": "{file:seven}"}, "models": {"m": {}}}
    write(folder / "opencode.json", providers({"by-folder": seven}))
    write(folder / "opencode.jsonc", providers({"by-folder": {"models": {"n": {}}}}))
    write(folder / "seven", "seven")
    write(host.root / "workspace" / "eight", "eight")
    eight = {"options": {"beside": "{file:eight}", "asked": "{env:OPENCODE_NINE}"}}
    env = HOSTILE_ENV | {
        "OPENCODE_CONFIG": str(host.home / "evil" / "evil.json"),
        "OPENCODE_CONFIG_DIR": str(folder),
        "OPENCODE_CONFIG_CONTENT": providers({"by-text": eight}),
        "OPENCODE_NINE": "nine",
        "N": "6",
    }
    before = {path: path.lstat().st_mtime_ns for path in host.config.rglob("*")}
    child = prepare(env=env, workspace=host.root / "workspace")

    seen = json.loads(debug(child, "debug", "config"))
    assert seen.pop("provider") == {
        "by-file": {"options": {"beside": "five", "timeout": 6}},
        "by-folder": {"options": {"beside": "seven"}, "models": {"m": {}, "n": {}}},
        "by-text": {"options": {"beside": "eight", "asked": "nine"}},
        "corp": {
            "npm": "@ai-sdk/openai-compatible",
            "models": {"m": {}},
            "options": {
                "baseURL": "http://127.0.0.1:9/v1",
                "beside": "one",
                "at_home": "two",
                "from_env": "four",
            },
        },
        "corp2": {"options": {"beside": "three"}},
    }
    assert seen.pop("disabled_providers") == ["other"]
    assert seen.pop("username") != "evil"
    seen.pop("$schema", None)
    assert seen == {"agent": {}, "mode": {}, "plugin": [], "command": {}}

    skills = {skill["name"] for skill in json.loads(debug(child, "debug", "skill"))}
    assert skills == {"customize-opencode", "project"}
    assert "OpenAI" in debug(child, "auth", "list")
    assert {path: path.lstat().st_mtime_ns for path in host.config.rglob("*")} == before


@pytest.mark.opencode
def test_the_real_opencode_has_no_plugin_library_to_install(
    prepare: Prepare, debug: Callable[..., Any]
) -> None:
    child = prepare()
    debug(child, "debug", "config")
    for folder in ("config/opencode", "home/.opencode"):
        assert not list((child.scratch / folder / "node_modules").iterdir())
        assert not (child.scratch / folder / "package.json").exists()
        key = f"npm-install:{child.scratch / folder}"
        lock = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest() + ".lock"
        assert lock not in entries(child.scratch / "state" / "opencode" / "locks")


@pytest.mark.opencode
def test_the_real_opencode_takes_the_real_home_in_patterns_and_links_elsewhere(
    host: Host, prepare: Prepare, debug: Callable[..., Any]
) -> None:
    write(host.home / "skills" / "mine" / "SKILL.md", SKILL.format("mine"))
    config = {
        "permission": {"external_directory": {"~/a/*": "allow", "$HOME/b/*": "allow"}},
        "skills": {"paths": ["~/skills"]},
    }
    child = prepare(env={"OPENCODE_CORP_KEY": "k"})

    def permitted(config: dict[str, Any]) -> set[str]:
        text = debug(child, "debug", "agent", "build", OPENCODE_CONFIG_CONTENT=json.dumps(config))
        return {rule["pattern"] for rule in json.loads(text)["permission"]}

    unaided, expanded = permitted(config), permitted(expand_home(config, str(host.home)))
    assert {f"{host.home}/a/*", f"{host.home}/b/*"} <= unaided & expanded
    # The way through the links works, but puts a path into the prompt that changes every time.
    assert f"{child.scratch}/home/skills/mine/*" in unaided
    assert f"{host.home}/skills/mine/*" in expanded


@pytest.mark.opencode
def test_the_real_opencode_sees_the_hosts_config_on_request(
    host: Host, prepare: Prepare, debug: Callable[..., Any]
) -> None:
    child = prepare(inherit_user_config=True, env=HOSTILE_ENV | {"OPENCODE_PURE": "1"})
    seen = json.loads(debug(child, "debug", "config"))
    assert seen["model"] == "evil/model"
    assert seen["permission"]["edit"] == "deny"
    assert "evil" in seen["agent"]


def test_variables_do_not_take_the_place_of_settings(tmp_path: Path) -> None:
    taken = {"OPENCODE_CONFIG_CONTENT": "{}"}
    for cfg, lost in (
        (RunConfig(permission={"bash": "deny"}, extra_env=taken), "permission"),
        (RunConfig(untrusted=True, extra_env=taken), "untrusted"),
    ):
        with pytest.raises(OpenCodeConfigError, match=lost):
            prepare_child(cfg, tmp_path, isolate_db=True, data_home=None)
    child = prepare_child(RunConfig(extra_env=taken), tmp_path, isolate_db=True, data_home=None)
    shutil.rmtree(child.scratch)


def test_settings_are_laid_over_the_hosts_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {"provider": {"p": {}}, "permission": {"bash": "allow", "edit": "deny"}}
    monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", json.dumps(hosts))
    cfg = RunConfig(permission={"bash": "deny"}, inherit_user_config=True)
    child = prepare_child(cfg, tmp_path, isolate_db=True, data_home=None)
    shutil.rmtree(child.scratch)
    assert json.loads(child.env["OPENCODE_CONFIG_CONTENT"]) == {
        "provider": {"p": {}},
        "permission": {"edit": "deny", "bash": "deny"},
    }
    monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", "{a: 1}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OpenCodeConfigError, match="OPENCODE_CONFIG_CONTENT in the environment"):
        prepare_child(cfg, tmp_path, isolate_db=True, data_home=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shell", "is_told"),
    [
        ("/bin/sh", False),
        ("", False),
        ("/nonexistent/nologin", False),  # opencode takes another
        ("fish", False),
        ("/bin/false", True),
        ("{tmp}/nologin", True),
        ("{tmp}/data", True),
    ],
)
def test_a_shell_that_runs_no_commands_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shell: str, is_told: bool
) -> None:
    write(tmp_path / "nologin", "#!/bin/sh\n").chmod(0o755)
    write(tmp_path / "data", "").chmod(0o644)
    cfg = RunConfig(extra_env={"SHELL": shell.format(tmp=tmp_path)})
    child = prepare_child(cfg, tmp_path, isolate_db=True, data_home=None)
    remove_scratch(child.scratch)
    assert ("the agent's shell commands will do nothing" in caplog.text) is is_told
