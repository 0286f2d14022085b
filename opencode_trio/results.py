"""`RunResult`: what came of a turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeGuard

import attrs

from opencode_trio.events import TokenUsage, ToolPart

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from attrs import AttrsInstance
    from typing_extensions import TypeVar, TypeVarTuple

    class PydanticInstance(Protocol):
        """An instance of a pydantic model, known without pydantic."""

        __pydantic_validator__: ClassVar[Any]

    AnswerKind = AttrsInstance | DataclassInstance | Mapping[str, object] | PydanticInstance
    """What an answer can be; the mapping is a TypedDict."""

    AnswerT = TypeVar("AnswerT", bound=AnswerKind, default=Any)
    StructuredT_co = TypeVar("StructuredT_co", covariant=True, default=Any)
    ValueT = TypeVar("ValueT")
    ValueT_co = TypeVar("ValueT_co", covariant=True, default=Any)
    VerdictT = TypeVar("VerdictT", default=Any)
else:
    from typing import TypeVar, TypeVarTuple

    AnswerT = TypeVar("AnswerT")
    StructuredT_co = TypeVar("StructuredT_co", covariant=True)
    ValueT = TypeVar("ValueT")
    ValueT_co = TypeVar("ValueT_co", covariant=True)
    VerdictT = TypeVar("VerdictT")


ArgsT = TypeVarTuple("ArgsT")
"""What an async function gets beside its session."""


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


@attrs.frozen(kw_only=True)
class Teardown:
    """How the processes of a run were ended."""

    terminated: int = 0
    """How many were still there when the run was over and were sent SIGTERM."""
    killed: int = 0
    """How many of those did not go within the grace and were sent SIGKILL."""
    survivors: tuple[int, ...] = ()
    """The pids that could not be ended (another user's, or stuck in the kernel)."""
    is_certain: bool = True
    """Whether nobody else can be left.  Not certain where there is no child subreaper (macOS),
    nor when somebody killed the process that keeps the family together."""


_NONE: Any = None  # as what no answer of any type can be


@attrs.frozen(kw_only=True)
class RunResult(Generic[StructuredT_co]):
    """The outcome of a turn, or of as much of it as has arrived.

    Generic over its structured answer: ``RunResult[Review]`` has a ``structured: Review``.
    """

    final_text: str = ""
    """The answer: the text of the last assistant message that has any.  Neither a compaction
    summary nor text that opencode itself put in counts."""
    text: str = ""
    """All the text of the turn's assistant messages, a newline between two messages."""
    stop_reason: StopReason | None = None
    """Why the turn ended; ``None`` while it goes on."""
    structured: StructuredT_co = _NONE
    """The structured answer; ``None`` if none was asked for."""
    session_id: str | None = None
    """The session the turn ran in."""
    turns: int = 0
    """How many steps the model finished: one request and its reply each."""
    tool_calls: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]], repr=False)
    """The tool calls as the wire tells them, each once, in its last state.  ``run`` and a server tell
    them differently; `tool_parts` reads the same."""
    tool_parts: tuple[ToolPart, ...] = attrs.field(default=(), repr=False)
    """The tool calls as events, each once, in its last state."""
    token_usage: TokenUsage = attrs.field(factory=TokenUsage)
    """Tokens of the whole session tree."""
    total_cost: float = 0.0
    """US dollars, of the whole session tree; 0 when opencode knows no price for the model."""
    cost_by_session: Mapping[str, float] = attrs.field(factory=dict[str, float], repr=False)
    """US dollars by session: the turn's own and those of its subagents."""
    duration_s: float | None = None
    """Seconds from the call to the end of the turn."""
    exit_code: int | None = None
    """The process's exit status, minus the signal's number if one ended it; ``None`` in a
    session.  No verdict: opencode exits with 0 on failures and with 1 on success."""
    stderr: str = attrs.field(default="", repr=False)
    """The end of what the process wrote to stderr, without colours."""
    events: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]], repr=False)
    """Every record as it came over the wire, unknown fields included."""
    raw_stdout_lines: list[str] = attrs.field(factory=list[str], repr=False)
    """Every line of the process's output; empty in a session."""
    teardown: Teardown | None = None
    """How the run's processes were ended; ``None`` before that, and in a session."""


def is_result(value: object) -> TypeGuard[RunResult]:
    """Tell a result from what else a function may return."""
    return isinstance(value, RunResult)
