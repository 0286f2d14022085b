"""The chaos suite itself: its plan is a function of the seed, and a short soak is clean."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from chaos.check import Entry, Report, complaints
from chaos.plots import COMPLETED, Plot
from chaos.schedule import act
from opencode_trio import RunResult
from opencode_trio.events import TokenUsage
from opencode_trio.testing import Prices, Usage

TESTS = Path(__file__).resolve().parent

PLOT = Plot([], COMPLETED, text="chaos-0-01-a says: hello", requests=1, asks=1)
USED = Usage(input=1000, output=100)
ENTRY = Entry("ses_1", "root", USED)
RESULT = RunResult(
    final_text="chaos-0-01-a says: hello",
    text="chaos-0-01-a says: hello",
    stop_reason="completed",
    session_id="ses_1",
    total_cost=Prices().cost_usd(USED),
    token_usage=TokenUsage(input=1000, output=100),
)
REPORT = Report(mark="chaos-0-01-a", twist="none", end="completed", result=RESULT, asks=1)


def test_a_seed_says_what_happens() -> None:
    once = [act(7, number) for number in range(500)]
    assert once == [act(7, number) for number in range(500)]
    assert once != [act(8, number) for number in range(500)]
    assert len({type(plan) for plan in once}) >= 5


@pytest.mark.parametrize(
    ("report", "result", "entries", "complaint"),
    [
        ({}, {}, [ENTRY], None),
        ({"end": "server"}, {}, [ENTRY], "ended as 'server'"),
        ({"end": "server", "gusts": frozenset({"kill"})}, {}, [ENTRY], None),
        ({"end": "cancelled"}, {}, [ENTRY], "ended as 'cancelled'"),
        ({"end": "cancelled", "twist": "cancel scope"}, {}, [ENTRY], None),
        ({"end": "empty", "more_ends": frozenset({"empty"})}, {}, [ENTRY], "its stop_reason is"),
        ({"foreign": frozenset({"chaos-0-02-a"})}, {}, [ENTRY], "saw words of"),
        ({"asks": 2}, {}, [ENTRY], "asked its handlers 2 times"),
        ({}, {"text": "chaos-0-02-a says: hello"}, [ENTRY], "its result has words of"),
        ({}, {"final_text": "chaos-0-01-a says: he"}, [ENTRY], "answered"),
        ({}, {}, [ENTRY, Entry("ses_1", "root", None)], "asked the model 2 times"),
        ({}, {}, [], "asked the model 0 times"),
        ({}, {}, [ENTRY, Entry("ses_2", "root", None)], "was done in 2 sessions"),
        ({"attempts": 2}, {}, [ENTRY, Entry("ses_2", "root", USED)], None),
        ({}, {"total_cost": 0.0024}, [ENTRY], r"cost \$0\.002400"),
        ({}, {"token_usage": TokenUsage(input=2000, output=200)}, [ENTRY], "took"),
        ({"end": "limit max_steps"}, {"total_cost": 0.0024}, [ENTRY], "charged only"),
    ],
)
def test_what_must_not_be_is_complained_of(
    report: dict[str, Any], result: dict[str, Any], entries: list[Entry], complaint: str | None
) -> None:
    told = attrs.evolve(REPORT, result=attrs.evolve(RESULT, **result), **report)
    found = complaints(told, PLOT, entries, Prices())
    if complaint is None:
        assert found == []
    else:
        assert any(re.search(complaint, text) for text in found), found


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
