"""Make the pictures of the README and of the documentation, from the agents of the demo.

    python docs/pictures/make.py

It needs opencode and the extras `testing` and `progress`. A script plays the model.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import trio
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from opencode_trio import AgentReport, AsyncOpenCodeClient, Swarm, open_swarm
from opencode_trio._report.table_view import picture
from opencode_trio._report.timeline_svg import timeline_svg
from opencode_trio.testing import open_run_config

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

from demo import PERMISSION, POEM, PROMPT, QUESTIONS, play  # noqa: E402

COLUMNS, NAMES, LANE, ROW = 100, 260, 640, 26
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #39424e; }
  .step { fill: #bcd3f8; stroke: #7fa8ea; stroke-width: .75px; }
  .tool { fill: #14907c; }
  .waiting, .running, .starting { fill: #d5dae2; }
"""


async def main() -> None:
    """Run the demo, and take one picture in the middle and one at the end."""
    with tempfile.TemporaryDirectory() as directory:
        await trio.Path(directory, "poem.txt").write_text(POEM)
        async with (
            open_run_config("scripted/demo", script=play, permission=PERMISSION) as config,
            open_swarm(AsyncOpenCodeClient(), workspace=directory, run_cfg=config) as swarm,
        ):
            for question in QUESTIONS:
                swarm.start_soon(PROMPT.format(question), name=question)
            async for state in swarm.updates():
                if sum(agent.status == "completed" for agent in state.agents) == 3:
                    break
            (HERE / "live-table.svg").write_text(live_table(swarm), "utf-8")
    report = swarm.report()
    (HERE / "timeline.svg").write_text(timeline(report.agents, report.elapsed_s), "utf-8")


def live_table(swarm: Swarm) -> str:
    """Draw the table as a terminal shows it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(picture(swarm.snapshot(), swarm.budget, rows=20, width=COLUMNS))
    svg = console.export_svg(title="show_progress", theme=DEFAULT_TERMINAL_THEME, unique_id="live")
    # Its fonts would come from elsewhere, and every viewer has one of its own.
    return re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)


def timeline(agents: Sequence[AgentReport], elapsed_s: float) -> str:
    """Draw the agents one below the other."""
    size = {"width": f"{NAMES + LANE + 10}", "height": f"{ROW * len(agents) + 10}"}
    picture = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
    SubElement(picture, "title").text = "What each agent did, and when"
    SubElement(picture, "style").text = STYLE
    SubElement(picture, "rect", {"width": "100%", "height": "100%", "fill": "#fff"})
    for number, agent in enumerate(agents):
        top = ROW * number + 5
        SubElement(picture, "text", {"x": "8", "y": f"{top + 17}"}).text = agent.name
        lane = timeline_svg(agent.spans, elapsed_s, agent.name)
        box = {"x": f"{NAMES}", "y": f"{top + 2}", "width": f"{LANE}", "height": "20"}
        del lane.attrib["style"], lane.attrib["xmlns"]
        lane.attrib |= box
        picture.append(lane)
    return tostring(picture, encoding="unicode") + "\n"


if __name__ == "__main__":
    trio.run(main)
