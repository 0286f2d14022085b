"""How a project tests its agents: copy this, and replace `triage` with your own function."""

import pytest

from opencode_trio import AsyncOpenCodeClient, OpenCodeTurnError, RunConfig
from opencode_trio.testing import HttpError, open_scripted_model


async def triage(issue: str, config: RunConfig) -> str:
    """Return what kind of issue this is, or `unknown` if the provider is down."""
    client = AsyncOpenCodeClient()
    try:
        result = await client.async_run(f"Bug or feature?\n\n{issue}", ".", run_cfg=config)
    except OpenCodeTurnError as error:
        if error.status_code == 401:
            raise
        return "unknown"
    return result.final_text.strip().lower()


@pytest.mark.trio
@pytest.mark.usefixtures("no_leaks")
async def test_the_answer_is_normalized() -> None:
    async with open_scripted_model("Bug\n") as model:
        assert await triage("It crashes.", model.run_config()) == "bug"
    assert model.requests[0].prompt == "Bug or feature?\n\nIt crashes."


@pytest.mark.trio
@pytest.mark.usefixtures("no_leaks")
async def test_a_wrong_key_is_not_hidden() -> None:
    async with open_scripted_model(HttpError(401, "bad key")) as model:
        with pytest.raises(OpenCodeTurnError, match="bad key"):
            await triage("It crashes.", model.run_config())


@pytest.mark.trio
@pytest.mark.usefixtures("no_leaks")
async def test_a_refusing_provider_is_an_unknown() -> None:
    async with open_scripted_model(HttpError(400, "no")) as model:
        assert await triage("It crashes.", model.run_config()) == "unknown"
