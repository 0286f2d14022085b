"""Reports of swarms: what happened when, as figures, a table, JSON Lines, and a picture."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

import attrs
import pytest
import trio
from trio.testing import MockClock

from opencode_trio._protocol.v1.stream_events import stream_event
from opencode_trio._report.figures import AgentReport, Figures, figures_of
from opencode_trio._report.page import TIMES
from opencode_trio._report.recorder import MAX_ROW, AgentRecorder, SwarmRecorder
from opencode_trio._report.spans import Span, SpanKind, coarsen, thin
from opencode_trio._report.tables import dollars, seconds
from opencode_trio._report.timeline_svg import WIDTH, tick_step, timeline_svg
from opencode_trio._turn.budgets import Spending
from opencode_trio._turn.titles import MAX_TITLE, one_line
from opencode_trio.errors import OpenCodeTurnError
from opencode_trio.events import (
    ErrorInfo,
    ErrorReported,
    Event,
    MessageUpdated,
    PermissionAsked,
    PermissionReplied,
    Question,
    QuestionAsked,
    QuestionRejected,
    SessionBusy,
    SessionCreated,
    SessionIdle,
    SessionRetrying,
    StepFinished,
    StepStarted,
    TextDelta,
    TokenUsage,
    ToolPart,
)
from opencode_trio.report import Report
from opencode_trio.swarm import open_swarm
from swarming import COST_USD, FakeSession, World, failing, steps
from wire import records_of

SVG = "{http://www.w3.org/2000/svg}"
USAGE = TokenUsage(total=100)


class Story:
    """A lane under a clock that the test turns."""

    def __init__(self, max_spans: int = 1000) -> None:
        self.now = 0.0
        self.history = SwarmRecorder(lambda: self.now, max_spans=max_spans)
        self.recorder = self.history.add()

    def at(self, now: float, *events: Event) -> None:
        self.now = now
        for event in events:
            self.recorder.take(event)

    def told(self, *kinds: SpanKind) -> list[tuple[SpanKind, str, float, float]]:
        spans = self.recorder.spans()
        return [
            (s.kind, s.title, s.start_s, s.end_s) for s in spans if s.kind in kinds or not kinds
        ]


def asking(message: str = "msg_1", session: str = "ses_1") -> MessageUpdated:
    return MessageUpdated(session_id=session, message_id=message, role="assistant")


def finished(message: str = "msg_1", session: str = "ses_1", **fields: Any) -> StepFinished:
    given: dict[str, Any] = {"reason": "stop", "cost": 0.5, "tokens": USAGE, **fields}
    return StepFinished(session_id=session, message_id=message, **given)


def tool(status: str, part: str = "prt_1", **fields: Any) -> ToolPart:
    return ToolPart(session_id="ses_1", part_id=part, tool="bash", status=status, **fields)


# --- from events to spans -----------------------------------------------------------------------


def test_a_step_lasts_from_its_message_to_its_finish() -> None:
    story = Story()
    story.at(1, asking())
    story.at(2, StepStarted(session_id="ses_1", message_id="msg_1"), TextDelta(delta="hm"))
    story.at(4, finished(reason="tool-calls"))
    # What comes after it is about the same step.
    complete = MessageUpdated(
        session_id="ses_1", message_id="msg_1", role="assistant", cost=0.5, is_complete=True
    )
    story.at(5, asking(), finished(), complete)
    (span,) = story.recorder.spans()
    assert span == Span(
        kind="step", title="step: tool-calls", start_s=1, end_s=4, cost_usd=0.5, tokens=100
    )


def test_steps_of_old_releases_have_no_message() -> None:
    story = Story()
    story.at(1, StepStarted(session_id="ses_1"))
    for now in (2, 3):  # none is taken for the one before
        story.at(now, StepFinished(session_id="ses_1", reason="stop", cost=0.5, tokens=USAGE))
    assert story.told() == [("step", "step: stop", 1, 2), ("step", "step: stop", 2, 3)]


def test_a_step_can_fail() -> None:
    story = Story()
    story.at(1, asking())
    error = ErrorInfo("APIError", "overloaded\n", 529)
    story.at(
        3,
        ErrorReported(session_id="ses_1", error=error),
        MessageUpdated(
            session_id="ses_1", message_id="msg_1", role="assistant", is_complete=True, error=error
        ),
    )
    step, moment = story.recorder.spans()
    assert (step.title, step.is_failed, step.end_s) == ("step: APIError: overloaded", True, 3)
    assert (moment.kind, moment.start_s, moment.length_s) == ("error", 3, 0)


def test_a_step_whose_beginning_was_not_told_begins_after_what_was_before() -> None:
    story = Story()
    story.now = 2
    story.recorder.set_status("running")
    story.at(3, finished())
    story.at(5, finished("msg_2"), asking("msg_user", "ses_9"))
    story.at(6, MessageUpdated(role="user", message_id="msg_3"))
    assert story.told("step")[:2] == [("step", "step: stop", 2, 3), ("step", "step: stop", 3, 5)]


def test_tools() -> None:
    story = Story()
    story.at(1, tool("pending"), tool("running", input={"command": "ls\n-l", "description": "x"}))
    assert story.told() == [("tool", "bash: ls -l", 1, 1)]
    story.at(2, tool("running", "prt_2", title="make"), tool("running", title="List"))
    story.at(3, tool("completed", title="List"), tool("running"))
    story.at(4, tool("completed", "prt_2", title="make", metadata={"exit": 2}), tool("completed"))
    story.at(5, tool("error", "prt_3", error="no such file"))
    assert story.told() == [
        ("tool", "bash: List", 1, 3),
        ("tool", "bash: make: exit 2", 2, 4),
        ("tool", "bash: no such file", 5, 5),
    ]
    assert [span.is_failed for span in story.recorder.spans()] == [False, True, True]
    assert (story.recorder.counts["tool"], story.recorder.failures["tool"]) == (3, 2)


@pytest.mark.parametrize(
    ("time", "start"),
    [
        ({"start": 1000, "end": 3500}, 7.5),
        ({"start": 1000}, 10),
        ({"start": 0, "end": 3_600_000}, 0),
        (None, 10),
    ],
)
def test_a_tool_call_whose_beginning_was_not_told(time: Any, start: float) -> None:
    story = Story()
    story.at(10, tool("completed", state={"time": time}))
    assert story.told() == [("tool", "bash", start, 10)]


def test_waits_for_a_human() -> None:
    story = Story()
    asked = PermissionAsked(request_id="per_1", permission="bash", patterns=("rm *", "ls"))
    story.at(1, asked, QuestionAsked(request_id="que_1", questions=(Question("Which db?"),)))
    story.at(2, asked)
    story.at(4, PermissionReplied(request_id="per_1", reply="once"), asked)
    story.at(6, QuestionRejected(request_id="que_1"), QuestionRejected(request_id="que_2"))
    assert story.told() == [
        ("ask", "may it bash? rm *, ls: once", 1, 4),
        ("ask", "Which db?: dismissed", 1, 6),
    ]
    assert story.recorder.seconds["ask"] == 8


def test_waits_for_a_provider() -> None:
    story = Story()
    story.at(1, asking(), SessionRetrying(session_id="ses_1", attempt=1, message="slow down"))
    story.at(3, SessionRetrying(session_id="ses_1", attempt=2, message="slow\x1b[31m down"))
    story.at(9, SessionBusy(session_id="ses_1"), SessionBusy(session_id="ses_1"))
    assert story.told("retry") == [("retry", "retry 2: slow [31m down", 1, 9)]


def test_subagents_have_rows_of_their_own() -> None:
    story = Story()

    def begun(number: int) -> SessionCreated:
        return SessionCreated(session_id=f"sub_{number}", parent_id="ses_1", title=f"{number}")

    story.at(1, SessionCreated(session_id="ses_1"), asking(), begun(1), begun(2))
    story.at(2, asking("msg_2", "sub_2"))
    story.at(3, finished("msg_2", "sub_2"), SessionIdle(session_id="sub_1"))
    story.at(4, begun(3), SessionIdle(session_id="sub_2"))
    story.at(5, SessionBusy(session_id="sub_2"))
    rows = [(s.title, s.row, s.start_s, s.end_s) for s in story.recorder.spans() if s.row]
    assert rows == [
        ("1", 1, 1, 3),
        ("2", 2, 1, 4),
        ("step: stop", 2, 2, 3),
        ("3", 1, 4, 5),
        ("2", 2, 5, 5),  # resumed
    ]
    costs = {span.title: span.cost_usd for span in story.recorder.spans() if span.end_s == 4}
    assert costs == {"2": 0.5}
    story.at(6, *map(begun, range(10, 30)))
    assert max(span.row for span in story.recorder.spans()) == MAX_ROW


def test_a_turn_ends_what_was_not_ended() -> None:
    story = Story()
    story.recorder.set_status("running")
    story.at(1, asking(), tool("running"))
    story.at(2)
    story.recorder.settle()
    story.at(3)
    told = [("running", "running", 0, 3), ("step", "step (cut off)", 1, 2)]
    assert story.told("running", "step") == told
    assert [span.is_open for span in story.recorder.spans()] == [True, False, False]


def test_the_status_is_told_too() -> None:
    story = Story()
    for now, status in enumerate(["waiting", "waiting", "starting", "running", "starting"]):
        story.now = now
        story.recorder.set_status(status)
    story.at(5, tool("running"))
    story.now = 6
    story.recorder.set_status("failed")
    story.now = 9
    assert story.told() == [
        ("waiting", "waiting", 0, 2),
        ("starting", "starting", 2, 3),
        ("running", "running", 3, 4),
        ("starting", "starting", 4, 6),
        ("tool", "bash (cut off)", 5, 6),
    ]
    assert story.recorder.ended_s == 6


def test_a_recorded_turn() -> None:
    """A subagent that asks for permission, as the real opencode tells it."""
    story = Story()
    for number, record in enumerate(records_of("serve-subagent-permission")):
        if (event := stream_event(record)) is not None:
            story.at(number, event)
    spans = story.recorder.spans()
    assert not any(span.is_open for span in spans)
    kinds = [(span.kind, span.row) for span in spans]
    assert kinds == [
        ("step", 0),
        ("subagent", 1),
        ("tool", 0),
        ("step", 1),
        ("ask", 1),
        ("tool", 1),
        ("step", 1),
        ("step", 0),
    ]
    assert figures_of(story.recorder).steps == 4
    assert math.fsum(s.cost_usd for s in spans if s.kind == "step") == pytest.approx(4 * 0.00012)


# --- bounds -------------------------------------------------------------------------------------


def row_of_spans(number: int, length_s: float = 1, gap_s: float = 0) -> list[Span]:
    starts = (n * (length_s + gap_s) for n in range(number))
    return [
        Span(kind="tool", title=f"{start}", start_s=start, end_s=start + length_s, tokens=1)
        for start in starts
    ]


def test_neighbours_are_merged_that_cannot_be_told_apart() -> None:
    spans = row_of_spans(3, 1, 0.1)
    assert coarsen(spans, 2) == spans
    assert [span.count for span in coarsen(spans, 2.2)] == [2, 1]
    (merged,) = coarsen(spans, 4)
    assert (merged.count, merged.tokens) == (3, 3)
    assert merged.end_s == pytest.approx(3.2)
    failed = Span(kind="tool", start_s=1.05, end_s=1.06, is_failed=True)
    assert [span.count for span in coarsen([*spans, failed], 4)] == [3, 1]


@pytest.mark.parametrize("most", [1, 2, 10, 100, 400])
def test_thinning_keeps_the_count(most: int) -> None:
    thinned = thin(row_of_spans(500, 0.3, 0.7), most)
    assert len(thinned) <= most <= 4 * len(thinned)
    assert sum(span.count for span in thinned) == 500
    assert thin([], most) == []
    assert [s.count for s in thin(row_of_spans(9, 0), most)] == ([9] if most < 9 else [1] * 9)


def test_memory_is_bounded() -> None:
    story = Story(max_spans=200)
    other = story.history.add()
    for number in range(5000):
        story.at(number, tool("running", f"prt_{number}"))
        story.at(number + 0.5, tool("completed", f"prt_{number}", title="x" * 1000))
    other.take(tool("running"))
    other.take(tool("completed"))
    assert len(story.recorder) <= 200
    assert len(other) == 1
    assert (
        sum(span.count for span in story.recorder.spans()) == story.recorder.counts["tool"] == 5000
    )
    assert story.recorder.seconds["tool"] == pytest.approx(2500)
    assert max(len(span.title) for span in story.recorder.spans()) == MAX_TITLE


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\nlines\u2028\tthree", "two lines three"),
        ("\x1b[2J\x00bell\x07", "[2J bell"),
        ("half \ud800 a pair", "half a pair"),
        ("x" * 30, "x" * 9 + "…"),
    ],
)
def test_titles_are_one_printable_line(text: str, line: str) -> None:
    assert one_line(text, 10 if text[0] == "x" else 100) == line


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.04, "0.0s"),
        (9.4, "9.4s"),
        (9.97, "10s"),
        (59.6, "1m00s"),
        (125, "2m05s"),
        (7500, "2h05m"),
    ],
)
def test_lengths_of_time(number: float, text: str) -> None:
    assert seconds(number) == text


@pytest.mark.parametrize(
    ("spent", "text"),
    [
        (Spending(), "$0"),
        (Spending(0, 5, 5), "?"),
        (Spending(0.01234, 5), "$0.0123"),
        (Spending(12.5, 9, 5), "≥$12.50"),
    ],
)
def test_costs(spent: Spending, text: str) -> None:
    assert dollars(spent) == text


@pytest.mark.parametrize("elapsed_s", [0, 0.01, 1, 59, 3600, 86_400, 10_000_000])
def test_the_axis_has_few_marks(elapsed_s: float) -> None:
    assert elapsed_s / tick_step(elapsed_s) <= 10


# --- the picture --------------------------------------------------------------------------------


def rects(svg: Element) -> Iterator[tuple[str, float, float, float, float]]:
    for rect in svg:
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        yield rect.attrib["class"], x, y, width, height


def test_a_lane_is_drawn_to_scale() -> None:
    spans = [
        Span(kind="step", title="step: stop", start_s=10, end_s=30, cost_usd=0.25, tokens=1234),
        Span(kind="tool", title="bash: ls", start_s=20, end_s=30, is_failed=True, count=3),
        Span(kind="error", title="APIError", start_s=40, end_s=40, is_failed=True),
        Span(kind="subagent", title="sub", start_s=20, end_s=30, row=2),
    ]
    svg = timeline_svg(spans, 40, "a lane")
    drawn = {name: (x, width) for name, x, _, width, _ in rects(svg)}
    assert drawn["step"] == (250, 500)
    assert drawn["tool failed"] == (500, 250)
    x, width = drawn["error failed"]
    assert width > 0
    assert x + width == pytest.approx(WIDTH, abs=0.02)
    view = [float(number) for number in svg.attrib["viewBox"].split()]
    assert all(y + height <= view[3] for _, _, y, _, height in rects(svg))
    titles = [str(title.text) for title in svg.iter("title")]
    assert titles[1] == "step: stop\n20s, from 10s to 30s\n$0.2500, 1,234 tokens"
    assert titles[2] == "tool bash: ls and 2 more\n10s, from 20s to 30s\nfailed"


def test_tools_side_by_side_do_not_cover_each_other() -> None:
    times = [(0, 10), (2, 4), (3, 9), (5, 6), (20, 30)]
    spans = [Span(kind="tool", start_s=start, end_s=end) for start, end in times]
    boxes = [box[1:] for box in rects(timeline_svg(spans, 30, ""))]
    assert boxes[-1][3] == 3 * boxes[0][3]
    for number, (x, y, width, height) in enumerate(boxes):
        for left, top, _, _ in boxes[number + 1 :]:
            assert left >= x + width - 0.02 or top >= y + height - 0.02 or top < y


def report(*agents: AgentReport, elapsed_s: float = 60) -> Report:
    spent = sum((agent.spent for agent in agents), Spending())
    taken_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Report(agents=agents, spent=spent, elapsed_s=elapsed_s, taken_at=taken_at)


def parsed(html: str) -> Element:
    """Parse a page strictly: it is well-formed XML, too."""
    assert html.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(html.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own


def text_of(element: Element | None) -> str:
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def by_class(page: Element, name: str) -> list[Element]:
    return [e for e in page.iter() if name in e.attrib.get("class", "").split()]


EVIL = "<script>alert('&amp;')</script>]]>\x00\x1b[31m\ud800\n\"'"


def test_everything_is_escaped() -> None:
    spans = (
        Span(kind="tool", title=EVIL, start_s=0, end_s=1),
        Span(kind="step", title="</title></svg><img src=x>", start_s=0, end_s=1),
    )
    agent = AgentReport(
        number=1, name=EVIL, status="failed", session_id=EVIL, error=EVIL, spans=spans
    )
    html = report(agent).html()
    assert "<script" not in html
    assert "<img" not in html
    page = parsed(html)
    clean = "<script>alert('&amp;')</script>]]> [31m \"'"
    (row,) = (e for e in by_class(page, "failed") if e in by_class(page, "row"))
    assert clean in text_of(row)
    titles = [str(title.text) for title in page.iter(f"{SVG}title")]
    assert any(clean in title for title in titles)
    assert not list(page.iter("script"))
    assert [json.loads(line)["type"] for line in report(agent).jsonl().split("\n")[:-1]] == [
        "swarm", "agent", "span", "span",
    ]  # fmt: skip
    assert text_of(by_class(page, "failures")[0]).count(clean) == 2
    table = report(agent).table()
    assert len(table.splitlines()) == 7
    assert clean in table.splitlines()[-1]
    assert "\x1b" not in table


def test_a_page_needs_no_other_file() -> None:
    html = many(3).html()
    page = parsed(html)
    assert {"link", "script", "img", "iframe", "object", "use"}.isdisjoint(
        element.tag.removeprefix(SVG) for element in page.iter()
    )
    attributes = Counter(name for element in page.iter() for name in element.attrib)
    assert not attributes["src"]
    links = [element.attrib["href"] for element in page.iter("a")]
    ids = {element.attrib["id"] for element in page.iter() if "id" in element.attrib}
    assert {link.removeprefix("#") for link in links} <= ids
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html
    # To a browser <td/> is a beginning: nothing is empty but what has no end in HTML, or is SVG.
    html_elements = (e for e in page.iter() if not e.tag.startswith(SVG))
    empty = {e.tag for e in html_elements if not len(e) and not e.text}
    assert empty <= {"meta", "input"}


def many(number: int) -> Report:
    agents = [
        AgentReport(
            number=n + 1,
            name=f"agent {n + 1}",
            status="failed" if n % 3 == 2 else "completed",
            error="OpenCodeTurnError: overloaded" if n % 3 == 2 else None,
            attempts=1,
            elapsed_s=30,
            spent=Spending(0.5, 100),
            figures=Figures(steps=30, tools=30, asks=1, asked_s=2, failed_tools=1),
            spans=tuple(row_of_spans(30)),
        )
        for n in range(number)
    ]
    return report(*agents)


def test_tokens_without_a_price_are_told() -> None:
    (agent,) = many(1).agents
    page = parsed(report(attrs.evolve(agent, spent=Spending(0.0, 100, 70))).html())
    assert "tokens of unknown price 70" in text_of(page)


@pytest.mark.parametrize(
    ("number", "whose"),
    [(3, "agent 3"), (6, "agent 3, agent 6"), (66, "agent 57, agent 60 and 2 more")],
)
def test_below_the_table_are_the_errors(number: int, whose: str) -> None:
    *_, counted, failed = many(number).table().splitlines()
    assert counted == f"{number * 2 // 3} completed, {number // 3} failed"
    assert failed.startswith("agent 3")
    assert failed.endswith(f"{whose}: OpenCodeTurnError: overloaded")


@pytest.mark.parametrize("number", [0, 1, 2, 200])
def test_a_page_of_any_number_of_agents(number: int) -> None:
    html = many(number).html()
    page = parsed(html)
    recorders = [svg for svg in page.iter(f"{SVG}svg") if svg.attrib.get("role") == "img"]
    assert len(recorders) == number
    assert all(len(recorder) == 30 for recorder in recorders)
    assert text_of(page.find("head/title")) == f"Swarm of {number} agent{'s' * (number != 1)}"
    failures = by_class(page, "failures")
    assert len(failures) == (1 if number > 2 else 0)
    if failures:
        assert f"{number // 3} {TIMES} OpenCodeTurnError: overloaded" in text_of(failures[0])
    (foot,) = by_class(page, "foot")
    assert text_of(foot).startswith("all")
    assert f"{100 * number:,}" in text_of(foot)
    assert len(html) < 20_000 + 8_000 * number


def test_the_axis_has_its_marks_in_order() -> None:
    page = parsed(many(1).html())
    for axis in by_class(page, "at-1"):
        left = [float(span.attrib["style"].strip("left: %")) for span in axis]
        assert left[0] == 0
        assert all(one < two < 100 for one, two in pairwise(left))
        assert [text_of(span) for span in axis][:2] == ["0", "10s"]


def test_a_long_story_makes_no_long_page() -> None:
    spans = row_of_spans(100_000, 0.01)
    agent = AgentReport(number=1, name="busy", status="completed", spans=tuple(spans))
    assert len(report(agent, elapsed_s=1000).html()) < 2_000_000


# --- a swarm's ----------------------------------------------------------------------------------


def telling(*moments: tuple[float, Event]) -> Callable[[FakeSession], Any]:
    async def program(session: FakeSession) -> str:
        start = trio.current_time()
        for at, event in moments:
            await trio.sleep_until(start + at)
            session.tell(event)
        session.step()
        return "ok"

    return program


async def test_the_report_of_a_swarm(autojump_clock: MockClock) -> None:
    asked = PermissionAsked(request_id="per_1", permission="bash")
    world = World(
        two=steps(2),
        bad=failing(OpenCodeTurnError("the model <failed>")),
        ask=telling((1, asked), (4, PermissionReplied(request_id="per_1", reply="once"))),
    )
    await trio.sleep(100)  # a swarm's time begins when it is opened
    async with open_swarm(world.server(), limit=2, on_failure="collect") as swarm:
        assert swarm.report().agents == ()
        two, bad = swarm.start_soon("two"), swarm.start_soon("bad", name="<script>")
        swarm.start_soon("ask", name="asks")
        await two.wait()
        early = swarm.report()
    late = swarm.report()
    assert [agent.status for agent in early.agents] == ["completed", "failed", "running"]
    (ask,) = (span for span in early.agents[2].spans if span.kind == "ask")
    assert ask.is_open
    assert (ask.start_s, ask.end_s) == pytest.approx((2, 2))

    assert (early.elapsed_s, late.elapsed_s) == pytest.approx((2, 5))
    await trio.sleep(50)
    assert swarm.report().elapsed_s == late.elapsed_s
    assert late.spent == swarm.spent == Spending(3 * COST_USD, 300)
    assert (late.figures.steps, late.figures.asks) == (3, 1)
    assert late.figures.asked_s == pytest.approx(3)
    assert late.agents[1].error == "OpenCodeTurnError: the model <failed>"
    assert late.agents[1].attempts == bad.attempts == 1
    assert late.agents[1].spans[-1].kind == "error"
    waits = [span for agent in late.agents for span in agent.spans if span.kind == "waiting"]
    assert [span.length_s for span in waits] == [0, 0, pytest.approx(1)]

    lines = [json.loads(line) for line in late.jsonl().splitlines()]
    assert lines[0]["spent"]["tokens"] == 300
    names = [line["name"] for line in lines if line["type"] == "agent"]
    assert names == ["agent 1", "<script>", "asks"]
    assert {line["agent"] for line in lines if line["type"] == "span"} == {1, 2, 3}
    *_, total, counted, failed = late.table().splitlines()
    assert total.split() == ["all", "5.0s", "3", "0", "1", "(3.0s)", "0", "300", "$1.50"]
    assert counted == "2 completed, 1 failed"
    assert failed == "<script>: OpenCodeTurnError: the model <failed>"
    assert "<script>" not in late.html()


async def test_the_users_hook_hears_everything_too(autojump_clock: MockClock) -> None:
    heard = []
    world = World()
    async with open_swarm(
        world.server(), on_event=lambda agent, event: heard.append((agent.name, event))
    ) as swarm:
        swarm.start_soon("hello")
    assert [name for name, _ in heard] == ["agent 1"]
    assert swarm.report().figures.steps == 1


async def test_an_aborted_turn_leaves_nothing_open(autojump_clock: MockClock) -> None:
    world = World(long=telling((1, tool("running")), (50, tool("completed"))))

    async def patient(session: Any) -> None:
        with trio.move_on_after(5):
            await session.send("long")
        await trio.sleep(10)

    async with open_swarm(world.server()) as swarm:
        swarm.start_soon(patient)
    (span,) = (span for span in swarm.report().agents[0].spans if span.kind == "tool")
    assert span.title == "bash (cut off)"
    assert span.end_s == pytest.approx(5)


async def test_agents_that_were_cancelled_or_never_ran(autojump_clock: MockClock) -> None:
    world = World(dear=steps(5, cost=1.0))
    async with open_swarm(world.server(), limit=1, max_cost_usd=2.5, on_failure="collect") as swarm:
        swarm.start_soon("dear")
        swarm.start_soon("late")
        swarm.start_soon("unwanted").cancel()
    taken = swarm.report()
    assert [agent.status for agent in taken.agents] == ["failed", "failed", "cancelled"]
    assert "What did not work" in taken.html()
    assert not any(span.is_open for agent in taken.agents for span in agent.spans)


def test_a_lane_of_nothing() -> None:
    recorder = AgentRecorder(lambda: 0.0, lambda: None)
    assert recorder.spans() == []
    assert figures_of(recorder) == Figures()
    assert list(timeline_svg([], 0, "")) == []
