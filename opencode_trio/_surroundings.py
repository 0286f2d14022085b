"""What surrounds a child, from the host and the settings together: environment and scratch.

Blocking, and without trio: call it in a worker thread.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from pathlib import Path, PurePath

import attrs

from opencode_trio._child_env import reach_loopback_directly
from opencode_trio._command import configuration, settings_environment
from opencode_trio._host_config import settings_file
from opencode_trio._isolation import ChildHome, home_of, host_environment, prepare_child_home
from opencode_trio._json import Json
from opencode_trio._known_secrets import redactor_of
from opencode_trio._project_files import check_project, host_files_above
from opencode_trio._scratch import no_temporary
from opencode_trio._untrusted import git_environment
from opencode_trio._workspace import sent_name
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


def prepare_surroundings(
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
    try:
        child = prepare_child_home(
            base_env=host_environment(),
            inherit_user_config=run_cfg.inherit_user_config,
            isolate_db=isolate_db,
            data_home=data_home,
            settings=_in_file(run_cfg, workspace, sent_name(Path(home))) if in_file else None,
            starts_elsewhere=run_cfg.untrusted,
        )
    except OSError as exc:
        raise no_temporary(exc) from exc
    settings = settings_environment(
        run_cfg,
        {},
        cwd=workspace,
        home=home if isolated else None,
        without_config=in_file,
    )
    env = _locked(run_cfg, LOG_ERRORS_TO_STDERR | child.env | settings)
    _warn_of_shell(env.get("SHELL", ""))
    env = reach_loopback_directly(env)
    return attrs.evolve(child, env=env, redactor=redactor_of(run_cfg, env, workspace))


def _check_nothing_is_replaced(run_cfg: RunConfig) -> None:
    if "OPENCODE_CONFIG_CONTENT" not in (run_cfg.extra_env or {}):
        return
    if lost := [*configuration(run_cfg), *(["untrusted"] if run_cfg.untrusted else [])]:
        raise OpenCodeConfigError(
            "extra_env: OPENCODE_CONFIG_CONTENT would replace other settings"
            f" ({', '.join(lost)}); put what is in it into config_overrides"
        )


_CONFIG_VARIABLES = {"OPENCODE_CONFIG_CONTENT", "OPENCODE_CONFIG_DIR"}
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
"""Login shells of accounts that nobody shall log in to."""


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
