"""The wheel without its extras: all that needs none works, and the rest says what it needs.

Run by `nox -s release`, in an environment of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import AbstractAsyncContextManager
from importlib.metadata import metadata, version
from pathlib import Path

import trio

import opencode_trio
import opencode_trio.testing
from opencode_trio.progress import show_progress

EXTRAS = {"progress", "structured", "testing"}

# A task that needs the extra `structured`.
TASK = '{"prompt": "hi", "output": {"type": "object"}}'


def check_installed() -> None:
    package = Path(opencode_trio.__file__).parent
    assert "site-packages" in package.parts, package
    assert (package / "py.typed").is_file()
    assert version("opencode-trio") == opencode_trio.__version__
    assert set(metadata("opencode-trio").get_all("Provides-Extra", [])) == EXTRAS


def check_names() -> None:
    for module in (opencode_trio, opencode_trio.testing):
        for name in module.__all__:
            assert getattr(module, name) is not None, name


def ask(*words: str, code: int = 0) -> str:
    """Run the command line; return what it printed."""
    command = [sys.executable, "-I", "-W", "error", "-m", "opencode_trio", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, (words, done)
    return done.stdout + done.stderr


def check_command_line() -> None:
    assert opencode_trio.__version__ in ask("--version")
    for words in ([], ["swarm"], ["doctor"]):
        assert "usage: python -m opencode_trio" in ask(*words, "--help")
    told = ask("doctor", "--opencode", os.environ["OPENCODE_TRIO_TEST_BINARY"])
    for extra in EXTRAS:
        assert f"pip install 'opencode-trio[{extra}]'" in told, told
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder, "tasks.jsonl")
        tasks.write_text(TASK)
        told = ask("swarm", str(tasks), code=2)
    assert "pip install 'opencode-trio[structured]'" in told, told


async def check_missing_extras() -> None:
    await fails_for_want_of("testing", opencode_trio.testing.open_scripted_model())
    await fails_for_want_of("progress", show_progress(opencode_trio.open_swarm([]), is_live=True))


async def fails_for_want_of(extra: str, opening: AbstractAsyncContextManager[object]) -> None:
    try:
        async with opening:
            pass
    except ImportError as error:
        assert f"pip install 'opencode-trio[{extra}]'" in str(error), error
    else:
        raise AssertionError(f"it works without the extra {extra!r}: is that installed here?")


if __name__ == "__main__":
    check_installed()
    check_names()
    check_command_line()
    trio.run(check_missing_extras)
    print("the wheel works without extras, and names those it lacks")
