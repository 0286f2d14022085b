"""The answer to a prompt, reconciled with what the event stream told.

The answer ends the turn, and what is stored is the truth of it; the event stream was the live view.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain, count

import trio

from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.values import Answer, Attachment
from opencode_trio._server.connection import LOST
from opencode_trio._session.abortable_request import AbortableRequest
from opencode_trio._session.attachments import images_of
from opencode_trio._session.remote_turn import RemoteTurn
from opencode_trio._turn.ending import turn_error
from opencode_trio._turn.state import TurnState
from opencode_trio.asks import AskRequest, QuestionRequest
from opencode_trio.errors import OpenCodeError, OpenCodeServerError
from opencode_trio.events import (
    Event,
    MessageUpdated,
    PermissionReplied,
    QuestionReplied,
    SessionIdle,
)

_log = logging.getLogger("opencode_trio")

CATCH_UP_S = 5.0
"""How long the stream may lag behind the answer.  It is milliseconds, unless the server has more to do
than it can: it answers first, then, and tells later, in order.  Less than `STOP_S`, for who leaves
meanwhile waits for this."""

DRY_S = 1.0
"""A stream that has told nothing of anybody for so long does not lag.  It is broken, and what it would
have told is read from what is stored, which costs a busy server more than the wait."""

PROMPT_ATTEMPTS = 3
"""A prompt that has not arrived is sent again, under the same id."""

CLOCK_STEP_MS = 1000.0
"""How late an event's time can be by its way here.  More is a clock that was set back."""

ARRIVES_S = 0.2
"""What is on its way when a connection breaks is stored after this, or never."""


def _reply_to(request: AskRequest) -> Event:
    kind = QuestionReplied if isinstance(request, QuestionRequest) else PermissionReplied
    return kind(session_id=request.session_id, request_id=request.request_id)


def deleted() -> OpenCodeServerError:
    """Say that a turn's session is gone."""
    return OpenCodeServerError("the session was deleted", status_code=404)


class TurnReconciler:
    """One prompt, its answer, and what is stored of both.

    Args:
        stored: the turn, as it is stored.
        live: the turn, as the stream tells it.
        call: the prompt.
        files: what goes with it.
    """

    def __init__(
        self, stored: RemoteTurn, live: TurnState, call: Call[Answer], files: Sequence[Attachment]
    ) -> None:
        self._remote = stored
        self._state = live
        self._call = call
        self._files = files
        self._moved = trio.Event()  # replaced with each event that may end a wait
        self.request: AbortableRequest[Answer] = AbortableRequest(
            stored, self._ask, has_begun=lambda: live.has_begun
        )
        """Its answer is empty if it was lost on the way."""
        self.has_gap: bool = False
        """Whether the stream may have left something out."""
        self.is_abandoned: bool = False
        """Whether nobody waits for the stream's story any more."""

    def heard(self) -> None:
        """Know that `live` has taken an event."""
        self._moved.set()
        self._moved = trio.Event()

    async def settle(self, answer: Answer) -> None:
        """Put what is stored of the turn in the place of what the stream told.

        Args:
            answer: of the prompt; empty if there is none.

        Raises:
            OpenCodeServerError: it could not be read.
        """
        await self._catch_up(answer)
        if self.has_gap:
            await self._remote.find_subagents()
        known = self._state.answers
        is_all = answer.replies_to_prompt and known == {answer.message_id} and not self.has_gap
        turn = [answer.events] if is_all else await self._remote.messages(len(known))
        subagents = await self._remote.subagent_messages(self._subagents(), self._state.former)
        # The session's own come last, for the last word decides what the turn's end is called.
        for message in [*subagents, *turn]:
            self._state.fold.replace(message)

    async def clear_up(self) -> None:
        """Leave nothing of a turn that failed for the next one to take up."""
        await self._remote.clear_up(len(self._state.answers))

    async def true_reason(self, error: OpenCodeError) -> OpenCodeError:
        """Find out why there is no answer; for a prompt that cannot run only the stream tells."""
        status = error.status_code if isinstance(error, OpenCodeServerError) else None
        if status is None or not self._remote.connection.event_stream.is_connected:
            return error
        if await self._remote.is_deleted():
            return deleted()
        with trio.move_on_after(DRY_S):
            while not self._state.errors:
                await self._moved.wait()
        if not self._state.errors:
            return self._with_images(error) if status == 400 else error
        return turn_error(self._state.errors[-1], provider=self._state.provider)

    def _with_images(self, error: OpenCodeError) -> OpenCodeError:
        """Name the images of a prompt that was refused: opencode does so if it cannot decode one."""
        images = images_of(self._files)
        if not images:
            return error
        text = (
            f"{error.args[0]}; opencode refuses a prompt with an image that it cannot decode. "
            f"This one has {', '.join(images)}"
        )
        return OpenCodeServerError(text, status_code=400)

    async def check_is_there(self) -> None:
        """See that what the agent failed with is not that somebody deleted its session.

        opencode then tells first of what its database refuses, and of the deletion a moment later.

        Raises:
            OpenCodeServerError: it is.
        """
        if self._state.fold.last_error is not None and await self._remote.is_deleted():
            raise deleted()

    def check_is_taken_up(self, answer: Answer) -> None:
        """See that opencode did not take a former prompt for a later one.

        Raises:
            OpenCodeServerError: it did, and has answered with what it had said before.
        """
        ahead_ms = answer.created_ms - self._remote.connection.event_stream.server_ms
        if answer.is_of_former_turn and ahead_ms > CLOCK_STEP_MS:
            raise OpenCodeServerError(
                "opencode passed over the prompt: the server's clock was set back, and is "
                f"{ahead_ms / 1000:.0f} s behind the session's last message; "
                "wait for that long, or open another session"
            )

    async def missed(self, pending: Callable[[], Sequence[AskRequest]]) -> list[Event]:
        """Read what a broken stream may have missed of a running turn, as the events of it.

        Args:
            pending: tells which requests wait for an answer, as far as known.

        Raises:
            OpenCodeServerError: it could not be read.
        """
        await self._remote.find_subagents()
        known = self._remote.subagents
        subagents = await self._remote.subagent_messages(known, self._state.former)
        turn = await self._remote.messages()
        waited = pending()
        listed = await self._remote.asks()
        told = [*chain.from_iterable(subagents), *chain.from_iterable(turn)]
        own = {event.message_id for event in told if isinstance(event, MessageUpdated)}
        asks = [  # opencode may keep some of a former turn, which an abort has cut off
            ask
            for ask in listed
            if ask.message_id in own or self._state.owns(ask.session_id, ask.message_id)
        ]
        if turn or self._state.has_begun or await self._remote.exists():
            self._state.has_begun = True
        retried = set(self._state.retrying)
        states = await self._remote.states()
        # What has ended is not among what there is.
        idle = (retried & self._state.retrying) - {state.session_id for state in states}
        ids = {ask.request_id for ask in listed}
        answered = [ask for ask in pending() if ask in waited and ask.request_id not in ids]
        return [
            *told,
            *map(_reply_to, answered),
            *asks,
            *states,
            *(SessionIdle(session_id=session) for session in idle),
        ]

    async def _ask(self) -> Answer:
        for attempt in count(1):
            try:
                return await self._remote.call(self._call)
            except OpenCodeServerError as exc:
                if exc.status_code not in LOST or self._remote.connection.failure is not None:
                    raise
                # Only the connection has broken, or a proxy on its way has lost its patience.
                _log.warning("the answer was lost, so the turn is looked up instead: %s", exc)
                await trio.sleep(ARRIVES_S)
                await self._remote.wait_idle()
                if await self._remote.exists():
                    break
                if attempt == PROMPT_ATTEMPTS:
                    raise
        self.has_gap = True
        return Answer()

    async def _catch_up(self, answer: Answer) -> None:
        """Wait until the stream has told what the answer tells."""
        if not (message := answer.message_id):
            return  # lost, or aborted before the agent said anything
        told = self._state.answers if answer.is_cut_off else self._state.complete
        with trio.move_on_after(DRY_S if self.is_abandoned else CATCH_UP_S):
            while message not in told and await self._wait_for_event():
                pass
        # What it has not told of the answer, it may not have told of subagents either.
        self.has_gap = self.has_gap or message not in told

    async def _wait_for_event(self) -> bool:
        """Wait for an event of the turn; say whether the stream tells of anything at all."""
        event_stream = self._remote.connection.event_stream
        told = event_stream.counts.events
        with trio.move_on_after(DRY_S if event_stream.is_connected else 0):
            await self._moved.wait()
        return event_stream.counts.events > told

    def _subagents(self) -> list[str]:
        """List those that can have worked in this turn: a long conversation has many more."""
        known = self._remote.subagents
        return known if self.has_gap else [s for s in known if s in self._state.sessions]
