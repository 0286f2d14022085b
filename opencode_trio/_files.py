"""Files that go with a prompt.

They travel inside it, as ``data:`` URLs: the server may run on another machine, and what is sent is
what the file held at the time.
"""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import attrs
import trio

from opencode_trio._json import Json
from opencode_trio.errors import OpenCodeConfigError


@attrs.frozen
class Attachment:
    """A file that is not on disk."""

    data: bytes = attrs.field(repr=False)
    """Its content."""
    media_type: str
    """Its kind, for example ``image/png`` or ``text/plain``."""
    filename: str = ""
    """What the model is told that it is called."""


FileLike: TypeAlias = str | os.PathLike[str] | Attachment | tuple[bytes, str]
"""A path, or bytes with their media type."""


async def file_parts(files: Sequence[FileLike]) -> list[Json]:
    """Read files and put them into parts of a prompt.

    Raises:
        OpenCodeConfigError: a file cannot be read.

    **Cancellation**: takes effect between two files.
    """
    if isinstance(files, str | bytes | os.PathLike):
        raise OpenCodeConfigError(f"files: expected a list, got {files!r}")
    return [_part(await _attachment(file)) for file in files]


async def _attachment(file: FileLike) -> Attachment:
    if isinstance(file, Attachment):
        return file
    if isinstance(file, tuple):
        return Attachment(*file)
    return await trio.to_thread.run_sync(_read, file)


def _read(file: str | os.PathLike[str]) -> Attachment:
    path = Path(file).expanduser()
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise OpenCodeConfigError(f"files: cannot read {str(path)!r}: {exc.strerror}") from exc
    name = os.fsencode(path.name).decode(errors="replace")  # it may be in any encoding
    return Attachment(data, _media_type(path, data), name)


def _media_type(path: Path, data: bytes) -> str:
    """Tell what a model can be shown: opencode puts only plain text into a prompt as text."""
    guess = mimetypes.guess_type(path.name)[0] or "text/plain"
    if guess.startswith("image/") and guess != "image/svg+xml":
        return guess
    try:
        data.decode()
    except UnicodeDecodeError:
        return guess if guess != "text/plain" else "application/octet-stream"
    return "text/plain"


def _part(file: Attachment) -> Json:
    content = base64.b64encode(file.data).decode("ascii")
    part = {
        "type": "file",
        "mime": file.media_type,
        "url": f"data:{file.media_type};base64,{content}",
    }
    return part | ({"filename": file.filename} if file.filename else {})
