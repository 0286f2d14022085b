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


def checked_workspace(workspace: StrPath) -> Path:
    """Return the directory, absolute and without links, as opencode will name it.

    Raises:
        OpenCodeConfigError: it is not there, is not a directory, or has a name that opencode
            would take for another one.
    """
    try:
        path = Path(workspace).expanduser().resolve()
        is_directory = path.is_dir()
    except PATHS_FAIL_WITH as exc:
        raise OpenCodeConfigError(f"workspace: {os.fspath(workspace)!r}: {exc}") from exc
    if not is_directory:
        problem = "is not a directory" if path.exists() else "does not exist"
        raise OpenCodeConfigError(f"workspace: {str(path)!r} {problem}")
    check_name(sent_name(path))
    return path


def check_name(directory: str) -> None:
    """Check that opencode takes a directory for what it is.

    It percent-decodes the name of a directory, and takes a backslash for a slash: it would work
    in another directory, and not say so (seen in 1.18.33).

    Raises:
        OpenCodeConfigError: it does not.
    """
    if any(0xD800 <= ord(c) <= 0xDFFF for c in directory):
        problem = "is not UTF-8"
    elif "\\" in directory:
        problem = "has a backslash, which opencode takes for a slash"
    elif unquote(directory, errors="surrogateescape") != directory:
        problem = "has a percent sign before two hexadecimal digits, which opencode decodes"
    else:
        return
    raise OpenCodeConfigError(
        f"workspace: the name of {directory!r} {problem}: it would work in another directory. "
        "Rename it, or give a copy or a bind mount under another name"
    )


def sent_name(path: Path) -> str:
    """Return a path as opencode is told it in JSON or in a URL: read as UTF-8, whatever the locale.

    Python reads names of files in the encoding of the locale, opencode always in UTF-8.
    """
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def path_of(name: str) -> Path:
    """Return the path that opencode calls by this name; the inverse of `sent_name`."""
    return Path(os.fsdecode(name.encode("utf-8", "surrogateescape")))
