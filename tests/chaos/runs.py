"""Runs: ``opencode run`` by itself, with a log file that may meet a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from chaos.acts import SingleRun, Take
from chaos.check import Report
from chaos.ends import CANCELLED
from chaos.markers import prompt
from chaos.stage import RUN_PERMISSION, Stage
from chaos.turns import Call, Player, conclude
from chaos.witness import Witness
from opencode_trio import RunResult

LARGEST_FILE = 2**30
"""The most that this process may write to a file: a disk that fills up where we want it to."""

ROOM = 600
"""As much of a log file's room as is left: a line or two."""

STOPPED_S = 2.0

OPTIONS = frozenset({"model", "max_steps"})
"""Options of a turn that a run has as settings."""


def limit_files() -> None:
    """Make `LARGEST_FILE` the limit; nobody else writes files that large."""
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (LARGEST_FILE, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )


def _filling(path: Path) -> Path:
    path.touch()
    os.truncate(path, LARGEST_FILE - ROOM)  # all of it a hole
    return path


LOGS: Mapping[str, Callable[[Path], Path | None]] = {
    "none": lambda _: None,
    "good": lambda path: path,
    "removed": lambda path: path,
    "full": lambda _: Path("/dev/full"),
    "filling": _filling,
}


@attrs.define(eq=False)
class RunCall(Call):
    """A run."""

    stage: Stage = attrs.field(repr=False)
    take: Take = attrs.field(repr=False)
    log: Path | None
    pid: int | None = None

    async def send(self, timeout_s: float | None) -> RunResult:
        return await self.stage.client.async_run(*self._what(), **self._how(timeout_s))

    @asynccontextmanager
    async def stream(self, timeout_s: float | None) -> AsyncIterator[Any]:
        async with self.stage.client.async_stream(*self._what(), **self._how(timeout_s)) as run:
            self.pid = run._child.pid
            yield run

    async def abort(self) -> None:
        raise AssertionError("a run has nobody else who could abort it")

    def _what(self) -> tuple[str, str]:
        return prompt(self.take.mark), self.stage.workspace(0)

    def _how(self, timeout_s: float | None) -> dict[str, Any]:
        options = {k: v for k, v in self.take.plot.options.items() if k in OPTIONS}
        cfg = self.stage.config(permission=RUN_PERMISSION, **options)
        return {"run_cfg": cfg, "timeout_s": timeout_s, "log_file": self.log}


async def run(stage: Stage, plan: SingleRun) -> None:
    """Play a run."""
    async with stage.runs:
        await _run(stage, plan)


async def _run(stage: Stage, plan: SingleRun) -> None:
    take = plan.take
    if plan.kill_at is not None or plan.stop_at is not None:
        take = attrs.evolve(take, is_streamed=True)
    path = stage.directory / f"{take.mark}.log"
    stage.books.open(take.mark, take.plot)
    witness = Witness(take.mark, take.plot, stage.complain)
    call = RunCall(stage, take, LOGS[plan.log](path))
    player = Player(stage, take, call, witness)
    end, result, error = CANCELLED, None, ""
    began = trio.current_time()
    killed: list[int] = []
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_disturb, plan, call, path, killed)
            end, result, error = await player.play()
            nursery.cancel_scope.cancel()
    finally:
        witness.is_over = True
        report = Report(
            mark=take.mark,
            twist=take.twist,
            end=end,
            result=result or player.result,
            gusts=stage.weather.met("", began, trio.current_time()),
            more_ends=frozenset({"process -9"}) if killed else frozenset(),
            is_run=True,
            foreign=frozenset(witness.foreign),
            error=error,
        )
        with trio.CancelScope(shield=True):
            await conclude(stage, take, report, player.cut_short_at)
        stage.tally.end(f"log file: {plan.log}", end)
        if killed:
            stage.tally.end("run's process killed", end)
        if plan.stop_at is not None:
            stage.tally.end("run's process stopped for a while", end)
    if plan.log == "good" and result is not None:
        _check_log(stage, take, path, result)


async def _disturb(plan: SingleRun, call: RunCall, path: Path, killed: list[int]) -> None:
    if plan.log == "removed":
        while not path.exists():
            await trio.sleep(0.01)
        path.unlink()
    if plan.kill_at is not None:
        await trio.sleep(plan.kill_at)
        if call.pid is not None:
            killed.append(call.pid)
            _signal(call.pid, signal.SIGKILL)
    if plan.stop_at is not None:
        await trio.sleep(plan.stop_at)
        _signal(call.pid, signal.SIGSTOP)
        try:
            await trio.sleep(STOPPED_S)
        finally:
            _signal(call.pid, signal.SIGCONT)


def _signal(pid: int | None, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, number)


def _check_log(stage: Stage, take: Take, path: Path, result: RunResult) -> None:
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    if logged != result.events:
        stage.complain(f"{take.mark}: its log has {len(logged)} records of {len(result.events)}")
