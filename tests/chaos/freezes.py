"""Freezes: a turn is cancelled, and its server does not hear it any more."""

from __future__ import annotations

import os
import signal

import trio

from chaos.acts import Freeze
from chaos.check import Report
from chaos.ends import CANCELLED
from chaos.markers import prompt
from chaos.stage import Stage
from chaos.turns import conclude
from chaos.witness import Witness
from opencode_trio import Graces, OpenCodeSession
from opencode_trio._session.abortable_request import STOP_S

BOUND_S = STOP_S + Graces().total_s + 5.0
"""The abort, the end of the server without its help, and a busy machine."""


async def freeze(stage: Stage, plan: Freeze) -> None:
    """Stop a server for good, cancel, and see that the block is left all the same."""
    take = plan.take
    account = stage.books.open(take.mark, take.plot)
    witness = Witness(take.mark, take.plot, stage.complain)
    cancelled_at = left_at = 0.0
    async with stage.runs, trio.open_nursery() as nursery:

        async def cancel(own: OpenCodeSession, scope: trio.CancelScope) -> None:
            nonlocal cancelled_at
            await account.asked.wait()
            await trio.sleep(take.at)
            os.kill(own._connection.pid or 0, signal.SIGSTOP)
            cancelled_at = trio.current_time()
            scope.cancel()

        with trio.CancelScope() as scope:
            async with OpenCodeSession(
                stage.client,
                stage.workspace(0),
                run_cfg=stage.config(),
                on_permission=witness.answer,
                on_question=witness.answer,
            ) as own:
                nursery.start_soon(cancel, own, scope)
                await own.send(prompt(take.mark))
        left_at = trio.current_time()
    if left_at - cancelled_at > BOUND_S:
        stage.complain(f"{take.mark}: left {left_at - cancelled_at:.1f} s after its cancellation")
    stage.tally.took("cancelled, at a stopped server", left_at - cancelled_at)
    witness.is_over = True
    with trio.CancelScope(shield=True):
        await conclude(stage, take, Report(take.mark, take.twist, CANCELLED), None)
