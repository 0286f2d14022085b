"""Which session is whose subagent.

A subagent works in a session of its own, whose events, questions and costs belong to the turn that
started it, at any depth.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

MAX_DEPTH = 64
"""A chain of parents longer than this is no chain but a circle in what a server told us."""


@attrs.frozen
class _Node:
    parent_id: str | None
    agent: str | None


@attrs.define
class SessionTree:
    """What is known of parents, from events and from answers."""

    _nodes: dict[str, _Node] = attrs.field(factory=dict[str, _Node])

    def add(self, session_id: str, parent_id: str | None, agent: str | None = None) -> None:
        """Take note of a session.  What a later note leaves out stays as it was."""
        known = self._nodes.get(session_id, _Node(None, None))
        self._nodes[session_id] = _Node(parent_id or known.parent_id, agent or known.agent)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def parent_of(self, session_id: str) -> str | None:
        node = self._nodes.get(session_id)
        return node.parent_id if node else None

    def agent_of(self, session_id: str) -> str | None:
        node = self._nodes.get(session_id)
        return node.agent if node else None

    def ancestors(self, session_id: str) -> Iterator[str]:
        """Go from a session upward, itself first."""
        at: str | None = session_id
        for _ in range(MAX_DEPTH):
            if at is None:
                return
            yield at
            at = self.parent_of(at)

    def depth(self, session_id: str, root: str) -> int:
        """Count the steps from a session up to `root`."""
        return next((n for n, at in enumerate(self.ancestors(session_id)) if at == root), 0)

    def descendants(self, root: str) -> list[str]:
        """List the sessions below one, the deepest first."""
        below = [s for s in self._nodes if s != root and root in self.ancestors(s)]
        return sorted(below, key=lambda s: self.depth(s, root), reverse=True)

    def forget(self, session_id: str) -> None:
        """Drop a session and all below it."""
        for gone in [*self.descendants(session_id), session_id]:
            self._nodes.pop(gone, None)
