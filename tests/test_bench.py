"""The benchmarks' own arithmetic, and that they run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import processes, rows, table
from bench.benchmark import Setup, in_turns
from bench.programs import run_program
from bench.rows import Row

RUN = Path(__file__).parent / "bench" / "run.py"


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1), (0.5, 2.5), (0.75, 3), (0.76, 4), (0.99, 4), (1, 4)]
)
def test_quantiles(share: float, expected: float):
    assert rows.quantile([4, 1, 3, 2], share) == expected


def test_a_ratio_is_taken_round_by_round():
    theirs = Row("theirs", "s", [1, 10, 100])
    assert Row("ours", "s", [2, 20, 100]).compared(theirs).ratio == 2
    assert theirs.ratio is None


def test_a_ratio_without_pairs_is_one_of_what_stands_for_the_rows():
    theirs = Row("theirs", "s", [1, 2, 3])
    assert Row("ours", "s", [8]).compared(theirs).ratio == 4
    least = Row("least", "s", [1, 2, 3], share=0)
    assert Row("ours", "s", [5, 3, 9], share=0).compared(least).ratio == 3


@pytest.mark.parametrize(
    ("bounds", "is_kept"),
    [
        ({}, True),
        ({"at_most": 2}, True),
        ({"at_most": 1.9}, False),
        ({"at_least": 2}, True),
        ({"at_least": 2.1}, False),
    ],
)
def test_bounds_are_of_the_value_or_of_the_ratio(bounds: dict[str, Any], is_kept: bool):
    assert Row("alone", "s", [2], **bounds).is_kept is is_kept
    assert Row("ours", "s", [8]).compared(Row("theirs", "s", [4]), **bounds).is_kept is is_kept


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.12345, "0.123"),
        (1, "1"),
        (1.0625, "1.06"),
        (12.3456, "12.35"),
        (123.4, "123"),
        (1234567.8, "1,234,568"),
    ],
)
def test_numbers_in_words(value: float, text: str):
    assert table.number(value) == text


def test_the_table():
    theirs = Row("bare", "ms", [10, 20, 30], note="2 at once")
    ours = Row("ours", "ms", [20, 40, 60]).compared(theirs, at_most=1.5)
    found = table.markdown({"turns": [theirs, ours], "other": [Row("failures", "", [0])]})
    assert found == TABLE.strip()


TABLE = """
|           | what             | value | lowest to highest | rounds | compared                             |
| --------- | ---------------- | ----- | ----------------- | ------ | ------------------------------------ |
| **turns** | bare (2 at once) | 20 ms | 10 to 30          | 3      |                                      |
|           | ours             | 40 ms | 20 to 60          | 3      | 2.00 x bare, at most 1.5, **missed** |
| **other** | failures         | 0     |                   | 1      |                                      |
"""


def test_the_table_goes_between_the_marks_of_a_page():
    page = f"# Title\n\n{table.BEGIN}\n\nold\n\n{table.END}\n\nThe end.\n"
    once = table.put_into(page, "new")
    assert once == f"# Title\n\n{table.BEGIN}\n\nnew\n\n{table.END}\n\nThe end.\n"
    assert table.put_into(once, "new") == once
    with pytest.raises(ValueError, match="marks"):
        table.put_into("# Title", "new")


def test_a_row_as_json():
    theirs = Row("bare", "ms", [10])
    assert table.as_json(Row("ours", "ms", [20]).compared(theirs, at_least=3)) == {
        "what": "ours",
        "note": "",
        "unit": "ms",
        "values": [20],
        "share": 0.5,
        "value": 20,
        "beside": "bare",
        "ratio": 2,
        "at_most": None,
        "at_least": 3,
        "is_kept": False,
    }


def test_every_other_round_goes_backwards():
    assert list(in_turns("ab", 3)) == [(1, "a"), (1, "b"), (2, "b"), (2, "a"), (3, "a"), (3, "b")]


def test_a_part_of_the_work():
    setup = Setup("opencode", scale=0.1)
    assert [setup.scaled(64), setup.scaled(64, least=10), setup.scaled(3)] == [6, 10, 1]


def test_what_processes_use():
    argv = ["sh", "-c", "sleep 60 & echo; wait"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        pids = processes.family(shell.pid)
        try:
            assert [processes.parent(pid) for pid in pids[1:]] == [shell.pid]
            held = processes.memory(pids)
            assert held.resident > held.proportional >= held.private > 0
            assert processes.cpu_s(shell.pid) < 1
        finally:
            subprocess.run(["kill", *map(str, pids)], check=True)
    assert processes.memory([shell.pid]) == processes.Memory()


def test_a_program_and_what_it_used():
    job = {"spin_s": 0.3, "bytes": 64 * processes.MIB}
    finished = run_program((sys.executable, "-c", HUNGRY), job)
    assert finished.said == {"done": True}
    assert finished.cpu_s > 0.3
    assert finished.seconds > 0.3
    assert finished.peak_rss >= finished.peak_pss > 64 * processes.MIB


HUNGRY = """
import json, subprocess, sys, time
job = json.loads(sys.stdin.read())
held = b"x" * job["bytes"]
spin = f"import time\\nwhile time.process_time() < {job['spin_s']}: pass"
subprocess.run([sys.executable, "-c", spin])
time.sleep(1)
print(json.dumps({"done": True}))
"""


@pytest.mark.parametrize("name", ["model", "ways", "memory", "endurance"])
def test_what_runs_as_a_program_can_be_imported(name: str):
    importlib.import_module(f"bench.{name}")


@pytest.mark.opencode
def test_the_runner(opencode_binary: str, tmp_path: Path):
    found, page = tmp_path / "out.json", tmp_path / "page.md"
    page.write_text(f"{table.BEGIN}{table.END}")
    options = ["events", "--scale", "0.01", "--json", str(found), "--into", str(page)]
    done = subprocess.run(
        [sys.executable, str(RUN), *options], capture_output=True, text=True, check=True
    )
    written = json.loads(found.read_text())
    assert written["machine"].keys() >= {"cores", "python", "opencode", "date", "load"}
    (benchmark,) = written["benchmarks"]
    assert benchmark["name"] == "events"
    assert [len(row["values"]) for row in benchmark["rows"]] == [5, 5, 5]
    assert all(value > 0 for row in benchmark["rows"] for value in row["values"])
    assert "| **events** |" in done.stdout
    assert "| **events** |" in page.read_text()


def test_the_runner_knows_what_there_is():
    done = subprocess.run(
        [sys.executable, str(RUN), "nonsense"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is no nonsense, only imports, events" in done.stderr
