"""Files that go with a prompt.

They travel inside it, as ``data:`` URLs: the server may run on another machine, and what is sent is
what the file held at the time.
"""

from __future__ import annotations

import mimetypes
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import trio

from opencode_trio._protocol.values import Attachment
from opencode_trio.errors import OpenCodeConfigError

FileLike: TypeAlias = str | os.PathLike[str] | Attachment | tuple[bytes, str]
"""A path, or bytes with their media type."""


async def read_attachments(files: Sequence[FileLike]) -> list[Attachment]:
    """Read the files that go with a prompt.

    Raises:
        OpenCodeConfigError: a file cannot be read, or is a damaged image.

    **Cancellation**: takes effect between two files.
    """
    if isinstance(files, str | bytes | os.PathLike):
        raise OpenCodeConfigError(f"files: expected a list, got {files!r}")
    attachments = [await _attachment(file) for file in files]
    for number, attachment in enumerate(attachments):
        if problem := damage_of(attachment):
            raise OpenCodeConfigError(f"files: {_name(attachment.filename, number)} {problem}")
    return attachments


def damage_of(file: Attachment) -> str:
    """Say what is wrong with an image; empty if nothing is, as far as that is quick to see.

    opencode decodes images, and refuses a prompt with one that it cannot decode.
    """
    if not file.media_type.startswith("image/"):
        return ""
    if not file.data:
        return "is an empty file, and no image"
    if file.data.startswith(PNG_BEGINS) and not _is_whole_png(file.data):
        return "is a damaged PNG image: it is incomplete, or a checksum is wrong"
    return ""


PNG_BEGINS = b"\x89PNG\r\n\x1a\n"


def _is_whole_png(data: bytes) -> bool:
    """Check the chunks: four bytes of length, four of kind, the content, and a CRC of the last two.

    Decoders overlook a wrong CRC of a chunk that they can do without: its kind begins in lower
    case.
    """
    at = len(PNG_BEGINS)
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        crc = data[end : end + 4]
        if len(crc) < 4 or (kind.isupper() and crc != zlib.crc32(data[at + 4 : end]).to_bytes(4)):
            return False
        if kind == b"IEND":
            return True
        at = end + 4
    return False


def images_of(files: Sequence[Attachment]) -> list[str]:
    """Name the images among files, as errors call them."""
    return [
        f"{_name(file.filename, number)} ({file.media_type})"
        for number, file in enumerate(files)
        if file.media_type.startswith("image/")
    ]


def _name(filename: str, number: int) -> str:
    return repr(filename) if filename else f"files[{number}]"


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
