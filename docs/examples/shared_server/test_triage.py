"""Tests that share a server: each opens sessions on it, and plays a script of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from opencode_trio import OpenCodeServer, RunConfig
from opencode_trio.testing import ModelRequest, ReplyLike

Play = Callable[[Callable[[ModelRequest], ReplyLike]], None]


async def triage(server: OpenCodeServer, workspace: Path, config: RunConfig, issue: str) -> str:
    """Say what kind of issue this is; replace it by your own code."""
    async with server.open_session(workspace, run_cfg=config, delete_on_exit=True) as session:
        result = await session.send(f"Bug or feature?\n\n{issue}")
    return result.final_text.strip().lower()


@pytest.mark.trio
async def test_a_crash_is_a_bug(
    server: OpenCodeServer, config: RunConfig, play: Play, tmp_path: Path
) -> None:
    asked: list[str] = []

    def script(request: ModelRequest) -> str:
        asked.append(request.prompt)
        return "Bug\n"

    play(script)
    assert await triage(server, tmp_path, config, "It crashes.") == "bug"
    assert asked == ["Bug or feature?\n\nIt crashes."]


@pytest.mark.trio
async def test_a_wish_is_a_feature(
    server: OpenCodeServer, config: RunConfig, play: Play, tmp_path: Path
) -> None:
    play(lambda request: "Feature" if "button" in request.prompt else "Bug")
    assert await triage(server, tmp_path, config, "Please add a button.") == "feature"
