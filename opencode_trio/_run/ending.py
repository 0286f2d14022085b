"""How a run ended, told by its events first, then by its exit status and its stderr."""

from __future__ import annotations

import re

import attrs

from opencode_trio._json import text_of
from opencode_trio._process.output import how_it_ended
from opencode_trio._turn.ending import ANSWERED, RETURNED, error_of_end
from opencode_trio._turn.fold import TurnFold
from opencode_trio.errors import OpenCodeConfigError, OpenCodeError, OpenCodeProcessError
from opencode_trio.events import ErrorInfo
from opencode_trio.results import RunResult, StopReason

AGENT_FALLBACK = re.compile(r'^! *agent "([^"]*)" .*[Ff]alling back to default agent', re.MULTILINE)
"""What opencode says, on stderr alone, when it runs another agent than the one asked for."""

FAILED_REQUEST = re.compile(
    r'message="stream error" providerID=(\S+) .*?error\.error="((?:[^"\\]|\\.)*)"'
)
"""What the log says of each request that a provider failed, also of those that are made again."""


def end_of_run(fold: TurnFold, exit_code: int | None) -> StopReason:
    """Name the end of a run that ended so.

    What the events say stands, with one exception: an end without an answer may as well be a
    crash.  It is not one if opencode left in good order, with 0, or with 1 after an error of which
    it had told.

    Args:
        fold: what the events say.
        exit_code: ``None`` if it ran on when it was left.
    """
    stop = fold.stop_reason or "incomplete"
    if stop in ANSWERED or stop not in RETURNED:
        return stop
    in_order = exit_code == 0 or (exit_code == 1 and fold.last_error is not None)
    return stop if in_order else "incomplete"


def failure_of_run(result: RunResult, last_error: ErrorInfo | None) -> OpenCodeError | None:
    """Return the error that the end of a run is; ``None`` if it is a result.

    The events have decided.  The exit status only describes a failure: it is 0 for a run that was
    blocked, and 1 for one that recovered.
    """
    if found := AGENT_FALLBACK.search(result.stderr):
        return OpenCodeConfigError(
            f"RunConfig.agent: opencode has no primary agent {found[1]!r} and ran its default agent instead"
        )
    if last_error is not None:
        last_error = attrs.evolve(last_error, message=_true_message(last_error, result.stderr))
    failed = FAILED_REQUEST.findall(result.stderr)
    return error_of_end(
        result.stop_reason or "incomplete",
        last_error,
        broken_off=_broken_off(result),
        provider=failed[-1][0] if failed else "",
    )


def _broken_off(result: RunResult) -> OpenCodeError:
    exit_code = result.exit_code or 0
    when = "in the middle of the turn" if result.events else "before the model was asked"
    how = how_it_ended(exit_code) + (f" {when}" if exit_code >= 0 else "")
    return OpenCodeProcessError(f"opencode {how}", exit_code=exit_code)


def _true_message(error: ErrorInfo, stderr: str) -> str:
    """Find in the log what an event calls only an "unexpected error" with a reference."""
    ref = text_of(dict(error.data), "ref")
    found = re.search(rf'ref={re.escape(ref)} error="((?:[^"\\]|\\.)*)"', stderr) if ref else None
    return found[1].replace('\\"', '"') if found else error.message
