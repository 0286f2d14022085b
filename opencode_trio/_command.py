"""The command line and the environment of a child, as values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from opencode_trio._host_config import expand_home, render_config
from opencode_trio._json import Json, is_sequence
from opencode_trio._untrusted import LOCKS
from opencode_trio.config import RunConfig


def build_argv(binary_resolved: str, prompt: str, run_cfg: RunConfig) -> list[str]:
    """Build the command line of ``opencode run --format json``.

    Of `RunConfig.cli_kwargs`, ``True`` becomes ``--flag``, a value ``--flag=value``, a key of
    one letter ``-k value``, a list one flag for each of its items; ``False`` and ``None`` are
    left out.

    Args:
        binary_resolved: the executable.
        prompt: appended as the message if it is not empty.  opencode alters a message that it
            gets this way (it adds quotes) and reads options in it; the client writes the
            prompt to stdin instead.
        run_cfg: the settings.
    """
    argv = [binary_resolved, "run", "--format", "json"]
    argv += ["-m", run_cfg.model] if run_cfg.model else []
    argv += ["--agent", run_cfg.agent] if run_cfg.agent else []
    argv += [f"--variant={run_cfg.variant}"] if run_cfg.variant else []
    argv += ["--thinking"] if run_cfg.thinking else []
    for key, value in (run_cfg.cli_kwargs or {}).items():
        for item in value if is_sequence(value) else [value]:
            argv += _flag(key, item)
    return [*argv, prompt] if prompt else argv


def _flag(key: str, value: Any) -> list[str]:
    flag = f"-{key}" if len(key) == 1 else f"--{key}"
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    return [flag, str(value)] if len(key) == 1 else [f"{flag}={value}"]


def configuration(run_cfg: RunConfig, *, home: str | None = None) -> Json:
    """Build the configuration that opencode is given; `home` as in `settings_environment`."""
    config = run_cfg.build_opencode_config_dict()
    return config if home is None else expand_home(config, home)


def settings_environment(
    run_cfg: RunConfig,
    base: Mapping[str, str],
    *,
    cwd: str | PurePath | None = None,
    home: str | None = None,
    without_config: bool = False,
) -> dict[str, str]:
    """Lay the settings over an environment; only the workspace is stronger than ``extra_env``.

    Args:
        run_cfg: the settings.
        base: the environment below them.
        cwd: the workspace.  opencode takes ``PWD`` for it, rather than its working directory.
        home: the host's home directory, when the child is given one of its own: ``~/`` in the
            settings means the host's.
        without_config: leave out what is opencode's configuration.
    """
    env = dict(base)
    if not without_config and (config := configuration(run_cfg, home=home)):
        env["OPENCODE_CONFIG_CONTENT"] = render_config(config)
    if run_cfg.disable_autoupdate:
        env["OPENCODE_DISABLE_AUTOUPDATE"] = "1"
    env |= LOCKS if run_cfg.untrusted else {}
    place = {} if cwd is None else {"PWD": str(cwd)}
    return env | dict(run_cfg.extra_env or {}) | place
