"""Find the processes that a test suite has left behind.

A process belongs to the suite when its environment carries the suite's mark, when one of its
ancestors is this process, or when it works in a directory of the suite.  No one of these finds
all: `env -i` sheds the mark, a double fork sheds the ancestor, and `chdir` the directory.
Where there is no /proc, nothing is found.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from opencode_trio.testing._leaks import Process, descends, processes

VARIABLE = "OPENCODE_TRIO_TEST_SUITE"


def find(marker: str, directory: Path) -> list[Process]:
    """Return what is alive, or dead and not reaped, of the suite marked ``NAME=value``."""
    everything = {process.pid: process for process in processes()}
    inside = f"{directory.resolve()}{os.sep}"
    return [
        process
        for process in everything.values()
        if process.pid != os.getpid()
        and (
            marker in process.environ
            or f"{process.directory}{os.sep}".startswith(inside)
            or descends(process, os.getpid(), everything)
        )
    ]


def kill(found: Iterable[Process]) -> None:
    """End them: the next suite shall not meet them."""
    for process in found:
        with suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)
