"""Run benchmarks: see `runner`."""

from __future__ import annotations

import sys
from pathlib import Path

# Its modules are imported as `bench.…`: those of its own directory would shadow others.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.runner import main  # noqa: E402 - found by the line above

if __name__ == "__main__":
    sys.exit(main())
