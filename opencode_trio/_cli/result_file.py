"""The results of a batch: a file of JSON lines that any number of runs append to."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from opencode_trio._cli.task_file import BatchTask, read_object
from opencode_trio._json import Json
from opencode_trio._swarm.agent import Outcome
from opencode_trio._turn.redaction import masked
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.results import is_result

BEGINNING = b'{"id": '
"""Of each line, as `record_of` orders it."""


@attrs.define(eq=False)
class ResultFile:
    """An open file of results, this program's alone."""

    path: Path
    completed: frozenset[str]
    """The ids of tasks that were completed in earlier runs."""
    _fd: int = attrs.field(alias="fd")
    _size: int = attrs.field(alias="size")

    def append(self, record: Json) -> None:
        """Write a result.  When it returns, the system has it, and no crash of ours loses it.

        Raises:
            OSError: it cannot be written, and nothing was.
        """
        self._write(encode(record))

    def finish_line(self) -> None:
        """Write the newline that the last result lacks."""
        self._size = os.fstat(self._fd).st_size
        self._write(b"\n")

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        size = self._size + len(left)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size = size


@contextmanager
def open_results(path: Path) -> Generator[ResultFile]:
    """Open a file of results, or make one.

    What a run that was killed could not finish writing, at the end of the file, is cut off.

    Raises:
        OpenCodeConfigError: it cannot be opened, holds something else, or another run has it.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise OpenCodeConfigError(f"{path}: {exc.strerror}") from exc
    try:
        yield _opened(path, fd)
    finally:
        os.close(fd)  # which unlocks it, too


def _opened(path: Path, fd: int) -> ResultFile:
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # a device may never end
        raise OpenCodeConfigError(f"{path}: is not a regular file")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        content = path.read_bytes()
    except BlockingIOError as exc:
        raise OpenCodeConfigError(f"{path}: another run is writing to it") from exc
    except OSError as exc:
        raise OpenCodeConfigError(f"{path}: {exc.strerror}") from exc
    whole, newline, tail = content.rpartition(b"\n")
    size = len(whole) + len(newline)
    statuses = _statuses(path, content if _is_whole(tail) else whole)
    results = ResultFile(
        path,
        completed=frozenset(key for key, status in statuses.items() if status == "completed"),
        fd=fd,
        size=size,
    )
    if not _is_whole(tail):
        os.ftruncate(fd, size)
    elif tail:
        results.finish_line()
    return results


def _is_whole(tail: bytes) -> bool:
    """Whether the end of a file, after the last newline, is more than the beginning of a result."""
    try:
        json.loads(tail or b"{}")
    except ValueError:
        return not (tail.startswith(BEGINNING) or BEGINNING.startswith(tail))
    return True


def _statuses(path: Path, content: bytes) -> dict[str, str]:
    """Return the last status of each task."""
    statuses: dict[str, str] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                record = read_object(line)
                statuses[record["id"]] = record["status"]
            except (OpenCodeConfigError, LookupError, TypeError) as exc:
                raise OpenCodeConfigError(
                    f"{path}:{number}: is not a result of a batch; name another file to write to"
                ) from exc
    return statuses


def record_of(task: BatchTask, outcome: Outcome) -> Json:
    """Write the outcome of a task as a record."""
    result = outcome.value if is_result(outcome.value) else outcome.partial
    error = outcome.error
    return {
        "id": task.task_id,
        "name": outcome.name,
        "status": outcome.status,
        "text": result.final_text if result else "",
        "structured": result.structured if result else None,
        "stop_reason": result.stop_reason if result else None,
        "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
        "session_id": outcome.session_id,
        "diff": outcome.diff,
        "cost_usd": outcome.spent.cost_usd,
        "tokens": outcome.spent.tokens,
        "unpriced_tokens": outcome.spent.unpriced_tokens,
        "attempts": outcome.attempts,
        "duration_s": round(outcome.duration_s, 3),
        "task": _without_secrets(task.given),
    }


def _without_secrets(given: Json) -> Json:
    settings = {"run_cfg": masked(given["run_cfg"])} if "run_cfg" in given else {}
    return given | settings


def encode(record: Json) -> bytes:
    """Write a line."""
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can say
        return json.dumps(record).encode() + b"\n"
