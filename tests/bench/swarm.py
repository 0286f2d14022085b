"""Agents of one turn, in all the ways there are: how fast, and on how much memory.

The ways with a shared server run all agents at once.  The others, for which that would take many
minutes, run fewer, as many at once as suits this machine best; agent by agent they compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.benchmark import Benchmark, Setup, in_turns
from bench.contest import Contender, Heat, compete
from bench.processes import MIB
from bench.programs import Model, model_elsewhere
from bench.rows import Row

AGENTS = 64
ROUNDS = 3
FEWER = 16
"""Of the ways that start processes: a minute, where 64 take four."""
LIMITS = (2, 4, 8)
"""How many processes at once are tried."""
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
        processes = _processes(setup, model)
    pace = _pace(bare, heats[bare])
    own = _pace(ours, heats[ours]).compared(pace, at_most=OVERHEAD)
    rows = [*_rows(own, heats[ours], failures=0), *_rows(pace, heats[bare])]
    for way, heat in processes:
        other = _pace(way, [heat]).compared(own, at_least=GAIN if way.way == "run" else None)
        rows += _rows(other, [heat])
    return rows


def _processes(setup: Setup, model: Model) -> list[tuple[Contender, Heat]]:
    """Measure the ways that start processes: bare at its best, and the rival with as many."""
    count = setup.scaled(FEWER, least=2)
    ways = [Contender("bare `opencode run`", "bare_runs", count, limit) for limit in LIMITS]
    tried = [(way, compete(setup, model, way)) for way in ways]
    best = min(tried, key=lambda pair: pair[1].seconds)
    argv = (str(setup.rival), str(Path(__file__).with_name("rival.py")))
    rivals = [
        Contender(f"{RIVAL}, {mode} mode", mode, count, best[0].limit, argv)
        for mode in ("run", "session")
        if setup.rival
    ]
    return [best, *((way, compete(setup, model, way)) for way in rivals)]


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
