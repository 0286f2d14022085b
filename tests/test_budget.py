"""Budgets: what counts, where it counts, and who is told."""

from __future__ import annotations

import pytest

from opencode_trio._turn.budgets import (
    Account,
    ExceededLimit,
    Meter,
    Spending,
    dollars,
    inside,
    nested,
    spending_of,
)
from opencode_trio.errors import OpenCodeConfigError
from opencode_trio.events import MessageUpdated, SessionIdle, StepFinished, TokenUsage
from opencode_trio.results import RunResult


def tokens(total: int) -> TokenUsage:
    return TokenUsage(total=total)


def step(message: str, cost: float, total: int, session: str = "ses_1") -> StepFinished:
    return StepFinished(
        session_id=session, message_id=message, part_id="prt", cost=cost, tokens=tokens(total)
    )


def told(message: str, cost: float, total: int, *, complete: bool = True) -> MessageUpdated:
    return MessageUpdated(
        session_id="ses_1",
        message_id=message,
        role="assistant",
        cost=cost,
        tokens=tokens(total),
        is_complete=complete,
    )


# --- the meter --------------------------------------------------------------------------------


def test_a_message_counts_once_however_often_it_is_told() -> None:
    budget = Account()
    meter = Meter(budget.charge)
    meter.take(told("msg_1", 0.0, 0, complete=False))
    meter.take(step("msg_1", 0.5, 100))
    meter.take(told("msg_1", 0.5, 100))
    meter.take(told("msg_1", 0.5, 100))
    assert budget.spent == Spending(0.5, 100)


def test_a_later_word_replaces_an_earlier_one() -> None:
    budget = Account()
    meter = Meter(budget.charge)
    meter.take(step("msg_1", 0.5, 100))
    meter.take(told("msg_1", 0.75, 120))
    assert budget.spent == Spending(0.75, 120)


def test_subagents_count_and_other_events_do_not() -> None:
    budget = Account()
    meter = Meter(budget.charge)
    meter.take(step("msg_1", 0.5, 100))
    meter.take(step("msg_2", 0.25, 50, session="ses_child"))
    meter.take(SessionIdle(session_id="ses_1"))
    meter.take(MessageUpdated(message_id="msg_0", role="user", is_complete=True))
    assert budget.spent == Spending(0.75, 150)


def test_the_result_of_a_turn_has_the_last_word() -> None:
    """The stream had a gap: a message was not told."""
    budget = Account()
    meter = Meter(budget.charge)
    meter.take(step("msg_1", 0.5, 100))
    meter.settle(RunResult(total_cost=1.5, token_usage=tokens(300)))
    assert budget.spent == Spending(1.5, 300)
    meter.take(step("msg_3", 0.5, 100))
    meter.settle(RunResult(total_cost=0.5, token_usage=tokens(100)))
    assert budget.spent == Spending(2.0, 400)


def test_an_unknown_price_is_said() -> None:
    budget = Account(max_cost_usd=1)
    meter = Meter(budget.charge)
    meter.take(step("msg_1", 0.0, 100))
    assert budget.spent == Spending(0.0, 100, unpriced_tokens=100)
    meter.settle(RunResult(total_cost=0.0, token_usage=tokens(100)))
    assert budget.spent == Spending(0.0, 100, unpriced_tokens=100)
    meter.take(step("msg_2", 0.5, 10))
    meter.take(step("msg_3", 0.0, 7))
    meter.settle(RunResult(total_cost=0.5, token_usage=tokens(17)))
    assert budget.spent == Spending(0.5, 117, unpriced_tokens=107)


# --- limits ------------------------------------------------------------------------------------


def test_to_reach_a_limit_refuses_and_to_pass_it_stops() -> None:
    seen: list[ExceededLimit] = []
    budget = Account(max_cost_usd=1.0)
    with budget.watched(seen.append):
        budget.charge(Spending(0.5))
        assert budget.refusal() is None
        budget.charge(Spending(0.5))
        assert (budget.refusal() is not None, budget.is_exceeded, seen) == (True, False, [])
        budget.charge(Spending(0.25))
        assert seen == [ExceededLimit("max_cost_usd", 1.0, 1.25, "the budget")]
    budget.charge(Spending(0.25))
    assert len(seen) == 1


def test_a_soft_share_refuses_earlier() -> None:
    budget = Account(max_tokens=100, soft=0.8)
    budget.charge(Spending(tokens=80))
    assert budget.refusal() == ExceededLimit("max_tokens", 100, 80, "the budget", soft=0.8)
    assert budget.excess() is None


def test_budgets_nest() -> None:
    seen: list[str] = []
    outer = Account(max_tokens=100)
    one, other = Account(parent=outer, max_tokens=60), Account(parent=outer)
    with one.watched(lambda _: seen.append("one")), other.watched(lambda _: seen.append("other")):
        one.charge(Spending(tokens=61))
        assert seen == ["one"]
        assert other.refusal() is None
        other.charge(Spending(tokens=40))
    assert seen == ["one", "one", "other"]
    assert outer.spent.tokens == 101
    assert other.excess() == ExceededLimit("max_tokens", 100, 101, "the budget")


def test_blocks_nest() -> None:
    with inside(nested(None, 10, 1.0, of="outer")) as outer:
        with inside(nested(1, None, 1.0, of="inner")) as inner:
            inner.charge(Spending(0.5, 11))
        assert inner.is_exceeded
        assert outer.spent == Spending(0.5, 11)
    with inside(nested(None, 10, 1.0, of="outer")) as alone:
        assert alone.spent == Spending()
    assert outer.spent == Spending(0.5, 11)


def test_an_excess_says_everything() -> None:
    partial = RunResult(text="so far")
    error = ExceededLimit("max_cost_usd", 0.5, 0.507, "the swarm").stopped(partial)
    assert str(error) == "stopped: spent $0.507 of the $0.50 limit (max_cost_usd) of the swarm"
    assert (error.limit, error.allowed, error.partial) == ("max_cost_usd", 0.5, partial)


@pytest.mark.parametrize(
    ("excess", "text"),
    [
        (
            ExceededLimit("max_cost_usd", 10, 10.25, "the swarm"),
            "not started: spent $10.25 of the $10.00 limit (max_cost_usd) of the swarm",
        ),
        (
            ExceededLimit("max_tokens", 2000, 1200, "an agent", soft=0.5),
            (
                "not started: spent 1,200 tokens of the 2,000-token limit (max_tokens) of an agent; no "
                "agent starts from 1,000 tokens on (soft=0.5)"
            ),
        ),
    ],
)
def test_an_agent_that_is_not_started_says_why(excess: ExceededLimit, text: str) -> None:
    assert str(excess.not_started()) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0"),
        (0.00002, "$2e-05"),
        (0.0001, "$0.0001"),
        (0.507, "$0.507"),
        (0.5, "$0.50"),
        (12, "$12.00"),
        (1234.56789, "$1234.5679"),
    ],
)
def test_dollars(amount: float, text: str) -> None:
    assert dollars(amount) == text


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), True])
def test_limits_that_are_none(wrong: float) -> None:
    with pytest.raises(OpenCodeConfigError, match="max_cost_usd"):
        Account(max_cost_usd=wrong)


def test_free_is_not_told_from_unknown() -> None:
    assert spending_of(0.0, tokens(5)) == Spending(0.0, 5, 5)
    assert spending_of(0.1, tokens(5)) == Spending(0.1, 5, 0)
