"""Ways to run agents, side by side: each in a tree of processes of its own, one after the other."""

from __future__ import annotations

import tempfile
from pathlib import Path

import attrs

from bench.benchmark import Setup
from bench.model import ANSWER, PROMPT
from bench.processes import MIB, cpu_s
from bench.programs import Finished, Model, module, run_program


@attrs.frozen
class Contender:
    """One way, and with how many agents it is measured."""

    name: str
    way: str
    agents: int
    limit: int
    """The most at once."""
    argv: tuple[str, ...] = module("ways")


@attrs.frozen
class Heat:
    """What one run of one way has cost."""

    agents: int
    seconds: float
    """For the agents alone, when what they share was there."""
    whole_s: float
    """From the start of the program to its end, a server's start and end included."""
    cpu_s: float
    """Of the whole tree, the model apart."""
    peak_pss: int
    peak_rss: int
    failures: int
    model_cpu_s: float
    """What the model used meanwhile."""

    @property
    def pace(self) -> float:
        """How many seconds went by for each agent."""
        return self.seconds / self.agents

    def __str__(self) -> str:
        """Show it on a line."""
        return (
            f"{1 / self.pace:6.2f} agents/s  {self.seconds:6.1f} s (of"
            f" {self.whole_s:5.1f} s)  {self.cpu_s:6.1f} s of CPU"
            f"  peak {self.peak_pss / MIB:5.0f} MiB  failures {self.failures}"
        )


def compete(setup: Setup, model: Model, contender: Contender) -> Heat:
    """Run one way once."""
    with tempfile.TemporaryDirectory() as workspace:
        job = {
            "way": contender.way,
            "binary": setup.binary,
            "cfg": attrs.asdict(model.cfg),
            "config": model.cfg.build_opencode_config_dict(),
            "workspace": str(Path(workspace).resolve()),
            "agents": contender.agents,
            "limit": contender.limit,
            "prompt": PROMPT,
            "answer": ANSWER,
        }
        model_before = cpu_s(model.pid)
        finished = run_program(contender.argv, job)
        model_used = cpu_s(model.pid) - model_before
    heat = heat_of(contender, finished, model_used)
    setup.say(f"{contender.name:<36} {heat}")
    for problem in dict.fromkeys(finished.said["wrong"]):
        setup.say(f"    {problem:.200}")
    return heat


def heat_of(contender: Contender, finished: Finished, model_cpu_s: float) -> Heat:
    return Heat(
        agents=contender.agents,
        seconds=finished.said["seconds"],
        whole_s=finished.seconds,
        cpu_s=finished.cpu_s,
        peak_pss=finished.peak_pss,
        peak_rss=finished.peak_rss,
        failures=len(finished.said["wrong"]),
        model_cpu_s=model_cpu_s,
    )
