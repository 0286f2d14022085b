"""A seeded soak of the library on the real opencode, under random faults.

nox -s chaos -- --minutes 20 --seed 3
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from chaos.soak import ROUND, Options, main

parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
parser.add_argument("--seed", type=int, default=1, help="decides what happens to whom")
parser.add_argument("--minutes", type=float, default=5.0, help="begin no more after these")
parser.add_argument("--at-once", type=int, default=8, help="how many activities at once")
parser.add_argument("--activities", type=int, help="at most so many")
parser.add_argument("--round", type=int, default=ROUND, help="activities of a round")
parser.add_argument("--only", type=int, nargs="+", default=(), help="only these activities")
parser.add_argument("--story", type=Path, help="write everything that happens into this file")
words = parser.parse_args()
sys.exit(
    main(
        Options(
            binary=os.environ.get("OPENCODE_TRIO_TEST_BINARY", "opencode"),
            seed=words.seed,
            minutes=words.minutes,
            at_once=words.at_once,
            only=words.only,
            activities=words.activities,
            round=words.round,
            story=words.story,
        )
    )
)
