"""What a whole session changed in files, from what each of its turns changed.  Pure.

opencode tells the changes of one turn only.  Its patches show whole files, so that the text of a
file before the first turn that changed it, and after the last one, can be read from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import unified_diff
from itertools import chain
from typing import Literal

from opencode_trio._json import Json, number_of, object_of, objects_of, text_of

_HUNK = re.compile(r"^@@ -(\d+).*\n", re.MULTILINE)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_NO_NEWLINE = "\\ No newline at end of file\n"


def turns_with_changes(stored: Iterable[Json]) -> list[str]:
    """Name the user messages whose turns changed files, in order.

    Args:
        stored: a session's messages, as they are stored.
    """
    changing = (
        text_of(object_of(message.get("info")), "parentID")
        for message in stored
        if any(text_of(part, "type") == "patch" for part in objects_of(message.get("parts")))
    )
    return list(dict.fromkeys(filter(None, changing)))


def joined_diffs(diffs: Iterable[Iterable[Json]]) -> list[Json]:
    """Join the diffs of turns into one: of each file, from its first text to its last.

    Where that cannot be read (of binary files there is no patch), counts are added up and patches
    follow one another.

    Args:
        diffs: of each turn, in order; a diff is a list of changes, one for each file.
    """
    by_file: dict[str, list[Json]] = {}
    for change in chain.from_iterable(diffs):
        by_file.setdefault(text_of(change, "file"), []).append(change)
    joined = (_joined(by_file[file]) for file in sorted(by_file))
    return [change for change in joined if change is not None]


def _joined(changes: list[Json]) -> Json | None:
    if len(changes) == 1:
        return changes[0]
    was_there = text_of(changes[0], "status") != "added"
    is_there = text_of(changes[-1], "status") != "deleted"
    if not (was_there or is_there):
        return None
    status = "modified" if was_there and is_there else "added" if is_there else "deleted"
    changes = [change for change in changes if not _keeps_text(change)] or changes[-1:]
    before, after = _text(changes[0], "before"), _text(changes[-1], "after")
    whole = {**changes[-1], "status": status}
    if before is None or after is None:
        for count in ("additions", "deletions"):
            whole[count] = int(sum(number_of(change, count) for change in changes))
        return whole | {"patch": "".join(text_of(change, "patch") for change in changes)}
    if before == after and status == "modified":
        return None
    hunk = _hunk(before, after)
    whole |= {
        "additions": sum(line.startswith("+") for line in hunk),
        "deletions": sum(line.startswith("-") for line in hunk),
    }
    if "patch" not in whole:  # an older opencode, which tells the texts
        return whole | {"before": before, "after": after}
    head = _HUNK.split(text_of(whole, "patch"), maxsplit=1)[0]
    return whole | {"patch": head + "".join(hunk)}


def _keeps_text(change: Json) -> bool:
    """Say whether a change is one without text: a new mode, or an empty file."""
    before = _text(change, "before")
    return before is not None and before == _text(change, "after")


def _text(change: Json, side: Literal["before", "after"]) -> str | None:
    """Read the text of the file before or after the change; ``None`` if it is not told."""
    if isinstance(told := change.get(side), str):
        return told
    match _HUNK.split(text_of(change, "patch")):
        case [head]:  # of an empty file, or of one whose text stays; nothing at all of a binary one
            return "" if head else None
        case [_, "0" | "1", hunk]:
            lines = _LINE.findall(hunk)
        case _:  # not the whole file
            return None
    sign = "-" if side == "before" else "+"
    return "".join(
        line[1:].removesuffix("\n") if following == _NO_NEWLINE else line[1:]
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line.startswith((" ", sign))
    )


def _hunk(before: str, after: str) -> list[str]:
    old, new = _LINE.findall(before), _LINE.findall(after)
    lines = list(unified_diff(old, new, n=len(old) + len(new)))[2:]  # without names
    return [line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}" for line in lines]
