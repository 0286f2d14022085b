"""What PyPI shows: the README, with links that work outside of the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#)(?P<target>[^)]+)\)")


def for_pypi(readme: str, source: str | None) -> str:
    """Make a README's relative links absolute; without an address, only their text stays.

    Args:
        readme: Markdown.
        source: the repository's public address.
    """

    def absolute(link: re.Match[str]) -> str:
        if source is None:
            return "" if link["image"] else link["text"]
        kind = "raw" if link["image"] else "blob"
        return f"{link['image']}[{link['text']}]({source}/{kind}/main/{link['target']})"

    return RELATIVE.sub(absolute, readme)


class ReadmeHook(MetadataHookInterface):
    """Sets ``readme``.  The address is ``Source`` of ``[project.urls]``, once there is one."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in what pyproject.toml calls dynamic."""
        text = Path(self.root, "README.md").read_text("utf-8")
        source = metadata.get("urls", {}).get("Source")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_pypi(text, source)}
