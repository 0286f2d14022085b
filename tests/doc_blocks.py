"""The Python blocks of the README and the docs: each is a whole program.

Programs of docs/examples are shown on some pages, where GitHub shows them, too.  To copy them there
once they have changed, run this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts),
]

# ```python, and MyST's ```{code-block} python with its options.
BLOCK = re.compile(
    r"^(?P<indent> *)```(?:python|\{code-block\} python)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
# The comment is not shown.
QUOTED = re.compile(
    r"^<!-- (?P<file>examples/[\w/.]+)(?P<part>, in part)? -->\n\n```py\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
OPTIONS = re.compile(r"^ *:\w+:.*$", re.MULTILINE)


class Block(NamedTuple):
    """A program, and where it stands."""

    page: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def write(self, directory: Path) -> Path:
        """Write the program to a file; return its path."""
        program = directory / f"{Path(self.page).stem}_{self.line}.py"
        # As many empty lines above the code as there are above it in the page: what is said of a
        # line of the program is then true of that line of the page.
        program.write_text("\n" * (self.line - 1) + self.code, "utf-8")
        return program


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        code = OPTIONS.sub("", re.sub(f"^{found['indent']}", "", found["code"], flags=re.MULTILINE))
        yield Block(str(page.relative_to(ROOT)), line, code)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


class Quotation(NamedTuple):
    """A program of docs/examples, or a part of one, as a page shows it."""

    page: str
    file: Path
    is_part: bool
    code: str


def quotations_of(page: Path) -> Iterator[Quotation]:
    for found in QUOTED.finditer(page.read_text("utf-8")):
        file = ROOT / "docs" / found["file"]
        yield Quotation(page.name, file, found["part"] is not None, found["code"])


def copy_programs(page: Path) -> None:
    def copy_of(found: re.Match[str]) -> str:
        if found["part"]:
            return found[0]
        program = (ROOT / "docs" / found["file"]).read_text("utf-8")
        return f"<!-- {found['file']} -->\n\n```py\n{program}```"

    text = page.read_text("utf-8")
    if (new := QUOTED.sub(copy_of, text)) != text:
        page.write_text(new, "utf-8")


if __name__ == "__main__":
    for page in PAGES:
        copy_programs(page)
