"""The directory that an agent works in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from opencode_trio.errors import OpenCodeConfigError

StrPath: TypeAlias = str | os.PathLike[str]

PATHS_FAIL_WITH = (OSError, ValueError, RuntimeError)
"""What pathlib raises: of the system; of a NUL; of a circle of links, or no such user."""


def checked_workspace(workspace: StrPath) -> Path:
    """Return the directory, absolute and without links, as opencode will name it.

    Raises:
        OpenCodeConfigError: it is not there, or no directory.
    """
    try:
        path = Path(workspace).expanduser().resolve()
        is_directory = path.is_dir()
    except PATHS_FAIL_WITH as exc:
        raise OpenCodeConfigError(f"workspace: {os.fspath(workspace)!r}: {exc}") from exc
    if not is_directory:
        problem = "is not a directory" if path.exists() else "does not exist"
        raise OpenCodeConfigError(f"workspace: {str(path)!r} {problem}")
    return path


def sent_name(path: Path) -> str:
    """Return a path as opencode is told it in JSON or in a URL: read as UTF-8, whatever the locale.

    Python reads names of files in the encoding of the locale, opencode always in UTF-8.
    """
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def path_of(name: str) -> Path:
    """Return the path that opencode calls by this name; the inverse of `sent_name`."""
    return Path(os.fsdecode(name.encode("utf-8", "surrogateescape")))
