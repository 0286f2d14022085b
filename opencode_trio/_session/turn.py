"""`Turn`: one prompt and everything that comes of it, for who reads it."""

from __future__ import annotations

from typing import Any

import trio

from opencode_trio._session.running_turn import RunningTurn
from opencode_trio.asks import AskRequest
from opencode_trio.events import Event, PermissionAsked, QuestionAsked
from opencode_trio.results import RunResult


class Turn(trio.abc.ReceiveChannel[Event]):
    """A running turn: its events as they come, and its result.

    Iterate over it, or `wait` for its end.  A reader who is slow loses no text and holds up nobody:
    what has not been read is joined, and in the end dropped (see `Diagnostic` of kind ``lagged``).
    """

    def __init__(self, running: RunningTurn) -> None:
        self._running = running

    @property
    def result(self) -> RunResult:
        """The result so far; after the block, the final one."""
        return self._running.result

    @property
    def message_id(self) -> str:
        """The id of the user's message."""
        return self._running.message_id

    @property
    def pending_asks(self) -> list[AskRequest]:
        """What waits for an answer, the oldest first."""
        return self._running.asks.pending

    async def receive(self) -> Event:
        """Return the next event.

        Raises:
            trio.EndOfChannel: the turn is over, and its result is complete.
            OpenCodeTurnError: the model or its provider failed.
            OpenCodeLimitError: a guard ended the turn.
            OpenCodeServerError: the server failed, or went away.
            OpenCodeCancelledError: somebody aborted the turn.
            Exception: whatever a handler raised.

        **Cancellation**: loses no event.
        """
        self._running.check_run()
        try:
            return await self._running.buffer.take()
        except trio.EndOfChannel:
            await self._running.wait_told()
            raise

    async def wait(self) -> RunResult:
        """Wait for the end of the turn; return its result.

        Raises:
            OpenCodeError: as in `receive`.

        **Cancellation**: harmless; leaving the turn's block is what aborts it.
        """
        self._running.check_run()
        await self._running.wait_told()
        return self.result

    async def answer(self, ask: PermissionAsked | QuestionAsked | AskRequest, answer: Any) -> None:
        """Answer a request for permission, or a question, by hand.

        Args:
            ask: the event that asked, or one of `pending_asks`.
            answer: as a handler would give it.

        Raises:
            OpenCodeConfigError: the answer is invalid; the request still waits.
            KeyError: it does not wait for an answer (any more).
        """
        self._running.check_run()
        await self._running.asks.answer(ask.request_id, answer)

    async def aclose(self) -> None:
        """Read no more events.  Leaving the turn's block ends it."""
        self._running.check_run()
        self._running.buffer.close()
        await trio.lowlevel.checkpoint()
