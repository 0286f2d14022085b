"""A turn as its server has it, asked for by requests: what is stored of it, and what it does."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Sequence
from typing import TypeVar

import attrs
import trio

from opencode_trio._protocol.calls import Call
from opencode_trio._server.connection import Connection
from opencode_trio.errors import OpenCodeServerError
from opencode_trio.events import Event, PermissionAsked, QuestionAsked

_log = logging.getLogger("opencode_trio")

T = TypeVar("T")

POLL_S = 0.05
"""For states that no event tells of."""

NOT_FOUND = 404

CLEAR_UP_S = 2.0
"""To delete what is left of a turn: milliseconds, unless somebody else has begun another."""


@attrs.frozen
class RemoteTurn:
    """A session on its server, and one of its turns."""

    connection: Connection
    root: str
    """The session."""
    directory: str
    message_id: str = ""
    """The user's message, which begins the turn."""

    async def call(self, call: Call[T], /) -> T:
        """Send a call, in the turn's directory; raises `OpenCodeServerError`."""
        return await self.connection.call(call, self.directory)

    @property
    def subagents(self) -> list[str]:
        """The sessions below the turn's, as far as known, the deepest first."""
        return self.connection.event_stream.tree.descendants(self.root)

    async def exists(self) -> bool:
        """Say whether the server has the user's message."""
        stored = self.connection.dialect.stored
        return await stored.has_message(self.call, self.root, self.message_id)

    async def is_deleted(self) -> bool:
        """Say whether the session is gone, as far as the server answers."""
        try:
            await self.call(self.connection.dialect.requests.get_session(self.root))
        except OpenCodeServerError as exc:
            return exc.status_code == NOT_FOUND
        return False

    async def messages(self, expected: int | None = None) -> list[Sequence[Event]]:
        """Read the turn's own assistant messages, each as the events that would make it.

        Args:
            expected: how many there are, as far as known; a long conversation is then not read
                from its beginning.
        """
        stored = self.connection.dialect.stored
        return await stored.turn_messages(self.call, self.root, self.message_id, expected)

    async def subagent_messages(
        self, sessions: Iterable[str], former: Container[str]
    ) -> list[Sequence[Event]]:
        """Read what subagents wrote in the turn, likewise.

        Args:
            sessions: of the subagents.
            former: those that former turns began.
        """
        stored = self.connection.dialect.stored
        found: list[Sequence[Event]] = []
        for session in sessions:
            since = self.message_id if session in former else None
            found += await stored.subagent_messages(self.call, session, since)
        return found

    async def find_subagents(self) -> None:
        """Learn of subagents that no event told of."""
        parents = [self.root]
        while parents:
            parent = parents.pop()
            for child in await self.call(self.connection.dialect.requests.children(parent)):
                self.connection.event_stream.tree.add(child.session_id, parent, child.agent)
                parents.append(child.session_id)

    async def asks(self) -> list[PermissionAsked | QuestionAsked]:
        """Read what waits for an answer in the session's tree, as the events that told it."""
        family = self._family
        found: list[Event] = []
        for call in self.connection.dialect.requests.open_asks():
            asks_there = await self.call(call)
            found += asks_there
        asks = (e for e in found if isinstance(e, PermissionAsked | QuestionAsked))
        return [ask for ask in asks if ask.session_id in family]

    async def states(self) -> list[Event]:
        """Read what those of the turn's tree are at that are not idle, as the events that told it."""
        return list((await self._working()).values())

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

    async def _working(self) -> dict[str, Event]:
        states = await self.call(self.connection.dialect.requests.working())
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
            await self.call(self.connection.dialect.requests.abort(session))
        except OpenCodeServerError as exc:
            _log.debug("%s", exc)
            return exc
        return None

    async def clear_up(self, expected: int) -> None:
        """Delete what a turn that failed has left for the next one to take up.

        Args:
            expected: how many messages the turn has, as far as known.
        """
        stored = self.connection.dialect.stored
        try:
            with trio.move_on_after(CLEAR_UP_S):
                await self.wait_idle()
                for call in await stored.leftovers(self.call, self.root, self.message_id, expected):
                    await self.call(call)
        except OpenCodeServerError as exc:
            _log.warning("could not delete what a broken turn has left: %s", exc)
