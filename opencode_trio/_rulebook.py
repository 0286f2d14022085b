"""The rules of permission that the turns of a session find on the server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from opencode_trio import _endpoints as endpoints
from opencode_trio._json import Json, objects_of, text_or_none_of
from opencode_trio._link import Link
from opencode_trio._rules import SessionRules, check_taken, rules_to_answer, session_rules
from opencode_trio.errors import OpenCodeServerError

DEFAULT_AGENT = "build"
"""opencode's own default, unless its configuration names another."""


@attrs.frozen
class Rulebook:
    """A session's rules, of which the server can only be given more."""

    link: Link
    session_id: str
    directory: str
    rules: SessionRules

    async def open_at(self, turn: Sequence[Json], agent: str | None) -> None:
        """Have a turn find its rules, and those of no turn before it.

        Args:
            turn: the rules of this turn alone.
            agent: the agent that it asks; ``None`` is the default one.

        Raises:
            OpenCodeServerError: the server failed, or does not take rules here.
        """
        own = await self._agent_rules(agent) if self.rules.needs_agent else ()
        if wanted := self.rules.to_add(turn, own):
            call = endpoints.add_rules(self.session_id, wanted)
            self.rules.adding()
            record = await self.link.call(call, self.directory)
            try:
                check_taken(record, wanted)
            except OpenCodeServerError:
                self.rules.refused()
                raise
            self.rules.added(wanted)

    def to_answer(self, turn: Iterable[Json]) -> list[Json]:
        """Return a turn's rules, with what a structured answer needs."""
        turn = list(turn)
        server = session_rules(self.link.cfg) if self.link.cfg else []
        return [*turn, *rules_to_answer([*server, *self.rules.base, *turn])]

    async def _agent_rules(self, agent: str | None) -> Sequence[Json]:
        name = agent
        if name is None:
            config = await self.link.call(endpoints.config(), self.directory)
            name = text_or_none_of(config, "default_agent") or DEFAULT_AGENT
        agents = await self.link.call(endpoints.agents(), self.directory)
        found = (objects_of(a.get("permission")) for a in agents if a.get("name") == name)
        return next(found, ())
