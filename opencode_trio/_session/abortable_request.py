"""A request that an agent works on, and how it is ended early.

A caller that gives up waiting must not drop the connection: opencode goes on working, and up to
1.18 a session whose shell was dropped in its first moments is called busy for ever.  So the request is
kept until it has its answer, which after an abort comes at once.  Nearly always:

* An abort overtakes a prompt that is being stored, and does nothing.  It has to be said again.
* In opencode 1.14 an abort that meets the first moment of a run is never answered, nor is the
  prompt, though the session is idle; the next abort is answered, and the next prompt runs.
* In opencode 1.2 a prompt may have no answer when it is aborted as the server's first tool starts.
* In opencode 1.18 a shell that is aborted as it starts is gone, but neither it nor that abort is
  ever answered, and the session is called busy until its next prompt.

So aborts are said without waiting for one another, and a session that stays idle is believed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import trio

from opencode_trio._session.remote_turn import POLL_S, RemoteTurn
from opencode_trio._tasks import open_background
from opencode_trio.errors import OpenCodeCancelledError, OpenCodeError, OpenCodeServerError

_log = logging.getLogger("opencode_trio")

T = TypeVar("T")

STOP_S = 10.0
"""From the abort to the end of a server that does not obey.  It takes a tenth of a second, and up to
half a minute only when the server itself is stuck."""

ABORT_AGAIN_S = 0.25
"""Between aborts, while there is no answer."""

SHELL_BUSY_S = 5.0
"""The longest that an aborted shell is waited for: opencode kills after 3 s what does not end."""

ABORT_ANSWER_S = 1.0
"""How long an abort is waited for.  One that is given up is carried out all the same."""

IDLE_ROUNDS = 4
"""How many aborts must have found the session idle before it is taken to owe no answer any more.
Counted, not timed, because a server with too much to do is slow in everything."""


class AbortableRequest(Generic[T]):
    """One request that the agent works on, from its sending to its end.

    Args:
        remote: the session on its server.
        send: sends the request, and returns its answer; may raise `OpenCodeServerError`.
        has_begun: whether the server is known to have it.
        busy_s: how long a session is believed to be busy, though the server has aborted it.
    """

    def __init__(
        self,
        remote: RemoteTurn,
        send: Callable[[], Awaitable[T]],
        *,
        has_begun: Callable[[], bool] = lambda: True,
        busy_s: float = math.inf,
    ) -> None:
        self.remote = remote
        self._send = send
        self._has_begun = has_begun
        self._busy_s = busy_s
        self._aborts = 0  # that the server has answered
        self._sending = trio.CancelScope()
        self._answer: T | None = None
        self._error: OpenCodeError | None = None
        self.over: trio.Event = trio.Event()
        """Set when there is an answer, or will be none."""

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Send the request and wait; raises nothing."""
        try:
            with self._sending:
                self._answer = await self._send()
        except OpenCodeError as exc:
            self._error = exc
        finally:
            self.over.set()

    def answer(self) -> T | None:
        """Return the answer; ``None`` if the work was aborted and has none.

        Raises:
            OpenCodeError: what went wrong instead.
        """
        if self._error is not None:
            raise self._error
        return self._answer

    async def abort(self) -> bool:
        """Abort it, and return when it is over; say whether it has an answer."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_aborting)
            is_answered = await self._is_answered()
            self._sending.cancel()
            await self.over.wait()
        # Here no abort is on its way any more: it would hit what the session does next.
        return is_answered

    async def end(self) -> None:
        """Abort it, and return when not even a subagent works any more."""
        is_answered = await self.abort()
        while is_answered and not await self.remote.is_idle():
            await self._abort_once()
            await trio.sleep(POLL_S)

    async def _is_answered(self) -> bool:
        """Wait for the answer; say whether there is one."""
        idle, began = 0, trio.current_time()
        while idle < IDLE_ROUNDS and not self.remote.connection.gone.is_set():
            with trio.move_on_after(ABORT_AGAIN_S):
                await self.over.wait()
                return True
            is_idle = self._has_begun() and await self.remote.is_idle()
            idle = idle + 1 if is_idle else 0
            if self._aborts and trio.current_time() > began + self._busy_s:
                _log.warning(
                    "the server calls session %s busy, but has nothing to abort there",
                    self.remote.root,
                )
                return False
        return False

    @trio.lowlevel.enable_ki_protection
    async def _keep_aborting(self) -> None:
        async with trio.open_nursery() as nursery:
            while not self.over.is_set():
                nursery.start_soon(self._abort_once)
                with trio.move_on_after(ABORT_AGAIN_S):
                    await self.over.wait()

    @trio.lowlevel.enable_ki_protection
    async def _abort_once(self) -> None:
        with trio.move_on_after(ABORT_ANSWER_S), suppress(OpenCodeServerError):
            await self.remote.abort()
            self._aborts += 1


@contextmanager
def bounded_end(remote: RemoteTurn) -> Generator[None]:
    """Shield the end of work, and bound it: a server of ours that does not obey is ended."""
    with trio.move_on_after(STOP_S, shield=True) as scope:
        yield
    if scope.cancelled_caught:
        remote.connection.end_server(f"it did not abort {remote.root} within {STOP_S:g} s")


async def run_to_answer(request: AbortableRequest[T]) -> T:
    """Have the agent do something; return the answer.

    Raises:
        OpenCodeServerError: the server failed, or went away.
        OpenCodeCancelledError: somebody aborted it, and there is no answer.

    **Cancellation**: ends the work: shielded, and bounded by `STOP_S`.
    """
    async with open_background() as tasks:
        tasks.start_soon(request.run)
        try:
            await request.over.wait()
        except BaseException:  # cancelled, or Ctrl+C
            with bounded_end(request.remote):
                await request.end()
            raise
    answer = request.answer()
    if answer is None:
        raise OpenCodeCancelledError("the call was aborted before it was finished")
    return answer
