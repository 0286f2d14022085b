"""The directory that an agent works in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

from opencode_trio.errors import OpenCodeConfigError

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
