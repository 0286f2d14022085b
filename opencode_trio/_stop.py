"""Ctrl+C and SIGTERM, for programs that have something to finish first."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from opencode_trio._background import open_background


@attrs.define(eq=False)
class Stop:
    """What is cancelled when the program shall stop."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """To be entered by what shall stop."""
    reason: signal.Signals | None = None
    """Why it shall."""


@asynccontextmanager
async def open_stop() -> AsyncGenerator[Stop]:
    """For the length of the block, let signals cancel a scope rather than end the program.

    **Cancellation**: leaves the signals as they were.
    """
    stop = Stop()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_background() as tasks:
            tasks.start_soon(_listen, signals, stop)
            yield stop


async def _listen(signals: AsyncIterator[int], stop: Stop) -> None:
    async for number in signals:
        stop.reason = stop.reason or signal.Signals(number)
        stop.scope.cancel()
