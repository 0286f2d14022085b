"""Secrets on the real opencode: where an agent finds them, and that nothing of ours tells them."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from opencode_trio import AsyncOpenCodeClient, OpenCodeError, RunConfig, open_swarm
from opencode_trio._turn.redaction import password_forms
from opencode_trio.testing import (
    HttpError,
    Reply,
    ScriptedModel,
    Stall,
    ToolCall,
    open_scripted_model,
)
from serving import Programs

# On a busy machine; alone a tenth will do.
pytestmark = [pytest.mark.opencode, pytest.mark.timeout(600)]


def bash(command: str) -> ToolCall:
    return ToolCall("bash", {"command": command, "description": "a test"})


# --- what an agent finds ---------------------------------------------------------------------


async def test_the_environment_of_an_agents_shell(opencode_binary: str, tmp_path: Path) -> None:
    """Settings are in a file, not in the environment of each command; the password is there."""
    key = "sk-given-in-the-settings"
    overrides = {"provider": {"scripted": {"options": {"apiKey": key}}}}
    client = AsyncOpenCodeClient(opencode_binary)
    async with open_scripted_model(Programs({"*": [bash("env"), "done"]})) as model:
        cfg = model.run_config(config_overrides=overrides, extra_env={"GIVEN": "to the shell"})
        results = [await client.async_run("x", tmp_path, run_cfg=cfg)]
        async with (
            client.open_server(tmp_path, run_cfg=cfg) as server,
            server.open_session() as session,
        ):
            results.append(await session.send("x"))
        assert {r.headers["authorization"] for r in model.requests} == {f"Bearer {key}"}
    seen = [result.tool_parts[0].output or "" for result in results]
    for environment in seen:
        assert key not in environment
        assert "OPENCODE_CONFIG_CONTENT=" not in environment
        assert "GIVEN=to the shell" in environment
    # docs/security.md says so: opencode takes its password from nowhere else.
    assert ["OPENCODE_SERVER_PASSWORD=" in environment for environment in seen] == [False, True]


# --- what we tell ----------------------------------------------------------------------------


class Secrets:
    """Secrets in every place that one can live in."""

    def __init__(self, home: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values: list[str] = []
        make = self._make
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("ACME_API_KEY", make("environment"))
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{make('proxy')}@127.0.0.1:9")
        auth = {"acme": {"type": "api", "key": make("auth")}}
        self._write(home / ".local/share/opencode/auth.json", json.dumps(auth))
        file = self._write(home / "key", f"{make('file')}\n")
        host = {"provider": {"acme": {"options": {"apiKey": f"{{file:{file}}}"}}}}
        self._write(home / ".config/opencode/opencode.json", json.dumps(host))
        project = {"provider": {"of-the-project": {"options": {"apiKey": make("project")}}}}
        self._write(workspace / "opencode.json", json.dumps(project))
        self.overrides: dict[str, Any] = {
            "provider": {
                "scripted": {
                    "options": {
                        "apiKey": make("config"),
                        "headers": {"X-Api-Key": make('hea"der')},
                        "url": f"https://me:{make('url')}@example.org",
                    }
                }
            }
        }
        mcp = {"command": ["true"], "environment": {"MCP_TOKEN": make("mcp-environment")}}
        remote = {"url": "http://127.0.0.1:9", "headers": {"Authorization": make("mcp-header")}}
        self.mcp: dict[str, Any] = {
            "local": {"type": "local", "enabled": False, **mcp},
            "remote": {"type": "remote", "enabled": False, **remote},
        }
        self.extra_env = {"OTHER_TOKEN": make("extra-environment")}
        self.extra_env["OPENCODE_AUTH_CONTENT"] = json.dumps({"a": {"key": make("auth-content")}})

    def config(self, model: ScriptedModel, **options: Any) -> RunConfig:
        return model.run_config(
            config_overrides=self.overrides, mcp=self.mcp, extra_env=self.extra_env, **options
        )

    def in_(self, text: str) -> list[str]:
        """Return those that stand in a text, in whatever form."""
        forms = {value: (value, json.dumps(value)[1:-1]) for value in self.values}
        return [value for value, written in forms.items() if any(f in text for f in written)]

    def flags(self) -> dict[str, str]:
        """Return flags of a run of its own; what no other was given no other can know."""
        return {"password": self._make("flag"), "session": "ses_none"}

    def _make(self, place: str) -> str:
        self.values.append(f"sk-{place}-{os.urandom(12).hex()}")
        return self.values[-1]

    def _write(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def all_of(error: BaseException) -> Iterator[str]:
    """Yield all that an error tells, its causes and its partial result included."""
    yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
    yield from traceback.format_exception(error)
    if isinstance(error, OpenCodeError) and error.partial is not None:
        yield repr(attrs.asdict(error.partial))


class Told:
    """Everything that was told."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    async def failing(self, name: str, job: Callable[[], Awaitable[object]]) -> None:
        """Do what fails, and keep what is told of it."""
        with pytest.raises(OpenCodeError) as caught:
            await job()
        self.texts[name] = "\n".join(all_of(caught.value))


async def test_nothing_tells_a_secret(
    opencode_binary: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With secrets everywhere, all goes wrong, and the provider and opencode quote them."""
    caplog.set_level(logging.DEBUG)
    workspace = tmp_path / "work"
    secrets = Secrets(tmp_path / "home", workspace, monkeypatch)
    echo = HttpError(401, f"none of these: {' '.join(secrets.values)}")
    programs = {"echo": echo, "stall": Reply(Stall()), "crash": [bash("kill -9 $PPID"), "late"]}
    client = AsyncOpenCodeClient(opencode_binary)
    told = Told()
    async with open_scripted_model(Programs(programs)) as model:
        cfg = secrets.config(model)
        run = partial(client.async_run, workspace=workspace, run_cfg=cfg)
        log = tmp_path / "events.jsonl"
        await told.failing("refused by the provider", partial(run, "echo", log_file=log))
        await told.failing("crashed", partial(run, "crash", log_file=log))
        # Without `enabled`, beside which opencode accepts anything.
        wrong = {"type": "remote", "url": "http://x", "headers": {"Authorization": secrets.values}}
        bad = attrs.evolve(cfg, mcp={"remote": wrong})
        await told.failing("bad settings", partial(run, "x", run_cfg=bad))
        flags = attrs.evolve(cfg, cli_kwargs=secrets.flags())
        await told.failing("bad flags", partial(run, "x", run_cfg=flags))
        told.texts["event log"] = log.read_text()

        async with client.open_server(workspace, run_cfg=cfg) as server:
            password = environment_of(server.pid)["OPENCODE_SERVER_PASSWORD"]
            secrets.values += password_forms("opencode", password)
            async with server.open_session() as session:
                await told.failing("session refused", partial(session.send, "echo"))
                await told.failing("timeout", partial(session.send, "stall", timeout_s=1))
                bad_model = RunConfig(model="scripted/none")
                await told.failing("bad model", partial(session.send, "x", run_cfg=bad_model))
            async with open_swarm(server, on_failure="collect") as swarm:
                swarm.start_soon("echo", workspace=workspace)
            report = swarm.report()
            told.texts["report"] = report.jsonl() + report.html() + report.table()
            told.texts["outcomes"] = repr(swarm.outcomes())
            async with server.open_session() as session, trio.open_nursery() as nursery:
                nursery.start_soon(told.failing, "server died", partial(session.send, "stall"))
                await model.wait_for_requests(len(model.requests) + 1)
                os.kill(server.pid or 0, signal.SIGKILL)
            told.texts["server"] = repr(server)

        command = CommandLine(opencode_binary, tmp_path, secrets.config(model))
        told.texts["batch"] = await command.swarm({"prompt": "echo", "run_cfg": secrets_of(cfg)})
        told.texts["doctor"] = await command.doctor()
    told.texts["log"] = caplog.text
    told.texts["settings"] = repr(cfg)
    assert {name: secrets.in_(text) for name, text in told.texts.items() if secrets.in_(text)} == {}

    quoted = {name for name, text in told.texts.items() if "[redacted]" in text}
    expected = "refused by the provider, bad settings, bad flags, event log, session refused"
    assert quoted >= {*expected.split(", "), "report", "outcomes", "batch"}


def secrets_of(cfg: RunConfig) -> dict[str, Any]:
    return {"config_overrides": cfg.config_overrides, "mcp": cfg.mcp}


class CommandLine:
    """The command line, on a host whose configuration knows the scripted model."""

    def __init__(self, binary: str, root: Path, cfg: RunConfig) -> None:
        self._root = root
        self._settings = root / "settings.json"
        settings = {"extra_env": cfg.extra_env, "snapshot": False, **secrets_of(cfg)}
        self._settings.write_text(json.dumps(settings))
        self._options = ["--model", "scripted/scripted", "--opencode", binary]
        self._options += ["--workspace", str(root / "work")]
        host = root / "home/.config/opencode/opencode.jsonc"
        host.write_text(json.dumps(cfg.build_opencode_config_dict()))

    async def swarm(self, task: dict[str, Any]) -> str:
        """Do a batch of one task that fails; return what is told and written."""
        tasks, out = self._root / "tasks.jsonl", self._root / "results.jsonl"
        tasks.write_text(json.dumps(task))
        more = [str(tasks), "--out", str(out), "--config", str(self._settings)]
        said = await self._run("swarm", *more)
        (record,) = map(json.loads, out.read_text().splitlines())
        assert record["status"] == "failed"
        return said + out.read_text()

    async def doctor(self) -> str:
        """See what is wrong."""
        return await self._run("doctor")

    async def _run(self, *command: str) -> str:
        done = await trio.run_process(
            [sys.executable, "-m", "opencode_trio", *command, *self._options],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.stdout.decode()


def environment_of(pid: int | None) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
