"""Message ids of opencode's make.

Ids sort by time, and opencode compares them as text: ``msg_``, then twelve hex digits of
``(milliseconds << 12 | counter) mod 2**48``, then fourteen characters of base 62.  A message whose
id were not of this make would be sorted before or after all others.
"""

from __future__ import annotations

import re
import string

import attrs

from opencode_trio.errors import OpenCodeConfigError

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM_CHARACTERS = 14
COUNTER_BITS = 12
STAMP_BITS = 48

KINDS = {"ses": "session", "msg": "message", "prt": "part", "per": "permission", "que": "question"}
"""The prefixes of ids, and what they name."""


def checked_id(prefix: str, value: object) -> str:
    """Return the id if it is one of this kind.

    opencode answers 500 to an id that it cannot parse, and an id becomes part of a path.

    Raises:
        OpenCodeConfigError: it is not one.
    """
    if isinstance(value, str) and re.fullmatch(rf"{prefix}_?[A-Za-z0-9_-]+", value):
        return value
    raise OpenCodeConfigError(
        f"{value!r} is not a {KINDS[prefix]} id, which starts with '{prefix}_'"
    )


def message_id(stamp: int, randomness: bytes) -> str:
    """Make a message id.

    Args:
        stamp: milliseconds since the epoch times 4096, plus a counter; taken modulo 2**48.
        randomness: at least fourteen random bytes.
    """
    tail = "".join(ALPHABET[byte % len(ALPHABET)] for byte in randomness[:RANDOM_CHARACTERS])
    return f"msg_{stamp % (1 << STAMP_BITS):012x}{tail}"


def stamp_of(identifier: str) -> int | None:
    """Read the 48 bits of time and counter in an id; ``None`` if it has none."""
    found = re.match(r"[a-z]+_([0-9a-f]{12})", identifier)
    return int(found[1], 16) if found else None


def milliseconds_near(stamp: int, now_ms: float) -> float:
    """Undo the wrap of a stamp: the time nearest to `now_ms` that has these low bits."""
    period = 1 << (STAMP_BITS - COUNTER_BITS)
    time = stamp >> COUNTER_BITS
    return time + round((now_ms - time) / period) * period


LATEST_MS = 1000.0
"""How late an event's time can be by its way here.  More is a clock that was set back."""


@attrs.define
class MessageIds:
    """The ids of a server's messages, in order within each session.

    The server's clock counts, since its own messages' ids must sort among ours.  What is known
    of it comes from ids it made itself (those of its events).
    """

    skew_ms: float | None = None
    """How far the server's clock is ahead of ours; ``None`` while nothing is known of it."""

    def saw(self, identifier: str, now_ms: float) -> None:
        """Learn the server's time from an id that it made, received at `now_ms` of our clock.

        What an event tells is late by its way here; so the greatest skew seen is the best known,
        until a clock is set back.  It errs, if at all, towards an id that is a moment too early,
        which does no harm.
        """
        stamp = stamp_of(identifier)
        if stamp is None:
            return
        skew = milliseconds_near(stamp, now_ms) - now_ms
        if self.skew_ms is None or not 0 <= self.skew_ms - skew <= LATEST_MS:
            self.skew_ms = skew

    def server_ms(self, now_ms: float) -> float:
        """Return the server's time at `now_ms` of our clock."""
        return now_ms + (self.skew_ms or 0.0)

    def next(self, now_ms: float, randomness: bytes, *, after: str | None = None) -> str:
        """Make an id later than `after`, the newest one of its session."""
        stamp = int(self.server_ms(now_ms)) << COUNTER_BITS
        if after is not None and (bits := stamp_of(after)) is not None:
            time = int(milliseconds_near(bits, now_ms)) << COUNTER_BITS
            stamp = max(stamp, time + bits % (1 << COUNTER_BITS) + 1)
        return message_id(stamp, randomness)
