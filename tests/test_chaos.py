"""The chaos suite itself: its plan is a function of the seed, and a short soak is clean."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.schedule import act

TESTS = Path(__file__).resolve().parent


def test_a_seed_says_what_happens() -> None:
    once = [act(7, number) for number in range(500)]
    assert once == [act(7, number) for number in range(500)]
    assert once != [act(8, number) for number in range(500)]
    assert len({type(plan) for plan in once}) >= 5


@pytest.mark.opencode
def test_a_short_soak_is_clean(opencode_binary: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--seed", "1", "--activities", "12"],
        cwd=TESTS,
        env=os.environ | {"OPENCODE_TRIO_TEST_BINARY": opencode_binary},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 violations" in done.stdout
