"""One server over HTTP: the only module that knows httpx and httpx-sse.

Everything that goes wrong on the way becomes `OpenCodeServerError`, here and nowhere else; without
a ``status_code`` there was no answer.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import httpx
import httpx_sse
import trio

from opencode_trio._json import Json
from opencode_trio._protocol.calls import Call, UnexpectedAnswerError, an_object, failure_text
from opencode_trio._turn.redaction import NOTHING_KNOWN, Redactor
from opencode_trio.errors import OpenCodeConfigError, OpenCodeServerError

T = TypeVar("T")

CONNECT_S = 10.0
ANSWER_S = 60.0
"""For calls that only read or store: a busy server on a slow disk takes seconds."""

PATIENT = httpx.Timeout(None, connect=CONNECT_S)
"""For calls that wait for the agent, which sends nothing until it has finished, and for the event
stream, whose liveness its heartbeat tells."""


@asynccontextmanager
async def open_api(
    url: str,
    *,
    password: str | None,
    username: str,
    tls: ssl.SSLContext | bool = True,
    redactor: Redactor = NOTHING_KNOWN,
) -> AsyncGenerator[HttpApi]:
    """Open a pool of connections to a server; nothing is sent yet.

    Raises:
        OpenCodeServerError: the address is invalid.
    """
    with _mapped_errors("the address", url, redactor):
        client = httpx.AsyncClient(
            base_url=url,
            auth=httpx.BasicAuth(username, password) if password is not None else None,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S, pool=None),
            # A turn holds a connection while it lasts; a limit would be a hidden one on agents.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            # A proxy of the environment is not for loopback, and must not see the password.
            trust_env=False,
            verify=tls,
        )
    async with client:
        yield HttpApi(client, redactor)


class HttpApi:
    """A server's interface."""

    def __init__(self, client: httpx.AsyncClient, redactor: Redactor = NOTHING_KNOWN) -> None:
        self._client = client
        self._redactor = redactor

    async def call(self, call: Call[T]) -> T:
        """Send a call and read its answer.

        Raises:
            OpenCodeServerError: no answer, an error, or something that is no answer to this.

        **Cancellation**: drops the connection; what the server began, it goes on with.
        """
        what = f"{call.method} {call.path}"
        with _mapped_errors(what, str(self._client.base_url), self._redactor):
            response = await self._client.send(self._request(call))
            answer = self._scrubbed(response.text, _json_of(response))
            if response.is_success and answer is not _NO_JSON:
                return call.read(answer)
        text = f"{what}: {response.status_code}, {_explain(response, answer)}"
        raise OpenCodeServerError(self._redactor.text(text), status_code=response.status_code)

    def _scrubbed(self, text: str, parsed: Any) -> Any:
        """Take secrets out of what a record tells of failures, if there are any."""
        return self._redactor.record(parsed) if self._redactor.is_needed(text) else parsed

    def _request(self, call: Call[Any]) -> httpx.Request:
        try:
            request = self._client.build_request(
                call.method,
                call.path,
                params=dict(call.query),
                json=call.body,
                timeout=PATIENT if call.waits_for_agent else httpx.USE_CLIENT_DEFAULT,
            )
        except (ValueError, TypeError, RecursionError) as exc:
            text = f"{call.method} {call.path}: the body cannot be written as JSON: {exc}"
            raise OpenCodeConfigError(self._redactor.text(text)) from exc
        request.stream = _Body(request.content)
        return request

    @asynccontextmanager
    async def open_events(self, path: str) -> AsyncGenerator[AsyncGenerator[Json]]:
        """Open the event stream of the whole server.

        Args:
            path: its route.

        Raises:
            OpenCodeServerError: from opening as from reading, when the stream breaks.
        """
        with _mapped_errors(f"GET {path}", str(self._client.base_url), self._redactor):
            async with httpx_sse.aconnect_sse(self._client, "GET", path, timeout=PATIENT) as source:
                if source.response.is_error:
                    await source.response.aread()
                    status = source.response.status_code
                    text = (
                        f"GET {path}: {status}, {failure_text(status, _json_of(source.response))}"
                    )
                    raise OpenCodeServerError(self._redactor.text(text), status_code=status)
                # Closed by us: an abandoned generator would be closed by nobody.
                async with aclosing(_records(source, self._scrubbed)) as records:
                    yield records


class _Body(httpx.AsyncByteStream):
    """A request's body.

    httpx's own is an async generator, which it abandons, to trio's displeasure, when the connection
    breaks while it is sent.
    """

    def __init__(self, data: bytes) -> None:
        self._chunks = [data] if data else []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Chunks(self._chunks)


class _Chunks(AsyncIterator[bytes]):
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._left = iter(chunks)

    async def __anext__(self) -> bytes:
        for chunk in self._left:
            return chunk
        raise StopAsyncIteration


async def _records(
    source: httpx_sse.EventSource, scrub: Callable[[str, Json], Json]
) -> AsyncGenerator[Json, None]:
    frames = source.aiter_sse()
    try:
        async for frame in frames:
            # After a comment line httpx-sse gives an event without data, once it has seen an id.
            if frame.data:
                yield scrub(frame.data, _record(frame.data))
    finally:
        await _end(frames)


async def _end(frames: AsyncIterator[object]) -> None:
    """Bring generators of httpx to their end, which are nested and do not close each other.

    What runs on and waits when it is cancelled ends all the way down.
    """
    with trio.CancelScope() as scope, suppress(httpx.RequestError, httpx.StreamError):
        scope.cancel()
        async for _ in frames:
            pass


def _record(data: str) -> Json:
    try:
        return an_object(json.loads(data))
    except (ValueError, RecursionError) as exc:
        raise UnexpectedAnswerError(f"an event is not JSON: {exc}") from exc


_NO_JSON = object()


def _json_of(response: httpx.Response) -> object:
    if response.status_code == 204:
        return None
    if response.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return _NO_JSON
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        return _NO_JSON


def _explain(response: httpx.Response, answer: object) -> str:
    if response.is_success:
        # An unknown route is answered 200 with the page of opencode's web interface.
        kind = response.headers.get("content-type") or "nothing"
        if "json" in kind:
            return "the answer is not JSON, or is cut off: the server failed while it sent it"
        return f"answered with {kind} instead of JSON: this server has no such route"
    return failure_text(response.status_code, answer)


@contextmanager
def _mapped_errors(what: str, url: str, redactor: Redactor) -> Generator[None]:
    try:
        yield
    # The last is of a host's name.
    except (httpx.RequestError, httpx.InvalidURL, UnicodeError) as exc:
        text = f"{what}: no answer from {url}: {_reason(exc)}"
        raise OpenCodeServerError(redactor.text(text)) from exc
    except UnexpectedAnswerError as exc:
        raise OpenCodeServerError(redactor.text(f"{what}: {exc}"), status_code=200) from exc


def _reason(error: BaseException) -> str:
    """Find the words for a failure, which for a bad certificate lie some causes deep."""
    at: BaseException | None = error
    while at is not None:
        if text := str(at):
            return text
        at = at.__cause__ or at.__context__
    return type(error).__name__
