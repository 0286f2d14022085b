"""Crowds: several tasks prompt one session at once, and each has to get its own answer."""

from __future__ import annotations

import trio

from chaos.acts import Crowd, Take
from chaos.check import Report
from chaos.conversations import Turn
from chaos.ends import CANCELLED, end_of
from chaos.stage import Place, Stage
from chaos.turns import Player, conclude
from chaos.witness import Witness
from opencode_trio import OpenCodeError, RunConfig, Session


async def crowd(stage: Stage, plan: Crowd) -> None:
    """Play a crowd."""
    place = stage.places[plan.place]
    server = await place.current()
    label, began = place.label, trio.current_time()
    model = f"scripted/{stage.model.model_id}"
    cfg = RunConfig(model=model) if plan.place == "remote" else None
    try:
        async with (
            server.open_session(stage.workspace(0), run_cfg=cfg) as session,
            trio.open_nursery() as nursery,
        ):
            for take in plan.takes:
                nursery.start_soon(_prompt, stage, session, place, take, label)
    except OpenCodeError as exc:
        met = stage.weather.met(label, began, trio.current_time())
        if end_of(exc) != "server" or not met & {"kill", "outage"}:
            raise
        stage.tally.count("crowds that found no server")


async def _prompt(stage: Stage, session: Session, place: Place, take: Take, label: str) -> None:
    began = trio.current_time()
    stage.books.open(take.mark, take.plot)
    witness = Witness(take.mark, take.plot, stage.complain)
    player = Player(stage, take, Turn(session, take, place), witness)
    end, result, error = CANCELLED, None, ""
    try:
        end, result, error = await player.play()
    finally:
        report = Report(
            mark=take.mark,
            twist=take.twist,
            end=end,
            result=result or player.result,
            gusts=stage.weather.met(label, began, trio.current_time()),
            foreign=frozenset(witness.foreign),
            error=error,
        )
        with trio.CancelScope(shield=True):
            await conclude(stage, take, report, player.cut_short_at)
