"""What is installed here, and whether it works."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attrs
import trio

from opencode_trio import __version__
from opencode_trio._process.binary import SUPPORTED_MAJOR, probe_version
from opencode_trio._report.terminal_text import dollars, duration, printable
from opencode_trio._tasks import OpenCodeTimeoutError
from opencode_trio.client import AsyncOpenCodeClient
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeError, OpenCodeTurnError

EXTRAS: Mapping[str, Sequence[str]] = {
    "progress": ["rich"],
    "structured": ["cattrs", "jsonschema"],
    "testing": ["hypercorn"],
}
"""What each extra of this package installs."""

PROMPT = "This is a test of the connection. Answer with the one word: ready"

ANSWER_S = 60.0
"""For the answer.  Models that think take ten seconds; local ones may have to be loaded first."""

BY_STATUS: Mapping[int, str] = {
    401: "the provider refuses the key, or got none: `opencode auth login`, or its variable",
    402: "the account with the provider has no credit",
    403: "the key may not use this model",
    404: "the provider does not know this model: see `opencode models`",
    429: "the provider's limit is reached: wait, or lower --limit",
}
"""What to do when a provider answers so."""

SEE_MODELS = "`opencode models` lists the models that it knows, `opencode auth list` the keys"


@attrs.frozen
class Installation:
    """What is examined."""

    binary: str = "opencode"
    model: str | None = None
    workspace: Path | None = None
    untrusted: bool = False


@attrs.frozen
class Finding:
    """What was found."""

    what: str
    text: str
    advice: str = ""
    """What to do about it."""
    is_bad: bool = False
    """Whether agents cannot run like this."""

    def __str__(self) -> str:
        mark = "BAD " if self.is_bad else "  - " if self.advice else "  ok"
        advice = f"\n{' ' * 18}{self.advice}" if self.advice else ""
        return f"{mark}  {self.what:<10}  {self.text}{advice}"


async def examine_library(patient: Installation) -> list[Finding]:
    """Look at this package and what it runs on."""
    del patient
    text = (
        f"opencode-trio {__version__}, trio {version('trio')}, httpx {version('httpx')}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    return [Finding("library", text)]


async def examine_extras(patient: Installation) -> list[Finding]:
    """Look for the packages of the extras."""
    del patient
    return [_extra(name, packages) for name, packages in EXTRAS.items()]


def _extra(name: str, packages: Sequence[str]) -> Finding:
    try:
        return Finding(name, ", ".join(f"{package} {version(package)}" for package in packages))
    except PackageNotFoundError:
        return Finding(name, "not installed", f"if wanted: pip install 'opencode-trio[{name}]'")


async def examine_opencode(patient: Installation) -> list[Finding]:
    """Look for opencode, and whether this library can drive it."""
    try:
        path = AsyncOpenCodeClient(patient.binary).resolved_binary()
        found = await probe_version(path)
    except OpenCodeError as exc:
        return [Finding("opencode", "cannot be used", str(exc), is_bad=True)]
    return [Finding("opencode", f"{found} at {path} (supported: {SUPPORTED_MAJOR}.x)")]


async def examine_git(patient: Installation) -> list[Finding]:
    """Look for git."""
    del patient
    if path := shutil.which("git"):
        return [Finding("git", path)]
    return [Finding("git", "not found", "if wanted, for worktrees and snapshots: install it")]


async def examine_model(patient: Installation) -> list[Finding]:
    """Ask the model for a word."""
    if patient.model is None:
        return [Finding("model", "not tried", "to try one: --model PROVIDER/MODEL")]
    began = trio.current_time()
    try:
        cfg = RunConfig(
            model=patient.model, permission="deny", snapshot=False, untrusted=patient.untrusted
        )
        client = AsyncOpenCodeClient(patient.binary)
        with _workspace(patient) as workspace:
            async with (
                client.open_server(workspace, run_cfg=cfg) as server,
                server.open_session() as session,
            ):
                result = await session.send(PROMPT, timeout_s=ANSWER_S)
    except OpenCodeError as exc:
        text = f"{patient.model} does not answer: {printable(str(exc))}"
        return [Finding("model", text, advice_on(exc), is_bad=True)]
    took = duration(trio.current_time() - began)
    answer = printable(result.final_text)[:40]
    text = f"{patient.model} answers {answer!r}, {took} and {dollars(result.total_cost)}"
    return [Finding("model", text)]


@contextmanager
def _workspace(patient: Installation) -> Generator[Path]:
    if patient.workspace is not None:
        yield patient.workspace
        return
    with tempfile.TemporaryDirectory(prefix="opencode-trio-") as path:
        yield Path(path)


def advice_on(error: OpenCodeError) -> str:
    """Say what can be done."""
    if isinstance(error, OpenCodeTimeoutError):
        return "is the provider reachable from here, through the proxy if there is one?"
    if isinstance(error, OpenCodeTurnError):
        return BY_STATUS.get(error.status_code or 0, SEE_MODELS)
    return "the text above says why; `opencode serve` by hand says more"


CHECKS: Sequence[Callable[[Installation], Awaitable[Sequence[Finding]]]] = (
    examine_library,
    examine_extras,
    examine_opencode,
    examine_git,
    examine_model,
)
"""What is looked at, in this order."""
