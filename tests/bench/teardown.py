"""The matrix: each way out of a block, and how long each kind of descendant lives on.

Milliseconds from the beginning of the end (the `break`, the cancellation, the signal, for a normal
end the model's last word) until nobody of that kind was left, until the block had been left, and
until the scratch directory was gone.  `inf` is never.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench.benchmark import Benchmark, Setup
from bench.rows import Row
from teardown_matrix import KINDS, MODES, WAYS, Cell, measure

WIDTH = 12


def line(*words: str) -> str:
    first, second, *rest = words
    return f"{first:<6}{second:<14}" + "".join(f"{word:>{WIDTH}}" for word in rest)


def shown(cell: Cell) -> str:
    cells = [
        f"{left} LEFT" if (left := cell.survivors.get(kind)) else f"{cell.empty_ms[kind]:.0f}"
        for kind in KINDS
    ]
    block = "killed" if cell.left_ms is None else f"{cell.left_ms:.0f}"
    text = line(cell.mode, cell.way, *cells, block, f"{cell.scratch_ms:.0f}")
    return text if not cell.failed else f"{text}\n  exit {cell.exit_code}: {cell.stderr}"


def cells(setup: Setup) -> Iterable[Cell]:
    ways = WAYS[: setup.scaled(len(WAYS))]
    setup.say(line("mode", "way out", *KINDS, "block", "scratch"))
    for mode in MODES:
        for way in ways:
            with tempfile.TemporaryDirectory() as directory:
                cell = measure(mode, way, binary=setup.binary, directory=Path(directory))
            setup.say(shown(cell))
            yield cell


def run(setup: Setup) -> list[Row]:
    found = list(cells(setup))
    rows = [
        Row(f"{cell.mode}, {cell.way}: until all {len(KINDS)} kinds are gone", "ms", ends, share=1)
        for cell in found
        for ends in [[*cell.empty_ms.values(), cell.scratch_ms]]
    ]
    unclean = sum(not cell.is_clean for cell in found)
    return [*rows, Row("ways out that left anybody", "", [unclean], at_most=0)]


BENCHMARK = Benchmark("how long what an agent has started outlives it, by the way out", run)
