"""Files that go with a prompt: read here, sent inside it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from opencode_trio._files import Attachment, FileLike, file_parts
from opencode_trio.errors import OpenCodeConfigError


def inside(part: dict[str, Any]) -> tuple[str, bytes]:
    """Return the media type and the content of a part."""
    head, content = part["url"].split(",", 1)
    assert head == f"data:{part['mime']};base64"
    return part["mime"], base64.b64decode(content)


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
        (part,) = await file_parts([file])
        assert inside(part) == (media_type, content)
        assert (part["type"], part["filename"]) == ("file", name)


async def test_what_is_not_on_disk() -> None:
    files: list[FileLike] = [(b"raw", "text/plain"), Attachment(b"raw", "text/plain", "its name")]
    nameless, named = await file_parts(files)
    assert inside(nameless) == inside(named) == ("text/plain", b"raw")
    assert "filename" not in nameless
    assert named["filename"] == "its name"


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
        await file_parts(files)
