"""The story of one agent: its events, and when they came, as spans."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from opencode_trio._report.spans import OpenSpan, Span, SpanKind, thin
from opencode_trio._turn.titles import (
    ask_title,
    duration_of,
    error_title,
    has_failed,
    one_line,
    tool_title,
)
from opencode_trio.events import (
    ErrorReported,
    Event,
    MessageUpdated,
    PermissionAsked,
    PermissionReplied,
    QuestionAsked,
    QuestionRejected,
    QuestionReplied,
    SessionBusy,
    SessionCreated,
    SessionIdle,
    SessionRetrying,
    SessionUpdated,
    StepFinished,
    StepStarted,
    ToolPart,
)

MAX_ROW = 6
"""More subagents than this, side by side, share the last row."""


MEMORY = 256
"""Of so many steps, tools and asks it is known that they are over; a late word does not begin them
again."""


Key = tuple[SpanKind, str | None]
"""A kind, and the session, part or request: what an end is told of."""


class AgentRecorder:
    """The story of one agent.

    Args:
        clock: tells the time, in seconds.
        grew: called when there is one more span.
    """

    def __init__(self, clock: Callable[[], float], grew: Callable[[], None]) -> None:
        self.counts: Counter[SpanKind] = Counter()
        """How many there were of each kind, whatever was merged."""
        self.failures: Counter[SpanKind] = Counter()
        """How many of them failed."""
        self.seconds: dict[SpanKind, float] = defaultdict(float)
        """How long they took together."""
        self.ended_s: float | None = None
        """When the agent was over."""
        self._clock = clock
        self._grew = grew
        self._ended: list[Span] = []
        self._open: dict[Key, OpenSpan] = {}
        self._subagents: dict[str, str] = {}
        self._over: deque[Key] = deque(maxlen=MEMORY)
        self._free_since = clock()
        self._status: SpanKind | None = None

    def __len__(self) -> int:
        return len(self._ended)

    def spans(self) -> list[Span]:
        """Return all spans, in the order of their starts; what goes on lasts until now."""
        now = self._clock()
        going_on = (entry.until(now, is_open=True) for entry in self._open.values())
        return sorted([*self._ended, *going_on], key=lambda span: span.start_s)

    def thin(self, most: int) -> None:
        """Merge neighbours until there are at most so many."""
        self._ended = thin(self._ended, most)

    # --- what happens ---------------------------------------------------------------------------

    def set_status(self, status: str) -> None:
        """Know how the agent stands."""
        kind = STATUSES.get(status)
        if self._status is not None and self._status != kind:
            self.settle()
            self._end((self._status, None))
        self._status = kind
        if kind is None:
            self.ended_s = self._clock()
        if kind is not None and (kind, None) not in self._open:
            self._free_since = self._clock()
            self._begin((kind, None), None, status)

    def settle(self) -> None:
        """Know that a turn is over; what it did not tell the end of has ended, too."""
        for key, entry in list(self._open.items()):
            if entry.kind not in LASTING:
                self._end(key, title=f"{entry.title} (cut off)")
        self._subagents.clear()

    def take(self, event: Event) -> None:
        """Take an event of its session tree."""
        if (taker := TAKERS.get(type(event))) is not None:
            taker(self, event)

    def take_session(self, event: SessionCreated | SessionUpdated) -> None:
        if event.parent_id is not None and event.session_id is not None:
            self._subagents[event.session_id] = one_line(event.title or event.agent or "subagent")
            if isinstance(event, SessionCreated):
                self._begin_subagent(event.session_id)

    def take_busy(self, event: SessionBusy) -> None:
        self._end(("retry", event.session_id))
        if event.session_id in self._subagents:  # maybe one that is resumed
            self._begin_subagent(event.session_id)

    def take_idle(self, event: SessionIdle) -> None:
        # Not what it does: an answer may be told of later.
        self._end(("retry", event.session_id))
        self._end(("subagent", event.session_id))

    def take_retry(self, event: SessionRetrying) -> None:
        title = one_line(f"retry {event.attempt}: {event.message}")
        self._begin(("retry", event.session_id), event.session_id, title).title = title

    def take_step_start(self, event: StepStarted | MessageUpdated) -> None:
        if ("step", event.message_id) not in self._over:
            self._begin(("step", event.session_id), event.session_id, "step")

    def take_step_end(self, event: StepFinished) -> None:
        self._end_step(event, f"step: {event.reason}")

    def take_message(self, event: MessageUpdated) -> None:
        if event.role != "assistant":
            return
        if not event.is_complete:
            self.take_step_start(event)
        elif event.error is not None or ("step", event.session_id) in self._open:
            said = error_title(event.error) if event.error else (event.finish or "over")
            self._end_step(event, f"step: {said}")

    def take_tool(self, event: ToolPart) -> None:
        key: Key = ("tool", event.part_id)
        if key in self._over:
            return
        if event.status in ("completed", "error"):
            if key not in self._open:  # its beginning was not told
                start = max(self._free_since, self._clock() - duration_of(event))
                self._begin(key, event.session_id, "").start_s = start
            self._end(key, title=tool_title(event), is_failed=has_failed(event))
            self._know_over(key)
        elif event.status == "running":
            self._begin(key, event.session_id, "").title = tool_title(event)

    def take_ask(self, event: PermissionAsked | QuestionAsked) -> None:
        if ("ask", event.request_id) not in self._over:
            self._begin(("ask", event.request_id), event.session_id, ask_title(event))

    def take_answer(self, event: PermissionReplied | QuestionReplied | QuestionRejected) -> None:
        if (entry := self._open.get(("ask", event.request_id))) is not None:
            answer = event.reply if isinstance(event, PermissionReplied) else ANSWERS[type(event)]
            self._end(("ask", event.request_id), title=f"{entry.title}: {answer}")
        self._know_over(("ask", event.request_id))

    def take_error(self, event: ErrorReported) -> None:
        key: Key = ("error", event.session_id)
        self._begin(key, event.session_id, error_title(event.error))
        self._end(key, is_failed=True)

    # --- spans ----------------------------------------------------------------------------------

    def _begin(self, key: Key, session: str | None, title: str) -> OpenSpan:
        """Return the span, open now if it was not before."""
        if key not in self._open:
            within = self._open.get(("subagent", session))
            row = within.row if within else 0
            self._open[key] = OpenSpan(key[0], self._clock(), session, title, row)
        return self._open[key]

    def _begin_subagent(self, session: str) -> None:
        taken = {entry.row for entry in self._open.values() if entry.kind == "subagent"}
        free = (row for row in range(1, MAX_ROW) if row not in taken)
        self._begin(("subagent", session), session, self._subagents[session])
        if (entry := self._open["subagent", session]).row == 0:
            entry.row = next(free, MAX_ROW)

    def _end_step(self, event: StepFinished | MessageUpdated, title: str) -> None:
        session = event.session_id
        if ("step", event.message_id) in self._over:
            return
        self._know_over(("step", event.message_id))
        if ("step", session) not in self._open:  # its beginning was not told
            self._begin(("step", session), session, "").start_s = self._free_since
        for kind in ("step", "subagent"):
            if (entry := self._open.get((kind, session))) is not None:
                entry.cost_usd += event.cost
                entry.tokens += event.tokens.total
        is_failed = isinstance(event, MessageUpdated) and event.error is not None
        self._end(("step", session), title=title, is_failed=is_failed)
        self._free_since = self._clock()

    def _know_over(self, key: Key) -> None:
        if key[1] is not None:
            self._over.append(key)

    def _end(self, key: Key, *, title: str | None = None, is_failed: bool = False) -> None:
        if (entry := self._open.pop(key, None)) is None:
            return
        entry.title = one_line(entry.title if title is None else title)
        span = entry.until(self._clock(), is_failed=is_failed)
        self._ended.append(span)
        self.counts[span.kind] += 1
        self.failures[span.kind] += is_failed
        self.seconds[span.kind] += span.length_s
        self._grew()


LASTING: tuple[SpanKind, ...] = ("waiting", "starting", "running")


STATUSES: Mapping[str, SpanKind] = {kind: kind for kind in LASTING}
"""Those that last; the others are ends."""


ANSWERS = {QuestionReplied: "answered", QuestionRejected: "dismissed"}


TAKERS: Mapping[type[Event], Callable[[AgentRecorder, Any], None]] = {
    SessionCreated: AgentRecorder.take_session,
    SessionUpdated: AgentRecorder.take_session,
    SessionBusy: AgentRecorder.take_busy,
    SessionIdle: AgentRecorder.take_idle,
    SessionRetrying: AgentRecorder.take_retry,
    StepStarted: AgentRecorder.take_step_start,
    StepFinished: AgentRecorder.take_step_end,
    MessageUpdated: AgentRecorder.take_message,
    ToolPart: AgentRecorder.take_tool,
    PermissionAsked: AgentRecorder.take_ask,
    QuestionAsked: AgentRecorder.take_ask,
    PermissionReplied: AgentRecorder.take_answer,
    QuestionReplied: AgentRecorder.take_answer,
    QuestionRejected: AgentRecorder.take_answer,
    ErrorReported: AgentRecorder.take_error,
}
"""Who takes an event; of the others, a picture shows nothing."""


MAX_SPANS = 20_000
"""Of a swarm, about 6 MB; more than a picture can show."""


SPANS_PER_AGENT = 16
"""What every agent may have, however many there are: about 5 kB."""


class SwarmRecorder:
    """The stories of a swarm's agents, in the order in which they were started.

    Args:
        clock: tells the time, in seconds.
        max_spans: how many to keep, unless there are very many agents.
    """

    def __init__(self, clock: Callable[[], float], *, max_spans: int = MAX_SPANS) -> None:
        self.recorders: list[AgentRecorder] = []
        self._clock = clock
        self._opened = clock()
        self._closed: float | None = None
        self._max_spans = max_spans
        self._spans = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began, and until it was closed."""
        return (self._clock() if self._closed is None else self._closed) - self._opened

    def add(self) -> AgentRecorder:
        """Begin the story of an agent."""
        recorder = AgentRecorder(lambda: self.elapsed_s, self._grew)
        self.recorders.append(recorder)
        return recorder

    def recorder(self, number: int) -> AgentRecorder:
        """Return the story of an agent; the first has number 1."""
        return self.recorders[number - 1]

    def close(self) -> None:
        """Stop the time."""
        self._closed = self._clock()

    def _grew(self) -> None:
        self._spans += 1
        if self._spans > max(self._max_spans, SPANS_PER_AGENT * len(self.recorders)):
            longest = max(self.recorders, key=len)
            self._spans -= len(longest)
            longest.thin(len(longest) // 2)
            self._spans += len(longest)
