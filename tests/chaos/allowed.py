"""Which ends a fault allows: tables, and nothing that is always right.

A plot says how its turn ends undisturbed.  What the caller does to the turn (a twist) and what
happens to its server meanwhile (a gust) may add ends, those in the tables here and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from chaos.ends import CANCELLED, LEFT

TWISTS: Mapping[str, str | None] = {
    "none": None,
    "cancel scope": CANCELLED,
    "time limit": "timeout",
    "break": LEFT,
    "body error": "body",
    "sibling": "sibling",
    "listener": "listener",
    "third party": "aborted",
    "deletion": "server 404",
    "handle": CANCELLED,
}
"""What the caller does to a turn, and the end that is its due."""

BY_EVENT = ("break", "body error", "listener")
"""Twists whose moment is the number of an event; the others' is in seconds."""


@attrs.frozen
class Shelter:
    """Which ends a gust adds."""

    to_turns: frozenset[str] = frozenset()
    to_opening: frozenset[str] = frozenset()
    """To a session that is being opened, where no turn has begun that could be looked after."""


GONE = frozenset({"server"})

GUSTS: Mapping[str, Shelter] = {
    # The process itself.
    "kill": Shelter(GONE, GONE),
    "freeze": Shelter(),
    # Its directory, let go of by somebody else, which aborts who works there.
    "dispose": Shelter(frozenset({"aborted"})),
    # Its connections: a turn is to notice nothing.  To create a session twice does harm, so a
    # request for one that got no answer fails.
    "drop events": Shelter(),
    "mute events": Shelter(),
    "lose answers": Shelter(),
    "outage": Shelter(to_opening=GONE),
    # All that runs.
    "cancel all": Shelter(frozenset({CANCELLED}), frozenset({CANCELLED})),
}
"""What happens to a server, and what of that may be noticed."""

OPENING = frozenset({"opened"})
"""How the opening of a session ends, undisturbed."""


def allowed(
    ends: Iterable[str], twist: str, gusts: Iterable[str], *, opening: bool = False
) -> frozenset[str]:
    """Say how a turn may end.

    Args:
        ends: its ends when nothing disturbs it.
        twist: what the caller does to it.
        gusts: what happens to its server meanwhile.
        opening: whether it is no turn but the opening of its session.
    """
    due = TWISTS[twist]
    found = frozenset(ends) | (frozenset() if due is None else {due})
    for gust in gusts:
        shelter = GUSTS[gust]
        found |= shelter.to_opening if opening else shelter.to_turns
    return found
