"""Secrets: what is taken for one, where they are looked for, and how they are replaced."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from opencode_trio._cli.result_file import open_results
from opencode_trio._process.child_setup import MAX_BYTES, prepare_child, redactor_of
from opencode_trio._process.scratch import make_scratch, remove_scratch
from opencode_trio._run.event_log import EventLog
from opencode_trio._turn.redaction import (
    MIN_LENGTH,
    NOTHING_KNOWN,
    Redactor,
    files_in,
    masked,
    names_a_secret,
    password_forms,
    secrets_in,
    without_passwords,
)
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.server import connect_server

# --- what is a secret ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("apiKey", "api_key", "APIKEY", "OPENAI_API_KEY", "x-api-key", "secretAccessKey", "key"),
        *("GITHUB_TOKEN", "authToken", "Authorization", "Proxy-Authorization", "Cookie", "bearer"),
        *("PGPASSWORD", "MYSQL_PWD", "clientSecret", "GOOGLE_APPLICATION_CREDENTIALS", "refresh"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert names_a_secret(name)


@pytest.mark.parametrize(
    "name",
    ["PWD", "PATH", "KEYBOARD", "keybinds", "baseURL", "GIT_AUTHOR_NAME", "model", "HOME", "", "1"],
)
def test_names_of_other_things(name: str) -> None:
    assert not names_a_secret(name)


ENVIRON = {"NAMED": "by-placeholder"}


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        ({"apiKey": "sk-1", "baseURL": "http://x"}, {"sk-1"}),
        (
            {"headers": {"Authorization": "Bearer sk-2", "X": "y"}},
            {"Bearer sk-2", "Bearer", "sk-2"},
        ),
        ({"tokens": {"a": ["t1", {"b": "t2"}], "n": 5}}, {"t1", "t2"}),
        ({"apiKey": "{env:NAMED}"}, {"by-placeholder"}),
        ({"apiKey": "{env:UNNAMED}"}, {""}),
        ({"apiKey": "{file:~/key}"}, set()),
        ({"url": "https://me:p%40ss@host/x"}, {"p%40ss", "p@ss"}),
        (["https://ghp_0123456789abcdefghij@host"], {"ghp_0123456789abcdefghij"}),
        ({"url": "ssh://git@host, http://host/a:b@c"}, set()),
        ({"max_tokens": 100, "a": None, "b": True}, set()),
    ],
)
def test_secrets_of_a_config(value: Any, secrets: set[str]) -> None:
    assert set(secrets_in(value, environ=ENVIRON)) == secrets


def test_files_that_hold_secrets() -> None:
    config: dict[str, Any] = {
        "p": [{"apiKey": "{file:/k}"}, {"headers": {"token": "a {file:~/t}"}}]
    }
    config |= {"agent": {"prompt": "{file:/prompt}"}, "n": 5}
    assert list(files_in(config)) == ["/k", "~/t"]


# --- how it is replaced ----------------------------------------------------------------------

SECRET = 'pa"ss\\wörd/'


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        json.dumps({"a": SECRET}),
        json.dumps({"a": SECRET}, ensure_ascii=False),
        json.dumps(json.dumps({"a": SECRET})),
        "https://host/?key=pa%22ss%5Cw%C3%B6rd%2F",
    ],
)
def test_a_secret_is_found_as_others_write_it(text: str) -> None:
    assert "ss" not in (said := Redactor.of([SECRET]).text(text))
    assert "[redacted]" in said


def test_the_longest_first_and_none_too_short() -> None:
    redactor = Redactor.of(["12345678", "12345678-and-more", "x" * (MIN_LENGTH - 1)])
    assert (
        redactor.text("12345678-and-more, 12345678, xxxxxxx") == "[redacted], [redacted], xxxxxxx"
    )
    assert redactor.knowing("and-this").text("12345678 and-this") == "[redacted] [redacted]"
    assert "12345678" not in repr(redactor)


def test_passwords_of_urls_need_not_be_known() -> None:
    said = "proxy http://me:pw@host:1/x and https://ghp_0123456789abcdefghij@host, ssh://git@host"
    expected = "proxy http://me:[redacted]@host:1/x and https://[redacted]@host, ssh://git@host"
    assert without_passwords(said) == NOTHING_KNOWN.text(said) == expected


def test_how_a_password_travels() -> None:
    redactor = Redactor.of(password_forms("opencode", "p-a-s-s-word"))
    header = base64.b64encode(b"opencode:p-a-s-s-word").decode()
    assert redactor.text(f"Basic {header}, p-a-s-s-word") == "Basic [redacted], [redacted]"


def test_of_a_record_only_what_tells_of_failures() -> None:
    redactor = Redactor.of(["the-secret"])
    said = {"text": "the-secret", "parts": [{"text": "the-secret", "n": 1}]}
    failed = {"error": {"data": [{"message": "no: the-secret", "n": 1}]}}
    retry = {"status": {"type": "retry", "message": "the-secret"}}
    clean = redactor.record({**said, "info": failed, "properties": retry})
    assert clean == {
        **said,
        "info": {"error": {"data": [{"message": "no: [redacted]", "n": 1}]}},
        "properties": {"status": {"type": "retry", "message": "[redacted]"}},
    }
    assert redactor.is_needed(json.dumps(failed))
    assert not redactor.is_needed(json.dumps(said))
    assert not redactor.is_needed('{"error": "no"}')


def test_what_a_caller_wrote_down_is_masked_by_name() -> None:
    given = {
        "mcp": {"a": {"url": "http://u:p@h", "headers": {"Authorization": ["x"]}}},
        "max_tokens": 5,
        "token": None,
        "list": [{"key": {"deep": "x"}}, 1.5],
    }
    assert masked(given) == {
        "mcp": {"a": {"url": "http://u:[redacted]@h", "headers": {"Authorization": "[redacted]"}}},
        "max_tokens": 5,
        "token": None,
        "list": [{"key": "[redacted]"}, 1.5],
    }


# --- where secrets are looked for ------------------------------------------------------------


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def key(name: str) -> dict[str, Any]:
    return {"provider": {"p": {"options": {"apiKey": f"key-of-{name}"}}}}


def test_all_that_a_child_is_given_is_known(tmp_path: Path) -> None:
    home, workspace = tmp_path / "home", tmp_path / "work"
    write(home / ".local/share/opencode/auth.json", {"p": {"type": "api", "key": "key-of-auth"}})
    tokens = {"x": {"tokens": {"accessToken": "key-of-mcp-auth"}}}
    write(home / ".local/share/opencode/mcp-auth.json", tokens)
    write(home / ".config/opencode/opencode.jsonc", f"// x\n{json.dumps(key('the-host'))}")
    write(home / ".opencode/opencode.json", key("the-home"))
    write(workspace / "opencode.json", key("the-project"))
    write(workspace / ".opencode/opencode.json", "no JSON: key-of-no-one")
    write(tmp_path / "config.json", key("a-config-file"))
    write(tmp_path / "folder/opencode.jsonc", key("a-config-folder"))
    write(tmp_path / "key", " key-of-a-file\n")
    write(tmp_path / "large", "key-of-a-large-file" + " " * MAX_BYTES)
    (workspace / "opencode.jsonc").symlink_to("/dev/zero")
    cfg = RunConfig(
        mcp={"m": {"environment": {"M_TOKEN": "key-of-mcp"}}},
        config_overrides={
            "a": {"apiKey": f"{{file:{tmp_path}/key}}"},
            "b": {"apiKey": f"{{file:{tmp_path}/large}}"},
            "c": {"apiKey": "{env:PLAIN}"},
        },
        cli_kwargs={"password": "key-of-a-flag"},
    )
    env = {
        "HOME": str(home),
        "PLAIN": "key-of-a-placeholder",
        "A_SECRET": "key-of-the-environment",
        "HTTPS_PROXY": "http://me:key-of-a-proxy@host",
        "OPENCODE_AUTH_CONTENT": json.dumps({"p": {"key": "key-of-auth-content"}}),
        "OPENCODE_CONFIG_CONTENT": json.dumps(key("config-content")),
        "OPENCODE_CONFIG": str(tmp_path / "config.json"),
        "OPENCODE_CONFIG_DIR": str(tmp_path / "folder"),
    }
    known = [
        "auth",
        "mcp-auth",
        "the-host",
        "the-home",
        "the-project",
        "a-file",
        "mcp",
        "a-flag",
        "a-placeholder",
        "the-environment",
        "a-proxy",
        "auth-content",
        "config-content",
        "a-config-file",
        "a-config-folder",
    ]
    said = "\n".join(f"key-of-{name}" for name in [*known, "no-one", "a-large-file"])
    left = set(redactor_of(cfg, env, workspace).text(said).split("\n"))
    assert left == {"[redacted]", "key-of-no-one", "key-of-a-large-file"}
    careful = attrs.evolve(cfg, untrusted=True)
    said = redactor_of(careful, env, workspace).text("key-of-the-project key-of-the-host")
    assert said == "key-of-the-project [redacted]"


# --- what is not told ------------------------------------------------------------------------

HIDDEN = "hidden-value"


def test_a_config_shows_no_values() -> None:
    nested = {"name": {"apiKey": HIDDEN}}
    cfg = RunConfig(
        model="p/m",
        permission={"bash": "deny"},
        extra_env={"NAME": HIDDEN},
        mcp=nested,
        config_overrides=nested,
        cli_kwargs={"name": HIDDEN},
    )
    assert HIDDEN not in (said := repr(cfg))
    assert "p/m" in said
    assert "{'bash': 'deny'}" in said
    assert "extra_env={NAME}, " in said
    # Equality goes by what is hidden.
    assert cfg != attrs.evolve(cfg, extra_env={"NAME": "other"})


@pytest.mark.parametrize(
    "settings",
    [
        {"extra_env": HIDDEN},
        {"extra_env": [HIDDEN]},
        {"extra_env": {f"NAME={HIDDEN}": ""}},
        {"extra_env": {"NAME": HIDDEN.encode()}},
        {"mcp": [HIDDEN]},
        {"mcp": {"a": HIDDEN.encode()}},
        {"cli_kwargs": {"a": HIDDEN.encode()}},
        {"instructions": HIDDEN},
    ],
)
def test_a_refusal_shows_no_values(settings: dict[str, Any]) -> None:
    with pytest.raises(OpenCodeConfigError) as caught:
        RunConfig(**settings)
    assert HIDDEN not in f"{caught.value}{caught.value!r}"


async def test_an_address_shows_no_password() -> None:
    for url, said in (
        ("me:hidden-value@host", "expected http"),
        ("http://me:hidden-value@[::1:4096", "invalid address"),
        ("http://me:hidden-value@host:port", "invalid address"),
        ("ftp://me:hidden-value@host", "expected http"),
        ("http://me:hidden-value@host", "password: the url already has one"),
    ):
        with pytest.raises(OpenCodeConfigError, match=said) as caught:
            async with connect_server(url, password="x"):
                pass
        assert HIDDEN not in str(caught.value)


# --- who may read what is written ------------------------------------------------------------


@pytest.fixture
def permissive() -> Any:
    before = os.umask(0)
    yield
    os.umask(before)


def test_files_and_directories_are_ours_alone(
    permissive: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with EventLog(tmp_path / "events.jsonl"):
        pass
    with open_results(tmp_path / "results.jsonl"):
        pass
    (tmp_path / "work").mkdir()
    data = tmp_path / "data"
    cfg = RunConfig(mcp={"m": {"headers": {"Authorization": HIDDEN}}}, untrusted=True)
    prepare: Callable[..., Any] = prepare_child
    child = prepare(cfg, tmp_path / "work", isolate_db=False, data_home=data)
    try:
        settings = Path(child.env["OPENCODE_CONFIG_DIR"], "opencode.json")
        assert HIDDEN in settings.read_text()
        assert HIDDEN not in json.dumps(child.env)
        assert HIDDEN not in repr(child)
        for path in (tmp_path / "events.jsonl", tmp_path / "results.jsonl", settings):
            assert path.stat().st_mode & 0o777 == 0o600, path
        for path in (child.scratch, data, data / "opencode", make_scratch()):
            assert path.stat().st_mode & 0o777 == 0o700, path
            if path.name.startswith("opencode-trio-"):
                remove_scratch(path)
    finally:
        remove_scratch(child.scratch)
