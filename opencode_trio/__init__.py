"""Run the OpenCode coding agent from trio programs."""

# The house, from the ground up; no module knows one above it (a test holds that):
#
#   pure core    values and functions: events, results, settings, commands
#   processes    one child and its family, owned by a block
#   server       one server, one event stream, many subscribers
#   session      a conversation, its turns, its questions, its subagents
#   swarm        many agents, one limit, one budget
#   face         what programs import: all of the above, and `opencode_trio.testing`

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencode_trio._process.binary import resolve_binary
    from opencode_trio._process.child_setup import build_env
    from opencode_trio._process.environment import build_argv
    from opencode_trio._process.supervisor import Graces
    from opencode_trio._protocol.v1.run_lines import parse_event_line
    from opencode_trio._report.figures import AgentReport, Figures
    from opencode_trio._report.spans import Span, SpanKind
    from opencode_trio._run.run import Run
    from opencode_trio._session.settings import TurnOptions
    from opencode_trio._session.turn import Turn
    from opencode_trio._swarm.agent import Agent, AgentStatus, Outcome
    from opencode_trio._swarm.snapshots import AgentPhase, AgentSnapshot, SwarmSnapshot
    from opencode_trio._swarm.task import AgentOptions, AgentTask
    from opencode_trio._tasks import OpenCodeTimeoutError
    from opencode_trio._turn.budgets import Budget, Spending, limit_spending
    from opencode_trio._turn.result import (
        aggregate_run_result,
        aggregate_server_result,
        run_result_fuzzy_text,
    )
    from opencode_trio.asks import (
        AskRequest,
        PermissionAnswer,
        PermissionCallback,
        PermissionRequest,
        QuestionAnswer,
        QuestionCallback,
        QuestionRequest,
        Reject,
    )
    from opencode_trio.client import (
        AsyncOpenCodeClient,
    )
    from opencode_trio.config import (
        PermissionMap,
        RunConfig,
        split_model,
        validate_config_for_run,
        validate_permission_actions,
    )
    from opencode_trio.errors import (
        OpenCodeBinaryNotFoundError,
        OpenCodeCancelledError,
        OpenCodeConfigError,
        OpenCodeError,
        OpenCodeLimitError,
        OpenCodeProcessError,
        OpenCodeServerError,
        OpenCodeTurnError,
        OpenCodeVersionError,
    )
    from opencode_trio.events import (
        Diagnostic,
        ErrorInfo,
        ErrorReported,
        Event,
        InstanceDisposed,
        MessageUpdated,
        OtherPart,
        PartEvent,
        PermissionAsked,
        PermissionReplied,
        Question,
        QuestionAsked,
        QuestionOption,
        QuestionRejected,
        QuestionReplied,
        ReasoningDelta,
        ReasoningPart,
        ServerConnected,
        ServerHeartbeat,
        SessionBusy,
        SessionCompacted,
        SessionCreated,
        SessionDeleted,
        SessionIdle,
        SessionInfoEvent,
        SessionRetrying,
        SessionUpdated,
        StepFinished,
        StepStarted,
        TextDelta,
        TextPart,
        TodoUpdated,
        TokenUsage,
        ToolPart,
        ToolStatus,
        UnknownEvent,
    )
    from opencode_trio.report import (
        Report,
    )
    from opencode_trio.results import RunResult, StopReason, Teardown
    from opencode_trio.server import (
        OpenCodeServer,
        OpenCodeSession,
        ServerStatistics,
        connect_server,
    )
    from opencode_trio.session import (
        Session,
    )
    from opencode_trio.swarm import (
        Swarm,
        open_swarm,
    )

__version__ = "0.1.0"

# A name is imported when it is first asked for: a program that runs agents does not pay for
# servers, and one that only reads events pays for neither.
_HOMES = {
    "_process.binary": "resolve_binary",
    "_process.child_setup": "build_env",
    "_process.environment": "build_argv",
    "_process.supervisor": "Graces",
    "_protocol.v1.run_lines": "parse_event_line",
    "_report.figures": "AgentReport Figures",
    "_report.spans": "Span SpanKind",
    "_run.run": "Run",
    "_session.settings": "TurnOptions",
    "_session.turn": "Turn",
    "_swarm.agent": "Agent AgentStatus Outcome",
    "_swarm.snapshots": "AgentPhase AgentSnapshot SwarmSnapshot",
    "_swarm.task": "AgentOptions AgentTask",
    "_tasks": "OpenCodeTimeoutError",
    "_turn.budgets": "Budget Spending limit_spending",
    "_turn.result": "aggregate_run_result aggregate_server_result run_result_fuzzy_text",
    "asks": """
        AskRequest PermissionAnswer PermissionCallback PermissionRequest QuestionAnswer
        QuestionCallback QuestionRequest Reject
    """,
    "client": "AsyncOpenCodeClient",
    "config": """
        PermissionMap RunConfig split_model validate_config_for_run validate_permission_actions
    """,
    "errors": """
        OpenCodeBinaryNotFoundError OpenCodeCancelledError OpenCodeConfigError OpenCodeError
        OpenCodeLimitError OpenCodeProcessError OpenCodeServerError OpenCodeTurnError
        OpenCodeVersionError
    """,
    "events": """
        Diagnostic ErrorInfo ErrorReported Event InstanceDisposed MessageUpdated OtherPart
        PartEvent PermissionAsked PermissionReplied Question QuestionAsked QuestionOption
        QuestionRejected QuestionReplied ReasoningDelta ReasoningPart ServerConnected
        ServerHeartbeat SessionBusy SessionCompacted SessionCreated SessionDeleted SessionIdle
        SessionInfoEvent SessionRetrying SessionUpdated StepFinished StepStarted TextDelta
        TextPart TodoUpdated TokenUsage ToolPart ToolStatus UnknownEvent
    """,
    "report": "Report",
    "results": "RunResult StopReason Teardown",
    "server": "OpenCodeServer OpenCodeSession ServerStatistics connect_server",
    "session": "Session",
    "swarm": "Swarm open_swarm",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Agent",
    "AgentOptions",
    "AgentPhase",
    "AgentReport",
    "AgentSnapshot",
    "AgentStatus",
    "AgentTask",
    "AskRequest",
    "AsyncOpenCodeClient",
    "Budget",
    "Diagnostic",
    "ErrorInfo",
    "ErrorReported",
    "Event",
    "Figures",
    "Graces",
    "InstanceDisposed",
    "MessageUpdated",
    "OpenCodeBinaryNotFoundError",
    "OpenCodeCancelledError",
    "OpenCodeConfigError",
    "OpenCodeError",
    "OpenCodeLimitError",
    "OpenCodeProcessError",
    "OpenCodeServer",
    "OpenCodeServerError",
    "OpenCodeSession",
    "OpenCodeTimeoutError",
    "OpenCodeTurnError",
    "OpenCodeVersionError",
    "OtherPart",
    "Outcome",
    "PartEvent",
    "PermissionAnswer",
    "PermissionAsked",
    "PermissionCallback",
    "PermissionMap",
    "PermissionReplied",
    "PermissionRequest",
    "Question",
    "QuestionAnswer",
    "QuestionAsked",
    "QuestionCallback",
    "QuestionOption",
    "QuestionRejected",
    "QuestionReplied",
    "QuestionRequest",
    "ReasoningDelta",
    "ReasoningPart",
    "Reject",
    "Report",
    "Run",
    "RunConfig",
    "RunResult",
    "ServerConnected",
    "ServerHeartbeat",
    "ServerStatistics",
    "Session",
    "SessionBusy",
    "SessionCompacted",
    "SessionCreated",
    "SessionDeleted",
    "SessionIdle",
    "SessionInfoEvent",
    "SessionRetrying",
    "SessionUpdated",
    "Span",
    "SpanKind",
    "Spending",
    "StepFinished",
    "StepStarted",
    "StopReason",
    "Swarm",
    "SwarmSnapshot",
    "Teardown",
    "TextDelta",
    "TextPart",
    "TodoUpdated",
    "TokenUsage",
    "ToolPart",
    "ToolStatus",
    "Turn",
    "TurnOptions",
    "UnknownEvent",
    "aggregate_run_result",
    "aggregate_server_result",
    "build_argv",
    "build_env",
    "connect_server",
    "limit_spending",
    "open_swarm",
    "parse_event_line",
    "resolve_binary",
    "run_result_fuzzy_text",
    "split_model",
    "validate_config_for_run",
    "validate_permission_actions",
]
