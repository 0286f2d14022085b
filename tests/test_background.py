"""Tasks of a block: they outlast its cancellation, and end with it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from opencode_trio._tasks import open_background


async def test_a_block_that_was_cancelled_before_it_began_ends():
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_background():
            pytest.fail("it must not begin")
    assert scope.cancelled_caught


async def test_tasks_outlast_the_cancellation_of_their_block_but_not_the_block(
    autojump_clock: trio.testing.MockClock,
):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(1)
            ticks += 1

    with trio.move_on_after(2.5):
        async with open_background() as tasks:
            tasks.start_soon(tick)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)
    assert ticks == 4
    await trio.sleep(5)
    assert ticks == 4


async def test_an_error_of_the_block_leaves_it_bare():
    with pytest.raises(ZeroDivisionError):
        async with open_background() as tasks:
            tasks.start_soon(trio.sleep_forever)
            raise ZeroDivisionError
