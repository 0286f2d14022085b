"""A TCP proxy of the tests' own, which can drop or mute the connections that pass through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio


@attrs.define(eq=False)
class Connection:
    """One connection, and what the client asked for on it last."""

    client: trio.SocketStream
    server: trio.SocketStream
    request: bytes = b""
    is_answered: bool = False
    is_muted: bool = False

    def waits_for(self, method: str, ending: str) -> bool:
        """Whether the answer is missing to a request with this method and end of its path."""
        asked, target = (*self.request.split(b" ", 2), b"", b"")[:2]
        is_it = asked == method.encode() and target.partition(b"?")[0].endswith(ending.encode())
        return is_it and not self.is_answered

    async def upward(self) -> None:
        async for data in self.client:
            if data.startswith((b"GET ", b"POST ", b"PATCH ", b"DELETE ")):
                self.request = bytes(data)
                self.is_answered = False
            await self.server.send_all(data)

    async def downward(self) -> None:
        async for data in self.server:
            self.is_answered = True
            if not self.is_muted:
                await self.client.send_all(data)


@attrs.define(eq=False)
class Proxy:
    """Passes bytes on to a server."""

    target: str
    url: str = ""
    refuses: bool = False
    """Whether new connections are closed at once."""
    connections: list[Connection] = attrs.field(factory=list)

    def asking_for(self, path: str) -> list[Connection]:
        """List the open connections whose last request was for a path."""
        asked = ((c, c.request.split(b" ")[1:2]) for c in self.connections)
        return [
            c for c, target in asked if target and target[0].partition(b"?")[0] == path.encode()
        ]

    async def drop(self, path: str) -> int:
        """Break the connections that ask for a path; return how many there were."""
        found = self.asking_for(path)
        for connection in found:
            await trio.aclose_forcefully(connection.client)
        return len(found)

    def mute(self, path: str) -> int:
        """Let nothing come back any more on the connections that ask for a path."""
        found = self.asking_for(path)
        for connection in found:
            connection.is_muted = True
        return len(found)

    async def serve(self, client: trio.SocketStream) -> None:
        if self.refuses:
            await trio.aclose_forcefully(client)
            return
        where = urlsplit(self.target)
        try:
            server = await trio.open_tcp_stream(str(where.hostname), where.port or 80)
        except OSError:  # it has ended
            await trio.aclose_forcefully(client)
            return
        connection = Connection(client, server)
        self.connections.append(connection)
        async with client, server, trio.open_nursery() as nursery:

            async def pump(direction: Any) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await direction()
                nursery.cancel_scope.cancel()

            nursery.start_soon(pump, connection.upward)
            nursery.start_soon(pump, connection.downward)
        self.connections.remove(connection)


@asynccontextmanager
async def open_proxy(target: str) -> AsyncIterator[Proxy]:
    """Run a proxy on a free loopback port."""
    proxy = Proxy(target)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        proxy.url = f"http://127.0.0.1:{port}"
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
