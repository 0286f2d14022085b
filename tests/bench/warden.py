"""What the warden costs: the same child with it and without, and from cancel to empty.

    nox -s bench -- warden_cost   (or: python tests/bench/warden_cost.py --rounds 40)

`direct` starts the child as trio does, `warden` as this library does.  Rounds alternate, because a
machine's mood changes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from families import carrying, marked
from opencode_trio._process import open_child
from opencode_trio._scratch import make_scratch

# As opencode's own family when a turn is cancelled: a shell of the bash tool in a session of its
# own, with something in the foreground and something left behind, and a server on a pipe.
WELL_BEHAVED = "setsid sh -c 'sleep @ & sleep @' & cat | sleep @ & setsid sleep @ & sleep @"


async def direct(argv: list[str]) -> None:
    process = await trio.lowlevel.open_process(argv, start_new_session=True)
    await process.wait()


async def under_a_warden(argv: list[str]) -> None:
    async with open_child(argv, cwd=Path.cwd(), env=os.environ, scratch=make_scratch()) as child:
        await child.wait()


WAYS = {"direct": direct, "warden": under_a_warden}


async def cost_ms(rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the wall time, and the processor time of children alone, of each way."""
    wall: dict[str, list[float]] = {name: [] for name in WAYS}
    cpu: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            began, used = time.perf_counter(), children_cpu_s()
            await way(["true"])
            wall[name].append((time.perf_counter() - began) * 1000)
            cpu[name].append((children_cpu_s() - used) * 1000)
    return wall, cpu


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory_mb(pid: int) -> dict[str, float]:
    """Return what a process holds, and how much of that it shares with nobody."""
    text = (Path("/proc") / str(pid) / "smaps_rollup").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines()[1:])
    kb = {name: int(value.split()[0]) for name, value in fields.items()}
    private = kb["Private_Clean"] + kb["Private_Dirty"]
    return {"resident": kb["Rss"] / 1024, "private": private / 1024}


async def resident() -> dict[str, float]:
    async with open_child(
        ["sleep", "60"], cwd=Path.cwd(), env=os.environ, scratch=make_scratch()
    ) as child:
        return memory_mb(child._process.pid)


async def cancel_ms(rounds: int) -> list[float]:
    took = []
    for _ in range(rounds):
        with marked() as mark, trio.CancelScope() as scope:
            script = WELL_BEHAVED.replace("@", mark)
            began = 0.0
            async with open_child(
                ["sh", "-c", script], cwd=Path.cwd(), env=os.environ, scratch=make_scratch()
            ):
                while len(carrying(mark)) < 6:  # noqa: ASYNC110 - processes ring no bell
                    await trio.sleep(0.01)
                began = time.perf_counter()
                scope.cancel()
                await trio.sleep_forever()
        took.append((time.perf_counter() - began) * 1000)
    return took


def line(name: str, values: list[float]) -> str:
    middle, worst = statistics.median(values), max(values)
    return f"{name:<26} p50 {middle:6.1f} ms   max {worst:6.1f} ms   ({len(values)} rounds)"


async def main(rounds: int) -> bool:
    wall, cpu = await cost_ms(rounds)
    added = statistics.median(wall["warden"]) - statistics.median(wall["direct"])
    work = statistics.median(cpu["warden"]) - statistics.median(cpu["direct"])
    memory = await resident()
    ended = await cancel_ms(rounds)
    print(line("direct child", wall["direct"]))
    print(line("child under a warden", wall["warden"]))
    print(f"{'added by the warden':<26} p50 {added:6.1f} ms   of which {work:.1f} ms are work")
    print(f"{'':<26} {memory['resident']:.1f} MB resident, {memory['private']:.1f} MB its alone")
    print(line("cancel to empty, 7 people", ended))
    return added <= 40 and memory["resident"] <= 12 and max(ended) <= 1000


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare children under wardens with bare ones.")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        sys.exit(not trio.run(main, options.rounds))
