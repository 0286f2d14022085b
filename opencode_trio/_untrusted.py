"""How a workspace is kept from running its own code and giving its own orders.  Pure.

Three locks of opencode's own, two settings, three of git's, and a look at what none of them stops
(see `_project_files`).  What the *caller* gives still applies; where it would name files of the
workspace, it is refused, because it says both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from opencode_trio._json import is_sequence, object_of
from opencode_trio.errors import OpenCodeConfigError

SINCE = (1, 15, 13)
"""The oldest opencode that this was tried on.  In older ones ``run`` works in its working
directory whatever ``PWD`` says, and that is elsewhere here."""

LOCKS: Mapping[str, str] = {
    # Its opencode.json and .opencode (agents, commands, tools, MCP servers, permissions,
    # providers), its AGENTS.md.  And its plugins, but not in every release: see `_project_files`.
    "OPENCODE_DISABLE_PROJECT_CONFIG": "1",
    # CLAUDE.md, also below the workspace, where the lock above does not reach; .claude/skills.
    "OPENCODE_DISABLE_CLAUDE_CODE": "1",
    # .agents/skills.
    "OPENCODE_DISABLE_EXTERNAL_SKILLS": "1",
}
"""Variables that opencode reads.  ``OPENCODE_PURE`` is none of them: it would take the caller's own
plugins away, and an administrator's, and stops none of the workspace's that these do not."""

OFF: Mapping[str, Any] = {"formatter": False, "lsp": False}
"""Both run programs that a workspace chooses (prettier with its plugins, its TypeScript)."""

_GIT = (
    ("core.fsmonitor", "false"),  # else a command, run by `git status`
    ("core.hooksPath", "/dev/null"),
    ("safe.bareRepository", "explicit"),  # else a repository within, with a config of its own
)
"""What keeps git in the agent's shell from running what a repository's own config names."""


def git_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that set `_GIT` over every file, behind what an environment sets."""
    given = env.get("GIT_CONFIG_COUNT", "")
    begin = int(given) if given.isdecimal() else 0
    names: dict[str, str] = {"GIT_CONFIG_COUNT": str(begin + len(_GIT))}
    for number, (key, value) in enumerate(_GIT, begin):
        names |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return names


def check_untrusted(*, extra_env: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """Check that settings do not trust what they call untrusted.

    Raises:
        OpenCodeConfigError: they do; the text says where.
    """
    for name in LOCKS.keys() & extra_env.keys():
        if extra_env[name].lower() not in {"1", "true"}:
            raise _contradiction(f"extra_env[{name!r}]", "opens what `untrusted` locks")
    for where, path in _paths(config):
        if not _OUTSIDE.match(path):
            problem = f"{path!r} is a file of the workspace; give an absolute path, or a URL"
            raise _contradiction(where, problem)


_OUTSIDE = re.compile(r"/|~/|[a-z]+://|\{(file|env):")


def _paths(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what opencode would look for from the workspace on, with where it stands."""
    yield from _texts("instructions", config.get("instructions"))
    yield from _texts("skills.paths", object_of(config.get("skills")).get("paths"))
    for where, plugin in _texts("plugin", config.get("plugin")):
        if plugin.startswith("."):  # others are names of packages
            yield where, plugin


def _texts(where: str, value: object) -> Iterator[tuple[str, str]]:
    for index, item in enumerate(value if is_sequence(value) else ()):
        first = item[0] if is_sequence(item) and item else item  # a plugin with its options
        if isinstance(first, str):
            yield f"{where}[{index}]", first


def _contradiction(where: str, problem: str) -> OpenCodeConfigError:
    return OpenCodeConfigError(f"RunConfig.untrusted: {where}: {problem}")


# --- what opencode.json may ask for, whatever the locks say -----------------------------------

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_ASKS = re.compile(r'"(plugins?|references?)"')


def asks_of(config_text: str) -> str | None:
    """Return what a config file asks for that the locks do not stop; ``None`` if nothing.

    The text is searched rather than parsed: what reads as a comment here may be none to opencode.
    """
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), config_text)
    asked = _ASKS.search(plain)
    return asked[1] if asked else None
