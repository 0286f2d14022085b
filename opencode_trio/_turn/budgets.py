"""What agents have spent, and what they may spend.

Budgets nest: what is spent in one counts in all around it, and the first that is exceeded stops the
agents below it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from opencode_trio.errors import OpenCodeConfigError, OpenCodeLimitError
from opencode_trio.events import Event, MessageUpdated, StepFinished, TokenUsage
from opencode_trio.results import RunResult


@attrs.frozen
class Spending:
    """What has been spent, of whole session trees."""

    cost_usd: float = 0.0
    """US dollars, as opencode prices the models."""
    tokens: int = 0
    """All that providers bill: prompts, answers, thinking, and the cache."""
    unpriced_tokens: int = 0
    """Those of `tokens` that opencode knows no price for, or which are free; it does not say which.
    While this is not 0, `cost_usd` is what is *known* to have been spent."""

    def __add__(self, other: Spending) -> Spending:
        return Spending(
            self.cost_usd + other.cost_usd,
            self.tokens + other.tokens,
            self.unpriced_tokens + other.unpriced_tokens,
        )

    def __sub__(self, other: Spending) -> Spending:
        return self + Spending(-other.cost_usd, -other.tokens, -other.unpriced_tokens)


def spending_of(cost_usd: float, tokens: TokenUsage) -> Spending:
    """Return what one message took."""
    return Spending(cost_usd, tokens.total, 0 if cost_usd else tokens.total)


@attrs.frozen
class ExceededLimit:
    """A limit that is reached."""

    limit: str
    """``max_cost_usd`` or ``max_tokens``."""
    allowed: float
    spent: float
    of: str
    """Whose limit it is."""
    soft: float = 1.0
    """The share of it from which on no new agent is started."""

    def stopped(self, partial: RunResult | None) -> OpenCodeLimitError:
        """Return the error of an agent that was running."""
        return self._error(f"stopped: {self._spent()}", partial)

    def not_started(self) -> OpenCodeLimitError:
        """Return the error of an agent that was not."""
        start = self.allowed * self.soft
        is_soft = f"; no agent starts from {self._amount(start)} on (soft={self.soft:g})"
        return self._error(f"not started: {self._spent()}{is_soft if self.soft < 1 else ''}", None)

    def _spent(self) -> str:
        unit = "-token" if self.limit == "max_tokens" else ""
        limit = f"{self._amount(self.allowed).removesuffix(' tokens')}{unit} limit"
        return f"spent {self._amount(self.spent)} of the {limit} ({self.limit}) of {self.of}"

    def _amount(self, amount: float) -> str:
        return f"{amount:,.0f} tokens" if self.limit == "max_tokens" else dollars(amount)

    def _error(self, text: str, partial: RunResult | None) -> OpenCodeLimitError:
        return OpenCodeLimitError(text, limit=self.limit, allowed=self.allowed, partial=partial)


def dollars(amount: float) -> str:
    """Write an amount as ``$0.50`` or ``$0.507``: cents, and more digits where there are any."""
    whole, _, rest = f"{amount:.4f}".partition(".")
    return f"${whole}.{rest.rstrip('0'):0<2}" if amount >= 0.0001 else f"${amount:.1g}"


@attrs.define(eq=False)
class _Level:
    """One budget by itself."""

    limits: Sequence[tuple[str, float]]
    soft: float
    of: str
    """Whose it is, for errors."""
    spent: Spending = attrs.field(factory=Spending)
    run: object = None
    """The `trio.run` whose agents it can stop now."""
    users: int = 0
    watchers: list[Callable[[ExceededLimit], None]] = attrs.field(
        factory=list[Callable[[ExceededLimit], None]]
    )

    def excess(self) -> ExceededLimit | None:
        """Return the limit that is passed."""
        found = (e for e in self._all() if e.spent > e.allowed)
        return next(found, None)

    def refusal(self) -> ExceededLimit | None:
        """Return the limit whose soft share is reached."""
        found = (e for e in self._all() if e.spent >= e.allowed * self.soft)
        return next(found, None)

    def tell(self) -> None:
        if (excess := self.excess()) is not None:
            for watcher in list(self.watchers):
                watcher(excess)

    def _all(self) -> Iterator[ExceededLimit]:
        spent = {"max_cost_usd": self.spent.cost_usd, "max_tokens": self.spent.tokens}
        return (
            ExceededLimit(name, allowed, spent[name], self.of, self.soft)
            for name, allowed in self.limits
        )


class Budget:
    """What some agents may spend together, and what they have spent.

    From `limit_spending`, `Swarm.budget` or `Agent.budget`.

    Args:
        max_cost_usd: US dollars; ``None`` is no limit.
        max_tokens: tokens, likewise.
        soft: the share of a limit from which on no new agent is started.
        of: whose it is, for errors.

    Raises:
        OpenCodeConfigError: a limit is invalid.
    """

    def __init__(
        self,
        *,
        max_cost_usd: float | None = None,
        max_tokens: int | None = None,
        soft: float = 1.0,
        of: str = "the budget",
    ) -> None:
        limits = {"max_cost_usd": max_cost_usd, "max_tokens": max_tokens}
        for name, value in (limits | {"soft": soft}).items():
            _check(name, value)
        given = [(name, value) for name, value in limits.items() if value is not None]
        self.max_cost_usd: float | None = max_cost_usd
        """The most US dollars; ``None`` is no limit."""
        self.max_tokens: int | None = max_tokens
        """The most tokens; ``None`` is no limit."""
        self._own = _Level(given, soft, of)
        self._levels: tuple[_Level, ...] = (self._own,)

    def __repr__(self) -> str:
        limits = f"max_cost_usd={self.max_cost_usd}, max_tokens={self.max_tokens}"
        return f"<Budget {limits}, {self.spent}>"

    @property
    def spent(self) -> Spending:
        """What has been spent in it so far, budgets inside it included."""
        return self._own.spent

    @property
    def is_exceeded(self) -> bool:
        """Whether more has been spent than this budget, or one around it, allows."""
        return any(level.excess() for level in self._levels)


class Account(Budget):
    """A budget, and what only the library does with it.

    Args:
        max_cost_usd: as in `Budget`, and so the other two.
        max_tokens: likewise.
        soft: likewise.
        parent: the account that this one counts in, too.
        of: as in `Budget`.
    """

    def __init__(
        self,
        *,
        max_cost_usd: float | None = None,
        max_tokens: int | None = None,
        soft: float = 1.0,
        parent: Account | None = None,
        of: str = "the budget",
    ) -> None:
        super().__init__(max_cost_usd=max_cost_usd, max_tokens=max_tokens, soft=soft, of=of)
        if parent is not None:
            self._levels += parent._levels  # noqa: SLF001 - of the same class

    def excess(self) -> ExceededLimit | None:
        """Return the limit that is exceeded, here or further out."""
        return next(filter(None, (level.excess() for level in self._levels)), None)

    def refusal(self) -> ExceededLimit | None:
        """Return the limit that keeps new agents from starting, here or further out."""
        return next(filter(None, (level.refusal() for level in self._levels)), None)

    @contextmanager
    def used_in(self, run: object) -> Generator[None]:
        """Let agents of one `trio.run` spend it, and no others: those it could not stop.

        Raises:
            RuntimeError: agents of another one do, of this budget or one around it.
        """
        if any(level.run not in {None, run} for level in self._levels):
            raise RuntimeError(
                "a budget around this swarm is in use in another trio.run(), and cannot stop "
                "agents of both: give each trio.run() a budget of its own, and start this one in a "
                "new contextvars.Context()"
            )
        for level in self._levels:
            level.run = run
            level.users += 1
        try:
            yield
        finally:
            for level in self._levels:
                level.users -= 1
                level.run = run if level.users else None

    def charge(self, more: Spending) -> None:
        """Count, here and further out; tell who watches a budget that is now exceeded."""
        for level in self._levels:
            level.spent += more
        for level in self._levels:
            level.tell()

    @contextmanager
    def watched(self, watcher: Callable[[ExceededLimit], None]) -> Generator[None]:
        """Have `watcher` called when this budget, or one around it, is exceeded.

        It may be called more than once.
        """
        for level in self._levels:
            level.watchers.append(watcher)
        try:
            yield
        finally:
            for level in self._levels:
                level.watchers.remove(watcher)


class Meter:
    """Counts what a session takes, while its turns run.

    A message is told several times, so it counts under its id, and the last word replaces those
    before.  When a turn has ended, its result has the last word.

    Args:
        charge: told what has come in addition.
    """

    def __init__(self, charge: Callable[[Spending], None]) -> None:
        self._charge = charge
        self._turn: dict[str, Spending] = {}
        self._former = Spending()
        self._charged = Spending()

    def take(self, event: Event) -> None:
        """Take an event of the session's tree."""
        match event:
            case (
                StepFinished(message_id=str(message))
                | MessageUpdated(message_id=str(message), role="assistant", is_complete=True)
            ):
                self._turn[message] = spending_of(event.cost, event.tokens)
                self._tell(sum(self._turn.values(), self._former))

    def settle(self, result: RunResult) -> None:
        """Take the result of the turn that was running."""
        live = sum(self._turn.values(), Spending())
        tokens = result.token_usage.total
        unpriced = min(live.unpriced_tokens, tokens) if result.total_cost else tokens
        self._former += Spending(result.total_cost, tokens, unpriced)
        self._turn.clear()
        self._tell(self._former)

    def _tell(self, now: Spending) -> None:
        more, self._charged = now - self._charged, now
        if more != Spending():
            self._charge(more)


_current: ContextVar[Account | None] = ContextVar("opencode_trio_budget", default=None)


@contextmanager
def limit_spending(
    *, max_cost_usd: float | None = None, max_tokens: int | None = None, soft: float = 1.0
) -> Generator[Budget]:
    """Let all swarms that are opened in the block spend no more than this together.

    Like cancel scopes these nest, and reach into the tasks started in the block.  Agents that run
    when a limit is exceeded are cancelled, and end with `OpenCodeLimitError`.

    Args:
        max_cost_usd: US dollars.  A model without a known price costs 0 here; see
            `Spending.unpriced_tokens`, and set `max_tokens`.
        max_tokens: tokens.
        soft: the share of a limit from which on no new agent is started.
    """
    with inside(nested(max_cost_usd, max_tokens, soft, of="limit_spending()")) as account:
        yield account


def nested(max_cost_usd: float | None, max_tokens: int | None, soft: float, *, of: str) -> Account:
    """Make an account that counts in the one around it, if there is one."""
    return Account(
        max_cost_usd=max_cost_usd,
        max_tokens=max_tokens,
        soft=soft,
        parent=_current.get(),
        of=of,
    )


@contextmanager
def inside(account: Account) -> Generator[Account]:
    """Have accounts that are made in the block count in this one."""
    token = _current.set(account)
    try:
        yield account
    finally:
        _current.reset(token)


def _check(name: str, value: float | None) -> None:
    if value is not None and (isinstance(value, bool) or not value > 0):  # nor is NaN
        raise OpenCodeConfigError(f"{name}: expected a positive number, got {value!r}")
