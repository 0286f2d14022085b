"""The log file of a run: one JSON object a line, on disk before the event is handed out."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from opencode_trio._json import Json
from opencode_trio.errors import OpenCodeConfigError

_log = logging.getLogger("opencode_trio")


class EventLog:
    """Append records to a file, each written when it comes.

    The write is a plain one in the trio thread, like `logging`'s own: small, and to a local file.

    Args:
        path: made with mode 0600 if it is not there; an existing one is appended to.
        exclude_types: records of these types are left out.

    Raises:
        OpenCodeConfigError: the file cannot be opened for writing.
    """

    def __init__(self, path: str | os.PathLike[str], exclude_types: Collection[str] = ()) -> None:
        if isinstance(exclude_types, str):
            raise OpenCodeConfigError(
                "log_exclude_types: expected a collection of types, got a string"
            )
        self._exclude = frozenset(exclude_types)
        try:
            self._path = Path(path).expanduser()
            # O_CLOEXEC is Python's default: no child of anybody's inherits the log.
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except (OSError, ValueError, RuntimeError) as exc:  # a NUL, or no such user, too
            raise OpenCodeConfigError(f"log_file: cannot write {os.fspath(path)!r}: {exc}") from exc
        self._broken = False

    def write(self, record: Json, kind: str) -> None:
        """Append a record of a type, unless that type is excluded.

        A disk that fills up costs the log, not the run: it is reported once and no more is
        written.
        """
        if self._broken or kind in self._exclude:
            return
        # A lone surrogate, which JSON may hold and UTF-8 may not, is written as its escape.
        line = _json(record).encode(errors="backslashreplace") + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as exc:
            self._broken = True
            _log.warning("log_file %s: writing has stopped: %s", self._path, exc.strerror)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)


def _json(record: Json) -> str:
    try:
        return json.dumps(record, ensure_ascii=False)
    except RecursionError:  # nested as deep as Python will read, and deeper than it will write
        return json.dumps({"type": "diagnostic", "kind": "too_deep"})
