"""A child's output, read while it is written: through a pipe, or through a file.

opencode does not wait for its output to be read.  What does not fit into a pipe it keeps in memory,
and loses when it exits: the end of a long answer, or any answer of 64 KiB whose reader is slow.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import tempfile
from typing import IO, Protocol

import trio

DRAIN_S = 1.0
"""How long pipes are read after the child's exit.  What it wrote is in them already; only a process
that holds them open could make this wait."""


POLL_S = 0.02
"""How late it may be noticed that a file has grown, where a run takes seconds."""


CHUNK_BYTES = 64 * 1024
"""As much as a pipe holds."""


class Output(Protocol):
    """Where a child's output goes, and where it is read."""

    @property
    def destination(self) -> int | IO[bytes]:
        """What the child is started with."""
        ...

    def attach(self, stream: trio.abc.ReceiveStream | None) -> None:
        """Know our end of the pipe, if there is one."""

    async def receive_some(self) -> bytes:
        """Return what the child wrote; ``b""`` at the end.

        **Cancellation**: loses nothing.
        """
        ...

    def end(self) -> None:
        """Know that the child has ended."""

    async def aclose(self) -> None:
        """Release what is held."""


class Pipe:
    """Through a pipe."""

    destination = subprocess.PIPE

    def __init__(self) -> None:
        self._stream: trio.abc.ReceiveStream | None = None
        self._has_ended = False
        self._reading: trio.CancelScope | None = None

    def attach(self, stream: trio.abc.ReceiveStream | None) -> None:
        """Know our end of it."""
        self._stream = stream

    async def receive_some(self) -> bytes:
        """Return what the child wrote.

        End of file is not the exit, nor the other way round: a process that the child left
        behind can hold the pipe, so after the exit there is a small bound on waiting for more.
        """
        if self._stream is None:
            raise RuntimeError("there is no pipe: the child was not started")
        # Counted from this call: a reader who comes late still finds what is in the pipe.
        patience = DRAIN_S if self._has_ended else math.inf
        with trio.move_on_after(patience) as self._reading:
            return bytes(await self._stream.receive_some())
        return b""

    def end(self) -> None:
        """Know that the child has ended."""
        self._has_ended = True
        if self._reading is not None:
            self._reading.deadline = trio.current_time() + DRAIN_S

    async def aclose(self) -> None:
        """Close our end."""
        if self._stream is not None:
            await self._stream.aclose()


class Spool:
    """Through a file without a name, which takes everything, and keeps it for its reader.

    What a process that the child left behind writes after the child's exit is not read.
    """

    def __init__(self) -> None:
        # To be appended to, so that who opens it by its descriptor once more overwrites nothing.
        self._file = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - see `aclose`
        self._offset = 0
        self._ended = trio.Event()
        self._is_read = False

    @property
    def destination(self) -> IO[bytes]:
        """What the child is started with."""
        return self._file

    def attach(self, stream: trio.abc.ReceiveStream | None) -> None:
        """Do without: the file is our end, too."""

    async def receive_some(self) -> bytes:
        """Return what the child wrote."""
        if self._is_read:
            raise trio.BusyResourceError("another task reads this output")
        self._is_read = True
        try:
            return await self._next()
        finally:
            self._is_read = False

    async def _next(self) -> bytes:
        while True:
            await trio.lowlevel.checkpoint()
            has_ended = self._ended.is_set()  # before the look, or its last words might be missed
            if (chunk := self._read()) or has_ended:
                return chunk
            with trio.move_on_after(POLL_S):
                await self._ended.wait()

    def _read(self) -> bytes:
        # In this thread: it was written a moment ago, so it comes out of memory.
        chunk = os.pread(self._file.fileno(), CHUNK_BYTES, self._offset)
        self._offset += len(chunk)
        return chunk

    def end(self) -> None:
        """Know that the child has ended."""
        self._ended.set()

    async def aclose(self) -> None:
        """Close the file, which thereby is gone."""
        self._file.close()


MAX_LINE_BYTES = 64 * 1024 * 1024
"""A line holds a whole tool result, and one screenshot in base64 is several megabytes; what is
longer than this is a runaway, not an event."""


class LineTooLongError(Exception):
    """A line grew over the bound before its end was seen."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a line of output is longer than {limit:,} bytes")
        self.limit = limit


class LineSplitter:
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


# --- what it says, as text ----------------------------------------------------------------------

COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def plain(text: str) -> str:
    """Take the colours out of what was meant for a terminal."""
    return COLOURS.sub("", text)


def how_it_ended(exit_code: int) -> str:
    """Put an exit status into words; a negative one is a signal's."""
    if exit_code < 0:
        return f"was killed by {signal_name(-exit_code)}"
    return f"exited with status {exit_code}"


def signal_name(number: int) -> str:
    """Name a signal; real-time ones have no name."""
    names = {member.value: member.name for member in signal.Signals}
    return names.get(number, f"signal {number}")
