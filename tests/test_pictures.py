"""The pictures of the README: well-formed, and of what is drawn today."""

from __future__ import annotations

import importlib
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from opencode_trio._report.figures import AgentReport
from opencode_trio._report.page_style import STYLE
from opencode_trio._report.spans import Span
from opencode_trio._report.timeline_svg import BANDS
from opencode_trio.report import Report

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs/pictures"
SVG = "{http://www.w3.org/2000/svg}"
TAKEN_AT = datetime(2026, 1, 1, tzinfo=UTC)
AGAIN = "draw them anew: nox -s pictures"


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(PICTURES), str(ROOT / "docs/examples"), *sys.path])
    return importlib.import_module("draw")  # a program, beside its pictures


def parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg)  # noqa: S314 - our own
    assert root.tag == f"{SVG}svg"
    assert len(svg) < 20_000  # light
    assert not re.search(r"url\((?!#)|href|@import|<script", svg)  # nothing is fetched
    return root


def words_of(root: ET.Element) -> list[str]:
    return " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text")).split()


def test_the_live_table_is_up_to_date(draw: Any) -> None:
    stored = parsed((PICTURES / "live-table.svg").read_text("utf-8"))
    assert words_of(stored) == words_of(parsed(draw.live_table())), AGAIN


def test_the_timeline_is_that_of_the_demo(draw: Any) -> None:
    demo = importlib.import_module("demo")
    root = parsed((PICTURES / "timeline.svg").read_text("utf-8"))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert [text for text in texts if text.endswith("?")] == list(demo.QUESTIONS), AGAIN
    recorders = [
        {rect.get("class") for rect in recorder}
        for recorder in root.iter(f"{SVG}svg")
        if recorder != root
    ]
    assert len(recorders) == len(demo.QUESTIONS), AGAIN
    for classes in recorders:
        assert {"step", "tool"} <= classes <= BANDS.keys()  # and none of them failed
    (style,) = root.iter(f"{SVG}style")
    rules = [line for line in STYLE.splitlines() if line.startswith("rect.")]
    assert set(rules) <= set((style.text or "").splitlines()), AGAIN


def test_a_timeline_is_drawn_of_a_page(draw: Any) -> None:
    spans = (
        Span(kind="step", start_s=0.5, end_s=1.5),
        Span(kind="tool", title="bash <b>", start_s=1.0, end_s=1.2, is_failed=True),
    )
    agents = tuple(
        AgentReport(number=n, name=f"agent & {n}", status="completed", elapsed_s=2.0, spans=spans)
        for n in (1, 2)
    )
    report = Report(agents=agents, spent=draw.Spending(), elapsed_s=2.0, taken_at=TAKEN_AT)
    root = parsed(draw.timeline(report.html()))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "agent & 1" in texts
    assert texts.count("2.0s") == 2
    assert sum(rect.get("class") == "tool failed" for rect in root.iter(f"{SVG}rect")) == 2
