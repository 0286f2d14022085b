"""What `import opencode_trio` costs beside `import trio`, each in interpreters of its own.

nox -s bench -- imports       (or: python tests/bench/imports.py)
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 15


def seconds_for(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began


def main() -> float:
    bare, trio, ours = [], [], []
    for _ in range(ROUNDS):  # in turns, because a machine's mood changes
        bare.append(seconds_for("pass"))
        trio.append(seconds_for("import trio"))
        ours.append(seconds_for("import opencode_trio"))
    start = statistics.median(bare)
    cost = {"trio": statistics.median(trio) - start, "ours": statistics.median(ours) - start}
    ratio = cost["ours"] / cost["trio"]
    print(f"import trio           {cost['trio'] * 1000:6.1f} ms")
    print(f"import opencode_trio  {cost['ours'] * 1000:6.1f} ms   {ratio:.2f} x")
    return ratio


if __name__ == "__main__":
    main()
