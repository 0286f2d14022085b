"""`OpenCodeSession`: a conversation on a server of its own."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from opencode_trio._opener import ServerOpener
from opencode_trio._workspace import StrPath
from opencode_trio.asks import PermissionCallback, QuestionCallback
from opencode_trio.config import RunConfig
from opencode_trio.server import TITLE
from opencode_trio.session import Session


class OpenCodeSession(Session):
    """A conversation that owns its server; use it as an async context manager.

    Entering it starts ``opencode serve`` and creates a session in the workspace; leaving it deletes
    the session and ends the server with all that it started.  For several conversations, open one
    server and its `OpenCodeServer.open_session`: a server takes two seconds and half a gigabyte.

    Args:
        client: opens the server.
        workspace: the directory the agent works in.
        run_cfg: the settings.
        title: the session's title; ``None`` lets opencode ask a model for one.
        on_permission: answers requests for permission; without it they are refused at once.
        on_question: answers the model's questions; without it they are dismissed at once.

    **Cancellation**: aborts the turn that runs, and ends the server.
    """

    def __init__(
        self,
        client: ServerOpener,
        workspace: StrPath,
        *,
        run_cfg: RunConfig | None = None,
        title: str | None = TITLE,
        on_permission: PermissionCallback | None = None,
        on_question: QuestionCallback | None = None,
    ) -> None:
        self._client = client
        self._workspace = workspace
        self._run_cfg = run_cfg
        self._options: dict[str, Any] = {
            "title": title,
            "on_permission": on_permission,
            "on_question": on_question,
        }
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return (
            super().__repr__() if "_id" in vars(self) else f"<{type(self).__name__}, not entered>"
        )

    def __getattr__(self, name: str) -> Any:
        # Called for what is missing: all that `Session` sets on entering.
        if "_id" in vars(self):
            raise AttributeError(name)
        raise RuntimeError(
            f"{name}: enter the session first: `async with {type(self).__name__}(...)`"
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                self._client.open_server(self._workspace, run_cfg=self._run_cfg)
            )
            session = await stack.enter_async_context(
                server.open_session(self._workspace, delete_on_exit=True, **self._options)
            )
            self._attach(session._plan)  # noqa: SLF001 - of the same class
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, value, traceback)
