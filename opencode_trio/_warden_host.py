"""The host's side of a warden: start it, hear from it, let go of it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from opencode_trio._json import Json, number_of, object_of, text_of, text_or_none_of
from opencode_trio._keeper import Graces, NotStarted, Started, keep_from_forks
from opencode_trio._lines import LineFramer
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.results import Teardown

_log = logging.getLogger("opencode_trio")

WARDEN = str(Path(__file__).with_name("_warden.py"))
"""A program: it runs in an interpreter of its own and is never imported here."""

PYTHON_VARIABLE = "OPENCODE_TRIO_PYTHON"
"""Names the interpreter for it, where the program itself has none to offer."""

_INTERPRETER = re.compile(r"python|pypy|graalpy", re.IGNORECASE)


def interpreter() -> str:
    """Find a Python for the warden.

    In a frozen application or a program that embeds Python, `sys.executable` is that program, which
    must not be started again.

    Raises:
        OpenCodeConfigError: there is none.
    """
    if named := os.environ.get(PYTHON_VARIABLE):
        return named
    own = sys.executable or ""
    is_python = not hasattr(sys, "frozen") and _INTERPRETER.search(Path(own).name)
    if is_python and os.access(own, os.X_OK):  # it may have been removed since it was started
        return own
    names = [f"python3.{minor}" for minor in (sys.version_info.minor, *range(20, 10, -1))]
    for name in (*names, "python3"):
        if found := shutil.which(name):
            return found
    raise OpenCodeConfigError(
        f"no Python was found to look after opencode: {own!r} "
        + ("is gone" if is_python else "is no Python interpreter")
        + f"; install Python 3.11 or newer, or name one in {PYTHON_VARIABLE}"
    )


def program() -> list[str]:
    """Return the words that have an interpreter run the warden.

    Raises:
        OpenCodeConfigError: whoever packed this library left it out.
    """
    if Path(WARDEN).is_file():
        return [WARDEN]
    import pkgutil  # noqa: PLC0415 - rarely needed

    try:  # in a zip, say
        source = pkgutil.get_data("opencode_trio", Path(WARDEN).name)
    except OSError:
        source = None
    if source is None:
        raise OpenCodeConfigError(
            f"{WARDEN} is missing, which looks after opencode; a frozen application has to bring it "
            "as a file (`pyinstaller --collect-all opencode_trio`)"
        )
    return ["-c", source.decode()]


class WardenKeeper:
    """Keeps a family under a warden process (see `_warden` for what the two say to each other)."""

    def __init__(self, argv: Sequence[str], cwd: Path, scratch: Path, graces: Graces) -> None:
        python, warden = interpreter(), program()
        ours, self._theirs = socket.socketpair()
        keep_from_forks(ours)
        keep_from_forks(self._theirs)
        self._lifeline = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._framer = LineFramer()
        self._words: list[bytes] = []
        self._last: Json = {}
        fd = self._theirs.fileno()
        settings = {
            "host": os.getpid(),
            "lifeline": fd,
            "cwd": cwd,
            "scratch": scratch,
            "term_grace_s": graces.term_s,
            "kill_grace_s": graces.kill_s,
        }
        words = [f"{name}={value}" for name, value in settings.items()]
        # -I and -S: neither the user's site-packages nor PYTHON* variables change a warden.
        self.command = [python, "-I", "-S", *warden, *words, "--", *argv]
        # A session of its own, or a terminal's Ctrl+C would end the child before our cleanup.
        self.options = {"pass_fds": (fd,), "start_new_session": True}

    async def started(self, _process: trio.Process) -> Started | NotStarted:
        """Wait for the warden's first line."""
        self._theirs.close()  # the warden has its copy; ours would hide its end
        word = await self._hear()
        if pid := int(number_of(word, "pid")):
            return Started(pid)
        why = object_of(word.get("error")) or {"strerror": "its warden ended at once"}
        return NotStarted(
            int(number_of(why, "errno")), text_of(why, "strerror"), text_or_none_of(why, "filename")
        )

    def let_go(self) -> None:
        """Close our direction of the lifeline: the warden takes it as the word to end all."""
        with contextlib.suppress(OSError):  # the warden may have ended
            self._lifeline.socket.shutdown(socket.SHUT_WR)

    async def end(self, process: trio.Process) -> Teardown:
        """Let go, and wait for the warden's exit, which is the proof that nobody is left."""
        self._theirs.close()
        self.let_go()
        while await self._hear():
            pass
        await process.wait()
        report = self._last
        if "empty" not in report:
            _log.error("somebody killed the warden %d; its family may be left", process.pid)
        return Teardown(
            terminated=int(number_of(report, "terminated")),
            killed=int(number_of(report, "killed")),
            survivors=tuple(report.get("survivors") or ()),
            is_certain=report.get("empty") is True,
        )

    def close(self) -> None:
        """Close the lifeline."""
        self._theirs.close()
        self._lifeline.socket.close()

    async def _hear(self) -> Json:
        """Return the warden's next line; nothing when it has ended."""
        while not self._words:
            try:
                chunk = await self._lifeline.receive_some()
            except trio.BrokenResourceError:
                return {}
            if not chunk:
                return {}
            self._words += self._framer.feed(bytes(chunk))
        self._last = object_of(json.loads(self._words.pop(0)))
        return self._last
