"""What trio does not bring: tasks of a block, time limits that raise our errors, and `TrioRun`.

Events, locks and nurseries of trio belong to one `trio.run`.  Used from another thread, they fail
inside of trio, or leave a task waiting for ever; `TrioRun` raises a plain error instead.
"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import trio

from opencode_trio.errors import OpenCodeConfigError, OpenCodeError
from opencode_trio.results import RunResult


async def clear_away(remove: Callable[[Path], None], path: Path) -> None:
    """Remove what is left, in a thread.

    Beyond trio's limit on threads, because the program's own may be waiting for the end of this.

    **Cancellation**: shielded.
    """
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(remove, path, limiter=trio.CapacityLimiter(1))


@asynccontextmanager
async def open_background() -> AsyncGenerator[trio.Nursery]:
    """Open a nursery for tasks that never raise; when the block ends, they are cancelled.

    **Cancellation**: of what is around it reaches the block, but not the tasks; those are ended
    when the block has been left.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as outer:
        inner: trio.Nursery = await outer.start(_host)
        try:
            yield inner
        except BaseException as error:  # noqa: BLE001 - raised again below, outside the nursery
            failure = error
        inner.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _host(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            task_status.started(nursery)
            # Only now: a block that was cancelled before it began has no tasks to protect, and
            # trio leaves this one where it was, to end by itself.
            await trio.lowlevel.checkpoint_if_cancelled()
            scope.shield = True
            nursery.start_soon(trio.sleep_forever)  # keeps it open until it is cancelled


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


def require_trio() -> None:
    """Check that a task of trio is calling.

    Raises:
        RuntimeError: something else is.
    """
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(_what_to_do()) from None


def _what_to_do() -> str:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001 - public
        return (
            "opencode-trio needs trio, and this is asyncio: start the program with "
            "`trio.run(main)` instead of `asyncio.run(main())`. In IPython, enter `%autoawait "
            "trio` first. For programs that stay with asyncio, see the documentation: 'REPLs and "
            "asyncio'"
        )
    return (
        "opencode-trio needs trio, and trio is not running: call this from an async function "
        "that `trio.run(main)` runs. For a REPL, start `python -m trio`"
    )


class TrioRun:
    """The `trio.run` that something was opened in, and has to be used in.

    Args:
        of: what was opened, for the error's text.
    """

    def __init__(self, of: str) -> None:
        self._of = of
        self._token = trio.lowlevel.current_trio_token()

    def check(self) -> None:
        """Check that the caller is in it.

        Raises:
            RuntimeError: the caller is in another one, or in none.
        """
        if current_run() is not self._token:
            raise RuntimeError(
                f"{self._of} belongs to another trio.run(): use it only in the thread that opened "
                "it. Other threads can call into that one with trio.from_thread.run()"
            )


def current_run() -> trio.lowlevel.TrioToken | None:
    """Return the `trio.run` of the calling thread, if it is in one."""
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
