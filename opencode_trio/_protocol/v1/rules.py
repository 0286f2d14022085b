"""Permissions as the rules of 1.x.

A rule is ``{"permission", "pattern", "action"}``; of those that match, the last one counts.  The
server can only add rules to a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from opencode_trio._json import Json, is_mapping, objects_of, text_or_none_of
from opencode_trio._protocol.v1 import routes
from opencode_trio._protocol.values import Send, SessionRecord
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeServerError

EDITORS = frozenset({"write", "edit", "patch", "multiedit", "apply_patch"})
"""The tools whose permission opencode calls ``edit``."""


ANSWER_TOOL = "StructuredOutput"
"""The tool of opencode's that a model gives a structured answer with."""


def rule(permission: str, pattern: str, action: str) -> Json:
    return {"permission": permission, "pattern": pattern, "action": action}


def rules_of(cfg: RunConfig) -> list[Json]:
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
        (broad if "*" in name else narrow).extend(_rules_for(name, setting))
    return [*broad, *_tool_rules(cfg.tools or {}), *narrow]


def _rules_for(name: str, setting: Any) -> list[Json]:
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


def check_taken(record: SessionRecord, rules: Sequence[Json]) -> None:
    """See that a session has the rules that it was given: old releases pass over them.

    Args:
        record: the server's record of the session, after it was given the rules.
        rules: the rules.

    Raises:
        OpenCodeServerError: it does not have them.
    """
    if rules and objects_of(record.raw.get("permission"))[-len(rules) :] != list(rules):
        raise OpenCodeServerError(
            "this opencode does not take permission rules here; give them to the server, or use a "
            "newer opencode"
        )


class SessionRules:
    """The rules of one session on its server, which can only be given more.

    Args:
        send: sends a call, in the session's directory.
        session_id: the session.
        own: the session's own rules.
        server: those of the server, as far as known.
    """

    def __init__(
        self, send: Send, session_id: str, *, own: Sequence[Json], server: Sequence[Json]
    ) -> None:
        self._send = send
        self._session_id = session_id
        self._own = own
        self._server = server
        self._has_changed = False  # on the server, since the session was created
        self._newest: list[Json] | None = None  # that the server is known to have

    async def apply(self, turn: Sequence[Json], agent: str | None) -> None:
        """Put a turn's rules in force, and those of no turn before it.

        Args:
            turn: the rules of this turn alone.
            agent: the agent that works; ``None`` is the default one.

        Raises:
            OpenCodeServerError: the server failed, or does not take rules here.
        """
        if not self._has_changed and not turn:
            return
        # The agent's own rules, repeated on top of what a former turn left behind, make it as if
        # that had never been.
        agent_rules = await self._agent_rules(agent) if self._has_changed else ()
        wanted = [*agent_rules, *self._own, *turn]
        if not wanted or wanted == self._newest:
            return
        # From here on the server may have more, whether its answer is heard or not.
        self._has_changed, self._newest = True, None
        record = await self._send(routes.add_rules(self._session_id, wanted))
        try:
            check_taken(record, wanted)
        except OpenCodeServerError:
            self._has_changed = False
            raise
        self._newest = wanted

    def with_answer_tool(self, turn: Sequence[Json]) -> list[Json]:
        """Return a turn's rules, with what a structured answer needs."""
        return [*turn, *rules_to_answer([*self._server, *self._own, *turn])]

    async def _agent_rules(self, agent: str | None) -> Sequence[Json]:
        if agent is None:
            config = await self._send(routes.config())
            agent = text_or_none_of(config, "default_agent") or routes.DEFAULT_AGENT
        agents = await self._send(routes.agents())
        found = (objects_of(a.get("permission")) for a in agents if a.get("name") == agent)
        return next(found, ())


def session_rules(
    send: Send, session_id: str, *, own: Sequence[Json], server: Sequence[Json]
) -> SessionRules:
    """Keep the rules of one session; the arguments are those of `SessionRules`."""
    return SessionRules(send, session_id, own=own, server=server)
