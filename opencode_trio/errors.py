"""What can go wrong, by whose fault it is.

    OpenCodeError
    ├── OpenCodeConfigError (ValueError)   you: a setting, a prompt, a workspace
    ├── OpenCodeBinaryNotFoundError        this machine: no opencode to run
    ├── OpenCodeVersionError               this machine: an opencode we cannot drive
    ├── OpenCodeProcessError               opencode: it crashed, or ended without an answer
    ├── OpenCodeServerError                opencode: its server failed or went away
    ├── OpenCodeTurnError                  the model or its provider
    ├── OpenCodeLimitError                 nobody: a budget or guard ended the turn
    ├── OpenCodeTimeoutError (trio.TooSlowError)   nobody: ``timeout_s`` was up
    └── OpenCodeCancelledError             somebody else: the turn was aborted

`OpenCodeTimeoutError` lives in `_tasks`, because it is also trio's.  Cancelling a run of your
own raises none of these: it is `trio.Cancelled`, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from opencode_trio.events import ErrorInfo
from opencode_trio.results import RunResult

STDERR_IN_A_MESSAGE = 2000
"""The last characters of stderr that an error's text repeats; all of the tail is in ``stderr``."""


class OpenCodeError(Exception):
    """Anything this library raises.

    Attributes:
        partial: what had arrived when it happened; ``None`` when nothing had been started.
        stderr: the end of what the process wrote to stderr; empty in a session.
        argv: the command line, when there was one.  The prompt is not in it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        partial: RunResult | None = None,
        stderr: str = "",
        argv: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.partial = partial
        self.stderr = stderr
        self.argv: tuple[str, ...] = tuple(argv)

    def __str__(self) -> str:
        message = super().__str__()
        tail = self.stderr.strip()[-STDERR_IN_A_MESSAGE:]
        return f"{message}\nstderr (its end):\n{tail}" if tail else message


class OpenCodeConfigError(OpenCodeError, ValueError):
    """A setting, a prompt or a workspace is invalid; nothing was started."""


class OpenCodeBinaryNotFoundError(OpenCodeError):
    """There is no opencode to run: it was not found, or cannot be executed."""


class OpenCodeVersionError(OpenCodeError):
    """This version of opencode is not supported, or the program is not opencode.

    Attributes:
        version: what it says of itself.
    """

    def __init__(self, message: str = "", *, version: str = "", stderr: str = "") -> None:
        super().__init__(message, stderr=stderr)
        self.version = version


class OpenCodeProcessError(OpenCodeError):
    """opencode crashed, or ended without an answer.

    Attributes:
        exit_code: its exit status; minus the signal's number if a signal ended it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        exit_code: int | None = None,
        partial: RunResult | None = None,
        stderr: str = "",
        argv: Sequence[str] = (),
    ) -> None:
        super().__init__(message, partial=partial, stderr=stderr, argv=argv)
        self.exit_code = exit_code


class OpenCodeServerError(OpenCodeError):
    """opencode's server failed a request, broke its protocol, or went away.

    Attributes:
        status_code: the HTTP status, when there was an answer.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int | None = None,
        partial: RunResult | None = None,
        stderr: str = "",
        argv: Sequence[str] = (),
    ) -> None:
        super().__init__(message, partial=partial, stderr=stderr, argv=argv)
        self.status_code = status_code


class OpenCodeTurnError(OpenCodeError):
    """The model or its provider failed the turn.

    Attributes:
        error: everything opencode said of it.
        name: its name for the failure, for example ``APIError`` or ``ContextOverflowError``.
        status_code: the provider's HTTP status, when it was an HTTP failure.
        is_retryable: whether trying again may help; ``None`` when opencode does not say.
    """

    def __init__(
        self,
        message: str = "",
        *,
        error: ErrorInfo | None = None,
        partial: RunResult | None = None,
        stderr: str = "",
        argv: Sequence[str] = (),
    ) -> None:
        super().__init__(message, partial=partial, stderr=stderr, argv=argv)
        self.error: ErrorInfo = error or ErrorInfo("UnknownError")
        self.name: str = self.error.name
        self.status_code: int | None = self.error.status_code
        self.is_retryable: bool | None = self.error.is_retryable

    def __str__(self) -> str:
        said = self.error.message
        if said and said in self.stderr.replace('\\"', '"'):
            return str(self.args[0])  # the log says the same, at length
        return super().__str__()


class OpenCodeLimitError(OpenCodeError):
    """A budget or a guard against runaways ended the turn.

    Attributes:
        limit: which one, for example ``max_steps``.
        allowed: its value.
    """

    def __init__(
        self,
        message: str = "",
        *,
        limit: str = "",
        allowed: float | None = None,
        partial: RunResult | None = None,
        stderr: str = "",
        argv: Sequence[str] = (),
    ) -> None:
        super().__init__(message, partial=partial, stderr=stderr, argv=argv)
        self.limit = limit
        self.allowed = allowed


class OpenCodeCancelledError(OpenCodeError):
    """Somebody else aborted the turn: another client of the server, or opencode itself."""
