"""The soak: round after round, each with servers of its own, until the time is up."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import attrs
import trio

from chaos import conversations, crowds, freezes, gusts, runs, swarms
from chaos.acts import Act, Conversation, Crowd, Freeze, Gust, SingleRun, SwarmPlan
from chaos.schedule import act
from chaos.stage import WORKSPACES, Stage, open_stage, worktrees_left
from chaos.tally import Tally
from chaos.watch import GROWTH_MIB, Watch, leaving_nothing, resident_mib

ROUND = 70
"""Activities of a round: a minute or so, after which servers are new and everything is counted."""

MOST_COMPLAINTS = 20

PLAYERS: dict[type, tuple[str, Callable[[Stage, Any], Awaitable[None]]]] = {
    Conversation: ("conversations", conversations.converse),
    Crowd: ("crowds", crowds.crowd),
    Freeze: ("servers stopped for good", freezes.freeze),
    SingleRun: ("runs", runs.run),
    SwarmPlan: ("swarms of agents", swarms.swarm),
    Gust: ("gusts planned", gusts.blow),
}


@attrs.frozen
class Options:
    """What to do."""

    binary: str
    seed: int
    minutes: float | None = None
    at_once: int = 8
    only: Sequence[int] = ()
    """Only these activities."""
    activities: int | None = None
    """How many, at most."""
    round: int = ROUND
    story: Path | None = None
    """A file for the story of the soak."""


@attrs.define(eq=False)
class Soak:
    """A soak under way."""

    options: Options
    tally: Tally = attrs.field(factory=Tally)
    violations: list[str] = attrs.field(factory=list)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    began: float = 0.0
    sizes_mib: list[float] = attrs.field(factory=list)
    numbers_on_stage: set[int] = attrs.field(factory=set)

    def complain(self, text: str) -> None:
        """Take down what must not be."""
        self.violations.append(text)
        self.note(f"VIOLATION {text.splitlines()[0]}")
        print(f"VIOLATION (seed {self.options.seed}): {text}", flush=True)
        if len(self.violations) >= MOST_COMPLAINTS:
            self.scope.cancel()

    def note(self, text: str) -> None:
        """Write what happens, if it is wanted."""
        if self.options.story is not None:
            with self.options.story.open("a") as file:
                file.write(f"{trio.current_time() - self.began:8.2f} {text}\n")

    async def run(self) -> None:
        """Play round after round."""
        self.began = trio.current_time()
        ends_at = trio.current_time() + 60 * (self.options.minutes or float("inf"))
        numbers = self._numbers()
        watch = Watch(self.complain, self.scope.cancel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            with self.scope:
                for number in count(1):
                    chunk = list(islice(numbers, self.options.round))
                    if not chunk or trio.current_time() >= ends_at:
                        break
                    await self._round(number, chunk, ends_at, watch)
            nursery.cancel_scope.cancel()
        self.tally.took("the event loop was late, at most", watch.slowest_loop_s)
        self._check_growth()

    def _numbers(self) -> Iterator[int]:
        if self.options.only:
            return iter(self.options.only)
        return islice(count(), self.options.activities)

    async def _round(self, number: int, chunk: Sequence[int], ends_at: float, watch: Watch) -> None:
        began = trio.current_time()
        directory = Path(tempfile.mkdtemp(prefix="chaos-"))
        try:
            async with (
                leaving_nothing(self.complain),
                open_stage(
                    self.options.binary, directory, self.tally, self.complain, self.note
                ) as stage,
            ):
                await self._play(stage, number, chunk, ends_at, watch)
            for n in range(WORKSPACES):
                if left := worktrees_left(directory / f"workspace{n}"):
                    self.complain(f"worktrees are left: {left}")
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        self.tally.count("rounds")
        self.sizes_mib.append(resident_mib())
        print(
            f"round {number}: activities {chunk[0]} to {chunk[-1]},"
            f" {trio.current_time() - began:.0f} s, {self.sizes_mib[-1]:.0f} MiB,"
            f" {len(self.violations)} violations",
            flush=True,
        )

    async def _play(
        self, stage: Stage, number: int, chunk: Sequence[int], ends_at: float, watch: Watch
    ) -> None:
        """Play a round's activities, several at once; some rounds are cancelled near their end."""
        chance = Random(f"{self.options.seed} round {number}")
        cancel_at = chance.randrange(len(chunk) // 2, len(chunk)) if chance.random() < 0.4 else -1
        upcoming = enumerate(chunk)

        async def work(everything: trio.CancelScope) -> None:
            for index, n in upcoming:
                if trio.current_time() >= ends_at:
                    return
                if index == cancel_at and not self.options.only:
                    stage.weather.strike("cancel all", None)
                    self.tally.count("gusts", "cancel all")
                    everything.cancel()
                await self._act(stage, act(self.options.seed, n), watch)

        async with trio.open_nursery() as nursery:
            for _ in range(self.options.at_once):
                nursery.start_soon(work, nursery.cancel_scope)

    async def _act(self, stage: Stage, plan: Act, watch: Watch) -> None:
        what, play = PLAYERS[type(plan)]
        self.tally.count("activities", what)
        with watch.watching(f"{plan.number}: {plan}"):
            try:
                await play(stage, plan)
            except Exception as exc:
                text = "".join(traceback.format_exception(exc))
                stage.complain(f"act {plan.number}: {text}")

    def _check_growth(self) -> None:
        if len(self.sizes_mib) > 2 and self.sizes_mib[-1] - self.sizes_mib[1] > GROWTH_MIB:
            self.complain(f"this process has grown: {self.sizes_mib} MiB after each round")


class Ears(logging.Handler):
    """Counts what the library logs; an error of its own is a violation."""

    def __init__(self, soak: Soak) -> None:
        super().__init__()
        self.soak = soak

    def emit(self, record: logging.LogRecord) -> None:
        text = str(record.msg)[:60]
        self.soak.tally.count("log records", f"{record.levelname.lower()} {text!r}")
        if record.levelno >= logging.ERROR:
            self.soak.complain(f"the library logged: {self.format(record)}")


def lines(soak: Soak) -> Iterable[str]:
    """Tell what came of it."""
    yield from soak.tally.lines()
    yield f"resident after each round: {[round(size) for size in soak.sizes_mib]} MiB"
    yield f"{len(soak.violations)} violations"


def main(options: Options) -> int:
    """Run a soak; return the exit status."""
    runs.limit_files()
    soak = Soak(options)
    logger = logging.getLogger("opencode_trio")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(Ears(soak))
    trio.run(soak.run)
    print("\n".join(lines(soak)))
    if soak.violations:
        again = f"nox -s chaos -- --seed {options.seed}"
        print(f"To do all of it again: {again} --minutes {options.minutes or 5:g}", file=sys.stderr)
        print(f"or only activity N of it: {again} --only N", file=sys.stderr)
    return 1 if soak.violations else 0
