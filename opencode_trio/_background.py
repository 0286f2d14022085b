"""Tasks that belong to a block.

They are no user's business: they record what goes wrong, and the call that the user awaits raises
it.  Ctrl+C is none of theirs either (`trio.lowlevel.enable_ki_protection`): it is for the user's
code.  So an error of the block leaves it bare, not in a group, and they outlast the block's own
cancellation for as long as its goodbye takes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio


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
