"""Leaving the block means that it has stopped: on the real opencode, whichever way it is left."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opencode_trio import Graces
from teardown_matrix import KINDS, MODES, WAYS, Cell, measure

pytestmark = [
    pytest.mark.opencode,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody ends all of these"),
]

SLACK_MS = 4000  # for a busy machine
NORMAL_END_MS = 10_000  # what opencode takes to give up a deaf MCP server


@pytest.mark.parametrize("way", WAYS)
def test_nobody_is_left(way: str, opencode_binary: str, tmp_path: Path) -> None:
    def measured(mode: str) -> Cell:
        (directory := tmp_path / mode).mkdir()
        return measure(mode, way, binary=opencode_binary, directory=directory)

    with ThreadPoolExecutor() as pool:  # both at once: half the time of most machines
        for cell in pool.map(measured, MODES):
            check(cell)


def check(cell: Cell) -> None:
    assert cell.is_clean, cell
    if cell.left_ms is not None:  # the host lived: it looked around itself, after the block
        assert cell.survivors == dict.fromkeys(KINDS, 0)
    bound_ms = Graces().total_s * 1000 + SLACK_MS
    assert max(cell.empty_ms.values()) < bound_ms + NORMAL_END_MS * (cell.way == "normal end")
    if cell.teardown is not None:
        # At least the deaf shell and its `sleep` had to be killed.
        assert cell.teardown["killed"] >= 2
        assert cell.teardown["survivors"] == []
        assert cell.teardown["is_certain"]
