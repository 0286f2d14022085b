"""To import the library costs little, and loads no HTTP client before one is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import attrs

import opencode_trio
from bench import imports
from bench.benchmark import Setup


def test_the_import_is_cheap() -> None:
    setup = Setup("no opencode is needed", scale=0.3)
    _, ours, _ = imports.run(setup)
    if not ours.is_kept:  # in few rounds a busy machine can make anything look dear
        _, ours, _ = imports.run(attrs.evolve(setup, scale=1))
    assert ours.is_kept, ours


def test_the_import_loads_no_http_client() -> None:
    program = (
        "import sys, opencode_trio; print(sorted({'httpx', 'rich', 'cattrs'} & {*sys.modules}))"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert printed.stdout == b"[]\n"


def test_every_public_name_can_be_imported() -> None:
    program = "import opencode_trio as o; [getattr(o, name) for name in o.__all__]"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_the_face_says_the_same_three_times() -> None:
    """What type checkers read, what is imported when asked for, and what is public."""
    tree = ast.parse(Path(opencode_trio.__file__).read_text("utf-8"))
    seen_by_checkers = {
        alias.name: str(node.module).removeprefix("opencode_trio.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("opencode_trio.")
        for alias in node.names
    }
    assert seen_by_checkers == opencode_trio._HOME_OF
    assert sorted(seen_by_checkers) == sorted(opencode_trio.__all__)
