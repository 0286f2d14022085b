"""What the tests of servers and sessions have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from opencode_trio._checks import StrPath
from opencode_trio._process.child_setup import prepare_child
from opencode_trio._server.start import ServePlan
from opencode_trio.config import RunConfig
from opencode_trio.server import OpenCodeServer, open_server
from opencode_trio.testing import ModelRequest, ReplyLike, ScriptedModel, open_scripted_model


class Programs:
    """A script that finds its reply by the prompt, and by how many tools have answered it since."""

    def __init__(self, programs: Mapping[str, Any]) -> None:
        self.programs = programs

    def __call__(self, request: ModelRequest) -> ReplyLike:
        reply = self.programs.get(request.prompt, self.programs.get("*", "ok"))
        if isinstance(reply, list):
            reply = reply[min(len(request.tool_results), len(reply) - 1)]
        chosen: ReplyLike = reply(request) if callable(reply) else reply
        return chosen


def serve_plan(binary: str, workspace: Path, cfg: RunConfig) -> ServePlan:
    return ServePlan(
        binary=binary,
        workspace=workspace,
        cfg=cfg,
        prepare_home=lambda: prepare_child(cfg, workspace, isolate_db=True, data_home=None),
    )


@asynccontextmanager
async def serving(
    binary: str, workspace: Path, programs: Mapping[str, Any], **overrides: Any
) -> AsyncIterator[tuple[OpenCodeServer, ScriptedModel]]:
    """Open a scripted model, and a server that talks to it."""
    async with open_scripted_model(Programs(programs)) as model:
        cfg = model.run_config(**{"snapshot": False} | overrides)
        async with open_server(serve_plan(binary, workspace.resolve(), cfg)) as server:
            yield server, model


class Opener:
    """As much of a client as a session of its own needs."""

    def __init__(self, binary: str) -> None:
        self.binary = binary

    def open_server(
        self, workspace: StrPath, *, run_cfg: RunConfig | None = None
    ) -> AbstractAsyncContextManager[OpenCodeServer]:
        cfg = run_cfg or RunConfig()
        return open_server(serve_plan(self.binary, Path(workspace).resolve(), cfg))
