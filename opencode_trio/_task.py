"""What an agent of a swarm shall do, as a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypedDict

import attrs

from opencode_trio._checks import checked_prompt
from opencode_trio._workspace import StrPath
from opencode_trio.asks import PermissionCallback, QuestionCallback
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.session import Session

Work: TypeAlias = str | Callable[..., Awaitable[Any]]
"""A prompt, or an async function that gets a session first, and then the ``args``."""


class AgentOptions(TypedDict, total=False):
    """Options of one agent; all may be left out."""

    name: str
    """What to call it."""
    workspace: StrPath
    """The directory it works in; by default the swarm's, then the server's."""
    run_cfg: RunConfig
    """Its settings; by default the swarm's."""
    output: type | Mapping[str, Any]
    """Of a prompt: a JSON schema or an attrs class that the answer must match."""
    timeout_s: float
    """Seconds from when its session is open."""
    max_cost_usd: float
    """The most US dollars, subagents' included; it is cancelled beyond."""
    max_tokens: int
    """The most tokens, likewise."""
    on_permission: PermissionCallback
    """Answers its requests for permission; by default the swarm's."""
    on_question: QuestionCallback
    """Answers its questions; by default the swarm's."""
    restartable: bool
    """Whether it may be done again from its beginning when its server ends under it."""
    worktree: bool
    """Whether it works in a git worktree of its own, of what is committed in the repository that
    `workspace` is in.  It is removed in the end, and its changes are the outcome's ``diff``."""


def _check_work(_: AgentTask, __: attrs.Attribute[Any], work: object) -> None:
    if not callable(work):
        checked_prompt(work)


@attrs.frozen
class AgentTask:
    """What an agent shall do, as a value.  The options are those of `AgentOptions`.

    Raises:
        OpenCodeConfigError: it cannot be done.
    """

    work: Work = attrs.field(validator=_check_work)
    """A prompt, or an async function."""
    args: tuple[Any, ...] = ()
    """What an async function gets beside the session."""
    name: str | None = None
    workspace: StrPath | None = None
    run_cfg: RunConfig | None = None
    output: type | Mapping[str, Any] | None = None
    timeout_s: float | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    on_permission: PermissionCallback | None = None
    on_question: QuestionCallback | None = None
    restartable: bool = False
    worktree: bool = False

    def __attrs_post_init__(self) -> None:
        if self.args and isinstance(self.work, str):
            raise OpenCodeConfigError("args: go to an async function; a prompt has none")
        if self.output is not None and not isinstance(self.work, str):
            raise OpenCodeConfigError("output: goes with a prompt; a function asks as it likes")

    async def do(self, session: Session) -> Any:
        """Do it; return what came of it."""
        if isinstance(self.work, str):
            return await session.send(self.work, output=self.output)
        return await self.work(session, *self.args)
