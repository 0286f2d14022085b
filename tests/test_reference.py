"""The reference shows what a user may call, each name once, and nothing else."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import opencode_trio.progress
import opencode_trio.testing

pytest.importorskip("sphinx", reason="nox -s docs has Sphinx")

DOCS = Path(__file__).resolve().parent.parent / "docs"
OURS = "opencode_trio"
PUBLIC = {
    **{f"{OURS}.{name}": getattr(opencode_trio, name) for name in opencode_trio.__all__},
    **{
        f"{OURS}.testing.{name}": getattr(opencode_trio.testing, name)
        for name in opencode_trio.testing.__all__
    },
    **{
        f"{OURS}.progress.{name}": getattr(opencode_trio.progress, name)
        for name in ("ask_in_terminal", "is_terminal", "show_progress")
    },
}


NAMES_OF_TYPES = {"StrPath", "FileLike", "OutputKind", "Work", "OutcomeStatus"}
"""They shorten signatures, and are documented apart."""


def is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == OURS


def members(kind: type) -> set[str]:
    """Return what an editor offers of a class, as far as it is the library's own."""
    names: set[str] = set()
    for base in filter(is_ours, kind.__mro__):
        names |= vars(base).keys() | inspect.get_annotations(base).keys()
    return {name for name in names if not name.startswith("_")}


def shown(name: str, kind: type, documented: set[str]) -> set[str]:
    """Return the members that are documented with a class, or with a public base of it."""
    bases = {path for path, value in PUBLIC.items() if value in kind.__mro__} | {name}
    return {entry.rpartition(".")[2] for entry in documented if entry.rpartition(".")[0] in bases}


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names that are documented.  A name that is documented twice is a warning."""
    out = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", str(DOCS), str(out)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Of priority 1: others are where the objects come from, which finds links and is not shown.
    _, body = (out / "objects.inv").read_bytes().split(b"zlib.\n")
    return set(re.findall(r"^(\S+) py:\S+ 1 ", zlib.decompress(body).decode(), re.MULTILINE))


def test_all_that_is_public_is_documented(documented: set[str]) -> None:
    missing = PUBLIC.keys() - documented
    for name, value in PUBLIC.items():
        if inspect.isclass(value) and is_ours(value):
            missing |= {
                f"{name}.{member}" for member in members(value) - shown(name, value, documented)
            }
    assert sorted(missing) == []


def test_nothing_else_is_documented(documented: set[str]) -> None:
    for name in documented:
        assert not any(part.startswith("_") for part in name.split(".")), name
    tops = {name for name in documented if name.rpartition(".")[0] not in PUBLIC}
    assert tops == PUBLIC.keys() | NAMES_OF_TYPES


def test_methods_for_the_swarm_are_not_offered() -> None:
    """What only the library calls is not on the objects that a program gets."""
    internal = {"begin", "take", "settle", "stop", "charge", "watched", "raise_refusals", "leave"}
    for name, value in PUBLIC.items():
        if inspect.isclass(value) and is_ours(value):
            assert not internal & members(value), name
