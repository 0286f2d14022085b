"""What `import opencode_trio` costs beside `import trio`, each in interpreters of its own."""

from __future__ import annotations

import resource
import subprocess
import sys

from bench.benchmark import Benchmark, Setup, in_turns
from bench.rows import Row

ROUNDS = 15
AT_MOST = 0.3
"""Of what trio takes, which a trio program imports anyway.  Most is imported when it is asked for."""
NOTHING = "pass"
STATEMENTS = [
    NOTHING,
    "import trio",
    "import opencode_trio",
    "from opencode_trio import AsyncOpenCodeClient",
]


def cpu_ms_for(statement: str) -> float:
    before = _children_ms()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return _children_ms() - before


def _children_ms() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000


def run(setup: Setup) -> list[Row]:
    spent: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _, statement in in_turns(STATEMENTS, setup.scaled(ROUNDS, least=3)):
        spent[statement].append(cpu_ms_for(statement))
    nothing = min(spent.pop(NOTHING))
    # The least of all rounds: whatever else the machine does can only add.
    trio, ours, client = (
        Row(f"`{statement}`", "ms", [value - nothing for value in values], share=0)
        for statement, values in spent.items()
    )
    return [trio, ours.compared(trio, at_most=AT_MOST), client.compared(trio)]


BENCHMARK = Benchmark("processor time of an import, the interpreter's own start taken off", run)
