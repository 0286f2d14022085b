"""An answer as an object: the model fills an attrs class, which is checked before you see it."""

import attrs
import trio

from opencode_trio import AsyncOpenCodeClient, OpenCodeSession
from opencode_trio.testing import ToolCall, open_scripted_model


@attrs.frozen
class Verdict:
    """What a reviewer thinks."""

    risk: int
    summary: str
    files: list[str] = attrs.field(factory=list[str])


async def main() -> None:
    """Ask for a verdict."""
    client = AsyncOpenCodeClient()
    # A model answers by calling a tool of opencode's. This one is scripted to do so.
    script = [
        ToolCall("StructuredOutput", {"risk": "high", "summary": "Removes the lock."}),  # wrong
        ToolCall("StructuredOutput", {"risk": 8, "summary": "Removes the lock."}),  # asked again
    ]
    async with (
        open_scripted_model(script) as model,
        OpenCodeSession(client, ".", run_cfg=model.run_config()) as session,
    ):
        result = await session.send("Review the last commit.", output=Verdict)
        print(result.structured)
        assert result.structured == Verdict(8, "Removes the lock.")


trio.run(main)
