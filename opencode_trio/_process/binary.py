"""Find opencode, and find out whether it is one that this library can drive."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import trio

from opencode_trio._json import object_of, text_of
from opencode_trio._process.isolation import host_environment, private_places
from opencode_trio._process.output import how_it_ended
from opencode_trio._process.scratch import make_scratch, no_temporary, remove_scratch
from opencode_trio._tasks import clear_away
from opencode_trio.errors import OpenCodeBinaryNotFoundError, OpenCodeVersionError

SUPPORTED_MAJOR = 1
"""2.x has another HTTP surface, another event vocabulary, and a ``run`` that joins a service which
all its callers share."""

PROBE_TIMEOUT_S = 60
"""``opencode --version`` takes a second, and several when many start at once on a cold disk."""

OUR_PACKAGES = re.compile(r"opencode-(ai|(linux|darwin|windows)-.*)|@opencode/cli(-.*)?")
"""What npm calls opencode, and its executables; the last is 2.x.  Plugins are called
``opencode-...``, too."""

STATED = re.compile(r"(?:opencode )?v?((\d+)\.(\d+)\.(\d+)(?:[-+.]\S*)?)")
"""What opencode prints when it is asked for its version: 1.x ``1.18.33``, 2.x
``opencode v2.0.15``."""

INSTALL_HINT = "install it with `npm install -g opencode-ai@1`, or give its path as `binary`"


def resolve_binary(binary: str) -> str:
    """Find the executable that a name or path stands for; return its absolute path.

    Raises:
        OpenCodeBinaryNotFoundError: there is none, or it cannot be executed.
    """
    if os.sep in binary:
        return _checked(Path(os.path.expanduser(binary)))  # noqa: PTH111 - never raises
    # A name means `PATH`, as in a shell: a file in the working directory is none of ours.
    if found := shutil.which(binary):
        return str(Path(found).absolute())
    raise OpenCodeBinaryNotFoundError(
        f"opencode not found: no {binary!r} on PATH ({os.environ.get('PATH', '')!r}); {INSTALL_HINT}"
    )


def _checked(path: Path) -> str:
    if not path.exists():
        problem = f"does not exist; {INSTALL_HINT}"
    elif not path.is_file():
        problem = f"is not a file; {INSTALL_HINT}"
    elif not os.access(path, os.X_OK):
        problem = "is not executable; `chmod +x` it, or name another opencode"
    else:
        return str(path.absolute())
    raise OpenCodeBinaryNotFoundError(f"opencode not found: {str(path)!r} {problem}")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Read ``1.18.33`` or ``opencode v2.0.15``; ``None`` if it is no such thing."""
    found = STATED.fullmatch(text.strip())
    return (int(found[2]), int(found[3]), int(found[4])) if found else None


def check_version(version: str, *, of: str) -> str:
    """Return the bare version if this library supports it.

    Args:
        version: what opencode says of itself.
        of: what said it, for the error's text.

    Raises:
        OpenCodeVersionError: it is not supported, or no version at all.
    """
    found = STATED.fullmatch(version.strip())
    if found is None:
        raise OpenCodeVersionError(
            f"{of} is not opencode, or a broken one: asked for its version it said {version!r}"
        )
    if int(found[2]) != SUPPORTED_MAJOR:
        raise OpenCodeVersionError(
            f"{of} is opencode {found[1]}, and this library supports only {SUPPORTED_MAJOR}.x "
            f"(at least {SUPPORTED_MAJOR}.0.0, below {SUPPORTED_MAJOR + 1}.0.0); {INSTALL_HINT}",
            version=found[1],
        )
    return found[1]


def check_release(version: str, *, at_least: tuple[int, int, int], needed_for: str) -> None:
    """Check that a release is new enough for a setting.

    Raises:
        OpenCodeVersionError: it is not.
    """
    if (parse_version(version) or at_least) < at_least:
        oldest = ".".join(map(str, at_least))
        raise OpenCodeVersionError(
            f"{needed_for} needs opencode {oldest} or newer, but this is {version}", version=version
        )


async def probe_version(path: str) -> str:
    """Return the version of an executable; asked once for each state of the file.

    Raises:
        OpenCodeVersionError: it is no opencode that this library can drive.
        OpenCodeBinaryNotFoundError: it cannot be executed.

    **Cancellation**: ends the process that was asked.
    """
    try:
        status = await trio.Path(path).stat()
        state = (path, status.st_mtime_ns, status.st_size)
        if state not in _known:
            packaged = await trio.to_thread.run_sync(_packaged_version, path)
            _known[state] = packaged or await _stated_version(path)
    except OSError as exc:
        raise OpenCodeBinaryNotFoundError(f"{path!r} cannot be executed: {exc.strerror}") from exc
    return check_version(_known[state], of=repr(path))


_known: dict[tuple[str, int, int], str] = {}
"""What executables have said, by path, time of change, and size."""


def _packaged_version(executable: str) -> str | None:
    """Read the version that npm keeps beside an executable: asking takes a second, this nothing."""
    try:
        text = (Path(executable).resolve().parents[1] / "package.json").read_bytes()
        package = object_of(json.loads(text))
    except (OSError, ValueError, LookupError):
        return None
    if not OUR_PACKAGES.fullmatch(text_of(package, "name")):
        return None
    version = text_of(package, "version")
    return version if parse_version(version) else None


async def _stated_version(path: str) -> str:
    # In a place of its own: opencode makes its directories even for this, and releases before 1.15
    # unpack a library of megabytes.  The host's home may not be writable, its directory be gone.
    scratch = await trio.to_thread.run_sync(make_scratch)
    try:
        with trio.move_on_after(PROBE_TIMEOUT_S):
            return await _ask_version(path, scratch)
    finally:
        await clear_away(remove_scratch, scratch)
    raise OpenCodeVersionError(
        f"{path!r} is not opencode, or hangs: no answer to --version in {PROBE_TIMEOUT_S} s"
    )


async def _ask_version(path: str, scratch: Path) -> str:
    env = host_environment()
    try:
        places = await trio.to_thread.run_sync(private_places, env, scratch)
    except OSError as exc:
        raise no_temporary(exc) from exc
    answer = await trio.run_process(
        [path, "--version"],
        cwd=scratch,
        env=env | places,
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        start_new_session=True,
        deliver_cancel=_kill_group,
    )
    said, complaint = (
        text.decode(errors="replace").strip() for text in (answer.stdout, answer.stderr)
    )
    if answer.returncode != 0:
        raise OpenCodeVersionError(
            f"{path!r} is not opencode, or cannot run here: asked for its version it "
            f"{how_it_ended(answer.returncode)}",
            stderr=complaint or said,
        )
    return (said or complaint).split("\n")[-1][:200]


async def _kill_group(process: trio.Process) -> None:
    # A wrapper script would not pass a signal on to what it wraps.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
