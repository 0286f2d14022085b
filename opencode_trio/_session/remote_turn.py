"""What the server has stored of a turn, and what it is doing: asked for, not listened to."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Iterable
from typing import TypeVar

import attrs
import trio

from opencode_trio._json import Json, text_of
from opencode_trio._protocol.calls import Call
from opencode_trio._protocol.v1 import routes as endpoints
from opencode_trio._protocol.v1.messages import (
    broken_compactions,
    has_message,
    messages_of_turn,
    messages_since,
)
from opencode_trio._protocol.v1.stream_events import stream_event
from opencode_trio._reconcile import answers_in
from opencode_trio._server.connection import Connection
from opencode_trio.errors import OpenCodeServerError
from opencode_trio.events import Event, PermissionAsked, QuestionAsked

_log = logging.getLogger("opencode_trio")

T = TypeVar("T")

POLL_S = 0.05
"""For states that no event tells of."""

NOT_FOUND = 404

UNTOLD = 400
"""The status of a message that opencode has and cannot tell: from 1.15 on those that asked for a
structured answer, unless they are told among others that are not the session's whole story."""

FORGET_S = 2.0
"""To delete what is left of a turn: milliseconds, unless somebody else has begun another."""

SPARE_MESSAGES = 10
"""Read beyond those that a turn is known to have: what opencode itself puts in."""


@attrs.frozen
class RemoteTurn:
    """The stored side of a session, and of one of its turns."""

    connection: Connection
    root: str
    """The session."""
    directory: str
    message_id: str = ""
    """The user's message, which begins the turn."""

    async def call(self, call: Call[T]) -> T:
        """Send a call, in the turn's directory; raises `OpenCodeServerError`."""
        return await self.connection.call(call, self.directory)

    @property
    def subagents(self) -> list[str]:
        """The sessions below the turn's, as far as known, the deepest first."""
        return self.connection.event_stream.tree.descendants(self.root)

    async def exists(self) -> bool:
        """Say whether the server has the user's message."""
        try:
            await self.call(endpoints.message(self.root, self.message_id))
        except OpenCodeServerError as exc:
            if exc.status_code not in {NOT_FOUND, UNTOLD}:
                raise
            return exc.status_code == UNTOLD
        return True

    async def is_deleted(self) -> bool:
        """Say whether the session is gone, as far as the server answers."""
        try:
            await self.call(endpoints.get_session(self.root))
        except OpenCodeServerError as exc:
            return exc.status_code == NOT_FOUND
        return False

    async def messages(self, expected: int | None = None) -> list[Json]:
        """Read the turn's own assistant messages.

        Args:
            expected: how many there are, as far as known; a long conversation is then not read
                from its beginning.
        """
        if expected is not None:
            limit = 2 * expected + SPARE_MESSAGES
            stored = await self._newest(self.root, limit)
            if has_message(stored, self.message_id):
                return messages_of_turn(stored, self.message_id)
        stored = await self._newest(self.root)
        return messages_of_turn(stored, self.message_id)

    async def subagent_messages(
        self, sessions: Iterable[str], former: Container[str]
    ) -> dict[str, list[Json]]:
        """Read what subagents wrote in the turn, by session.

        Args:
            sessions: of the subagents.
            former: those that former turns began.
        """
        found: dict[str, list[Json]] = {}
        for session in sessions:
            stored = await self._newest(session)
            is_former = session in former
            found[session] = (
                messages_since(stored, self.message_id) if is_former else answers_in(stored)
            )
        return found

    async def find_subagents(self) -> None:
        """Learn of subagents that no event told of."""
        parents = [self.root]
        while parents:
            parent = parents.pop()
            for info in await self.call(endpoints.children(parent)):
                child = text_of(info, "id")
                self.connection.event_stream.tree.add(child, parent, text_of(info, "agent") or None)
                parents.append(child)

    async def asks(self) -> list[PermissionAsked | QuestionAsked]:
        """Read what waits for an answer in the session's tree, as the events that told it."""
        family = self._family
        found: list[Event] = []
        for kind, call in (
            ("permission.asked", endpoints.permissions()),
            ("question.asked", endpoints.questions()),
        ):
            asks = [ask for ask in await self.call(call) if ask.get("sessionID") in family]
            found += [stream_event({"type": kind, "properties": ask}) for ask in asks]
        return [event for event in found if isinstance(event, PermissionAsked | QuestionAsked)]

    async def states(self) -> list[Event]:
        """Read what those of the turn's tree are at that are not idle, as the events that told it."""
        states = (await self._working()).items()
        told = [{"sessionID": session, "status": state} for session, state in states]
        return [stream_event({"type": "session.status", "properties": one}) for one in told]

    async def is_idle(self) -> bool:
        """Say whether neither the session nor a subagent works, as far as the server answers."""
        try:
            return not await self._working()
        except OpenCodeServerError:
            return True

    async def wait_idle(self) -> None:
        """Wait until neither the session nor a subagent works, or the server does not answer."""
        while not await self.is_idle():  # noqa: ASYNC110 - the server's state, not ours
            await trio.sleep(POLL_S)

    async def abort(self) -> None:
        """Abort the session, and those of its subagents that work.

        opencode 1.18 aborts subagents with their parent; releases before it did not.

        Raises:
            OpenCodeServerError: the server did not answer.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._abort_subagents)
            failure = await self._abort(self.root)
        if failure is not None:
            raise failure

    @property
    def _family(self) -> set[str]:
        return {self.root, *self.subagents}

    async def _working(self) -> Json:
        states = await self.call(endpoints.statuses())
        return {session: states[session] for session in states.keys() & self._family}

    @trio.lowlevel.enable_ki_protection
    async def _abort_subagents(self) -> None:
        try:
            working = await self._working()
        except OpenCodeServerError as exc:
            _log.debug("%s", exc)
            return
        async with trio.open_nursery() as nursery:
            for session in working.keys() - {self.root}:
                nursery.start_soon(self._abort, session)

    @trio.lowlevel.enable_ki_protection
    async def _abort(self, session: str) -> OpenCodeServerError | None:
        try:
            await self.call(endpoints.abort(session))
        except OpenCodeServerError as exc:
            _log.debug("%s", exc)
            return exc
        return None

    async def forget_compactions(self, expected: int) -> None:
        """Delete what is left of compactions that were broken off.

        opencode would take them up again with the session's next prompt, and answer that one with
        what comes of them.

        Args:
            expected: how many messages the turn has, as far as known.
        """
        try:
            with trio.move_on_after(FORGET_S):
                await self.wait_idle()
                stored = await self._newest(self.root, 2 * expected + SPARE_MESSAGES)
                for message in broken_compactions(stored, self.message_id):
                    await self.call(endpoints.delete_message(self.root, message))
        except OpenCodeServerError as exc:
            _log.warning("could not see to broken compactions: %s", exc)

    async def _newest(self, session: str, limit: int | None = None) -> list[Json]:
        return await newest_messages(self.call, session, limit)


async def newest_messages(
    ask: Callable[[Call[list[Json]]], Awaitable[list[Json]]], session: str, limit: int | None
) -> list[Json]:
    """Read a session's newest messages, the oldest first, or as many of them as opencode can tell.

    Of a session that was asked for a structured answer that is all but the first; see `UNTOLD`.

    Args:
        ask: sends a call, and may raise `OpenCodeServerError`.
        session: the session.
        limit: the most messages; ``None`` is all.
    """
    try:
        return await ask(endpoints.messages(session, limit))
    except OpenCodeServerError as exc:
        if exc.status_code != UNTOLD:
            raise
    found: list[Json] = []
    more, grows = 1, True  # how many there are nobody tells: gallop until it is one too many
    while more:
        wanted = len(found) + more
        try:
            found = await ask(endpoints.messages(session, wanted))
        except OpenCodeServerError as exc:
            if exc.status_code != UNTOLD:
                raise
            grows = False
        else:
            if len(found) < wanted:
                break  # all there are, now
        more = more * 2 if grows else more // 2
    return found
