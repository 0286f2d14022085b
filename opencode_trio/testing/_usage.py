"""Tokens and their prices: what a reply says it used, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import attrs

_MILLION = Decimal(1_000_000)


@attrs.frozen
class Usage:
    """The tokens of one reply, in disjoint counts (none is part of another).

    The chat-completions wire counts differently: its prompt tokens include the cached ones and its
    completion tokens include the reasoning. The conversion happens on the way out, so these are the
    numbers that opencode reports back.
    """

    input: int = 0
    """Prompt tokens that did not come from the provider's cache."""
    output: int = 0
    """Answer tokens, reasoning not included."""
    reasoning: int = 0
    """Reasoning tokens. opencode charges them at the price of output."""
    cache_read: int = 0
    """Prompt tokens that came from the provider's cache."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input=self.input + other.input,
            output=self.output + other.output,
            reasoning=self.reasoning + other.reasoning,
            cache_read=self.cache_read + other.cache_read,
        )

    @property
    def total(self) -> int:
        """All tokens together."""
        return self.input + self.output + self.reasoning + self.cache_read


@attrs.frozen
class Prices:
    """What the scripted model charges, in US dollars per million tokens."""

    input: float = 1.0
    output: float = 2.0
    cache_read: float = 0.1

    def cost_usd(self, usage: Usage) -> float:
        """Return the price of one reply, in US dollars.

        Reckoned in decimals and rounded to a float once, as opencode does it, so that the cost of a
        single reply compares equal to the cost that opencode reports.
        """
        cost = (
            Decimal(str(self.input)) * usage.input
            + Decimal(str(self.output)) * (usage.output + usage.reasoning)
            + Decimal(str(self.cache_read)) * usage.cache_read
        )
        return float(cost / _MILLION)


def wire_usage(usage: Usage) -> dict[str, Any]:
    """Return the `usage` object of the chat-completions protocol."""
    prompt, completion = usage.input + usage.cache_read, usage.output + usage.reasoning
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def sum_usage(usages: Iterable[Usage]) -> Usage:
    """Add up the tokens of many replies."""
    return sum(usages, Usage())
