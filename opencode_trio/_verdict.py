"""What the end of a turn means to its caller: a result, or which error."""

from __future__ import annotations

from opencode_trio._turn import RETURNED, StopReason
from opencode_trio.errors import OpenCodeCancelledError, OpenCodeError, OpenCodeTurnError
from opencode_trio.events import ErrorInfo


def verdict(
    stop: StopReason, last_error: ErrorInfo | None, *, broken_off: OpenCodeError
) -> OpenCodeError | None:
    """Return the error that this end is; ``None`` if it is a result.

    Args:
        stop: what the end is called.
        last_error: the last failure that was reported.
        broken_off: the error of an end in the middle of the turn.
    """
    if stop in RETURNED:
        return None
    if stop == "cancelled":
        return OpenCodeCancelledError("the turn was aborted")
    if stop == "error" and last_error is not None:
        return turn_error(last_error)
    return broken_off


def turn_error(error: ErrorInfo) -> OpenCodeTurnError:
    """Put a reported failure into an error."""
    status = f" (HTTP {error.status_code})" if error.status_code else ""
    return OpenCodeTurnError(f"{error.name}{status}: {error.message}", error=error)
