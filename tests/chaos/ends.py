"""How a turn ended, in one word: whatever came out of the call that the user awaits."""

from __future__ import annotations

from opencode_trio import (
    OpenCodeCancelledError,
    OpenCodeConfigError,
    OpenCodeLimitError,
    OpenCodeProcessError,
    OpenCodeServerError,
    OpenCodeTimeoutError,
    OpenCodeTurnError,
    RunResult,
)


class ByUsError(Exception):
    """What the soak itself raises, as its user's code would; `end` is its name."""

    end = ""


class HandlerError(ByUsError):
    """Out of a handler of asks."""

    end = "handler"


class ListenerError(ByUsError):
    """Out of `on_event`."""

    end = "listener"


class BodyError(ByUsError):
    """Out of the block of a stream."""

    end = "body"


class SiblingError(ByUsError):
    """Out of a task beside the turn, in the same nursery."""

    end = "sibling"


CANCELLED = "cancelled"
"""Our own cancellation, as everywhere in trio."""

LEFT = "left"
"""The stream's block was left early."""

RESULTS = frozenset({"completed", "length", "content_filter", "empty", "blocked"})
"""Ends that are a `RunResult`."""


def end_of(outcome: RunResult | BaseException) -> str:
    """Name the end of a turn."""
    match outcome:
        case RunResult():
            return str(outcome.stop_reason)
        case ByUsError():
            return outcome.end
        case OpenCodeTimeoutError():
            return "timeout"
        case OpenCodeTurnError(name=name, status_code=status):
            return f"turn-error {name} {status}" if status else f"turn-error {name}"
        case OpenCodeLimitError(limit=limit):
            return f"limit {limit}"
        case OpenCodeCancelledError():
            return "aborted"
        case OpenCodeServerError(status_code=status):
            return f"server {status}" if status else "server"
        case OpenCodeProcessError(exit_code=code):
            return f"process {code}"
        case OpenCodeConfigError():
            return "config"
        case _:
            return f"unexpected {type(outcome).__name__}"
