"""The picture of an agent's story: its lane, as SVG that stretches to any width."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement

from opencode_trio._report.spans import Span, SpanKind, coarsen
from opencode_trio._report.tables import seconds
from opencode_trio._turn.titles import one_line

WIDTH = 1000
"""A lane's, in units of its own: only its width is stretched, and it holds no text."""
ROW = 20
SUBROW = 12
"""A row's height, and one of subagents."""
LEAST = 1.2
"""What is shorter would not be seen, nor hit by a mouse."""
FINEST = 4
"""A lane is drawn so much finer than one pixel in a thousand, for those who look closer."""
MAX_TICKS = 9
TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)

BANDS: Mapping[SpanKind, tuple[float, float]] = {
    "waiting": (9.2, 1.6),
    "running": (9.2, 1.6),
    "starting": (7, 6),
    "subagent": (0.5, 19),
    "step": (1, 18),
    "tool": (4, 12),
    "retry": (1, 18),
    "ask": (1, 18),
    "error": (0, 20),
}
"""Where in a row of height 20 they are, and how high: what is drawn first is behind."""


def tick_step(elapsed_s: float) -> float:
    """Return the seconds between two marks of the time axis."""
    for step in TICKS_S:
        if elapsed_s <= step * MAX_TICKS:
            return step
    return math.ceil(elapsed_s / MAX_TICKS / TICKS_S[-1]) * TICKS_S[-1]


def height_of(spans: Sequence[Span]) -> float:
    """Return the height of a lane."""
    return ROW + SUBROW * max((span.row for span in spans), default=0)


def timeline_svg(
    spans: Sequence[Span], elapsed_s: float, label: str, *, scale: float = 1.0
) -> Element:
    """Draw a lane.

    Args:
        spans: what to draw.
        elapsed_s: what the width stands for.
        label: what to call it, for those who cannot see it.
        scale: how high to draw it.
    """
    height = height_of(spans)
    view = {"viewBox": f"0 0 {WIDTH} {height:g}", "preserveAspectRatio": "none"}
    svg = Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": label, **view}
        | {"style": f"height: {scale * height:g}px"},
    )
    drawn = coarsen(spans, elapsed_s / WIDTH / FINEST)
    for kind in BANDS:
        of_kind = [span for span in drawn if span.kind == kind]
        for span, track, tracks in _side_by_side(of_kind):
            svg.append(_bar(span, WIDTH / (elapsed_s or 1), track, tracks))
    return svg


def title_of(span: Span) -> str:
    """Return what is said when a span is pointed at."""
    more = f" and {span.count - 1} more" if span.count > 1 else ""
    lasts = " so far" if span.is_open else ""
    spent = f"${span.cost_usd:.4f}, " * bool(span.cost_usd) + f"{span.tokens:,} tokens"
    parts = [
        f"{TITLES.get(span.kind, '')}{one_line(span.title)}{more}",
        f"{seconds(span.length_s)}{lasts}, from {seconds(span.start_s)} to {seconds(span.end_s)}",
        spent if span.tokens else "",
        "failed" if span.is_failed else "",
    ]
    return "\n".join(filter(None, parts))


TITLES: Mapping[SpanKind, str] = {
    "waiting": "in the queue: ",
    "subagent": "subagent: ",
    "tool": "tool ",
    "ask": "waits for a human: ",
    "retry": "waits for a provider: ",
    "error": "error: ",
}


def _bar(span: Span, scale: float, track: int, tracks: int) -> Element:
    top, height = BANDS[span.kind]
    part = height / tracks
    share = 1.0 if span.row == 0 else SUBROW / ROW
    offset = 0.0 if span.row == 0 else ROW + SUBROW * (span.row - 1)
    width = max(LEAST, span.length_s * scale)
    names = [span.kind, "failed" * span.is_failed, "open" * span.is_open]
    box = {
        "x": min(span.start_s * scale, WIDTH - width),
        "y": offset + share * (top + part * track),
        "width": width,
        "height": share * part,
    }
    rect = Element("rect", {"class": " ".join(filter(None, names))})
    rect.attrib |= {name: f"{max(0.0, number):.2f}" for name, number in box.items()}
    SubElement(rect, "title").text = title_of(span)
    return rect


def _side_by_side(spans: Sequence[Span]) -> Iterator[tuple[Span, int, int]]:
    """Give spans of one row that overlap tracks of their own: yield span, track, tracks."""
    for row in sorted({span.row for span in spans}):
        cluster: list[Span] = []
        for span in (span for span in spans if span.row == row):
            if cluster and span.start_s >= max(other.end_s for other in cluster):
                yield from _tracked(cluster)
                cluster = []
            cluster.append(span)
        yield from _tracked(cluster)


def _tracked(cluster: Sequence[Span]) -> list[tuple[Span, int, int]]:
    ends: list[float] = []
    tracks: list[int] = []
    for span in cluster:
        free = (n for n, end in enumerate(ends) if end <= span.start_s)
        track = next(free, len(ends))
        ends[track : track + 1] = [span.end_s]
        tracks.append(track)
    return [(span, track, len(ends)) for span, track in zip(cluster, tracks, strict=True)]
