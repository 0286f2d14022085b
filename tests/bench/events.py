"""What an event costs on its way from the wire to its reader.

Three ways for the same bytes: `json.loads` alone, httpx-sse alone, and all of ours, from the
response's bytes to `async for event in turn`: server-sent events, JSON, a typed event, the turn
that it belongs to and its totals, its reader.  The processor time of this process counts.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import httpx_sse
import trio

from bench.benchmark import Benchmark, Setup, in_turns
from bench.rows import Row
from opencode_trio._protocol.v1 import V1
from opencode_trio._protocol.values import Prompt
from opencode_trio._server.connection import Connection
from opencode_trio._server.http import HttpApi
from opencode_trio._session.running_turn import TurnPlan, open_running_turn
from opencode_trio._session.turn import Turn
from opencode_trio._tasks import open_background
from opencode_trio.events import TextDelta

EVENTS = 100_000
ROUNDS = 5
PER_PART = 50
CHUNK = 64 * 1024
ROOT, QUESTION, ANSWER = "ses_root", "msg_200000000000aa", "msg_300000000000aa"
LAST_WORDS = [
    {"id": "prt_8", "messageID": ANSWER, "sessionID": ROOT, "type": "text", "text": "done"},
    {
        "id": "prt_9",
        "messageID": ANSWER,
        "sessionID": ROOT,
        "type": "step-finish",
        "reason": "stop",
    },
]


def story(count: int) -> list[dict[str, Any]]:
    """Make the events of a long answer, mostly deltas, as opencode sends them."""
    parts = [deltas for start in range(0, count - 3, PER_PART) if (deltas := _part(start, count))]
    return [
        _event("message.updated", info={"id": QUESTION, "role": "user"}),
        *(event for part in parts for event in part),
        _event("message.updated", info=_answer()),
        _event("session.status", status={"type": "idle"}),
    ]


def _part(start: int, count: int) -> list[dict[str, Any]]:
    name = f"prt_{start:08}"
    part = {"id": name, "messageID": ANSWER, "sessionID": ROOT, "type": "text", "text": ""}
    first = _event("message.part.updated", part={**part, "time": {"start": 1}})
    ids = {"messageID": ANSWER, "partID": name, "field": "text"}
    numbers = range(start + 1, min(start + PER_PART, count - 3))
    return [first, *(_event("message.part.delta", **ids, delta=_word(n)) for n in numbers)]


def _word(number: int) -> str:
    return f"word {number} "


def _event(kind: str, **properties: Any) -> dict[str, Any]:
    return {"type": kind, "properties": {"sessionID": ROOT, **properties}}


def _answer() -> dict[str, Any]:
    times = {"created": 1, "completed": 2}
    return {"id": ANSWER, "parentID": QUESTION, "role": "assistant", "time": times}


def lines_of(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Wrap events as `/global/event` does."""
    return [
        json.dumps({"directory": "/srv", "payload": {"id": f"evt_{n:026x}", **event}}).encode()
        for n, event in enumerate(events)
    ]


class Stream(httpx.AsyncByteStream):
    """A body in chunks, each at a checkpoint, as from a socket; it stays open."""

    def __init__(self, data: bytes, told: trio.Event, *, ends: bool) -> None:
        self._data, self._told, self._ends = data, told, ends

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), CHUNK):
            await trio.lowlevel.checkpoint()
            yield self._data[start : start + CHUNK]
        self._told.set()
        if not self._ends:
            await trio.sleep_forever()


class Replay(httpx.AsyncBaseTransport):
    """A server that has its answer when all events are told."""

    def __init__(self, data: bytes, *, ends: bool = False) -> None:
        self._data, self._ends = data, ends
        self._told = trio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            stream = Stream(self._data, self._told, ends=self._ends)
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)
        await self._told.wait()
        return httpx.Response(200, json={"info": _answer(), "parts": LAST_WORDS})


def client(data: bytes, **options: bool) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=Replay(data, **options), base_url="http://replay")


async def through_us(data: bytes, count: int) -> None:
    characters = 0
    call = V1.requests.prompt(Prompt(session_id=ROOT, message_id=QUESTION, text="?"))
    plan = TurnPlan(root=ROOT, directory="/srv", message_id=QUESTION, call=call)
    async with client(data) as http, open_background() as tasks:
        link = Connection(HttpApi(http), V1, url="http://replay", tasks=tasks)
        async with open_running_turn(link, plan) as running:
            turn = Turn(running)
            tasks.start_soon(link.event_stream.run)
            async for event in turn:
                if isinstance(event, TextDelta):
                    characters += len(event.delta)
        events = turn.result.events
    words = sum(len(_word(n)) for n in range(count - 3) if n % PER_PART)
    if (len(events), characters) != (count, words):
        raise AssertionError("events were lost")


async def through_httpx_sse(data: bytes, count: int) -> None:
    async with (
        client(data, ends=True) as http,
        httpx_sse.aconnect_sse(http, "GET", "/") as source,
    ):
        if len([frame async for frame in source.aiter_sse()]) != count:
            raise AssertionError("events were lost")


async def through_json(lines: Sequence[bytes]) -> None:
    for line in lines:
        json.loads(line)


def rate(way: Callable[[], Awaitable[None]], count: int) -> float:
    """Return the events per second of processor time."""
    gc.collect()
    began = time.process_time()
    trio.run(way)
    return count / (time.process_time() - began)


def run(setup: Setup) -> list[Row]:
    count = setup.scaled(EVENTS, least=1000)
    lines = lines_of(story(count))
    data = b"".join(b"data: " + line + b"\n\n" for line in lines)
    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "json.loads alone": lambda: through_json(lines),
        "httpx-sse alone": lambda: through_httpx_sse(data, count),
        "all of it, to the reader of a turn": lambda: through_us(data, count),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number, name in in_turns(list(ways), ROUNDS):
        rates[name].append(rate(ways[name], count))
        setup.say(f"round {number}  {name:<34} {rates[name][-1]:10,.0f} events/s")
    floor, frames, ours = (Row(name, "events/s", values) for name, values in rates.items())
    return [floor, frames, ours.compared(floor)]


BENCHMARK = Benchmark("events per second of processor time, for the same bytes", run)
