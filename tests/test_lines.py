"""Lines come out as they were written, however the stream was cut."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_trio._process.output import MAX_LINE_BYTES, LineSplitter, LineTooLongError
from wire import TRACES, data_of, lines_of, result_of_lines


def framed(chunks: Iterable[bytes], limit: int = MAX_LINE_BYTES) -> tuple[list[bytes], bool]:
    """Return the lines, and whether the stream ended because one was too long."""
    framer = LineSplitter(limit)
    lines: list[bytes] = []
    try:
        for chunk in chunks:
            lines += framer.feed(chunk)
        lines += framer.close()
    except LineTooLongError:
        return lines, True
    return lines, False


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


# --- recorded traffic ------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("chunks", [lambda data: [data], bytewise], ids=["whole", "bytewise"])
def test_a_trace_gives_the_same_lines_and_result_however_it_is_cut(name: str, chunks: Any) -> None:
    lines, too_long = framed(chunks(data_of(name)))
    assert not too_long
    text = [line.decode() for line in lines]
    assert text == lines_of(name)
    assert result_of_lines(name, text) == result_of_lines(name, lines_of(name))


@pytest.mark.parametrize("name", TRACES)
@settings(max_examples=15, deadline=None)
@given(places=st.lists(st.integers(0, 200_000), max_size=60))
def test_a_trace_gives_the_same_lines_and_result_in_random_chunks(
    name: str, places: list[int]
) -> None:
    lines, too_long = framed(cut(data_of(name), places))
    assert not too_long
    text = [line.decode() for line in lines]
    assert text == lines_of(name)
    assert result_of_lines(name, text) == result_of_lines(name, lines_of(name))


# --- any bytes -------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    data=st.lists(st.sampled_from([b"\n", b"\r", b"a", b"\0", "\u2028".encode(), b"\xff"])),
    places=st.lists(st.integers(0, 100)),
    limit=st.integers(1, 6),
)
def test_the_cuts_do_not_matter(data: Any, places: list[int], limit: int) -> None:
    stream = b"".join(data)
    assert framed(cut(stream, places), limit) == framed([stream], limit)


@settings(deadline=None)
@given(
    lines=st.lists(st.binary().map(lambda line: line.replace(b"\n", b"")), min_size=1),
    places=st.lists(st.integers(0, 1000)),
)
def test_lines_come_out_as_they_went_in(lines: Any, places: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    assert framed(cut(stream, places)) == (lines, False)


@pytest.mark.parametrize("text", ["\u2028", "\u2029", "\x85", "\0", "\r", "\x0b", "\x0c", "\x1c"])
def test_only_a_newline_ends_a_line(text: str) -> None:
    line = f'{{"type": "text", "text": "a{text}b"}}'.encode()
    assert framed(bytewise(line + b"\n" + line + b"\n")) == ([line, line], False)


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\n\nb\n", [b"a", b"", b"b"]),
        (b"a\r\nb", [b"a\r", b"b"]),
    ],
)
def test_the_last_line_needs_no_newline(stream: bytes, lines: Any) -> None:
    assert framed([stream]) == (lines, False)
    assert framed(bytewise(stream)) == (lines, False)


def test_a_line_is_not_held_back() -> None:
    framer = LineSplitter()
    assert framer.feed(b"a") == []
    assert framer.feed(b"b\nc") == [b"ab"]
    assert framer.feed(b"\n") == [b"c"]
    assert framer.close() == []


def test_closing_twice_gives_the_last_line_once() -> None:
    framer = LineSplitter()
    framer.feed(b"a")
    assert (framer.close(), framer.close()) == ([b"a"], [])


# --- the bound -------------------------------------------------------------------------------


def test_the_bound_is_64_mib() -> None:
    assert MAX_LINE_BYTES == 64 * 1024**2
    line = b"x" * MAX_LINE_BYTES
    assert framed([line[:-1], b"x\n"]) == ([line], False)
    assert framed([line, b"x\n"]) == ([], True)


@pytest.mark.parametrize("chunks", [lambda data: [data], bytewise], ids=["whole", "bytewise"])
@pytest.mark.parametrize("limit", [1, 2, 7, 8])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nafter\n"])
def test_a_line_may_have_exactly_as_many_bytes_as_the_bound(
    chunks: Any, limit: int, end: bytes
) -> None:
    good = chunks(b"x" * limit + end)
    assert framed(good, limit)[0][0] == b"x" * limit
    assert framed(chunks(b"x" * (limit + 1) + end), limit) == ([], True)


@pytest.mark.parametrize("chunks", [lambda data: [data], bytewise], ids=["whole", "bytewise"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\nd\n"])
def test_the_lines_before_one_that_is_too_long_are_not_lost(chunks: Any, end: bytes) -> None:
    assert framed(chunks(b"a\n\nbc\nxxx" + end), 2) == ([b"a", b"", b"bc"], True)


def test_the_error_comes_as_soon_as_there_is_nothing_else_to_give() -> None:
    framer = LineSplitter(2)
    assert framer.feed(b"a\nxxx\nb\n") == [b"a"]
    for _ in range(2):
        with pytest.raises(LineTooLongError):
            framer.feed(b"\nc\n")
    with pytest.raises(LineTooLongError):
        framer.close()


def test_the_error_says_what_the_bound_is() -> None:
    with pytest.raises(LineTooLongError, match="longer than 1,000 bytes") as caught:
        LineSplitter(1000).feed(b"x" * 1001)
    assert caught.value.limit == 1000
