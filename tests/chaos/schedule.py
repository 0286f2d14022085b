"""The schedule: what happens to whom, as a pure function of the seed.

`act(seed, number)` needs no other act, so a single one can be done again by itself.  When the
operating system lets it happen is another matter, and no seed decides that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TypeVar

import attrs

from chaos.acts import Act, AgentPlan, Conversation, Crowd, Freeze, Gust, SingleRun, SwarmPlan, Take
from chaos.allowed import BY_EVENT
from chaos.markers import marker
from chaos.plots import NEVER, PLOTS, Plot

T = TypeVar("T")

# --- what goes with what ------------------------------------------------------------------------

NOT_IN_RUN = {
    # Nobody is asked there.
    "ask", "refused", "refused with reason", "child asks", "question", "dismissed",
    "child has a question", "crashing handler", "child meets crashing handler", "silent handler",
    # Options that a run does not have.
    "costly", "silence", "structured", "structured in the end", "structured never",
}  # fmt: skip

OF_STREAMS = ("break", "body error")
"""Twists that only a stream can have."""


@attrs.frozen
class Manner:
    """What can be played and done to it, in one of the ways to run an agent."""

    plots: tuple[str, ...]
    twists: tuple[str, ...]
    slowness_s: float
    """The latest moment of a twist by the clock."""
    is_run: bool = False

    def is_endless(self, plot: Plot) -> bool:
        """Whether it needs a twist to end."""
        return plot.ends_in(is_run=self.is_run) == NEVER

    def twists_of(self, plot: Plot) -> list[str]:
        """List what can be done to a plot."""
        # One that is endless may have few events; one whose answer has a shape has no stream.
        unfit = (*(BY_EVENT if self.is_endless(plot) else ()), *_unless_streamed(plot))
        return [twist for twist in self.twists if twist not in unfit]


def _unless_streamed(plot: Plot) -> tuple[str, ...]:
    return OF_STREAMS if plot.has_shape else ()


SESSION = Manner(
    tuple(PLOTS),
    (
        "cancel scope", "time limit", "break", "body error", "sibling", "listener",
        "third party", "deletion",
    ),
    slowness_s=2.5,
)  # fmt: skip
IN_A_CROWD = attrs.evolve(
    SESSION,
    plots=(
        "plain", "tool", "todo", "subagent", "storm", "cut short", "refusal", "stall", "drip",
    ),
    twists=("cancel scope", "time limit", "sibling"),
)  # fmt: skip
RUN = Manner(
    tuple(name for name in PLOTS if name not in NOT_IN_RUN),
    ("cancel scope", "time limit", "break", "body error", "sibling"),
    slowness_s=12.0,
    is_run=True,
)
AGENT = Manner(
    # The prompt of an agent has no options of its own but `timeout_s` and `output`.
    tuple(name for name in PLOTS if name not in {"huge", "costly", "silence", "long output"}),
    ("time limit", "handle", "listener"),
    slowness_s=4.0,
)

READERS_S = (0.0, 0.0, 0.0, 0.02, 0.2)
TWISTED = 0.35
"""The share of turns that something is done to, of those that end by themselves."""


def _take(seed: str, mark: str, chance: Random, manner: Manner) -> Take:
    take = Take(mark, chance.choice(manner.plots), seed)
    plot = take.plot
    needed = manner.is_endless(plot)
    twist = chance.choice(manner.twists_of(plot)) if needed or chance.random() < TWISTED else "none"
    is_streamed = twist in OF_STREAMS or (chance.random() < 0.5 and not plot.has_shape)
    by_clock = round(chance.uniform(0.0, manner.slowness_s), 2)
    return attrs.evolve(
        take,
        twist=twist,
        at=float(chance.randint(1, 12)) if twist in BY_EVENT else by_clock,
        is_streamed=is_streamed,
        reader_s=chance.choice(READERS_S) if is_streamed else 0.0,
    )


# --- the kinds of acts ------------------------------------------------------------------------------

PLACES = {"calm": 4, "mortal": 4, "remote": 4}
GUSTS_OF = {
    "calm": {"dispose": 1},
    "mortal": {"kill": 3, "freeze": 3, "dispose": 1},
    "remote": {
        "drop events": 8, "mute events": 2, "lose answers": 8, "outage": 6, "freeze": 3,
        "dispose": 2, "kill": 1,
    },
}  # fmt: skip


def _conversation(seed: str, number: int, chance: Random) -> Conversation:
    takes: list[Take] = []
    is_attended = chance.random() < 0.85
    for _ in range(chance.randint(1, 3)):
        take = _take(seed, marker(number, len(takes)), chance, SESSION)
        takes.append(take if is_attended else _by_hand(take))
        if take.twist != "none" or take.plot.ends != {"completed"}:
            # Whatever has become of it: the next turn is as good as any.
            takes.append(Take(marker(number, len(takes)), "plain", seed))
    return Conversation(
        number,
        _choose(chance, PLACES | {"own": 1}),
        chance.randrange(2),
        tuple(takes),
        cut_at=_moment(chance, 8.0, share=0.08),
        kill_at=_moment(chance, 6.0, share=0.3),
        is_attended=is_attended,
    )


def _by_hand(take: Take) -> Take:
    """Have the reader of a stream answer what is asked in it."""
    handler = take.plot.handler
    if handler not in {"yes", "no", "why not"}:
        return attrs.evolve(take, plot_name="plain", twist="none")
    return attrs.evolve(take, is_streamed=take.is_streamed or handler != "no")


def _crowd(seed: str, number: int, chance: Random) -> Crowd:
    turns = range(chance.randint(2, 5))
    takes = [_take(seed, marker(number, turn), chance, IN_A_CROWD) for turn in turns]
    return Crowd(number, _choose(chance, PLACES), tuple(takes))


def _freeze(seed: str, number: int, chance: Random) -> Freeze:
    plot = chance.choice(["stall", "long tool", "child stalls", "silent handler"])
    at = round(chance.uniform(0.1, 3.0), 2)
    return Freeze(number, Take(marker(number, 0), plot, seed, "cancel scope", at))


def _run(seed: str, number: int, chance: Random) -> SingleRun:
    take = _take(seed, marker(number, 0), chance, RUN)
    fate = chance.choice(["killed", "stopped", "", "", ""]) if take.twist == "none" else ""
    moment = round(chance.uniform(0.5, 20.0), 1)
    return SingleRun(
        number,
        take,
        chance.choice(["none", "good", "full", "filling", "removed"]),
        kill_at=moment if fate == "killed" else None,
        stop_at=moment if fate == "stopped" else None,
    )


def _swarm(seed: str, number: int, chance: Random) -> SwarmPlan:
    place = _choose(chance, {"client": 2, "calm": 2, "mortal": 2, "remote": 1})
    is_client = place == "client"
    agents = [
        AgentPlan(
            _take(seed, marker(number, turn), chance, AGENT),
            is_restartable=chance.random() < 0.5,
            has_worktree=chance.random() < 0.3 and is_client,
        )
        for turn in range(chance.randint(2, 6))
    ]
    kills = chance.choice([0, 0, 1, 2]) if is_client else 0
    return SwarmPlan(
        number,
        place,
        tuple(agents),
        way=_choose(chance, {"start": 5, "map": 2, "race": 2, "best of": 1}),
        limit=chance.randint(1, 6),
        on_failure=chance.choice(["collect", "collect", "cancel"]),
        max_cost_usd=0.02 if chance.random() < 0.2 else None,
        kills=tuple(round(chance.uniform(1.0, 12.0), 1) for _ in range(kills)),
        cut_at=_moment(chance, 15.0, share=0.15),
    )


def _gust(_: str, number: int, chance: Random) -> Gust:
    place = _choose(chance, {"calm": 1, "mortal": 7, "remote": 10})
    name = _choose(chance, GUSTS_OF[place])
    return Gust(number, name, place, seconds=round(chance.uniform(0.2, 3.0), 2))


KINDS: Mapping[str, int] = {
    "conversation": 62, "crowd": 3, "freeze": 1, "run": 8, "swarm": 8, "gust": 18,
}  # fmt: skip
MAKERS: Mapping[str, Callable[[str, int, Random], Act]] = {
    "conversation": _conversation,
    "crowd": _crowd,
    "freeze": _freeze,
    "run": _run,
    "swarm": _swarm,
    "gust": _gust,
}


def act(seed: int, number: int) -> Act:
    """Say what the act of this number is."""
    chance = Random(f"{seed} {number}")
    return MAKERS[_choose(chance, KINDS)](str(seed), number, chance)


def _choose(chance: Random, weights: Mapping[T, int]) -> T:
    return chance.choices(list(weights), list(weights.values()))[0]


def _moment(chance: Random, latest: float, *, share: float) -> float | None:
    """Choose a moment, for a share of all."""
    moment = round(chance.uniform(0.0, latest), 2)
    return moment if chance.random() < share else None
