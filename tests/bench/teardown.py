"""The matrix: each way out of a block, and how long each kind of descendant lives on.

    nox -s bench -- teardown      (or: python tests/bench/teardown.py --modes run,serve)

Milliseconds from the beginning of the end (the `break`, the cancellation, the signal, for a normal
end the model's last word) until nobody of that kind was left, until the block had been left, and
until the scratch directory was gone.  `inf` is never.  Anybody left, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from teardown_matrix import KINDS, MODES, WAYS, Cell, measure

WIDTH = 12


def row(*words: str) -> str:
    first, second, *rest = words
    return f"{first:<6}{second:<14}" + "".join(f"{word:>{WIDTH}}" for word in rest)


def shown(cell: Cell) -> str:
    cells = [
        f"{left} LEFT" if (left := cell.survivors.get(kind)) else f"{cell.empty_ms[kind]:.0f}"
        for kind in KINDS
    ]
    block = "killed" if cell.left_ms is None else f"{cell.left_ms:.0f}"
    line = row(cell.mode, cell.way, *cells, block, f"{cell.scratch_ms:.0f}")
    return line if not cell.failed else f"{line}\n  exit {cell.exit_code}: {cell.stderr}"


def main(binary: str, modes: list[str], ways: list[str]) -> bool:
    print(row("mode", "way out", *KINDS, "block", "scratch"))
    is_clean = True
    for mode in modes:
        for way in ways:
            with tempfile.TemporaryDirectory() as directory:
                cell = measure(mode, way, binary=binary, directory=Path(directory))
            print(shown(cell), flush=True)
            is_clean &= cell.is_clean
    print("\nno survivor, no scratch directory" if is_clean else "\nNOT CLEAN")
    return is_clean


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Leave an agent's block in every way there is.")
    parser.add_argument("--modes", default=",".join(MODES), type=lambda text: text.split(","))
    parser.add_argument("--ways", default=",".join(WAYS), type=lambda text: text.split(","))
    options = parser.parse_args()
    program = os.environ.get("OPENCODE_TRIO_TEST_BINARY", "opencode")
    sys.exit(not main(program, options.modes, options.ways))
