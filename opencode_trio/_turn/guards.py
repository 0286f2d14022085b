"""The guards of a turn in a session: over the whole tree, and live."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from opencode_trio._turn.budgets import dollars
from opencode_trio._turn.ending import ANSWERED, ENDS_OF_A_STEP
from opencode_trio.errors import OpenCodeLimitError
from opencode_trio.events import Event, MessageUpdated, SessionRetrying, StepFinished, StepStarted

MAX_STEPS = 1000
"""For a turn that names no limit of its own.  Agents that work for hours take a few hundred requests
to the model; opencode itself would let one go round in circles for ever, and pay for it."""


MAX_UNKNOWN_FINISHES = 3
"""How many steps in a row may end in no known way.  One broken stream happens, and asking again
mends it; three in a row is a provider that is down, and each costs a whole prompt."""


def check_steps(steps: int, allowed: int | None) -> None:
    """Refuse more requests to the model than are allowed; ``None`` is no limit.

    Raises:
        OpenCodeLimitError: there are more.
    """
    if allowed is not None and steps > allowed:
        text = f"stopped: the turn needs more requests to the model than max_steps={allowed} allows"
        raise OpenCodeLimitError(text, limit="max_steps", allowed=allowed)


class StepGuard:
    """Count a turn's steps and stop it at a limit.

    Args:
        max_steps: the most requests to the model; ``None`` for no limit.
    """

    def __init__(self, max_steps: int | None = None) -> None:
        self.max_steps = max_steps
        self._started = 0
        self._unknown = 0

    def check(self, event: Event) -> None:
        """Take the turn's next event.

        Raises:
            OpenCodeLimitError: the turn must go no further.
        """
        match event:
            case StepStarted():
                self._started += 1
                check_steps(self._started, self.max_steps)
            case StepFinished(reason=reason):
                # Unless this was an answer another step follows: stop before it starts.
                goes_on = ENDS_OF_A_STEP.get(reason) not in ANSWERED
                check_steps(self._started + goes_on, self.max_steps)
                self._unknown = 0 if reason in ENDS_OF_A_STEP else self._unknown + 1
                self._check_unknown()

    def _check_unknown(self) -> None:
        if self._unknown >= MAX_UNKNOWN_FINISHES:
            raise OpenCodeLimitError(
                f"stopped: {self._unknown} steps in a row broke off without a finish reason, and "
                "opencode would repeat the request without end",
                limit="unknown_finishes",
                allowed=MAX_UNKNOWN_FINISHES,
            )


LONGEST_RETRY_WAIT_S = 900.0
"""opencode honours a provider's ``retry-after`` of up to 24 days.  Quarters of an hour are how long
rate limits really last; longer ones mean a spent quota."""


@attrs.frozen
class TurnLimits:
    """What a turn may use.  ``None`` is no limit."""

    max_steps: int | None = None
    """Requests to the model."""
    max_cost_usd: float | None = None
    """US dollars, as opencode prices the model."""
    max_retry_wait_s: float | None = LONGEST_RETRY_WAIT_S
    """The longest wait that the provider may ask for before the next try."""


@attrs.define
class TurnGuard:
    """Watch a session and its subagents together.

    Runaways are counted session by session, steps and dollars over all.
    """

    limits: TurnLimits
    _steps: int = attrs.field(default=0, init=False)
    _newest: dict[str | None, str] = attrs.field(factory=dict[str | None, str], init=False)
    """The message of each session's newest step."""
    _known: set[str] = attrs.field(factory=set[str], init=False)
    """The parts that have been counted: they may be told, and found in what is stored, too."""
    _runaways: dict[str | None, StepGuard] = attrs.field(
        factory=dict[str | None, StepGuard], init=False
    )

    def check(self, event: Event, *, cost_usd: Callable[[], float], now_s: float) -> None:
        """Take the tree's next event; a step that has been counted is not counted again.

        Args:
            event: the event.
            cost_usd: tells what the tree has cost so far, this event counted.
            now_s: the time, in seconds since the epoch.

        Raises:
            OpenCodeLimitError: the turn must go no further.
        """
        if self._is_counted(event):
            return
        match event:
            case SessionRetrying(next_at_s=next_at_s):
                self._check_wait(next_at_s - now_s)
            case StepStarted():
                self._steps += 1
                newest = self._newest.get(event.session_id, "")
                self._newest[event.session_id] = max(newest, event.message_id or "")
                check_steps(self._steps, self.limits.max_steps)
            case StepFinished(reason=reason):
                # What is found after an outage may be older than what has been told since.
                has_gone_on = (event.message_id or "") < self._newest.get(event.session_id, "")
                goes_on = reason == "tool-calls" and not has_gone_on
                check_steps(self._steps + goes_on, self.limits.max_steps)
                self._check_cost(cost_usd(), goes_on=goes_on)
                runaway = self._runaways.setdefault(event.session_id, StepGuard())
                runaway.check(event)
            case MessageUpdated(is_complete=True):
                self._check_cost(cost_usd(), goes_on=False)

    def _is_counted(self, event: Event) -> bool:
        part = event.part_id if isinstance(event, StepStarted | StepFinished) else None
        if part is None or part in self._known:
            return part is not None
        self._known.add(part)
        return False

    def _check_cost(self, cost: float, *, goes_on: bool) -> None:
        allowed = self.limits.max_cost_usd
        if allowed is not None and (cost > allowed or (goes_on and cost >= allowed)):
            text = f"stopped: the turn spent {dollars(cost)} of its {dollars(allowed)} limit (max_cost_usd)"
            raise OpenCodeLimitError(text, limit="max_cost_usd", allowed=allowed)

    def _check_wait(self, seconds: float) -> None:
        allowed = self.limits.max_retry_wait_s
        if allowed is not None and seconds > allowed:
            text = (
                f"stopped: the provider asks to wait {seconds:.0f} s before the next try, and the "
                f"limit is {allowed:g} s (max_retry_wait_s)"
            )
            raise OpenCodeLimitError(text, limit="max_retry_wait_s", allowed=allowed)
