"""The way to a server: addresses, TLS, proxies, and every kind of answer that is none."""

from __future__ import annotations

import base64
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
import trio
import trio.testing

from opencode_trio._protocol.calls import Call, anything
from opencode_trio._protocol.v1 import routes as endpoints
from opencode_trio._server.http import HttpApi, open_api
from opencode_trio._turn.redaction import Redactor
from opencode_trio.errors import OpenCodeConfigError, OpenCodeServerError, OpenCodeVersionError
from opencode_trio.server import connect_server

HEALTHY = b'{"healthy": true, "version": "1.18.33"}'
CONNECTED = b'data: {"payload": {"id": "evt_1", "type": "server.connected"}}\n\n'


def answer(body: bytes, kind: str = "application/json", status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Web:
    """A web server that knows a few paths, and writes down what it is sent."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self.pages = pages
        self.requests: list[str] = []

    async def serve(self, stream: trio.abc.Stream) -> None:
        try:
            async with stream:
                data = b""
                while chunk := await stream.receive_some():
                    data += chunk
                    while b"\r\n\r\n" in data:
                        head, _, data = data.partition(b"\r\n\r\n")
                        self.requests.append(head.decode())
                        path = head.split(b" ")[1].decode().partition("?")[0]
                        if path.endswith("/global/event"):
                            await self.stream_events(stream, path)
                            return
                        await stream.send_all(self.pages.get(path, answer(b"<html>", "text/html")))
        except trio.BrokenResourceError:
            pass

    async def stream_events(self, stream: trio.abc.Stream, path: str) -> None:
        head = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\n"
        await stream.send_all(head + self.pages.get(path, CONNECTED))
        await trio.sleep_forever()


@asynccontextmanager
async def running(web: Web, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def serve(stream: trio.SocketStream) -> None:
        await web.serve(trio.SSLStream(stream, tls, server_side=True) if tls else stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_a_server_behind_tls_and_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    await trio.run_process(
        [*command, "-keyout", str(key), "-out", str(certificate)], capture_stderr=True
    )
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate, key)
    web = Web({"/team/a/global/health": answer(HEALTHY)})
    async with running(web, server_side) as port:
        url = f"https://127.0.0.1:{port}/team/a/"
        trusting = ssl.create_default_context(cafile=str(certificate))
        async with connect_server(url, password="secret", tls=trusting) as server:
            assert server.version == "1.18.33"
            assert "remote" in repr(server)
            with pytest.raises(OpenCodeServerError, match="no such route"):
                await server.request("GET", "/elsewhere", query={"a": "ü b"})
            with pytest.raises(OpenCodeConfigError, match="workspace"):
                async with server.open_session():
                    pass
        assert server.has_ended
        for late in (server.request("GET", "/elsewhere"), server.warm("/w")):
            with pytest.raises(OpenCodeServerError, match="block that opened it was left"):
                await late
        with pytest.raises(OpenCodeServerError, match=r"(?i)certificate"):
            async with connect_server(url, password="secret"):
                pass
    token = base64.b64encode(b"opencode:secret").decode()
    assert all(f"Basic {token}" in request for request in web.requests)
    (line,) = [request.split(" ")[1] for request in web.requests if "elsewhere" in request]
    assert unquote_plus(line) == "/team/a/elsewhere?a=ü b"


@pytest.mark.parametrize(
    ("page", "error", "text"),
    [
        (answer(b"{}", status=401), OpenCodeServerError, "password"),
        (answer(b"<html>", "text/html"), OpenCodeServerError, "no such route"),
        (answer(b"not json"), OpenCodeServerError, "is not JSON"),
        (answer(b"[1]"), OpenCodeServerError, "expected a JSON object"),
        (answer(b"nonsense\r\n", "text/plain", 502), OpenCodeServerError, "502"),
        (answer(b'{"healthy": true}'), OpenCodeVersionError, "not opencode"),
        (answer(b'{"version": "2.0.4"}'), OpenCodeVersionError, "2.0.4"),
        (b"garbage\r\n\r\n", OpenCodeServerError, "no answer"),
    ],
)
async def test_who_answers_is_no_opencode(page: bytes, error: type[Exception], text: str):
    async with running(Web({"/global/health": page})) as port:
        with pytest.raises(error, match=text):
            async with connect_server(f"http://127.0.0.1:{port}"):
                pass


async def test_a_server_of_the_next_generation_is_refused_by_name():
    page = answer(b"<!doctype html>", "text/html")
    web = Web({"/global/health": page, "/api/info": answer(b'{"version": "2.0.15"}')})
    async with running(web) as port:
        with pytest.raises(OpenCodeVersionError, match=r"opencode 2\.0\.15.* only 1\.x") as caught:
            async with connect_server(f"http://127.0.0.1:{port}"):
                pass
    assert caught.value.version == "2.0.15"


async def test_a_password_in_the_address(caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    echo = answer(b'{"name": "x", "data": {"message": "p@ss-word is not it"}}', status=403)
    web = Web({"/global/health": answer(HEALTHY), "/echo": echo})
    async with (
        running(web) as port,
        connect_server(f"http://me:p%40ss-word@127.0.0.1:{port}") as server,
    ):
        assert server.url == f"http://127.0.0.1:{port}"
        with pytest.raises(OpenCodeServerError) as caught:
            await server.request("GET", "/echo")
        said = f"{server!r} {caught.value} {caught.value!r} {caplog.text}"
    assert "403, x: [redacted] is not it" in said
    assert "ss-word" not in said
    header = base64.b64encode(b"me:p@ss-word").decode()
    assert all(f"Basic {header}" in request for request in web.requests)


async def test_nobody_answers(autojump_clock: trio.testing.MockClock):
    with pytest.raises(OpenCodeServerError, match="no answer"):
        async with connect_server("http://127.0.0.1:9"):
            pass
    for url in ("127.0.0.1:4096", "ftp://x", ""):
        with pytest.raises(OpenCodeConfigError, match="url"):
            async with connect_server(url):
                pass


@asynccontextmanager
async def talking(web: Web) -> AsyncIterator[HttpApi]:
    async with (
        running(web) as port,
        open_api(f"http://127.0.0.1:{port}", password=None, username="x") as api,
    ):
        yield api


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (CONNECTED, 1),
        (b": comment\n\nid: 7\n\n: comment\n\n" + CONNECTED, 1),
        (CONNECTED.replace(b"\n\n", b"\r\n\r\n"), 1),
        ('data: {"text": "\u2028\u0085 line"}\n\n'.encode() + CONNECTED, 2),
    ],
)
async def test_events_are_read_whatever_stands_between_them(stream: bytes, found: int):
    async with (
        talking(Web({"/global/event": stream})) as api,
        api.open_events("/global/event") as records,
    ):
        read = [await anext(records) for _ in range(found)]
        assert read[-1]["payload"]["type"] == "server.connected"


@pytest.mark.parametrize("stream", [b"data: nonsense\n\n", b"data: [1]\n\n"])
async def test_an_event_that_is_none_breaks_the_stream(stream: bytes):
    async with talking(Web({"/global/event": stream})) as api:
        with pytest.raises(OpenCodeServerError):
            async with api.open_events("/global/event") as records:
                await anext(records)


async def test_an_answer_without_content():
    page = b"HTTP/1.1 204 X\r\ncontent-length: 0\r\n\r\n"
    async with talking(Web({"/x": page})) as api:
        assert await api.call(Call("POST", "/x", anything)) is None


async def test_a_cancelled_call_gives_its_connection_back():
    web = Web({"/global/health": answer(HEALTHY)})
    async with talking(web) as api:
        for _ in range(20):
            with trio.move_on_after(0.01):
                async with api.open_events("/global/event") as records:
                    async for _record in records:
                        pass
        assert await api.call(endpoints.version())
        transport = api._client._transport
        assert len(transport._pool.connections) == 1


def test_importing_the_package_loads_no_http():
    code = "import sys, opencode_trio; raise SystemExit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_what_is_nested_too_deep_to_be_looked_through_ends_nobody() -> None:
    secret = "sk-verysecret-123"
    depth = 480
    nested = '{"a":' * depth + "1" + "}" * depth
    state = f'{{"status": "running", "output": "{secret}", "input": {nested}}}'
    part = f'{{"payload": {{"type": "x", "properties": {{"part": {{"state": {state}}}}}}}}}'
    web = Web({"/global/event": CONNECTED + f"data: {part}\n\n".encode()})
    async with (
        running(web) as port,
        open_api(
            f"http://127.0.0.1:{port}",
            password=secret,
            username="x",
            redactor=Redactor.of([secret]),
        ) as api,
        api.open_events("/global/event") as records,
    ):
        await anext(records)
        told = await anext(records)
    assert secret not in str(told["payload"]["properties"]["part"]["state"]["output"])
