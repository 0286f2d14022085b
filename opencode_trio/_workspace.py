"""The directory that an agent works in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from opencode_trio.errors import OpenCodeConfigError

StrPath: TypeAlias = str | os.PathLike[str]
"""A path."""

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
