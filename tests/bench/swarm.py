"""Agents of one turn, in all the ways there are: how fast, and on how much memory.

The ways with a shared server run all agents at once, several times.  The others start a process for
each agent, which takes minutes: they run them once, as many at once as suits this machine best.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from bench.benchmark import Benchmark, Setup, in_turns
from bench.contest import Contender, Heat, compete
from bench.processes import MIB
from bench.programs import Model, model_elsewhere
from bench.rows import Row

AGENTS = 64
ROUNDS = 3
TRIED = 16
"""Agents that show how many processes at once are best."""
LIMITS = (2, 4, 8)
"""How many at once are tried."""
RIVAL = "py-opencode-wrapper"
OVERHEAD = 1.10
"""How much longer than bare HTTP the library may take."""
GAIN = 30
"""How many times faster than the rival's runs it must be, agent by agent."""


def run(setup: Setup) -> list[Row]:
    count = setup.scaled(AGENTS, least=4)
    bare = Contender("bare HTTP, one server", "bare_http", count, count)
    ours = Contender("the library, one server", "library_swarm", count, count)
    heats: dict[Contender, list[Heat]] = {bare: [], ours: []}
    with model_elsewhere() as model:
        for _, way in in_turns([bare, ours], ROUNDS):
            heats[way].append(compete(setup, model, way))
        processes = _processes(setup, model, count)
    pace = _pace(bare, heats[bare])
    own = _pace(ours, heats[ours]).compared(pace, at_most=OVERHEAD)
    rows = [*_rows(own, heats[ours], failures=0), *_rows(pace, heats[bare])]
    for way, heat in processes:
        other = _pace(way, [heat]).compared(own, at_least=GAIN if way.way == "run" else None)
        rows += _rows(other, [heat])
    return rows


def _processes(setup: Setup, model: Model, count: int) -> list[tuple[Contender, Heat]]:
    """Measure the ways that start processes: bare at its best, and the rival with as many."""
    tried = setup.scaled(TRIED, least=2)
    ways = [Contender("bare `opencode run`", "bare_runs", tried, limit) for limit in LIMITS]
    best = min(ways, key=lambda way: compete(setup, model, way).seconds)
    argv = (str(setup.rival), str(Path(__file__).with_name("rival.py")))
    rivals = [
        Contender(f"{RIVAL}, {mode} mode", mode, count, best.limit, argv)
        for mode in ("run", "session")
        if setup.rival
    ]
    whole = [attrs.evolve(best, agents=count), *rivals]
    return [(way, compete(setup, model, way)) for way in whole]


def _pace(way: Contender, heats: Sequence[Heat]) -> Row:
    note = f"{way.agents} agents, {way.limit} at once"
    return Row(f"{way.name}: time per agent", "s", [heat.pace for heat in heats], note=note)


def _rows(pace: Row, heats: Sequence[Heat], *, failures: int | None = None) -> list[Row]:
    """Say what a way has cost, and how many failures it may have."""
    lost = [heat.failures for heat in heats]
    return [
        pace,
        Row("agents per second", "", [1 / heat.pace for heat in heats]),
        Row("CPU per agent", "s", [heat.cpu_s / heat.agents for heat in heats]),
        Row("peak memory (PSS)", "MiB", [heat.peak_pss / MIB for heat in heats]),
        Row("peak memory (RSS)", "MiB", [heat.peak_rss / MIB for heat in heats]),
        Row("failures", "", lost, share=1, at_most=failures),
    ]


BENCHMARK = Benchmark("agents of one turn, through the library and in other ways", run)
