"""What surrounds a child, from the host and the settings together: environment and scratch.

Blocking, and without trio: call it in a worker thread.
"""

from __future__ import annotations

import functools
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

import attrs

from opencode_trio._checks import sent_name
from opencode_trio._json import Json
from opencode_trio._process.environment import (
    CONFIG_CONTENT,
    configuration,
    reach_loopback_directly,
    settings_environment,
)
from opencode_trio._process.host_config import GLOBAL_CONFIG_FILES, parse_config, settings_file
from opencode_trio._process.isolation import (
    ChildHome,
    home_of,
    host_environment,
    prepare_child_home,
)
from opencode_trio._process.scratch import no_temporary
from opencode_trio._process.untrusted_workspace import (
    check_project,
    git_environment,
    host_files_above,
)
from opencode_trio._turn.redaction import Redactor, files_in, secrets_in
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError

_log = logging.getLogger("opencode_trio")


LOG_ERRORS_TO_STDERR = {"OPENCODE_PRINT_LOGS": "1", "OPENCODE_LOG_LEVEL": "ERROR"}
"""Errors alone, and on stderr: it is the only place where ``run`` tells the true text of some."""


def build_env(
    run_cfg: RunConfig, base: Mapping[str, str] | None = None, *, cwd: str | PurePath | None = None
) -> dict[str, str]:
    """Lay the settings over an environment.

    Args:
        run_cfg: the settings.
        base: the environment below them; by default this process's own.
        cwd: the workspace, which becomes ``PWD``.
    """
    base = os.environ if base is None else base
    return _locked(run_cfg, settings_environment(run_cfg, base, cwd=cwd))


def _locked(run_cfg: RunConfig, env: dict[str, str]) -> dict[str, str]:
    return env | git_environment(env) if run_cfg.untrusted else env


def prepare_child(
    run_cfg: RunConfig, workspace: Path, *, isolate_db: bool, data_home: Path | None
) -> ChildHome:
    """Make the scratch directory and the environment of a child.

    Args:
        run_cfg: the settings.
        workspace: where the child works.
        isolate_db: give it a data directory of its own, in the scratch.
        data_home: give it this one instead.

    Raises:
        OpenCodeConfigError: opencode may not be let into the workspace, or a directory that it
            needs cannot be made; what had been made is gone again.
    """
    home = home_of(os.environ)
    check_project(workspace, home=Path(home), untrusted=run_cfg.untrusted)
    _check_nothing_is_replaced(run_cfg)
    isolated = not run_cfg.inherit_user_config
    if isolated and not run_cfg.untrusted:
        _warn_of_host_files(workspace, Path(home))
    in_file = isolated and not _CONFIG_VARIABLES & (run_cfg.extra_env or {}).keys()
    host = host_environment()
    settings = settings_environment(
        run_cfg,
        {CONFIG_CONTENT: host[CONFIG_CONTENT]} if not isolated and CONFIG_CONTENT in host else {},
        cwd=workspace,
        home=home if isolated else None,
        without_config=in_file,
    )
    try:
        child = prepare_child_home(
            base_env=host,
            workspace=workspace,
            inherit_user_config=run_cfg.inherit_user_config,
            isolate_db=isolate_db,
            data_home=data_home,
            settings=_in_file(run_cfg, workspace, sent_name(Path(home))) if in_file else None,
            starts_elsewhere=run_cfg.untrusted,
        )
    except OSError as exc:
        raise no_temporary(exc) from exc
    env = _locked(run_cfg, LOG_ERRORS_TO_STDERR | child.env | settings)
    _warn_of_shell(env.get("SHELL", ""))
    env = reach_loopback_directly(env)
    return attrs.evolve(child, env=env, redactor=redactor_of(run_cfg, env, workspace))


def _check_nothing_is_replaced(run_cfg: RunConfig) -> None:
    if CONFIG_CONTENT not in (run_cfg.extra_env or {}):
        return
    if lost := [*configuration(run_cfg), *(["untrusted"] if run_cfg.untrusted else [])]:
        raise OpenCodeConfigError(
            "extra_env: OPENCODE_CONFIG_CONTENT would replace other settings"
            f" ({', '.join(lost)}); put what is in it into config_overrides"
        )


_CONFIG_VARIABLES = {CONFIG_CONTENT, "OPENCODE_CONFIG_DIR"}
"""A caller who sets one of these decides where settings are."""


def _in_file(run_cfg: RunConfig, workspace: Path, home: str) -> Json:
    return settings_file(
        configuration(run_cfg, home=home),
        directory=sent_name(workspace),
        home=home,
        environ=os.environ | dict(run_cfg.extra_env or {}),
    )


@functools.lru_cache(maxsize=256)  # once for each workspace, not for each of a thousand runs
def _warn_of_host_files(workspace: Path, home: Path) -> None:
    if found := host_files_above(workspace, home):
        _log.warning(
            "opencode takes %s for files of the project %s, which is in no git repository; "
            "`git init` there keeps them out",
            ", ".join(map(str, found)),
            workspace,
        )


_NO_SHELLS = {"nologin", "false", "true"}
"""Login shells of accounts that nobody should log in to."""


@functools.lru_cache(maxsize=16)
def _warn_of_shell(shell: str) -> None:
    # One that does not exist is none to warn of: opencode takes another then.
    runs_commands = os.access(shell, os.X_OK) and PurePath(shell).name not in _NO_SHELLS
    if os.access(shell, os.F_OK) and not runs_commands:
        _log.warning(
            "SHELL is %s, so the agent's shell commands will do nothing; "
            "set another, for example by RunConfig(extra_env={'SHELL': '/bin/sh'})",
            shell,
        )


MAX_BYTES = 1 << 20
"""Credentials and settings are kilobytes; what is larger is something else."""


_IN_VARIABLES = (CONFIG_CONTENT, "OPENCODE_AUTH_CONTENT")


def redactor_of(run_cfg: RunConfig, env: Mapping[str, str], workspace: Path) -> Redactor:
    """Return one that knows what a child can know: its settings, environment and credentials.

    Args:
        run_cfg: the settings.
        env: the child's whole environment.
        workspace: where it works.
    """
    objects = [
        run_cfg.build_opencode_config_dict(),
        dict(run_cfg.cli_kwargs or {}),
        *(_parsed(env.get(name, ""), env) for name in _IN_VARIABLES),
        *(_parsed(_text(path), env) for path in _files(run_cfg, env, workspace)),
    ]
    return Redactor.of(
        [
            *secrets_in(dict(env), environ=env),
            *(secret for found in objects for secret in _all_in(found, env)),
        ]
    )


def _files(run_cfg: RunConfig, env: Mapping[str, str], workspace: Path) -> Iterator[Path]:
    """Yield the files that opencode takes credentials from; most are not there."""
    home = Path(home_of(env))
    data = Path(env.get("XDG_DATA_HOME") or home / ".local/share", "opencode")
    yield from (data / name for name in ("auth.json", "mcp-auth.json"))
    folders = [
        Path(env.get("XDG_CONFIG_HOME") or home / ".config", "opencode"),
        Path(env.get("OPENCODE_TEST_HOME") or home, ".opencode"),
        *([] if run_cfg.untrusted else [workspace, workspace / ".opencode"]),
    ]
    if folder := env.get("OPENCODE_CONFIG_DIR"):
        folders.append(workspace / folder)
    if file := env.get("OPENCODE_CONFIG"):
        yield workspace / file
    yield from (folder / name for folder in folders for name in GLOBAL_CONFIG_FILES)


def _all_in(found: Json, env: Mapping[str, str]) -> Iterator[str]:
    yield from secrets_in(found, environ=env)
    for name in files_in(found):
        path = os.path.expanduser(name)  # noqa: PTH111 - never raises
        yield _text(Path(path)).strip()  # as opencode reads it


def _parsed(text: str, env: Mapping[str, str]) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):  # what opencode does not understand either
        return parse_config(text, environ=env)
    return {}


def _text(path: Path) -> str:
    with suppress(OSError, ValueError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
            return path.read_text("utf-8")
    return ""
