"""Checks of settings: each takes a field's name and its value, and names the field if it refuses."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from opencode_trio._json import is_list, is_mapping, is_sequence, object_of
from opencode_trio.errors import OpenCodeConfigError

_log = logging.getLogger("opencode_trio")


StrPath: TypeAlias = str | os.PathLike[str]
"""A path."""


PATHS_FAIL_WITH = (OSError, ValueError, RuntimeError)
"""What pathlib raises: of the system; of a NUL; of a circle of links, or no such user."""


def check_path(path: str) -> None:
    """Check that opencode will work in this directory, and not in another one.

    Its server decodes the directory that a call names once more than HTTP does.

    Args:
        path: of a directory here, or on the machine of a server elsewhere.

    Raises:
        OpenCodeConfigError: opencode would read another path, or none.
    """
    problem = None
    if path.encode(errors="ignore").decode() != path:
        problem = "is not UTF-8, which opencode takes it for"
    elif (decoded := unquote(path)) != path:
        problem = f"is decoded by opencode, which would work in {decoded!r} instead"
    elif path.startswith("/") and "\\" in path:  # without the slash it is a path on Windows
        problem = "has a backslash in it, which opencode takes for a slash"
    if problem is not None:
        raise OpenCodeConfigError(f"workspace: {path!r} {problem}; rename the directory")


def checked_workspace(workspace: StrPath) -> Path:
    """Return the directory, absolute and without links, as opencode will name it.

    Raises:
        OpenCodeConfigError: it is not there, or no directory, or opencode cannot work in it.
    """
    try:
        path = Path(workspace).expanduser().resolve()
        is_directory = path.is_dir()
    except PATHS_FAIL_WITH as exc:
        raise OpenCodeConfigError(f"workspace: {os.fspath(workspace)!r}: {exc}") from exc
    if not is_directory:
        problem = "is not a directory" if path.exists() else "does not exist"
        raise OpenCodeConfigError(f"workspace: {str(path)!r} {problem}")
    check_path(sent_name(path))
    return path


def sent_name(path: Path) -> str:
    """Return a path as opencode is told it in JSON or in a URL: read as UTF-8, whatever the locale.

    Python reads names of files in the encoding of the locale, opencode always in UTF-8.
    """
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def path_of(name: str) -> Path:
    """Return the path that opencode calls by this name; the inverse of `sent_name`."""
    return Path(os.fsdecode(name.encode("utf-8", "surrogateescape")))


ACTIONS = ("allow", "ask", "deny")


TOOLS = (
    *("read", "write", "edit", "patch", "multiedit", "apply_patch", "glob", "grep", "list", "lsp"),
    *("bash", "task", "skill", "question", "todowrite", "todoread", "webfetch", "websearch"),
    *("codesearch", "external_directory", "doom_loop"),
)
"""What opencode asks permissions for: its schema's names, and tools that go by another's name."""


OWNED_FLAGS = {
    "format": "the library reads opencode's JSON",
    "dir": "it leads past the checks of the workspace; give the workspace instead",
    "attach": "`run --attach` loses output and errors; use a session for a shared server",
}
"""Flags of ``opencode run`` that a caller may not set, and why."""


OS_BYTES = "surrogateescape"
"""Paths and variables may hold any bytes; Python writes those that are no UTF-8 in this way."""


def refusal(field: str, problem: str) -> OpenCodeConfigError:
    return OpenCodeConfigError(f"RunConfig.{field}: {problem}")


def shown(value: object) -> str:
    """Write what was given instead: of text and collections, which may hold secrets, the type."""
    return repr(value) if not value or isinstance(value, int | float) else type(value).__name__


def is_string(field: str, value: object, *, errors: str = "strict") -> None:
    """Check for text that can leave Python; as for `str.encode`, `errors` says what more may."""
    if not isinstance(value, str):
        raise refusal(field, f"expected a string, got {shown(value)}")
    if "\0" in value:
        raise refusal(field, "holds a NUL byte, which no command line or environment can carry")
    try:
        value.encode("utf-8", errors)
    except UnicodeEncodeError as exc:
        raise refusal(field, f"cannot be written as UTF-8: {exc}") from exc


def is_text(field: str, value: object) -> None:
    is_string(field, value)
    if not str(value).strip():
        raise refusal(field, "is empty; leave it out for opencode's default")


def is_model(field: str, value: object) -> None:
    is_text(field, value)
    if not re.fullmatch(r"[^/\s]+/\S+", str(value)):
        raise refusal(field, f"expected 'provider/model', got {value!r}")


def is_flag(field: str, value: object) -> None:
    if not isinstance(value, bool):
        raise refusal(field, f"expected True or False, got {value!r}")


def is_count(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise refusal(field, f"expected a positive integer, got {value!r}")


def is_texts(field: str, value: object) -> None:
    if not is_list(value):
        raise refusal(field, f"expected a list of strings, got {shown(value)}")
    for index, item in enumerate(value):
        is_string(f"{field}[{index}]", item)


def mapping_of(field: str, value: object) -> Mapping[object, object]:
    if not is_mapping(value):
        raise refusal(field, f"expected a mapping, got {shown(value)}")
    return value


def is_json_object(field: str, value: object) -> None:
    mapping_of(field, value)
    try:
        _has_text_keys(field, value)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except OpenCodeConfigError:
        raise
    except (TypeError, ValueError, RecursionError) as exc:
        raise refusal(field, f"cannot be written as JSON: {exc}") from exc


def _has_text_keys(path: str, value: object) -> None:
    # json.dumps would turn the keys 1 and None into "1" and "null" without a word.
    if is_mapping(value):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise refusal(path, f"key {key!r} is not a string")
            _has_text_keys(f"{path}.{key}", inner)


def is_permission(field: str, value: object) -> None:
    if not isinstance(value, str):
        is_json_object(field, value)
        warn_of_slips(field, mapping_of(field, value))
    check_actions(value, f"RunConfig.{field}", allow_ask=True)


def are_switches(field: str, value: object) -> None:
    is_json_object(field, value)
    switches = mapping_of(field, value)
    for name, setting in switches.items():
        is_flag(f"{field}[{name!r}]", setting)
    warn_of_slips(field, switches)


def warn_of_slips(field: str, names: Iterable[object]) -> None:
    """Log what looks like a tool's name with a slip in it: opencode takes any, and does nothing.

    It is no error, for tools of MCP servers have names of their own.
    """
    for name in map(str, names):
        if name not in TOOLS and (near := get_close_matches(name, TOOLS, 1, cutoff=0.75)):
            text = "RunConfig.%s: opencode itself has no %r; did you mean %r?"
            _log.warning(text, field, name, near[0])


def check_actions(value: object, path: str, *, allow_ask: bool) -> None:
    """Check every action in a map of maps of actions; `path` is where it stands."""
    if is_mapping(value):
        for key, inner in value.items():
            check_actions(inner, f"{path}.{key}", allow_ask=allow_ask)
    elif value not in ACTIONS:
        expected = ", ".join(ACTIONS)
        raise OpenCodeConfigError(f"{path}: unknown action {value!r}; expected one of {expected}")
    elif value == "ask" and not allow_ask:
        raise OpenCodeConfigError(
            f"{path}: 'ask' is not supported in run mode, where nobody can answer; "
            "use 'allow' or 'deny', or a session with on_permission"
        )


def is_environment(field: str, value: object) -> None:
    for name, setting in mapping_of(field, value).items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            # Who wrote NAME=value meant a value, too.
            begun = re.sub("=.+", "=...", name, flags=re.DOTALL) if isinstance(name, str) else name
            raise refusal(field, f"{begun!r} cannot name an environment variable")
        is_string(field, name, errors=OS_BYTES)
        is_string(f"{field}[{name!r}]", setting, errors=OS_BYTES)


def is_flags(field: str, value: object) -> None:
    """Check flags of a command line: names without dashes, and values or lists of values."""
    for flag, setting in mapping_of(field, value).items():
        if not isinstance(flag, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", flag):
            raise refusal(field, f"{flag!r} cannot name a flag; write it without dashes")
        if flag in OWNED_FLAGS:
            raise refusal(field, f"{flag!r} cannot be set: {OWNED_FLAGS[flag]}")
        for item in setting if is_sequence(setting) else [setting]:
            if not isinstance(item, str | int | float | None):
                raise refusal(f"{field}[{flag!r}]", f"cannot be a flag's value: {shown(item)}")
            is_string(f"{field}[{flag!r}]", str(item), errors=OS_BYTES)


def checked_prompt(prompt: object, *, may_be_blank: bool = False) -> str:
    """Return the prompt if it can be sent.

    Raises:
        OpenCodeConfigError: it is empty, no text, or cannot be written as UTF-8.
    """
    if not isinstance(prompt, str):
        raise OpenCodeConfigError(f"prompt: expected text, got {prompt!r}")
    if not may_be_blank and not prompt.strip():
        raise OpenCodeConfigError("prompt: is empty")
    try:
        prompt.encode()
    except UnicodeEncodeError as exc:
        raise OpenCodeConfigError(f"prompt: cannot be written as UTF-8: {exc}") from exc
    return prompt


UNTRUSTED_SINCE = (1, 15, 13)
"""The oldest opencode that this was tried on.  In older ones ``run`` works in its working
directory whatever ``PWD`` says, and that is elsewhere here."""


LOCKS: Mapping[str, str] = {
    # Its opencode.json and .opencode (agents, commands, tools, MCP servers, permissions,
    # providers), its AGENTS.md.  And its plugins, but not in every release: see `untrusted_workspace`.
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
