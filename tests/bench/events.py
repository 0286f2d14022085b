"""What an event costs on its way from the wire to its reader.

    nox -s bench -- bus           (or: python tests/bench/bus.py --events 100000)

Three ways for the same bytes, in turns: `json.loads` alone, httpx-sse alone, and all of ours:
server-sent events, JSON, a typed event, the turn that it belongs to, its reader.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import httpx_sse
import trio

from opencode_trio._background import open_background
from opencode_trio._bus import Bus
from opencode_trio._http import HttpApi
from opencode_trio._live import LiveTurn
from opencode_trio._mailbox import Mailbox
from opencode_trio._tree_guard import Limits, TreeGuard
from opencode_trio.errors import OpenCodeServerError
from opencode_trio.events import Event

CHUNK = 64 * 1024
ROOT, MESSAGE = "ses_root", "msg_200000000000aa"


def records(count: int) -> list[bytes]:
    """Make a turn of many steps, mostly deltas, as opencode sends it."""
    made: list[dict[str, Any]] = [
        {"type": "message.updated", "properties": {"info": {"id": MESSAGE, "role": "user"}}}
    ]
    for number in range(count - 2):
        step = number // 50
        ids = {"messageID": f"msg_3{step:011x}aa", "id": f"prt_{step}"}
        if number % 50 == 0:
            part = {**ids, "sessionID": ROOT, "type": "text", "text": "", "time": {"start": 1}}
            made.append({"type": "message.part.updated", "properties": {"part": part}})
        else:
            delta = {"partID": ids["id"], "messageID": ids["messageID"], "field": "text"}
            delta["delta"] = f"word {number} "
            made.append({"type": "message.part.delta", "properties": delta})
    idle = {"type": "session.status", "properties": {"status": {"type": "idle"}}}
    envelopes = []
    for number, payload in enumerate([*made, idle]):
        payload["properties"]["sessionID"] = ROOT
        envelope = {"directory": "/srv/repo", "payload": {"id": f"evt_{number:026x}", **payload}}
        envelopes.append(json.dumps(envelope).encode())
    return envelopes


class Bytes(httpx.AsyncByteStream):
    """A body in chunks, each at a checkpoint, as from a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), CHUNK):
            await trio.lowlevel.checkpoint()
            yield self._data[start : start + CHUNK]


class Replay(httpx.AsyncBaseTransport):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, stream=Bytes(self._data))


class Reader:
    def __init__(self) -> None:
        self.live = LiveTurn(ROOT, MESSAGE, TreeGuard(Limits()))
        self.mailbox = Mailbox()

    def deliver(self, event: Event) -> None:
        for item in self.live.take(event, 0.0):
            self.mailbox.put(item)

    def resumed(self) -> None: ...

    def lost(self, error: OpenCodeServerError) -> None: ...


async def through_us(data: bytes, count: int) -> None:
    async with httpx.AsyncClient(transport=Replay(data), base_url="http://x") as client:
        bus = Bus(HttpApi(client).open_events)
        reader = Reader()
        with bus.subscribed(ROOT, reader):
            async with open_background() as tasks:
                tasks.start_soon(bus.run)
                while bus.counts.events < count:
                    await reader.mailbox.take()
        if len(reader.live.fold.records) != count:
            raise SystemExit("events were lost")


async def through_httpx_sse(data: bytes, count: int) -> None:
    async with (
        httpx.AsyncClient(transport=Replay(data), base_url="http://x") as client,
        httpx_sse.aconnect_sse(client, "GET", "/") as source,
    ):
        assert len([frame async for frame in source.aiter_sse()]) == count


async def through_json(lines: list[bytes]) -> None:
    for line in lines:
        json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    lines = records(options.events)
    data = b"".join(b"data: " + line + b"\n\n" for line in lines)
    ways: dict[str, Callable[[], Any]] = {
        "json.loads alone": lambda: through_json(lines),
        "httpx-sse alone": lambda: through_httpx_sse(data, len(lines)),
        "bus to reader": lambda: through_us(data, len(lines)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):  # in turns, because a machine's mood changes
        for name, way in ways.items():
            began = time.process_time()
            trio.run(way)
            rates[name].append(len(lines) / (time.process_time() - began))
    for name, found in rates.items():
        print(f"{name:18} {statistics.median(found):10,.0f} events/s of CPU time")


if __name__ == "__main__":
    main()
