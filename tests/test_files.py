"""Files that go with a prompt: read here, sent inside it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from opencode_trio._protocol.values import Attachment
from opencode_trio._session.attachments import (
    FileLike,
    damage_of,
    images_of,
    read_attachments,
)
from opencode_trio.errors import OpenCodeConfigError


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("note.txt", b"text", "text/plain"),
        ("code.py", b"text", "text/plain"),  # whatever kind of text, it is shown as text
        ("drawing.svg", b"<svg/>", "text/plain"),
        ("photo.png", b"\x89PNG", "image/png"),
        ("book.pdf", b"%PDF\xff", "application/pdf"),
        ("data", b"\xff\xfe", "application/octet-stream"),
        ("text.txt", b"\xff\xfe", "application/octet-stream"),
    ],
)
async def test_a_path(tmp_path: Path, name: str, content: bytes, media_type: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for file in (path, str(path)):
        assert await read_attachments([file]) == [Attachment(content, media_type, name)]


async def test_what_is_not_on_disk() -> None:
    files: list[FileLike] = [(b"raw", "text/plain"), Attachment(b"raw", "text/plain", "its name")]
    assert await read_attachments(files) == [Attachment(b"raw", "text/plain"), files[1]]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ("note.txt", "expected a list, got 'note.txt'"),
        (b"note", "expected a list"),
        (Path("note.txt"), "expected a list"),
        ([Path("/nowhere/note.txt")], "cannot read '/nowhere/note.txt': No such file"),
        (["/"], "cannot read '/': Is a directory"),
    ],
)
async def test_what_cannot_be_sent_is_refused(files: Any, problem: str) -> None:
    with pytest.raises(OpenCodeConfigError, match=problem):
        await read_attachments(files)


# --- images ----------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes = b"", crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)


BEGINS, HEADER, END = b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", b"x" * 13), chunk(b"IEND")
PIXELS = chunk(b"IDAT", b"pixels")
WHOLE = BEGINS + HEADER + PIXELS + END


@pytest.mark.parametrize(
    ("data", "kind", "problem"),
    [
        (WHOLE, "image/png", ""),
        (WHOLE, "image/jpeg", ""),  # opencode looks at the content, too
        (WHOLE + b"more", "image/png", ""),
        (BEGINS + HEADER + chunk(b"tEXt", b"x", crc=1) + PIXELS + END, "image/png", ""),
        (b"", "image/png", "empty"),
        (b"", "text/plain", ""),
        (b"anything", "image/webp", ""),  # only opencode can tell
        (BEGINS, "image/png", "damaged PNG"),
        (WHOLE[:-1], "image/png", "damaged PNG"),
        (WHOLE[:-20], "image/jpeg", "damaged PNG"),
        (BEGINS + HEADER + PIXELS, "image/png", "damaged PNG"),
        (BEGINS + HEADER + chunk(b"IDAT", b"pixels", crc=1) + END, "image/png", "damaged PNG"),
        (BEGINS + b"\xff" * 20, "image/png", "damaged PNG"),
        (WHOLE[:-20], "application/octet-stream", ""),
    ],
)
def test_a_damaged_image_is_seen(data: bytes, kind: str, problem: str) -> None:
    found = damage_of(Attachment(data, kind))
    assert problem in found
    assert bool(found) == bool(problem)


async def test_a_damaged_image_is_named_and_not_sent(tmp_path: Path) -> None:
    file = tmp_path / "shot.png"
    file.write_bytes(WHOLE[:-20])
    with pytest.raises(OpenCodeConfigError, match=r"files: 'shot\.png' is a damaged PNG image"):
        await read_attachments([file])
    with pytest.raises(OpenCodeConfigError, match=r"files: files\[1\] is a damaged PNG image"):
        await read_attachments([(WHOLE, "image/png"), (WHOLE[:-20], "image/png")])


async def test_images_are_named() -> None:
    files: list[FileLike] = [
        (b"x", "text/plain"),
        (b"x", "image/gif"),
        Attachment(b"x", "image/webp", "a.webp"),
    ]
    assert images_of(await read_attachments(files)) == [
        "files[1] (image/gif)",
        "'a.webp' (image/webp)",
    ]
