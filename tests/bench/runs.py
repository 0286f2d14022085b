"""What the library adds to `opencode run`: the same runs, bare, in process trees of their own."""

from __future__ import annotations

from bench.benchmark import Benchmark, Setup, in_turns
from bench.contest import Contender, Heat, compete
from bench.programs import model_elsewhere
from bench.rows import Row

RUNS = 8
AT_ONCE = 2
ROUNDS = 3


def run(setup: Setup) -> list[Row]:
    count = setup.scaled(RUNS, least=2)
    bare = Contender("bare", "bare_runs", count, AT_ONCE)
    ours = Contender("`async_run`", "library_runs", count, AT_ONCE)
    heats: dict[Contender, list[Heat]] = {bare: [], ours: []}
    with model_elsewhere() as model:
        for _, way in in_turns([bare, ours], ROUNDS):
            heats[way].append(compete(setup, model, way))
    times, works = [], []
    for way, found in heats.items():
        how = f"{way.agents} runs, {way.limit} at once"
        times.append(Row(f"{way.name}: per run", "s", [h.pace for h in found], note=how))
        works.append(Row(f"{way.name}: CPU per run", "s", [h.cpu_s / h.agents for h in found]))
    return [
        times[0],
        times[1].compared(times[0], at_most=1.10),
        works[0],
        works[1].compared(works[0]),
    ]


BENCHMARK = Benchmark("what the library adds to `opencode run`", run)
