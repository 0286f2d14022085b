"""The limiter: first come, first served, and nobody waits in another's place."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from opencode_trio._swarm.limiter import FairLimiter, QueuePlace
from opencode_trio.errors import OpenCodeConfigError


def granted(tickets: list[QueuePlace]) -> str:
    return "".join("x" if ticket.granted.is_set() else "." for ticket in tickets)


async def leave(limiter: FairLimiter, ticket: QueuePlace) -> None:
    async with limiter.passed(ticket):
        pass


async def test_first_come_first_served(autojump_clock: MockClock) -> None:
    limiter = FairLimiter(2, {})
    tickets = [limiter.queue() for _ in range(5)]
    assert granted(tickets) == "xx..."
    await leave(limiter, tickets[1])
    assert granted(tickets) == "xxx.."
    with trio.move_on_after(1) as scope:
        await leave(limiter, tickets[3])
    assert scope.cancelled_caught
    await leave(limiter, tickets[0])
    assert granted(tickets) == "xxx.x"


async def test_who_waits_for_its_kind_takes_nobodys_place() -> None:
    limiter = FairLimiter(3, {"slow": 1})
    tickets = [limiter.queue(kind) for kind in ("slow", "slow", "fast", "fast", "fast")]
    assert granted(tickets) == "x.xx."
    await leave(limiter, tickets[2])
    assert granted(tickets) == "x.xxx"
    await leave(limiter, tickets[0])
    assert granted(tickets) == "xxxxx"


async def test_a_place_is_given_back_when_cancelled_inside() -> None:
    limiter = FairLimiter(1, {})
    first, second = limiter.queue(), limiter.queue()
    with trio.CancelScope() as scope:
        async with limiter.passed(first):
            scope.cancel()
            await trio.sleep_forever()
    assert granted([second]) == "x"


def test_a_limit_lets_somebody_in() -> None:
    with pytest.raises(OpenCodeConfigError, match="limit: expected at least 1"):
        FairLimiter(0, {})
    with pytest.raises(OpenCodeConfigError, match="anthropic: expected at least 1"):
        FairLimiter(1, {"anthropic": 0})
