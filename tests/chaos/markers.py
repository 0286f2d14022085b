"""Markers: who asked for what is written into every prompt, answer and command."""

from __future__ import annotations

import re
from string import ascii_lowercase

MARKER = re.compile(r"chaos-\d+-\d\d-[a-z]+")


def marker(number: int, turn: int) -> str:
    """Name a turn of an activity.

    opencode takes any refusal for a passing one whose text has ``500`` or ``429`` in it, and the
    like: never write three digits in a row.
    """
    return f"chaos-{number // 100}-{number % 100:02}-{ascii_lowercase[turn]}"


def markers_in(*texts: str) -> set[str]:
    """Find whose words these are."""
    return {found for text in texts for found in MARKER.findall(text)}


def prompt(mark: str, role: str = "root") -> str:
    """Write the prompt of a turn, or of one of its subagents."""
    return f"{mark}: {role}"


def reader(text: str) -> tuple[str, str] | None:
    """Read who asks from a prompt: the marker, and the role; `None` if it is none of ours."""
    found = re.match(rf"({MARKER.pattern}): (\w+)", text)
    return (found[1], found[2]) if found else None
