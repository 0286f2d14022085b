"""Workspaces that are not trusted: what opencode takes from them, and what keeps it out.

It looks from the workspace to the root of its git repository; without one, up to ``/``, and so past
the host's home directory and through directories where anybody may write.  No variable stops it.

Blocking, and without trio: call it in a worker thread.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from opencode_trio._process.host_config import CONFIG_FILES
from opencode_trio.errors import OpenCodeConfigError

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


NAMES = (
    ".opencode",
    "opencode.json",
    "opencode.jsonc",
    "AGENTS.md",
    "CLAUDE.md",
    "CONTEXT.md",
    ".claude/skills",
    ".agents/skills",
)


_PLUGIN_DIRECTORIES = (".opencode/plugin", ".opencode/plugins")


_PLUGIN_ENDINGS = {".js", ".ts"}


MAX_CONFIG_BYTES = 1 << 20
"""A config of a megabyte is none; a link to ``/dev/zero`` has no end."""


def host_files_above(workspace: Path, home: Path) -> list[Path]:
    """Name the host's own files that opencode takes for the project's, because it walks that far.

    ``git init`` in the workspace stops it, as does ``OPENCODE_DISABLE_PROJECT_CONFIG`` (which shuts
    out the project's files as well).

    Returns:
        Existing files and directories in the home directory; none if the walk ends below it.
    """
    return list(_found_in(home)) if home in _walked_above(workspace) else []


def check_project(workspace: Path, *, home: Path, untrusted: bool) -> None:
    """Check that opencode may be let into a workspace.

    Args:
        workspace: absolute, and without links.
        home: the host's home directory.
        untrusted: whether nothing of the workspace may run.

    Raises:
        OpenCodeConfigError: opencode would read what belongs to a third user (neither this one,
            nor root, nor the owner of the workspace); or run or fetch what is not trusted.
    """
    trusted = {0, os.getuid(), workspace.stat().st_uid}
    for folder in _walked_above(workspace):
        for path in _found_in(folder):
            _check_owner(path, trusted)
    if untrusted and (found := list(_unstoppable(workspace, home))):
        raise OpenCodeConfigError(
            f"workspace: is not trusted, and opencode would run or fetch what it asks for: "
            f"{', '.join(found)}; no setting stops that in opencode 1.18: remove it, or work in a "
            "copy without it"
        )


def _walked_above(workspace: Path) -> list[Path]:
    """Return the directories above a workspace that opencode looks into."""
    walk = [Path(os.path.abspath(workspace))]  # noqa: PTH100 - resolve() leaves links
    while not os.path.lexists(walk[-1] / ".git") and walk[-1].parent != walk[-1]:
        walk.append(walk[-1].parent)
    return walk[1:]


def _found_in(folder: Path) -> Iterator[Path]:
    return (found for name in NAMES if os.path.exists(found := folder / name))  # noqa: PTH110


def _check_owner(path: Path, trusted: Collection[int]) -> None:
    owner = path.lstat().st_uid
    if owner not in trusted:
        raise OpenCodeConfigError(
            f"workspace: opencode would take {path} for the project's, and it belongs to user "
            f"{owner}, who is neither you nor the owner of the workspace; remove it, or run "
            "`git init` in the workspace, which keeps it out"
        )


def _unstoppable(workspace: Path, home: Path) -> Iterator[str]:
    """Yield what opencode 1.18 runs or fetches, though it is told to leave the project alone.

    It reads the configuration twice, for its old core and for its new one, and the new one asks
    nobody (anomalyco/opencode 49836): it imports plugins, installs them from npm, and clones what is
    named as a reference.  Seen in 1.17.19 and 1.18.33; 1.15.13 had no new core.

    A ``.git`` does not end this walk: it may be a false one, at which opencode does not stop.
    """
    for folder in (workspace, *workspace.parents):
        if folder != home or folder == workspace:
            yield from _plugins_in(folder)
            yield from _asks_in(folder)
            yield from _asks_in(folder / ".opencode")


def _plugins_in(folder: Path) -> Iterator[str]:
    for directory in _PLUGIN_DIRECTORIES:
        with suppress(OSError):  # what we cannot list, opencode cannot
            for path in sorted((folder / directory).iterdir()):
                if path.suffix.lower() in _PLUGIN_ENDINGS:
                    yield str(path)


def _asks_in(folder: Path) -> Iterator[str]:
    for name in CONFIG_FILES:
        with suppress(OSError):  # what we cannot read, opencode cannot
            if (asked := _ask_of(folder / name)) is not None:
                yield f"{folder / name} ({asked})"


def _ask_of(path: Path) -> str | None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_CONFIG_BYTES:
        return "is no file that can be looked through"
    return asks_of(path.read_bytes().decode(errors="replace"))
