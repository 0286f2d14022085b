"""The diff of a session, from those of its turns."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_trio._json import Json
from opencode_trio._protocol.v1.diffs import _hunk, joined_diffs, turns_with_changes

HEAD = f"Index: f\n{'=' * 67}\n--- f\t\n+++ f\t\n"


def change(before: str, after: str, status: str = "modified") -> Json:
    """What opencode tells of a text file: all of its lines."""
    hunk = _hunk(before, after)
    return {
        "file": "f",
        "patch": HEAD + "".join(hunk),
        "additions": sum(line.startswith("+") for line in hunk),
        "deletions": sum(line.startswith("-") for line in hunk),
        "status": status,
    }


MODE = {"file": "f", "patch": HEAD, "additions": 0, "deletions": 0, "status": "modified"}
BINARY = MODE | {"patch": ""}
PARTLY = change("a\n", "b\n") | {"patch": HEAD + "@@ -9,1 +9,1 @@\n-a\n+b\n"}


@pytest.mark.parametrize(
    ("turns", "whole"),
    [
        ([change("a", "b")], change("a", "b")),
        ([change("a\n", "b\n"), change("b\n", "c\n")], change("a\n", "c\n")),
        # What somebody else did in between is in it.
        ([change("a\n", "b\n"), change("x\n", "c\n")], change("a\n", "c\n")),
        ([change("a\n", "b\n"), change("b\n", "a\n")], None),
        ([change("", "a\n", "added"), change("a\n", "b", "modified")], change("", "b", "added")),
        ([change("", "a\n", "added"), change("a\n", "", "deleted")], None),
        ([change("a", "", "deleted"), change("", "a", "added")], None),
        ([change("a", "", "deleted"), change("", "b", "added")], change("a", "b")),
        ([change("a", "b"), change("b", "", "deleted")], change("a", "", "deleted")),
        ([MODE, change("a", "b"), MODE], change("a", "b")),
        ([MODE, MODE], None),
        ([MODE | {"status": "added"}, change("", "x\n")], change("", "x\n", "added")),
        ([BINARY, BINARY], BINARY),
        ([BINARY | {"status": "added"}, BINARY], BINARY | {"status": "added"}),
        (
            [PARTLY, change("b\n", "c\n")],
            PARTLY
            | {
                "additions": 2,
                "deletions": 2,
                "patch": PARTLY["patch"] + HEAD + "@@ -1 +1 @@\n-b\n+c\n",
            },
        ),
        (
            [{"file": "f", "before": "a", "after": "b"}, {"file": "f", "before": "b", "after": ""}],
            {
                "file": "f",
                "before": "a",
                "after": "",
                "additions": 0,
                "deletions": 1,
                "status": "modified",
            },
        ),
    ],
)
def test_a_file_that_several_turns_changed(turns: list[Json], whole: Json | None) -> None:
    assert joined_diffs([turn] for turn in turns) == [whole] * (whole is not None)


def test_each_file_is_told_once_in_the_order_of_names() -> None:
    one, two = ({"file": name, "patch": HEAD, "status": "modified"} for name in "ba")
    assert joined_diffs([[one], [two]]) == [two, one]


texts = st.text(st.sampled_from("ab\n\r\u2028\\@-+ "), max_size=30)


@given(texts, texts, texts)
def test_the_first_text_and_the_last_are_read_from_the_patches(a: str, b: str, c: str) -> None:
    [whole] = joined_diffs([[change(a, b)], [change(b, c)]]) or [{}]
    if a == c:
        assert whole == {} or a == b
    else:
        assert whole == change(a, c)


def test_an_end_without_a_newline_is_told_as_opencode_does() -> None:
    patch = change("a", "ab\n")["patch"]
    assert re.findall(r"(?m)^[-+\\].*", patch.removeprefix(HEAD)) == [
        "-a",
        "\\ No newline at end of file",
        "+ab",
    ]


def test_the_turns_that_changed_files() -> None:
    def answer(parent: str | None, *kinds: str) -> Any:
        return {"info": {"parentID": parent}, "parts": [{"type": kind} for kind in kinds]}

    stored = [
        answer(None, "text"),
        answer("msg_1", "step-start", "patch"),
        answer("msg_1", "patch", "patch"),
        answer("msg_2", "text"),
        answer("msg_3", "patch"),
    ]
    assert turns_with_changes(stored) == ["msg_1", "msg_3"]
