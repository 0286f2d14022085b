r"""Bytes in, whole lines out.

Lines are split on ``b"\n"`` alone: `str.splitlines` would also split on U+2028 and U+0085,
which stand unescaped inside JSON strings.
"""

from __future__ import annotations

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A line holds a whole tool result, and one screenshot in base64 is several megabytes; what is
longer than this is a runaway, not an event."""


class LineTooLongError(Exception):
    """A line grew over the bound before its end was seen."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a line of output is longer than {limit:,} bytes")
        self.limit = limit


class LineFramer:
    """Cut a stream of byte chunks into lines.

    Args:
        limit: the most bytes a line may have, its newline not counted.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._pending = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk; return the lines it completes, without their newlines.

        Raises:
            LineTooLongError: a line is over the limit, complete or not.  Lines before it are
                returned first, and the next call raises: what a reader gets does not depend on
                how the stream was cut.
        """
        head, *rest = chunk.split(b"\n")
        self._hold(head)
        lines: list[bytes] = []
        for piece in rest:
            if self._is_over:
                break
            lines.append(self._release())
            self._hold(piece)
        if self._is_over and not lines:
            raise LineTooLongError(self._limit)
        return lines

    def close(self) -> list[bytes]:
        """Return what is left after the last newline, as a line, unless it is empty.

        Raises:
            LineTooLongError: as for `feed`.
        """
        if self._is_over:
            raise LineTooLongError(self._limit)
        return [self._release()] if self._pending else []

    @property
    def _is_over(self) -> bool:
        return self._pending > self._limit

    def _hold(self, piece: bytes) -> None:
        # Joined only once a line is whole: a 60 MB line in 64 KiB chunks costs one copy.
        self._pending += len(piece)
        self._pieces.append(piece)

    def _release(self) -> bytes:
        line = b"".join(self._pieces)
        self._pieces.clear()
        self._pending = 0
        return line
