"""Permissions as the rules of one session.

A rule is ``{"permission", "pattern", "action"}``; of those that match, the last one counts.  The
server can only add rules to a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from opencode_trio._json import Json, is_mapping, objects_of, text_or_none_of
from opencode_trio._protocol.v1 import routes as endpoints
from opencode_trio._server.connection import Connection
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeServerError

EDITORS = frozenset({"write", "edit", "patch", "multiedit", "apply_patch"})
"""The tools whose permission opencode calls ``edit``."""


ANSWER_TOOL = "StructuredOutput"
"""The tool of opencode's that a model gives a structured answer with."""


def rule(permission: str, pattern: str, action: str) -> Json:
    return {"permission": permission, "pattern": pattern, "action": action}


def session_rules(cfg: RunConfig) -> list[Json]:
    """Write a configuration's permissions and tools as rules, the broad before the narrow.

    ``tools`` come after a permission for all tools and before those for single ones, as opencode
    itself puts them: switching a tool off survives ``{"*": "allow"}``.
    """
    permission = cfg.permission
    if isinstance(permission, str):
        permission = {"*": permission}
    broad: list[Json] = []
    narrow: list[Json] = []
    for name, setting in (permission or {}).items():
        (broad if "*" in name else narrow).extend(_rules_of(name, setting))
    return [*broad, *_tool_rules(cfg.tools or {}), *narrow]


def asks_something(cfg: RunConfig) -> bool:
    """Whether a configuration has anything asked."""
    return any(rule["action"] == "ask" for rule in session_rules(cfg))


def _rules_of(name: str, setting: Any) -> list[Json]:
    if is_mapping(setting):
        return [rule(name, pattern, action) for pattern, action in setting.items()]
    return [rule(name, "*", setting)]


def _tool_rules(tools: Mapping[str, Any]) -> list[Json]:
    return [
        rule("edit" if name in EDITORS else name, "*", "allow" if on else "deny")
        for name, on in tools.items()
        if isinstance(on, bool)
    ]


def rules_to_answer(rules: Iterable[Json]) -> list[Json]:
    """Return what to add to rules so that a model can give a structured answer.

    A denial of all tools takes this one away, too, while opencode goes on demanding that it be
    called: a turn without end.

    Args:
        rules: those in force, as far as known.
    """
    actions = [
        rule["action"]
        for rule in rules
        if rule["pattern"] == "*" and fnmatchcase(ANSWER_TOOL, rule["permission"])
    ]
    return [rule(ANSWER_TOOL, "*", "allow")] if actions[-1:] == ["deny"] else []


def check_taken(record: Json, rules: Sequence[Json]) -> None:
    """See that a session has the rules that it was given: old releases pass over them.

    Args:
        record: the server's record of the session, after it was given the rules.
        rules: the rules.

    Raises:
        OpenCodeServerError: it does not have them.
    """
    if rules and objects_of(record.get("permission"))[-len(rules) :] != list(rules):
        raise OpenCodeServerError(
            "this opencode does not take permission rules here; give them to the server, or use a "
            "newer opencode"
        )


@attrs.define
class SessionRules:
    """What rules a session has, and which to add so that a turn has those it wants.

    Args:
        base: the session's own rules.
    """

    base: Sequence[Json] = ()
    _changed: bool = attrs.field(default=False, init=False)
    _last: list[Json] | None = attrs.field(default=None, init=False)

    @property
    def needs_agent(self) -> bool:
        """Whether a former turn's rules are still in the way, under which the agent's own are."""
        return self._changed

    def to_add(self, turn: Sequence[Json], agent: Sequence[Json]) -> list[Json]:
        """Return what to add for a turn; `added` tells that it was.

        Args:
            turn: the rules of this turn alone.
            agent: those of the agent that it asks.  Repeated on top of what a former turn left
                behind, they make it as if that had never been.
        """
        if not self._changed and not turn:
            return []
        wanted = [*(agent if self._changed else ()), *self.base, *turn]
        return [] if wanted == self._last else wanted

    def adding(self) -> None:
        """Know that the server may have more from here on, whether its answer is heard or not."""
        self._changed, self._last = True, None

    def refused(self) -> None:
        """Know that the server takes none here, and so has none."""
        self._changed = False

    def added(self, rules: list[Json]) -> None:
        """Know that the server has these."""
        self._last = rules


DEFAULT_AGENT = "build"
"""opencode's own default, unless its configuration names another."""


@attrs.frozen
class Rulebook:
    """A session's rules, of which the server can only be given more."""

    connection: Connection
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
            record = await self.connection.call(call, self.directory)
            try:
                check_taken(record, wanted)
            except OpenCodeServerError:
                self.rules.refused()
                raise
            self.rules.added(wanted)

    def to_answer(self, turn: Iterable[Json]) -> list[Json]:
        """Return a turn's rules, with what a structured answer needs."""
        turn = list(turn)
        server = session_rules(self.connection.cfg) if self.connection.cfg else []
        return [*turn, *rules_to_answer([*server, *self.rules.base, *turn])]

    async def _agent_rules(self, agent: str | None) -> Sequence[Json]:
        name = agent
        if name is None:
            config = await self.connection.call(endpoints.config(), self.directory)
            name = text_or_none_of(config, "default_agent") or DEFAULT_AGENT
        agents = await self.connection.call(endpoints.agents(), self.directory)
        found = (objects_of(a.get("permission")) for a in agents if a.get("name") == name)
        return next(found, ())
