"""The wheel with the extra `testing`: a run, a session and a swarm, on the real opencode.

Run by `nox -s release`, in an environment of its own.
"""

from __future__ import annotations

import os
import tempfile

import attrs
import trio

from opencode_trio import AsyncOpenCodeClient, open_swarm
from opencode_trio.progress import show_progress
from opencode_trio.testing import ModelRequest, assert_no_leaks, open_scripted_model


@attrs.frozen
class Answer:
    """What is asked for, though the extra that checks it is not here."""

    text: str


def script(request: ModelRequest) -> str:
    return f"re: {request.prompt}"


async def main() -> None:
    client = AsyncOpenCodeClient(os.environ["OPENCODE_TRIO_TEST_BINARY"])
    with tempfile.TemporaryDirectory() as folder:
        async with assert_no_leaks(), open_scripted_model(script) as model:
            config = model.run_config()
            result = await client.async_run("run", folder, run_cfg=config)
            assert result.final_text == "re: run"

            async with client.open_server(folder, run_cfg=config) as server:
                async with server.open_session() as session:
                    assert (await session.send("turn")).final_text == "re: turn"
                    try:
                        await session.send("turn", output=Answer)
                    except ImportError as error:
                        assert "pip install 'opencode-trio[structured]'" in str(error), error
                    else:
                        raise AssertionError("is the extra `structured` installed here?")

                opening = open_swarm(server, limit=2)
                async with show_progress(opening, is_live=False) as swarm:
                    results = await swarm.map(["one", "two", "three"])
            assert [result.final_text for result in results] == ["re: one", "re: two", "re: three"]
            print(swarm.report().table())


if __name__ == "__main__":
    trio.run(main)
    print("a run, a session and a swarm work with the extra `testing`")
