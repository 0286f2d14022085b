"""What `import opencode_trio` costs beside `import trio`, in CPU time, each in interpreters of its own.

nox -s bench -- imports       (or: python tests/bench/imports.py)
"""

from __future__ import annotations

import resource
import subprocess
import sys

ROUNDS = 15


def cpu_seconds_for(statement: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> float:
    bare, trio, ours, client = [], [], [], []
    for _ in range(ROUNDS):  # in turns, because a machine's mood changes
        bare.append(cpu_seconds_for("pass"))
        trio.append(cpu_seconds_for("import trio"))
        ours.append(cpu_seconds_for("import trio, opencode_trio"))
        client.append(cpu_seconds_for("from opencode_trio import AsyncOpenCodeClient"))
    # The best of all rounds: whatever else the machine does can only add.
    least = {
        "import trio": min(trio),
        "import opencode_trio": min(ours),
        "... a client": min(client),
    }
    for what, seconds in least.items():
        cost = seconds - min(bare)
        print(f"{what:<21} {cost * 1000:6.1f} ms   {cost / (min(trio) - min(bare)):.2f} x")
    return (min(ours) - min(bare)) / (min(trio) - min(bare))


if __name__ == "__main__":
    main()
