"""When a turn is over, and what to call its end.

opencode does not say so itself: the end of a good stream of ``run`` looks like that of a
broken one, an ``error`` may be followed by a recovery, and the exit status is 0 for a blocked
run and 1 for a recovered one.  So every event is asked what the turn would be called if
nothing came after it.  The last word stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from opencode_trio.events import (
    ErrorReported,
    Event,
    MessageUpdated,
    StepFinished,
    StepStarted,
    TextPart,
)

StopReason = Literal[
    "completed",
    "length",
    "content_filter",
    "empty",
    "blocked",
    "error",
    "cancelled",
    "incomplete",
    "limit",
    "timeout",
]
"""Why a turn ended.

The model ended it, and the result is returned:

* ``completed``: it gave its answer.
* ``length``: its answer was cut at the most tokens it may write.
* ``content_filter``: the provider's filter cut it.
* ``empty``: it stopped without having said anything.
* ``blocked``: a permission was refused, and opencode stopped there.

Something else did, and an error is raised that carries the result as ``partial``:

* ``error``: the model or its provider failed.
* ``cancelled``: somebody aborted the turn.
* ``incomplete``: opencode ended in the middle of it.
* ``limit``: a budget or a guard of ours was passed.
* ``timeout``: its time was up.
"""

ENDS_OF_A_STEP: Mapping[str, StopReason] = {
    "stop": "completed",
    "length": "length",
    "content-filter": "content_filter",
    # After tool calls another step follows, unless a refused permission ended the loop.
    "tool-calls": "blocked",
}
"""By the finish reason of the last step.  Any other reason (``unknown`` is a stream that broke
off) makes opencode ask the model again."""

FAILURES: Mapping[str, StopReason] = {
    "MessageAbortedError": "cancelled",
    "ContentFilterError": "content_filter",
    "MessageOutputLengthError": "length",
}
"""By the name of the last error, when no step was finished after it."""

ANSWERED: frozenset[StopReason] = frozenset({"completed", "length", "content_filter"})
"""Ends that stand whatever becomes of the process."""

OVER: frozenset[StopReason] = frozenset({*ANSWERED, "empty"})
"""Ends after which opencode has nothing left to do."""

RETURNED: frozenset[StopReason] = frozenset({*ANSWERED, "empty", "blocked"})
"""Ends that are a result; the others are errors."""


def end_if_nothing_follows(event: Event) -> StopReason | None:
    """Name the turn's end, should this event be its last; ``None`` if it changes nothing."""
    match event:
        # The second: what had ended was a compaction's summary; the model is asked again.
        case StepStarted() | TextPart(is_synthetic=True, metadata={"compaction_continue": _}):
            return "incomplete"
        case StepFinished(reason=reason):
            return ENDS_OF_A_STEP.get(reason, "incomplete")
        case MessageUpdated(structured=answer) if answer is not None:
            return "completed"
        case ErrorReported(error=error) | MessageUpdated(error=error) if error is not None:
            return FAILURES.get(error.name, "error")
        case MessageUpdated(role="assistant", is_complete=True, finish=None):
            # Over without an end: aborted while it waited for its provider to recover.  opencode
            # (seen in 1.14 to 1.18) says it in no other way.
            return "cancelled"
        case _:
            return None
