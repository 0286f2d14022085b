"""Test agent programs offline: a scripted model that the real opencode talks to.

Install with `pip install 'opencode-trio[testing]'`.

Example::

    async with open_scripted_model([ToolCall("bash", {"command": "echo hi"}), "done"]) as model:
        result = await client.async_run("go", workspace, run_cfg=model.run_config())
        assert result.final_text == "done"
        assert result.total_cost == pytest.approx(model.spent_usd)
    assert [request.prompt for request in model.requests] == ["go", "go"]
"""

# From the ground up: `_usage`, `_requests` and `_chunks` are values and pure functions; `_script` is
# what a model says, and finds the next reply; `_asgi` plays replies to clients; `_web_server`
# serves; `_model` opens all of it.

from opencode_trio.testing._leaks import LeakCheck, assert_no_leaks
from opencode_trio.testing._model import ScriptedModel, open_run_config, open_scripted_model
from opencode_trio.testing._requests import ModelRequest
from opencode_trio.testing._script import (
    Action,
    Cut,
    Delay,
    Disconnect,
    ErrorFrame,
    FinishReason,
    HttpError,
    Raw,
    Reasoning,
    Reply,
    ReplyLike,
    Script,
    ScriptExhaustedError,
    ScriptFunction,
    Stall,
    Text,
    ToolCall,
)
from opencode_trio.testing._usage import Prices, Usage

__all__ = [
    "Action",
    "Cut",
    "Delay",
    "Disconnect",
    "ErrorFrame",
    "FinishReason",
    "HttpError",
    "LeakCheck",
    "ModelRequest",
    "Prices",
    "Raw",
    "Reasoning",
    "Reply",
    "ReplyLike",
    "Script",
    "ScriptExhaustedError",
    "ScriptFunction",
    "ScriptedModel",
    "Stall",
    "Text",
    "ToolCall",
    "Usage",
    "assert_no_leaks",
    "open_run_config",
    "open_scripted_model",
]
