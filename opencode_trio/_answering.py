"""A structured answer, asked for once more when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs

from opencode_trio._structured import (
    ASK_AGAIN,
    NO_ANSWER,
    Output,
    WrongAnswerError,
    together,
    wrong_answer,
)
from opencode_trio._timeout import time_limit
from opencode_trio._turns import Turn
from opencode_trio.errors import OpenCodeTurnError
from opencode_trio.results import RunResult

Prompting = Callable[[str], AbstractAsyncContextManager[Turn]]
"""Opens a turn with a prompt."""


async def structured_answer(
    prompt: str, output: Output, prompting: Prompting, *, timeout_s: float | None
) -> RunResult:
    """Prompt until the answer is of a kind; return the result, of two turns if it took two.

    Args:
        prompt: what to do.
        output: the kind of answer.
        prompting: opens a turn that asks for it.
        timeout_s: seconds for everything.

    Raises:
        OpenCodeTurnError: the second answer was wrong, too; or the model failed.
        OpenCodeError: as a turn does.

    **Cancellation**: as that of a turn.
    """
    former: RunResult | None = None
    with time_limit(timeout_s, partial=lambda: former):
        while True:
            result, problem = await _answer(prompting(prompt), output)
            result = result if former is None else together(former, result)
            if problem is None:
                return result
            if former is not None:
                raise wrong_answer(problem, result)
            former, prompt = result, ASK_AGAIN.format(problem=problem)


async def _answer(
    opening: AbstractAsyncContextManager[Turn], output: Output
) -> tuple[RunResult, str | None]:
    """Return a turn's result, with the instance in it, or with what is wrong."""
    try:
        async with opening as turn:
            result = await turn.wait()
    except OpenCodeTurnError as error:
        if error.name != NO_ANSWER or error.partial is None:
            raise
        return error.partial, error.error.message
    try:
        return attrs.evolve(result, structured=output.read(result.structured)), None
    except WrongAnswerError as error:
        return result, str(error)
