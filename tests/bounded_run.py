"""A `trio.run` for tests, which does not wait for ever."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio


class BoundedRun:
    """Run a test, cancel what takes longer than it may, and tell what it was waiting for.

    The time is the wall clock's, kept by a thread: the test's own trio clock may be a virtual one.
    It is four fifths of the test's `timeout`, so that the test can clean up before pytest-timeout
    strikes.
    """

    def __init__(self, item: pytest.Item) -> None:
        marker = item.get_closest_marker("timeout")
        self.seconds = 0.8 * float(marker.args[0] if marker else item.config.getini("timeout"))
        self.item = item
        self.story = ""

    def __call__(self, function: Callable[[], Awaitable[object]], **options: Any) -> None:
        """Do as `trio.run` does."""
        try:
            trio.run(self._main, function, **options)
        except BaseException as error:
            if self.story and self.story not in str(error):
                error.add_note(self.story)
            if _is_inside_trio():  # pytest-timeout broke into trio's own loop
                self.item.session.shouldfail = f"{self.item.nodeid} hung beyond cancellation"
            raise

    async def _main(self, function: Callable[[], Awaitable[object]]) -> None:
        scope = trio.CancelScope()
        alarm = threading.Timer(
            self.seconds, self._ring, [trio.lowlevel.current_trio_token(), scope]
        )
        alarm.start()
        try:
            with scope:
                await function()
        finally:
            alarm.cancel()
        if self.story:
            pytest.fail(self.story, pytrace=False)

    def _ring(self, token: trio.lowlevel.TrioToken, scope: trio.CancelScope) -> None:
        """In the alarm's thread: have the event loop end the test."""
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._expire, scope)

    def _expire(self, scope: trio.CancelScope) -> None:
        self.story = f"\nNot over after {self.seconds:g} s. The tasks were:\n{task_tree()}"
        scope.cancel()


def _is_inside_trio() -> bool:
    """Tell whether trio takes itself to be running, in which case it cannot be started."""
    try:
        trio.lowlevel.current_root_task()
    except RuntimeError:
        return False
    return True


def task_tree() -> str:
    """Draw the tasks, each with the frames that it is suspended in."""
    lines: list[str] = []

    def draw(task: trio.lowlevel.Task, indent: str) -> None:
        lines.append(f"{indent}{task.name}")
        stack = traceback.StackSummary.extract(task.iter_await_frames())
        lines.extend(
            f"{indent}  | {frame.filename}:{frame.lineno} {frame.name}"
            for frame in stack
            if f"trio{os.sep}_core" not in frame.filename
        )
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                draw(child, indent + "    ")

    root = trio.lowlevel.current_root_task()
    for nursery in root.child_nurseries if root else ():
        for task in nursery.child_tasks:
            draw(task, "")
    return "\n".join(lines)
