"""Gusts: what happens to servers and their connections, done."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import trio

from chaos.acts import Gust
from chaos.stage import Place, Stage
from chaos.weather import AFTERMATH_S
from opencode_trio import OpenCodeError
from opencode_trio._server.event_stream import SILENCE_S

EVENTS = "/global/event"


async def blow(stage: Stage, plan: Gust) -> None:
    """Have it happen."""
    place = stage.places[plan.place]
    await place.current()
    stage.tally.count("gusts", plan.name)
    await GUSTS[plan.name](stage, place, plan.seconds)


async def _kill(stage: Stage, place: Place, _: float) -> None:
    assert place.base is not None
    stage.weather.strike("kill", place.label)
    _signal(place.base.pid, signal.SIGKILL)
    await trio.lowlevel.checkpoint()


async def _freeze(stage: Stage, place: Place, seconds: float) -> None:
    assert place.base is not None
    pid = place.base.pid
    with stage.weather.gust("freeze", place.label):
        _signal(pid, signal.SIGSTOP)
        try:
            await trio.sleep(seconds)
        finally:
            _signal(pid, signal.SIGCONT)


async def _dispose(stage: Stage, place: Place, _: float) -> None:
    assert place.base is not None
    with stage.weather.gust("dispose", place.label), suppress(OpenCodeError):
        query = {"directory": stage.workspace(0)}
        await place.base.request("POST", "/instance/dispose", query=query)


async def _drop_events(stage: Stage, place: Place, _: float) -> None:
    assert place.proxy is not None
    with stage.weather.gust("drop events", place.label):
        await place.proxy.drop(EVENTS)


async def _mute_events(stage: Stage, place: Place, _: float) -> None:
    assert place.proxy is not None
    blow = stage.weather.strike("mute events", place.label)
    place.proxy.mute(EVENTS)
    blow.ended = trio.current_time() + SILENCE_S + AFTERMATH_S
    await trio.lowlevel.checkpoint()


async def _lose_answers(stage: Stage, place: Place, _: float) -> None:
    """Drop those who wait for the end of their turns."""
    assert place.proxy is not None
    with stage.weather.gust("lose answers", place.label):
        for connection in list(place.proxy.connections):
            if connection.waits_for("POST", "/message"):
                await trio.aclose_forcefully(connection.client)


async def _outage(stage: Stage, place: Place, seconds: float) -> None:
    """Drop everything, and refuse what comes, for less than the library tries again."""
    proxy = place.proxy
    assert proxy is not None
    with stage.weather.gust("outage", place.label):
        proxy.refuses = True
        try:
            for connection in list(proxy.connections):
                await trio.aclose_forcefully(connection.client)
            await trio.sleep(min(seconds, 1.5))
        finally:
            proxy.refuses = False


def _signal(pid: int | None, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid or 0, number)


GUSTS: Mapping[str, Callable[[Stage, Place, float], Awaitable[None]]] = {
    "kill": _kill,
    "freeze": _freeze,
    "dispose": _dispose,
    "drop events": _drop_events,
    "mute events": _mute_events,
    "lose answers": _lose_answers,
    "outage": _outage,
}
