"""Which of the host's environment variables a child gets: a table, with a reason beside each row.

Pure.  The names are all that opencode 1.18.33 reads, seen in its binary.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    # Language servers are off unless asked for, and a workspace can ask: it shall not have
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
