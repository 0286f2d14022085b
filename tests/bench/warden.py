"""What the warden costs: the same child with it and without, and from cancel to empty."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio

from bench.benchmark import Benchmark, Setup, in_turns
from bench.rows import Row
from families import carrying, marked
from opencode_trio._process.child import open_child
from opencode_trio._process.scratch import make_scratch

ROUNDS = 40
# As opencode's own family when a turn is cancelled: a shell of the bash tool in a session of its
# own, with something in the foreground and something left behind, and a server on a pipe.
FAMILY = "setsid sh -c 'sleep @ & sleep @' & cat | sleep @ & setsid sleep @ & sleep @"
FAMILY_SIZE = 7
MARKED = 6
"""`cat` carries no mark."""


async def direct(argv: list[str], cwd: Path) -> None:
    process = await trio.lowlevel.open_process(argv, cwd=cwd, start_new_session=True)
    await process.wait()


async def under_a_warden(argv: list[str], cwd: Path) -> None:
    async with open_child(argv, cwd=cwd, env=os.environ, scratch=make_scratch()) as child:
        await child.wait()


WAYS: Mapping[str, Callable[[list[str], Path], Awaitable[None]]] = {
    "a child that does nothing": direct,
    "the same under a warden": under_a_warden,
}


async def costs_ms(rounds: int, cwd: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return the wall time of each way, and the processor time of its children."""
    spent: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in WAYS}
    for _, name in in_turns(list(WAYS), rounds):
        began, used = time.perf_counter(), _children_cpu_s()
        await WAYS[name](["true"], cwd)
        spent[name][0].append((time.perf_counter() - began) * 1000)
        spent[name][1].append((_children_cpu_s() - used) * 1000)
    return spent


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def cancel_ms(rounds: int, cwd: Path) -> list[float]:
    took = []
    for _ in range(rounds):
        with marked() as mark, trio.CancelScope() as scope:
            argv = ["sh", "-c", FAMILY.replace("@", mark)]
            began = 0.0
            async with open_child(argv, cwd=cwd, env=os.environ, scratch=make_scratch()):
                while len(carrying(mark)) < MARKED:  # noqa: ASYNC110 - processes ring no bell
                    await trio.sleep(0.01)
                began = time.perf_counter()
                scope.cancel()
                await trio.sleep_forever()
        took.append((time.perf_counter() - began) * 1000)
    return took


def run(setup: Setup) -> list[Row]:
    rounds = setup.scaled(ROUNDS, least=3)
    with tempfile.TemporaryDirectory() as directory:
        spent = trio.run(costs_ms, rounds, Path(directory))
        ended = trio.run(cancel_ms, setup.scaled(ROUNDS // 2, least=3), Path(directory))
    (alone, (wall, work)), (guarded, (guarded_wall, guarded_work)) = spent.items()
    added = [mine - other for mine, other in zip(guarded_wall, wall, strict=True)]
    added_work = [mine - other for mine, other in zip(guarded_work, work, strict=True)]
    return [
        Row(alone, "ms", wall),
        Row(guarded, "ms", guarded_wall),
        Row("so a warden adds", "ms", added, at_most=40),
        Row("of which are work, on a processor", "ms", added_work),
        Row(f"from cancel to empty, {FAMILY_SIZE} processes, p50", "ms", ended),
        Row("the same, max", "ms", ended, share=1, at_most=1000),
    ]


BENCHMARK = Benchmark("what the process costs that each opencode runs under", run)
