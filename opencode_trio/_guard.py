"""Guards against a turn that would never end.

opencode has no bound of its own: a provider whose streams break off makes it ask again at once,
without pause or limit (99 requests in 40 s were seen), and so does a model that calls the same
tool for ever.
"""

from __future__ import annotations

from opencode_trio._turn import ANSWERED, ENDS_OF_A_STEP
from opencode_trio.errors import OpenCodeLimitError
from opencode_trio.events import Event, StepFinished, StepStarted

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


class RunawayGuard:
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
