"""The directory that an agent works in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from opencode_trio.errors import OpenCodeConfigError

StrPath: TypeAlias = str | os.PathLike[str]


def checked_workspace(workspace: StrPath) -> Path:
    """Return the directory, absolute and without links, as opencode will name it.

    Raises:
        OpenCodeConfigError: it is not there, or no directory.
    """
    path = Path(workspace).expanduser().resolve()
    if not path.is_dir():
        problem = "is not a directory" if path.exists() else "does not exist"
        raise OpenCodeConfigError(f"workspace: {str(path)!r} {problem}")
    return path
