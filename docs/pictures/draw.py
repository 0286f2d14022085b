"""Draw the pictures of the README.  `nox -s pictures` does both of these:

    python docs/examples/demo.py --page swarm.html
    python docs/pictures/draw.py swarm.html

The live table is that of a swarm made up here, with agents in all states but failed.  The timeline is that
of the page, as a picture that stands alone.
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console

from opencode_trio import AgentSnapshot, Spending, SwarmSnapshot
from opencode_trio._report.page import LEGEND
from opencode_trio._report.page_style import STYLE
from opencode_trio._report.table_view import picture
from opencode_trio._report.timeline_svg import BANDS
from opencode_trio._turn.budgets import Budget

HERE = Path(__file__).resolve().parent

# --- the live table ------------------------------------------------------------------------------

COLUMNS, ROWS = 100, 10

# Name, dollars, tokens, seconds, steps, and what it is at.
RUNNING: list[tuple[str, float, int, float, int, dict[str, Any]]] = [
    ("worker", 0.2208, 171_450, 185, 9, {"call": "bash: pytest -q tests/test_queue.py"}),
    ("gateway", 0.0604, 42_310, 74, 3, {"asks": 1, "asked": "may it bash? rm -rf build"}),
    ("billing", 0.1127, 88_020, 96, 5, {"phase": "thinking"}),
    ("search", 0.0951, 70_775, 88, 4, {"is_retrying": True, "retry_in_s": 12}),
    ("reports", 0.0410, 30_112, 52, 2, {"phase": "writing"}),
    ("export", 0.0188, 12_904, 21, 1, {"call": "read: src/export/csv.py"}),
    ("auth", 0.0, 0, 3.2, 0, {"phase": "waiting"}),
]


def swarm_of_many() -> SwarmSnapshot:
    """Return a swarm whose agents are at all that an agent can be at."""
    done = [
        AgentSnapshot(
            name=f"lib {number}",
            status="completed",
            steps=4,
            spent=Spending(0.0312, 21_500),
            elapsed_s=41 + number,
            attempts=1,
        )
        for number in range(1, 9)
    ]
    running = [
        AgentSnapshot(
            name=name,
            status="running",
            steps=steps,
            spent=Spending(cost, tokens),
            elapsed_s=elapsed_s,
            attempts=1,
            **facts,
        )
        for name, cost, tokens, elapsed_s, steps, facts in RUNNING
    ]
    starting = AgentSnapshot(
        name="docs", status="starting", phase="server", elapsed_s=0.8, attempts=1
    )
    waiting = [AgentSnapshot(name=f"plugin {number}", status="waiting") for number in range(1, 13)]
    agents = (*done, *running, starting, *waiting)
    spent = sum((agent.spent for agent in agents), Spending())
    return SwarmSnapshot(agents=agents, spent=spent, elapsed_s=247)


def live_table() -> str:
    """Draw the live table, as SVG."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    table = picture(swarm_of_many(), Budget(max_cost_usd=5), ROWS, COLUMNS)
    console.print(table, highlight=False)
    svg = console.export_svg(title="a swarm", unique_id="live-table")
    # Its font would be fetched from elsewhere, which no browser does for a picture.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


# --- the timeline --------------------------------------------------------------------------------

SVG = "http://www.w3.org/2000/svg"
NAME_WIDTH, LANE_WIDTH, TIME_WIDTH, MARGIN = 235, 560, 65, 16
ROW, BAR, TOP = 30, 20, 46
TEXT_STYLE = """
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
text.soft { fill: var(--soft); font-size: 11px; }
text.end { text-anchor: end; }
text.middle { text-anchor: middle; }
line { stroke: var(--line); }
rect.paper { fill: var(--paper); }
"""


def timeline(page: str) -> str:
    """Draw the timeline of a report's page, as SVG that stands alone."""
    ET.register_namespace("", SVG)
    body = ET.fromstring(page)  # noqa: S314 - our own
    rows = [row for row in body.iter("div") if row.get("id", "").startswith("agent-")]
    height = TOP + ROW * len(rows) + 40
    width = MARGIN + NAME_WIDTH + LANE_WIDTH + TIME_WIDTH + MARGIN
    root = ET.Element(f"{{{SVG}}}svg", {"viewBox": f"0 0 {width} {height}", "role": "img"})
    root.set("aria-label", f"What {len(rows)} agents did, and when")
    add(root, "style").text = "\n".join([*rules(), TEXT_STYLE.strip()])
    add(root, "rect", {"class": "paper", "width": "100%", "height": "100%"})
    for at, label in ticks(body):
        x = MARGIN + NAME_WIDTH + LANE_WIDTH * at / 100
        text(root, x, TOP - 18, label, "soft middle")
        ends = {"x1": f"{x:.1f}", "x2": f"{x:.1f}", "y1": f"{TOP - 8}", "y2": f"{height - 40}"}
        add(root, "line", ends)
    for number, row in enumerate(rows):
        draw_row(root, row, TOP + ROW * number)
    kinds = {
        rect.get("class", "").split()[0] for row in rows for rect in row.iter(f"{{{SVG}}}rect")
    }
    draw_legend(root, kinds, height - 14)
    ET.indent(root)
    return ET.tostring(root, "unicode") + "\n"


def rules() -> Iterator[str]:
    """Yield what of the page's style concerns the bars, by day and by night."""
    yield from re.findall(
        r"^:root \{.*?^\}|^@media \(prefers.*?^\}", STYLE, re.DOTALL | re.MULTILINE
    )
    yield from re.findall(r"^rect[.{ ].*\}$", STYLE, re.MULTILINE)


def ticks(body: ET.Element) -> Iterator[tuple[float, str]]:
    """Yield the marks of the time axis: at how many percent, and what they say."""
    (axis,) = (part for part in body.iter("div") if part.get("class") == "at-1")
    for mark in axis:
        yield float(re.findall(r"left: ([\d.]+)%", mark.get("style", ""))[0]), mark.text or ""


def draw_row(root: ET.Element, row: ET.Element, top: float) -> None:
    bold = row.find(".//b")
    recorder = row.find(f".//{{{SVG}}}svg")
    *_, elapsed = row.iterfind("./div[@class='num']")
    if bold is None or recorder is None:
        raise ValueError("the page is not that of a report")
    text(root, MARGIN, top + 15, "".join(bold.itertext()).strip()[1:].strip())
    x = MARGIN + NAME_WIDTH
    box = {"x": f"{x}", "y": f"{top}", "width": f"{LANE_WIDTH}", "height": f"{BAR}"}
    kept = {name: recorder.get(name, "") for name in ("viewBox", "preserveAspectRatio")}
    add(root, "svg", box | kept).extend(recorder)
    text(root, x + LANE_WIDTH + TIME_WIDTH, top + 15, elapsed.text or "", "soft end")


def draw_legend(root: ET.Element, kinds: set[str], y: float) -> None:
    x = float(MARGIN)
    for kind, how, what in LEGEND:
        if kind in kinds and not how:
            top, height = BANDS[kind]
            box = {"x": f"{x}", "width": "22", "y": f"{y - 11 + 0.6 * top:.1f}"}
            add(root, "rect", {"class": kind, "height": f"{0.6 * height:.1f}"} | box)
            text(root, x + 28, y, what, "soft")
            x += 50 + 6 * len(what)


def add(parent: ET.Element, tag: str, attributes: dict[str, str] | None = None) -> ET.Element:
    return ET.SubElement(parent, f"{{{SVG}}}{tag}", attributes or {})


def text(root: ET.Element, x: float, y: float, what: str, style: str = "") -> None:
    add(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": style}).text = what


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the pictures of the README.")
    parser.add_argument("page", nargs="?", type=Path, help="of the demo, for the timeline")
    args = parser.parse_args()
    (HERE / "live-table.svg").write_text(live_table(), "utf-8")
    if args.page is not None:
        (HERE / "timeline.svg").write_text(timeline(args.page.read_text("utf-8")), "utf-8")
