"""Who opens servers: a client, said without naming it, for it is the layer above."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from opencode_trio._workspace import StrPath
from opencode_trio.config import RunConfig
from opencode_trio.server import OpenCodeServer


@runtime_checkable
class ServerOpener(Protocol):
    """What is asked of a client."""

    def open_server(
        self, workspace: StrPath, *, run_cfg: RunConfig | None = None
    ) -> AbstractAsyncContextManager[OpenCodeServer]:
        """Open a server."""
        ...
