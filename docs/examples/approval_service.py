"""Agents behind HTTP that ask before they act: server-sent events, and an answer by POST.

    python docs/examples/approval_service.py --port 8000
    curl -N localhost:8000/run -d 'Make a note.'
    curl localhost:8000/answer/per_... -d yes         # the id is in the event `ask`

`service.py` shows what a service needs besides: limits, health, and an orderly stop.
It needs hypercorn: `pip install 'hypercorn[trio]'`.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any, cast

import hypercorn.trio
import trio
from hypercorn.config import Config

from opencode_trio import (
    AsyncOpenCodeClient,
    OpenCodeServer,
    PermissionAnswer,
    PermissionRequest,
    Reject,
    TextDelta,
)
from opencode_trio.testing import ModelRequest, ReplyLike, ToolCall, open_run_config


class App:
    """An ASGI application."""

    def __init__(self, server: OpenCodeServer) -> None:
        self._server = server
        self._waiting: dict[str, trio.MemorySendChannel[str]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve `POST /run` and `POST /answer/ID`."""
        if scope["type"] == "lifespan":
            for moment in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{moment}.complete"})
            return
        body = (await receive())["body"].decode()  # a short body comes in one message
        match scope["path"].split("/"):
            case ["", "run"]:
                await begin(send, 200, "text/event-stream")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run, body, send, nursery.cancel_scope)
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    # The client has left: abort the turn.
                    nursery.cancel_scope.cancel()
            case ["", "answer", request_id] if request_id in self._waiting:
                self._waiting[request_id].send_nowait(body)
                await begin(send, 204, "text/plain")
            case _:
                await begin(send, 404, "text/plain")
        await send({"type": "http.response.body"})

    async def _run(self, prompt: str, send: Any, scope: trio.CancelScope) -> None:
        async def event(kind: str, **data: Any) -> None:
            text = f"event: {kind}\ndata: {json.dumps(data)}\n\n"
            body = {"type": "http.response.body", "body": text.encode(), "more_body": True}
            await send(body)

        async def approve(request: PermissionRequest) -> PermissionAnswer:
            answers, answer = trio.open_memory_channel[str](1)
            self._waiting[request.request_id] = answers
            try:
                await event("ask", id=request.request_id, wants=request.patterns)
                said = await answer.receive()
            finally:
                del self._waiting[request.request_id]
            return "once" if said == "yes" else Reject(said)

        async with (
            self._server.open_session(on_permission=approve, delete_on_exit=True) as session,
            session.stream(prompt) as turn,
        ):
            async for happened in turn:
                if isinstance(happened, TextDelta):
                    await event("text", text=happened.delta)
        await event("done", answer=turn.result.final_text, cost_usd=turn.result.total_cost)
        scope.cancel()


async def begin(send: Any, status: int, media_type: str) -> None:
    """Begin a response."""
    headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


def play(request: ModelRequest) -> ReplyLike:
    """Play the model, if there is no real one."""
    if not request.tool_results:
        return ToolCall("bash", {"command": "echo noted > note.txt", "description": "Note it"})
    return f"The tool said: {request.tool_results[-1]}"


async def main(model: str, workspace: str, port: int) -> None:
    """Serve until Ctrl+C."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]  # anybody who can reach it can use it
    config.loglevel = "WARNING"
    permission = {"*": "deny", "bash": "ask"}
    async with (
        open_run_config(model, script=play, permission=permission, snapshot=False) as run_cfg,
        AsyncOpenCodeClient().open_server(workspace, run_cfg=run_cfg) as server,
        trio.open_nursery() as nursery,
    ):
        serve = cast("Any", hypercorn.trio).serve  # its types are incomplete
        [url] = await nursery.start(partial(serve, App(server), config))
        print(f"ready at {url}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve agents that ask before they act.")
    parser.add_argument("--model", default="scripted/service", metavar="PROVIDER/MODEL")
    parser.add_argument("--workspace", default=".", metavar="DIRECTORY")
    parser.add_argument("--port", type=int, default=8000, help="0 means any free port")
    args = parser.parse_args()
    try:
        trio.run(main, args.model, args.workspace, args.port)
    except* KeyboardInterrupt:
        pass
