"""What the end of a turn in a session means to its caller: a result, or which error."""

from __future__ import annotations

from opencode_trio._turn import RETURNED, StopReason
from opencode_trio.errors import (
    OpenCodeCancelledError,
    OpenCodeError,
    OpenCodeServerError,
    OpenCodeTurnError,
)
from opencode_trio.events import ErrorInfo


def verdict(stop: StopReason, last_error: ErrorInfo | None) -> OpenCodeError | None:
    """Return the error that this end is; ``None`` if it is a result."""
    if stop in RETURNED:
        return None
    if stop == "cancelled":
        return OpenCodeCancelledError("the turn was aborted")
    if stop == "error" and last_error is not None:
        return turn_error(last_error)
    return OpenCodeServerError("the server ended the turn in the middle of it")


def turn_error(error: ErrorInfo) -> OpenCodeTurnError:
    status = f" (HTTP {error.status_code})" if error.status_code else ""
    return OpenCodeTurnError(f"{error.name}{status}: {error.message}", error=error)
