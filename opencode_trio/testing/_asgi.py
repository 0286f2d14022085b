"""The model as an ASGI application: routes, recording, and playing a reply to its client."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import attrs
import trio

from opencode_trio._json import is_object
from opencode_trio.testing._chunks import (
    Envelope,
    Reported,
    Step,
    completion,
    error_body,
    stream_steps,
)
from opencode_trio.testing._requests import Ledger, ModelRequest
from opencode_trio.testing._script import (
    Cut,
    Delay,
    Disconnect,
    HttpError,
    Reply,
    ScriptExhaustedError,
    Stall,
)

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]

logger = logging.getLogger("opencode_trio.testing")

_JSON = "application/json"
_EVENTS = "text/event-stream"
# Titles are the model's own business: their tokens would blur what a test says a turn costs.
_NO_USAGE = None


class _ClientGoneError(Exception):
    """The client left before its request had arrived."""


@attrs.frozen(eq=False)
class ScriptedApp:
    """Answer chat completions from a script and enter all that happens in the ledger."""

    ledger: Ledger
    reply_to: Callable[[ModelRequest], Awaitable[Reply]]
    title: str
    model_ids: tuple[str, ...]

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one ASGI scope.

        **Cancellation:** the response is left unfinished, which drops the client's connection.
        """
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        response = _Response(send)
        match scope["method"], scope["path"].rstrip("/"):
            case "POST", "/v1/chat/completions":
                await self._complete(scope, receive, response)
            case "GET", "/v1/models":
                await response.send_json(200, self._models())
            case method, path:
                message = f"the scripted model serves no {method} {path}"
                await response.refuse(HttpError(404, message, code="not_found"))

    async def _complete(
        self, scope: Mapping[str, Any], receive: Receive, response: _Response
    ) -> None:
        try:
            body = _parse_object(await _read_body(receive))
        except _ClientGoneError:
            return
        except ValueError as error:
            await response.refuse(HttpError(400, f"the request could not be read: {error}"))
            return
        request = self.ledger.record(body, _headers(scope))
        with self.ledger.kept_open(request):
            await _while_connected(receive, self._answer, request, response)

    async def _answer(self, request: ModelRequest, response: _Response) -> None:
        for step in await self._find_steps(request):
            if isinstance(step, Reported):
                if not request.is_title:
                    self.ledger.charged[request] = step.usage
            elif not await response.play(step, request.is_streaming):
                return
        await response.finish()

    async def _find_steps(self, request: ModelRequest) -> list[Step]:
        if request.is_title:
            return _steps(Reply(self.title, usage=_NO_USAGE), request)
        try:
            # All of them now: what cannot be sent (arguments that are not JSON, say) is the
            # script's mistake like any other.
            return _steps(await self.reply_to(request), request)
        except ScriptExhaustedError as error:
            self.ledger.unanswered.append(request)
            return [_refusal(error, "script_exhausted")]
        except Exception as error:
            logger.debug("the script failed", exc_info=error)
            self.ledger.record_failure(error)
            return [_refusal(error, "script_failed")]

    def _models(self) -> dict[str, Any]:
        data = [{"id": model, "object": "model", "owned_by": "script"} for model in self.model_ids]
        return {"object": "list", "data": data}


@attrs.define(eq=False)
class _Response:
    """One HTTP response, whose headers wait for its first byte."""

    send: Send
    started: bool = False
    is_over: bool = False
    """Whether its last byte has been given out: what follows is the server's own goodbye."""

    async def play(self, step: Step, is_streaming: bool) -> bool:
        """Do one step of a reply; say whether there may be another."""
        match step:
            case bytes():
                await self._write(step, _EVENTS if is_streaming else _JSON)
            case Delay(seconds):
                await trio.sleep(seconds)
            case HttpError():
                await self.refuse(step)
                return False
            case Stall(comment_every_s):
                await self._stall(comment_every_s)
            case Cut() | Disconnect():
                # Headers first: a response that never started would become the server's own 500.
                await self._write(b"", _EVENTS if is_streaming else _JSON)
                if isinstance(step, Cut):
                    await self.finish()
                # An application that returns in mid-response has its connection dropped.
                return False
        return True

    async def refuse(self, error: HttpError) -> None:
        """Send an error as the whole response."""
        body = error_body(error.message, code=error.code, kind=error.type)
        await self.send_json(error.status, body, error.headers)

    async def send_json(
        self, status: int, body: object, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole response of JSON."""
        data = json.dumps(body).encode()
        await self._start(status, {"content-length": str(len(data)), **(headers or {})}, _JSON)
        await self.finish(data)

    async def finish(self, data: bytes = b"") -> None:
        """End the response in good order."""
        self.is_over = True
        await self.send({"type": "http.response.body", "body": data, "more_body": False})

    async def _write(self, data: bytes, content_type: str) -> None:
        if not self.started:
            await self._start(200, {"cache-control": "no-cache"}, content_type)
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def _start(self, status: int, headers: Mapping[str, str], content_type: str) -> None:
        self.started = True
        # One request per connection: a kept one could be closed by the server's idle timeout in
        # the moment in which the client uses it again, and a test would fail once in a while.
        named = {"content-type": content_type, "connection": "close"}
        named.update((name.lower(), value) for name, value in headers.items())
        lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": lines})

    async def _stall(self, comment_every_s: float | None) -> None:
        while comment_every_s is not None:
            await trio.sleep(comment_every_s)
            await self._write(b": still here\n\n", _EVENTS)
        await trio.sleep_forever()


async def _while_connected(
    receive: Receive,
    answer: Callable[[ModelRequest, _Response], Awaitable[None]],
    request: ModelRequest,
    response: _Response,
) -> None:
    """Answer, and stop answering when the client leaves."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_disconnect, receive, response, nursery.cancel_scope)
        await answer(request, response)
        nursery.cancel_scope.cancel()


async def _cancel_on_disconnect(
    receive: Receive, response: _Response, scope: trio.CancelScope
) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    # hypercorn tells this, too, while it closes the connection after the last byte; cancelled
    # there, it would leave the connection open, and a client that uses it again without an answer.
    if not response.is_over:
        scope.cancel()


async def _read_body(receive: Receive) -> bytes:
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        data += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(data)


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _parse_object(data: bytes) -> dict[str, Any]:
    body = json.loads(data)
    if not is_object(body):
        raise ValueError("it is not a JSON object")
    return body


def _steps(reply: Reply, request: ModelRequest) -> list[Step]:
    reply_id = f"{'title' if request.is_title else 'reply'}{request.number}"
    envelope = Envelope(reply_id, request.model)
    steps = list(stream_steps(reply, envelope))
    if request.is_streaming:
        return steps
    # The waits and the failures stay; the content goes out at the end, as one object.
    whole = [json.dumps(completion(reply, envelope)).encode()] if reply.is_complete else []
    return [step for step in steps if not isinstance(step, bytes)] + whole


def _refusal(error: Exception, code: str) -> HttpError:
    # A 400, because opencode would retry a 500 for more than a minute before it showed it.
    return HttpError(400, f"{type(error).__name__}: {error}", code=code)


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
