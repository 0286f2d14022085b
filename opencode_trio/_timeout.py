"""``timeout_s``: sugar over a cancel scope, and the error it raises."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager

import attrs
import trio

from opencode_trio.errors import OpenCodeConfigError, OpenCodeError
from opencode_trio.results import RunResult


class OpenCodeTimeoutError(OpenCodeError, trio.TooSlowError):
    """The time given by ``timeout_s`` is over; what was running has been ended."""


@contextmanager
def time_limit(
    seconds: float | None, *, partial: Callable[[], RunResult | None]
) -> Generator[None]:
    """Cancel the block after so many seconds and raise instead of `trio.Cancelled`.

    Args:
        seconds: the time from now; ``None`` for no limit.
        partial: asked for what had arrived, once the block has been left.

    Raises:
        OpenCodeTimeoutError: the time was up before the block ended.
        OpenCodeConfigError: `seconds` is no amount of time.
    """
    with trio.move_on_after(_checked(seconds)) as scope:
        yield
    if scope.cancelled_caught:
        arrived = partial()
        raise OpenCodeTimeoutError(
            f"not finished within {seconds:g} s (timeout_s)",
            partial=arrived and attrs.evolve(arrived, stop_reason="timeout"),
            stderr=arrived.stderr if arrived else "",
        )


def _checked(seconds: float | None) -> float:
    if seconds is None:
        return math.inf
    if not seconds >= 0:  # nor is NaN
        raise OpenCodeConfigError(f"timeout_s: expected seconds or None, got {seconds!r}")
    return seconds
