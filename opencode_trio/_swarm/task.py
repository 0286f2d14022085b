"""What an agent of a swarm should do, as a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeAlias, TypedDict, TypeGuard

import attrs

from opencode_trio._checks import StrPath, checked_prompt
from opencode_trio._session.structured import OutputKind, output_of
from opencode_trio.asks import PermissionCallback, QuestionCallback
from opencode_trio.config import RunConfig, layered
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.results import ValueT_co
from opencode_trio.session import Session

Work: TypeAlias = str | Callable[..., Awaitable[ValueT_co]]
"""A prompt, or an async function that gets a session first, and then the ``args``."""


class AgentOptions(TypedDict, total=False):
    """Options of one agent; ``None`` is as if it were left out."""

    name: str | None
    """What to call it."""
    workspace: StrPath | None
    """The directory it works in; by default the swarm's, then the server's."""
    run_cfg: RunConfig | None
    """Its settings, laid over the swarm's: what is unset here comes from there."""
    model: str | None
    """Its model, as ``provider/model``; this and the next three lie over `run_cfg`."""
    agent: str | None
    """The opencode agent that works."""
    permission: Mapping[str, Any] | str | None
    """What its tools may do."""
    tools: Mapping[str, Any] | None
    """Tools switched on and off."""
    timeout_s: float | None
    """Seconds from when its session is open."""
    max_cost_usd: float | None
    """The most US dollars, subagents' included; it is cancelled beyond."""
    max_tokens: int | None
    """The most tokens, likewise."""
    on_permission: PermissionCallback | None
    """Answers its requests for permission; by default the swarm's."""
    on_question: QuestionCallback | None
    """Answers its questions; by default the swarm's."""
    restartable: bool
    """Whether it may be done again from its beginning when its server ends under it."""
    worktree: bool
    """Whether it works in a git worktree of its own, of what is committed in the repository that
    `workspace` is in.  It is removed in the end, and its changes are the outcome's ``diff``."""


def _check_work(_: AgentTask, __: attrs.Attribute[Any], work: Any) -> None:
    if not callable(work):
        checked_prompt(work)


@attrs.frozen
class AgentTask(Generic[ValueT_co]):
    """What an agent should do, as a value.  The options are those of `AgentOptions`.

    Generic over what comes of it: the `RunResult` of a prompt, or what the function returns.

    Raises:
        OpenCodeConfigError: it cannot be done.
    """

    work: Work[ValueT_co] = attrs.field(validator=_check_work)
    """A prompt, or an async function."""
    args: tuple[Any, ...] = ()
    """What an async function gets beside the session."""
    name: str | None = None
    workspace: StrPath | None = None
    run_cfg: RunConfig | None = None
    model: str | None = None
    agent: str | None = None
    permission: Mapping[str, Any] | str | None = None
    tools: Mapping[str, Any] | None = None
    output: OutputKind[Any] | None = None
    """Of a prompt: a class or a JSON schema that the answer must match; see `Session.send`."""
    timeout_s: float | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    on_permission: PermissionCallback | None = None
    on_question: QuestionCallback | None = None
    restartable: bool = False
    worktree: bool = False

    def __attrs_post_init__(self) -> None:
        if self.args and isinstance(self.work, str):
            raise OpenCodeConfigError(
                "args: only an async function takes arguments, a prompt does not"
            )
        if self.output is not None:
            if not isinstance(self.work, str):
                raise OpenCodeConfigError(
                    "output: only for a prompt; a function passes it to `session.send`"
                )
            output_of(self.output)  # refuses what is invalid, and so does this:
        settings_of(self)


def settings_of(task: AgentTask, common: RunConfig | None = None) -> RunConfig:
    """Return a task's settings, laid over those that it has in common with others."""
    named = RunConfig(
        model=task.model, agent=task.agent, permission=task.permission, tools=task.tools
    )
    return layered(layered(common, task.run_cfg), named)


async def do(task: AgentTask, session: Session) -> Any:
    """Do a task; return its result."""
    if isinstance(task.work, str):
        return await session.send(task.work, output=task.output)
    return await task.work(session, *task.args)


def is_task(value: object) -> TypeGuard[AgentTask]:
    """Tell a task from a prompt and a function."""
    return isinstance(value, AgentTask)
