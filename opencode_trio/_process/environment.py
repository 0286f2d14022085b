"""Which of the host's environment variables a child gets: a table, with a reason beside each row.

Pure.  The names are all that opencode 1.18.33 reads, seen in its binary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from opencode_trio._checks import LOCKS
from opencode_trio._json import Json, is_sequence
from opencode_trio._process.host_config import expand_home, parse_config, render_config
from opencode_trio.config import RunConfig, deep_merge
from opencode_trio.errors import OpenCodeConfigError

CONFIG_CONTENT = "OPENCODE_CONFIG_CONTENT"
"""A config as text, which is stronger than all files but an administrator's."""


RUN_MARKER = "OPENCODE_TRIO_RUN"
"""Set in a child to the host's pid, a dot, and a value of its own; all that it starts inherits it,
so leaks can be found."""


# What opencode and this library set for one process and what it starts.  When the host itself
# runs in an agent's shell, these speak of the outer agent.
_OF_AN_OUTER_RUN = frozenset(
    {
        "AGENT",
        "OPENCODE",
        "OPENCODE_PID",
        "OPENCODE_TERMINAL",
        "OPENCODE_SERVER_PASSWORD",  # a server of ours has its own; also sent by `run --attach`
        "OPENCODE_SERVER_USERNAME",
        RUN_MARKER,
    }
)


# Of the host's OPENCODE_* variables an isolated child gets these, and no others: the rest sets
# behaviour (config, permissions, experiments, sharing), serves the terminal UI, or is unknown.
_KEPT = frozenset(
    {
        # Credentials and sign-in.
        "OPENCODE_API_KEY",  # the key of the provider `opencode`
        "OPENCODE_AUTH_CONTENT",  # stands in for auth.json
        "OPENCODE_GITLAB_AUTH_CLIENT_ID",
        # Where the catalogue of providers and models comes from: without them a host behind a
        # firewall waits for, or silently lacks, its models.
        "OPENCODE_MODELS_URL",
        "OPENCODE_MODELS_PATH",
        "OPENCODE_DISABLE_MODELS_FETCH",
        # Where a program is, on Windows.
        "OPENCODE_GIT_BASH_PATH",
        # Locks that an operator put on code from the workspace.  Dropping one would run what
        # was forbidden; keeping one can bring nothing of the host in.
        "OPENCODE_PURE",
        "OPENCODE_DISABLE_PROJECT_CONFIG",
        "OPENCODE_DISABLE_CLAUDE_CODE",
    }
)


# Which database: these go with the host's data directory, kept or left together.
_OF_THE_DATABASE = frozenset({"OPENCODE_DB", "OPENCODE_DISABLE_CHANNEL_DB"})


# Set for an isolated child unless the host sets them otherwise.  Left out on purpose:
# OPENCODE_DISABLE_EMBEDDED_WEB_UI makes `serve` forward unknown requests, with their Authorization
# header, to app.opencode.ai; OPENCODE_DISABLE_MODELS_FETCH saves nothing (the fetch is in the
# background and bounded) and would hide new models.
_DEFAULTS = {
    "OPENCODE_DISABLE_SHARE": "1",  # nobody is there to see that a session was published
    # Language servers are off unless asked for, and a workspace can ask: it should not have
    # the host download and build programs, which stay in its cache.
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
}


_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})


# Bun looks for `[::1]` in the list, other programs for `::1`.
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def reach_loopback_directly(env: Mapping[str, str]) -> dict[str, str]:
    """Keep requests to this machine off the proxies of an environment.

    No proxy can reach a provider or an MCP server on the loopback interface of this machine.  What
    ``NO_PROXY`` already says is kept.  Both spellings are set: Bun, curl and Python prefer the
    lower-case one, Go the other.
    """
    if not any(value and name.upper() in _PROXIES for name, value in env.items()):
        return dict(env)
    lower, upper = env.get("no_proxy", ""), env.get("NO_PROXY", "")
    return {
        **env,
        "no_proxy": _with_loopback(lower or upper),
        "NO_PROXY": _with_loopback(upper or lower),
    }


def _with_loopback(no_proxy: str) -> str:
    listed = [host.strip() for host in no_proxy.split(",")]
    if "*" in listed:  # which stands for all hosts, but for curl only when it is alone
        return no_proxy
    return ",".join(filter(None, [no_proxy, *(host for host in _LOOPBACK if host not in listed)]))


def child_environment(
    base_env: Mapping[str, str],
    *,
    inherit_user_config: bool,
    own_data: bool,
    asked_for: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """Leave out of the host's environment what would set up opencode behind the caller's back.

    Args:
        base_env: The host's environment.
        inherit_user_config: Keep the host's ``OPENCODE_*``, and set no defaults.
        own_data: The child has a data directory of its own, so the host's choice of a database
            is none of its business.
        asked_for: Variables that the host's providers take credentials from, kept by whatever name.
    """
    database = frozenset[str]() if own_data else _OF_THE_DATABASE
    kept = _KEPT | _DEFAULTS.keys() | database | asked_for

    def passes(name: str) -> bool:
        if name in _OF_AN_OUTER_RUN or (own_data and name in _OF_THE_DATABASE):
            return False
        return inherit_user_config or name in kept or not _of_opencode(name)

    defaults = {} if inherit_user_config else _DEFAULTS
    return defaults | {name: value for name, value in base_env.items() if passes(name)}


def _of_opencode(name: str) -> bool:
    # OPENCODE_TRIO_... are this library's and its users'; opencode reads none of them.
    return name.startswith("OPENCODE_") and not name.startswith("OPENCODE_TRIO_")


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
        base: the environment below them.  Its ``OPENCODE_CONFIG_CONTENT`` is kept; where the
            settings say something else, they win.
        cwd: the workspace.  opencode takes ``PWD`` for it, rather than its working directory.
        home: the host's home directory, when the child is given one of its own: ``~/`` in the
            settings means the host's.
        without_config: leave out what is opencode's configuration.

    Raises:
        OpenCodeConfigError: the ``OPENCODE_CONFIG_CONTENT`` of `base` is not a config.
    """
    env = dict(base)
    if not without_config and (config := configuration(run_cfg, home=home)):
        env[CONFIG_CONTENT] = render_config(deep_merge(_config_in(base), config))
    if run_cfg.disable_autoupdate:
        env["OPENCODE_DISABLE_AUTOUPDATE"] = "1"
    env |= LOCKS if run_cfg.untrusted else {}
    place = {} if cwd is None else {"PWD": str(cwd)}
    return env | dict(run_cfg.extra_env or {}) | place


def _config_in(env: Mapping[str, str]) -> Json:
    text = env.get(CONFIG_CONTENT)
    if not text:
        return {}
    try:
        return parse_config(text, environ=env)
    except (ValueError, RecursionError) as exc:
        raise OpenCodeConfigError(f"{CONFIG_CONTENT} in the environment: {exc}") from exc
