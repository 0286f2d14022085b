"""`open_run_config`: the settings for a real model, or for one that plays a script."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from opencode_trio.config import RunConfig, split_model
from opencode_trio.errors import OpenCodeConfigError

from ._model import PROVIDER_ID, open_scripted_model
from ._script import Script


@asynccontextmanager
async def open_run_config(
    model: str, *other_models: str, script: Script, **fields: Any
) -> AsyncGenerator[RunConfig]:
    """Give a program the settings for its model, which may be a stand-in that plays a script.

    So one program runs on a real model, and, without a key, on ``scripted/anything``: a scripted
    model, which is served for the length of the block.

    Args:
        model: As ``provider/model``; those of the provider ``scripted`` play the script.
        *other_models: Further ones that the program will use, all scripted or all real.
        script: What scripted models answer, as in `open_scripted_model`.
        **fields: The other fields of `RunConfig`.

    Raises:
        OpenCodeConfigError: A field is wrong, or only some of the models are scripted.

    **Cancellation:** as of `open_scripted_model`.
    """
    names = [split_model(name) for name in (model, *other_models)]
    kinds = {name["providerID"] == PROVIDER_ID for name in names}
    if len(kinds) > 1:
        raise OpenCodeConfigError("model: scripted ones and real ones cannot be mixed")
    if kinds == {False}:
        yield RunConfig(model=model, **fields)
        return
    first, *others = (name["modelID"] for name in names)
    async with open_scripted_model(script, model_id=first, other_models=others) as scripted:
        yield scripted.run_config(**fields)
