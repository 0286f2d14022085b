"""Directories that opencode would take for others are refused by name, before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fake_server import FakeServer
from opencode_trio._checks import checked_workspace
from opencode_trio._protocol.v1 import V1
from opencode_trio._server.connection import Connection
from opencode_trio._tasks import open_background
from opencode_trio.client import AsyncOpenCodeClient
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.server import OpenCodeServer
from opencode_trio.swarm import open_swarm

WRONG = {
    b"feature%2Fx": "is decoded by opencode",
    b"100%25": "is decoded by opencode",
    b"%c3%a9": "is decoded by opencode",
    b"back\\slash": "has a backslash",
    b"caf\xe9": "not UTF-8",
}
RIGHT = ["100%", "50% off", "caf\u00e9", "a b", "%zz", "\u2028", "-x", "a+b"]


@pytest.mark.parametrize("name", WRONG, ids=repr)
def test_a_name_that_opencode_would_take_for_another(name: bytes, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(name)
    for workspace in (folder, folder / "below"):
        workspace.mkdir()
        with pytest.raises(OpenCodeConfigError, match=f"workspace: .*{WRONG[name]}"):
            checked_workspace(workspace)


@pytest.mark.parametrize("name", RIGHT)
def test_other_names_are_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    assert checked_workspace(tmp_path / name) == (tmp_path / name).resolve()


async def test_every_way_in_refuses_such_a_name(tmp_path: Path) -> None:
    workspace = tmp_path / "feature%2Fx"
    workspace.mkdir()
    client = AsyncOpenCodeClient("/nowhere/opencode")
    with pytest.raises(OpenCodeConfigError, match="is decoded by opencode"):
        await client.async_run("Go.", workspace)
    with pytest.raises(OpenCodeConfigError, match="is decoded by opencode"):
        async with client.open_server(workspace):
            pass
    with pytest.raises(OpenCodeConfigError, match="is decoded by opencode"):
        async with open_swarm(client, workspace=workspace):
            pass
    async with open_background() as tasks:
        link = Connection(FakeServer(), V1, url="fake", tasks=tasks)  # of somebody else
        server = OpenCodeServer(link, workspace=None, version="1.18.33")
        with pytest.raises(OpenCodeConfigError, match="is decoded by opencode"):
            async with server.open_session("/srv/feature%2Fx"):
                pass
