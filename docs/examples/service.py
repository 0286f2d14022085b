"""A service: agents behind HTTP, all on one opencode server.

    python docs/examples/service.py --port 8000
    curl -N localhost:8000/ask -d '{"prompt": "What is in this directory?"}'

The answer comes as JSON lines while the agent works: what it says, the tools it uses, and finally
the result. When a client leaves, its agent is aborted.

At SIGTERM the service takes no more requests, lets the running agents finish if they do so soon,
aborts the others, ends opencode, and exits with 0. A second signal ends it at once.

It needs hypercorn: `pip install 'hypercorn[trio]'`.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import attrs
import hypercorn.trio
import trio
from hypercorn.config import Config

from opencode_trio import AsyncOpenCodeClient, OpenCodeError, OpenCodeServer, TextDelta, ToolPart
from opencode_trio.testing import ModelRequest, ReplyLike, Stall, Text, ToolCall, open_run_config

AT_ONCE = 8
"""Agents that work at the same time."""
QUEUE = 32
"""Requests that wait for an agent; any more are refused."""
LAST_S = 3.0
"""Seconds that an agent has to finish when the service is told to stop."""
ABORTED_S = 15.0
"""Seconds to abort all agents and tell their clients. It takes a fraction of one."""
MAX_BODY = 2**20
PERMISSION = {"*": "deny", "read": "allow", "bash": {"*": "deny", "ls": "allow", "ls *": "allow"}}

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


@attrs.define
class Service:
    """An ASGI application."""

    server: OpenCodeServer
    _places: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(AT_ONCE))
    _open: set[trio.CancelScope] = attrs.field(factory=set[trio.CancelScope])
    _ends: float = math.inf

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve a request."""
        match scope["type"], scope.get("method"), scope.get("path"):
            case "http", "POST", "/ask":
                await self._serve(receive, send)
            case "http", "GET", "/health":
                has_ended = self.server.has_ended  # if so, restart this service
                await respond(send, 503 if has_ended else 200, {"healthy": not has_ended})
            case "http", _, _:
                await respond(send, 404, {"error": "POST /ask, or GET /health"})
            case "lifespan", _, _:
                for moment in ("startup", "shutdown"):
                    await receive()
                    await send({"type": f"lifespan.{moment}.complete"})

    async def stop_at_signal(self) -> None:
        """Wait for a signal; then give everything a deadline."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await anext(signals)
        self._ends = trio.current_time() + LAST_S
        for scope in self._open:
            scope.deadline = self._ends

    async def _serve(self, receive: Receive, send: Send) -> None:
        try:
            prompt = await read_prompt(receive)
        except ValueError as error:
            await respond(send, 400, {"error": str(error)})
            return
        if self._places.statistics().tasks_waiting >= QUEUE:
            await respond(send, 503, {"error": "too much to do"})
            return
        write = await begin_lines(send)
        with trio.CancelScope(deadline=self._ends) as scope:
            self._open.add(scope)
            try:
                async with while_connected(receive):
                    await self._ask(prompt, write)
            except* OpenCodeError as failures:
                await write({"error": type(failures.exceptions[0]).__name__})
            finally:
                self._open.remove(scope)
        if scope.cancelled_caught:
            await write({"error": "the service stops"})
        await send({"type": "http.response.body", "body": b""})

    async def _ask(self, prompt: str, write: Send) -> None:
        async with (
            self._places,
            self.server.open_session(delete_on_exit=True) as session,
            session.stream(prompt) as turn,
        ):
            async for event in turn:
                match event:
                    case TextDelta(delta=text):
                        await write({"text": text})
                    case ToolPart(tool=tool, status="completed" | "error" as status):
                        await write({"tool": tool, "status": status})
        answer, ended = turn.result.final_text, turn.result.stop_reason
        await write({"answer": answer, "ended": ended, "cost_usd": turn.result.total_cost})


# --- ASGI ---------------------------------------------------------------------------


async def read_prompt(receive: Receive) -> str:
    """Read a request's body; raise `ValueError` unless it is `{"prompt": "..."}`."""
    body, is_whole = b"", False
    while not is_whole:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or len(body) > MAX_BODY:
            raise ValueError("the request is incomplete, or too long")
        is_whole = not message.get("more_body")
    match json.loads(body):
        case {"prompt": str(prompt)} if prompt.strip():
            return prompt
    raise ValueError('expected {"prompt": "..."}')


async def respond(send: Send, status: int, value: Any) -> None:
    """Send a whole response."""
    write = await begin_lines(send, status)
    await write(value)
    await send({"type": "http.response.body", "body": b""})


async def begin_lines(send: Send, status: int = 200) -> Send:
    """Begin a response of JSON lines; return what writes one."""
    headers = [(b"content-type", b"application/x-ndjson")]
    await send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(value: Any) -> None:
        line = json.dumps(value).encode() + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})

    return write


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncGenerator[None]:
    """Cancel the block when the client leaves."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        yield
        nursery.cancel_scope.cancel()


# --- the program -------------------------------------------------------------------------------


async def main(model: str, workspace: str, port: int) -> None:
    """Serve until a signal comes."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]  # anybody who can reach it can use it
    config.loglevel = "WARNING"
    config.graceful_timeout = LAST_S + ABORTED_S
    async with (
        open_run_config(model, script=play, permission=PERMISSION, snapshot=False) as run_cfg,
        AsyncOpenCodeClient().open_server(workspace, run_cfg=run_cfg, warm=True) as server,
        trio.open_nursery() as nursery,
    ):
        service = Service(server)
        serve = cast("Any", hypercorn.trio).serve  # its types are incomplete
        [url] = await nursery.start(
            partial(serve, service, config, shutdown_trigger=service.stop_at_signal)
        )
        print(f"ready at {url}", flush=True)
    print("stopped", flush=True)


def play(request: ModelRequest) -> ReplyLike:
    """Play the model, if there is no real one."""
    if "think for ever" in request.prompt:
        return ["Hm.", Stall()]
    if not request.tool_results:
        return ToolCall("bash", {"command": "ls", "description": "Look around"})
    return Text(f"There is:\n{request.tool_results[-1]}", delay_s=0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve agents.")
    parser.add_argument("--model", default="scripted/service", metavar="PROVIDER/MODEL")
    parser.add_argument("--workspace", default=".", metavar="DIRECTORY")
    parser.add_argument("--port", type=int, default=8000, help="0 means any free port")
    args = parser.parse_args()
    trio.run(main, args.model, args.workspace, args.port)
