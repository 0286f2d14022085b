"""Rows as text: a table in Markdown for people, JSON for programs.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.rows import Row

BEGIN, END = "<!-- measured -->", "<!-- until here -->"
HEAD = ("", "what", "value", "lowest to highest", "rounds", "compared")


def markdown(results: Mapping[str, Sequence[Row]]) -> str:
    """Lay out the rows of each benchmark as one table."""
    lines = [HEAD, *(cells for name, rows in results.items() for cells in _named(name, rows))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head, *body = (_line(cells, widths) for cells in lines)
    return "\n".join([head, _line(["-" * width for width in widths], widths), *body])


def _named(name: str, rows: Iterable[Row]) -> Iterable[tuple[str, ...]]:
    for number, row in enumerate(rows):
        yield (f"**{name}**" if number == 0 else "", *cells_of(row))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def cells_of(row: Row) -> tuple[str, ...]:
    """Say a row in words."""
    spread = f"{number(min(row.values))} to {number(max(row.values))}"
    return (
        f"{row.what} ({row.note})" if row.note else row.what,
        f"{number(row.value)} {row.unit}".strip(),
        spread if len(row.values) > 1 else "",
        str(len(row.values)),
        _comparison(row),
    )


def _comparison(row: Row) -> str:
    words = []
    if row.beside is not None and row.ratio is not None:
        words.append(f"{row.ratio:.2f} x {row.beside.what}")
    words += [
        f"{sign} {number(bound)}"
        for sign, bound in (("at most", row.at_most), ("at least", row.at_least))
        if bound is not None
    ]
    if words and not row.is_kept:
        words.append("**missed**")
    return ", ".join(words)


def number(value: float) -> str:
    """Write a number with three digits that count, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def put_into(page: str, report: str) -> str:
    """Put a report between the marks of a page, in the place of the one before."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{report}\n\n{END}{after}"


def as_json(row: Row) -> dict[str, Any]:
    """Return a row as JSON has it."""
    return {
        "what": row.what,
        "note": row.note,
        "unit": row.unit,
        "values": list(row.values),
        "share": row.share,
        "value": row.value,
        "beside": row.beside and row.beside.what,
        "ratio": row.ratio,
        "at_most": row.at_most,
        "at_least": row.at_least,
        "is_kept": row.is_kept,
    }
