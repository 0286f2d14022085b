"""A report as a page: one file, no script, nothing fetched.

The text of agents and models is in it, so all of it goes through an XML tree, which escapes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from opencode_trio._report.figures import AgentReport, Figures
from opencode_trio._report.page_style import STYLE
from opencode_trio._report.spans import SpanKind
from opencode_trio._report.tables import MAX_NAMES, alike, dollars, seconds
from opencode_trio._report.timeline_svg import BANDS, tick_step, timeline_svg
from opencode_trio._swarm.agent import AgentStatus
from opencode_trio._turn.budgets import Spending
from opencode_trio._turn.titles import one_line

DENSE = 30
"""With more agents than this, each has one line, and lower lanes."""
LOW = 0.7
MAX_TEXT = 600
"""Characters, of whatever agents said."""
ZOOMS = (1, 4, 16)
TIMES = "\N{MULTIPLICATION SIGN}"

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Whatever got into the page: the browser fetches nothing and runs nothing."""

MARKS: Mapping[AgentStatus, str] = {
    "waiting": "○",
    "starting": "○",
    "running": "▸",
    "completed": "✓",
    "failed": "✕",
    "cancelled": "■",
}

LEGEND: Sequence[tuple[SpanKind, str, str]] = (
    ("waiting", "", "in the queue"),
    ("starting", "", "server or session starts"),
    ("running", "", "open, no model at work"),
    ("step", "", "step of the model"),
    ("step", "failed", "broken off"),
    ("tool", "", "tool"),
    ("tool", "failed", "that failed"),
    ("ask", "", "waits for a human"),
    ("retry", "", "waits for a provider"),
    ("subagent", "", "subagent"),
    ("error", "", "failure"),
)


def page(
    agents: Sequence[AgentReport],
    *,
    elapsed_s: float,
    figures: Figures,
    spent: Spending,
    taken_at: datetime,
) -> str:
    """Return the page."""
    body = Element("body", {"class": "dense"} if len(agents) > DENSE else {})
    noun = "agent" if len(agents) == 1 else "agents"
    title = f"Swarm of {len(agents)} {noun}"
    _add(body, "h1", title)
    _add(body, "p", f"as of {taken_at:%Y-%m-%d %H:%M:%S %Z}, {seconds(elapsed_s)} in", "when")
    body.append(_tiles(agents, figures, spent))
    body.append(_legend())
    if failed := alike(agents):
        body.append(_failures(failed))
    body.append(_zoom())
    body.append(_chart(agents, elapsed_s, spent))
    indent(body)
    head = Element("head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width"})
    _add(head, "title", title)
    SubElement(head, "style").text = STYLE
    html = f'<html lang="en">\n{tostring(head, "unicode")}\n{tostring(body, "unicode")}\n</html>'
    return f"<!DOCTYPE html>\n{html}\n"


def _add(parent: Element, tag: str, text: str, name: str = "", **attributes: str) -> Element:
    element = SubElement(parent, tag, ({"class": name} if name else {}) | attributes)
    # Without a space, if nothing else, it would be <i/>, which to a browser is no end.
    element.text = one_line(text, MAX_TEXT) or "\u00a0"
    return element


def _tiles(agents: Sequence[AgentReport], figures: Figures, spent: Spending) -> Element:
    tiles = Element("dl", {"class": "tiles"})
    for what, value, name in _totals(agents, figures, spent):
        tile = SubElement(tiles, "div", {"class": name})
        _add(tile, "dt", what)
        _add(tile, "dd", value)
    return tiles


def _totals(
    agents: Sequence[AgentReport], figures: Figures, spent: Spending
) -> Iterator[tuple[str, str, str]]:
    count = Counter(agent.status for agent in agents)
    for status in MARKS:
        if count[status]:
            yield status, f"{count[status]}", "bad" if status == "failed" else status
    yield "cost", dollars(spent), ""
    yield "tokens", f"{spent.tokens:,}", ""
    if spent.unpriced_tokens:
        yield "tokens of unknown price", f"{spent.unpriced_tokens:,}", ""
    yield "steps", f"{figures.steps}", ""
    yield "tool calls", f"{figures.tools}", ""
    optional = {
        "failed tool calls": (figures.failed_tools, None),
        "subagents": (figures.subagents, None),
        "waits for a human": (figures.asks, figures.asked_s),
        "waits for a provider": (figures.retries, figures.retried_s),
    }
    for what, (number, took_s) in optional.items():
        if number:
            yield what, f"{number}" + (f" · {seconds(took_s)}" if took_s is not None else ""), ""


def _legend() -> Element:
    legend = Element("ul", {"class": "legend"})
    for kind, how, what in LEGEND:
        item = SubElement(legend, "li")
        svg = SubElement(item, "svg", {"viewBox": "0 0 26 20", "aria-hidden": "true"})
        svg.set("xmlns", "http://www.w3.org/2000/svg")
        top, height = BANDS[kind]
        box = {"x": "1", "y": f"{top}", "width": "24", "height": f"{height}"}
        SubElement(svg, "rect", {"class": f"{kind} {how}".strip()} | box)
        svg.tail = what
    return legend


def _failures(failed: Sequence[tuple[str, list[AgentReport]]]) -> Element:
    section = Element("section", {"class": "failures"})
    _add(section, "h2", "What did not work")
    rows = SubElement(section, "ul")
    for error, agents in failed:
        item = SubElement(rows, "li")
        item.text = f"{len(agents)} {TIMES} " if len(agents) > 1 else None
        _add(item, "q", error).tail = ": "
        for agent in agents[:MAX_NAMES]:
            _add(item, "a", one_line(agent.name), href=f"#agent-{agent.number}").tail = ", "
        item[-1].tail = " …" if len(agents) > MAX_NAMES else None
    return section


def _zoom() -> Element:
    """Offer to look closer; the browser does it by itself."""
    zoom = Element("p", {"class": "zoom"})
    for times in ZOOMS:
        label = SubElement(zoom, "label")
        box = {"type": "radio", "name": "zoom", "id": f"zoom-{times}", "class": "wide"}
        if times == 1:
            box |= {"class": "", "checked": "checked"}
        SubElement(label, "input", box).tail = f"{times}{TIMES}"
    return zoom


def _chart(agents: Sequence[AgentReport], elapsed_s: float, spent: Spending) -> Element:
    steps = {times: tick_step(elapsed_s / times) for times in ZOOMS}
    share = 100 / (elapsed_s or 1)
    ticks = "; ".join(f"--tick-{times}: {step * share:.4f}%" for times, step in steps.items())
    chart = Element("div", {"class": "chart", "style": ticks})
    axis = _row(chart, "head", "agent", ("cost", "tokens", "time"))
    axis.set("class", "track axis")
    for times, step in steps.items():
        marks = SubElement(axis, "div", {"class": f"at-{times}"})
        for number in range(max(1, math.ceil(elapsed_s / step))):
            left = f"left: {number * step * share:.4f}%"
            _add(marks, "span", seconds(number * step) if number else "0", style=left)
    for agent in agents:
        _agent_row(chart, agent, elapsed_s, LOW if len(agents) > DENSE else 1.0)
    sums = (dollars(spent), f"{spent.tokens:,}", seconds(elapsed_s))
    _row(chart, "foot", "all", sums).text = "\u00a0"
    return chart


def _agent_row(chart: Element, agent: AgentReport, elapsed_s: float, scale: float) -> None:
    sums = (dollars(agent.spent), f"{agent.spent.tokens:,}", seconds(agent.elapsed_s))
    track = _row(chart, agent.status, "", sums, id=f"agent-{agent.number}")
    who = chart[-1][0]
    who.text = None
    who.set("title", one_line(f"{agent.name}, {agent.status}, {agent.session_id or 'no session'}"))
    bold = SubElement(who, "b")
    _add(bold, "i", MARKS[agent.status]).tail = one_line(agent.name)
    _add(who, "small", _told(agent))
    label = one_line(f"{agent.name}: {_told(agent)}")
    track.append(timeline_svg(agent.spans, elapsed_s, label, scale=scale))


def _row(chart: Element, name: str, who: str, sums: Sequence[str], **attributes: str) -> Element:
    """Add a row; return its track."""
    row = SubElement(chart, "div", {"class": f"row {name}"} | attributes)
    _add(row, "div", who, "who")
    track = SubElement(row, "div", {"class": "track"})
    for number in sums:
        _add(row, "div", number, "num")
    return track


def _told(agent: AgentReport) -> str:
    """Say in a few words how an agent ended."""
    counts = {
        "step": agent.figures.steps,
        "tool": agent.figures.tools,
        "subagent": agent.figures.subagents,
        "attempt": agent.attempts if agent.attempts > 1 else 0,
    }
    done = [f"{number} {what}{'s' * (number != 1)}" for what, number in counts.items() if number]
    status = "" if agent.status == "completed" and done else agent.status
    return " · ".join(filter(None, [status, *done]))
