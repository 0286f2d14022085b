"""What the agents of a swarm have done so far, in bounded memory.

Of the longest story, neighbours are merged when there are too many spans, so that a picture loses
what it could hardly show, and the numbers stay right.
"""

from __future__ import annotations

from collections.abc import Callable

from opencode_trio._lane import Lane

MAX_SPANS = 20_000
"""Of a swarm, about 6 MB; more than a picture can show."""
SPANS_PER_AGENT = 16
"""What every agent may have, however many there are: about 5 kB."""


class History:
    """The stories of a swarm's agents, in the order in which they were started.

    Args:
        clock: tells the time, in seconds.
        max_spans: how many to keep, unless there are very many agents.
    """

    def __init__(self, clock: Callable[[], float], *, max_spans: int = MAX_SPANS) -> None:
        self.lanes: list[Lane] = []
        self._clock = clock
        self._opened = clock()
        self._closed: float | None = None
        self._max_spans = max_spans
        self._spans = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began, and until it was closed."""
        return (self._clock() if self._closed is None else self._closed) - self._opened

    def add(self) -> Lane:
        """Begin the story of an agent."""
        lane = Lane(lambda: self.elapsed_s, self._grew)
        self.lanes.append(lane)
        return lane

    def lane(self, number: int) -> Lane:
        """Return the story of an agent; the first has number 1."""
        return self.lanes[number - 1]

    def close(self) -> None:
        """Stop the time."""
        self._closed = self._clock()

    def _grew(self) -> None:
        self._spans += 1
        if self._spans > max(self._max_spans, SPANS_PER_AGENT * len(self.lanes)):
            longest = max(self.lanes, key=len)
            self._spans -= len(longest)
            longest.thin(len(longest) // 2)
            self._spans += len(longest)
