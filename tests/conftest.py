"""What holds for the whole suite: a private world, a bound on every test, nothing left behind."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import leftovers
import provide_opencode
from bounded_run import BoundedRun

SCRATCH_PREFIX = "opencode-trio-"

pytest_plugins = ["opencode_trio.testing.pytest_plugin", "pytester"]

# Without it git refuses to commit in the tests' workspaces.
GIT_IDENTITY = "[user]\nname = Test\nemail = test@example.org\n[init]\ndefaultBranch = main\n"


# --- the real opencode ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def opencode_binary() -> str:
    """Return the path of the real opencode.

    Without one the test fails: were it skipped, a suite that shows nothing would look green.
    """
    binary = os.environ.get(provide_opencode.VARIABLE) or shutil.which("opencode")
    if not binary:
        pytest.fail(
            "There is no opencode to test with. Run the tests by `nox -s tests`, which provides "
            f"one, or set {provide_opencode.VARIABLE} to the path of an opencode.",
            pytrace=False,
        )
    return binary


# --- a world of its own, left as it was found ------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the suite its own home and scratch directory, and see that nothing outlives it.

    The developer's own opencode settings must not decide a test, nor the tests change them.  When
    the last test is over (this fixture, the first to be set up, is the last to be torn down) there
    must be no process and no scratch directory of the suite: else the suite has an error more.
    """
    _heed_signals()
    root = tmp_path_factory.mktemp("world")
    marker = f"{leftovers.VARIABLE}={uuid.uuid4()}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("OPENCODE_", "XDG_"))]:
            if name != provide_opencode.VARIABLE:
                patch.delenv(name)
        patch.setenv(*marker.split("="))
        for name in ("HOME", "TMPDIR"):
            (root / name.lower()).mkdir()
            patch.setenv(name, str(root / name.lower()))
        (root / "home" / ".gitconfig").write_text(GIT_IDENTITY)
        patch.setattr(tempfile, "tempdir", None)  # it caches the answer
        yield root
    problems = _processes(marker, tmp_path_factory.getbasetemp())
    problems += [f"directory {path}" for path in root.glob(f"tmpdir/{SCRATCH_PREFIX}*")]
    problems += [f"library {path}" for path in root.glob("tmpdir/.*.so")]
    if problems:
        pytest.fail("The suite left behind:\n  " + "\n  ".join(problems), pytrace=False)


def _heed_signals() -> None:
    """Undo what a parent ignored, for children inherit it from us.

    A shell starts what runs in its background deaf to Ctrl+C and to SIGQUIT, and `nohup` starts a
    program deaf to SIGHUP: there, tests that send a child such a signal would wait for its death.
    """
    defaults = {signal.SIGINT: signal.default_int_handler}
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python's own choice
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, defaults.get(number, signal.SIG_DFL))


def _processes(marker: str, directory: Path) -> list[str]:
    """List the processes left, and end them."""
    deadline = time.monotonic() + 10.0  # the kernel may still be ending one
    while (left := leftovers.find(marker, directory)) and time.monotonic() < deadline:
        time.sleep(0.05)
    leftovers.kill(left)
    return [str(process) for process in left]


@pytest.fixture(autouse=True)
def _leaves_nothing(world: Path, request: pytest.FixtureRequest) -> None:
    """Check each test on the real opencode for leaks; others on real processes ask for it."""
    if request.node.get_closest_marker("opencode"):
        request.getfixturevalue("no_leaks")


# --- a bound on every test -------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run each async test under a bound that tells what it was waiting for."""
    for item in items:
        function = getattr(item, "obj", None)
        function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
        if inspect.iscoroutinefunction(function):
            # In front: pytest-trio takes the first runner that it finds.
            item.add_marker(pytest.mark.trio(run=BoundedRun(item)), append=False)
