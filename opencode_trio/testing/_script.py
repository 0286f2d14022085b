"""Scripts: where the next reply comes from."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from ._replies import Action, Reply, ReplyLike, as_reply
from ._requests import ModelRequest

ScriptFunction: TypeAlias = Callable[[ModelRequest], ReplyLike | Awaitable[ReplyLike]]
"""Answers a request; may be async."""
Script: TypeAlias = ScriptFunction | Iterable[ReplyLike] | Reply | Action | str
"""A function of the request, replies to give out in order, or one reply for every request."""


class ScriptExhaustedError(Exception):
    """A list script had no reply left for a request."""


def compile_script(script: Script) -> Callable[[ModelRequest], Awaitable[Reply]]:
    """Return the function that finds the reply to a request.

    Raises:
        TypeError: The script is nothing that can be one, or a reply in its list is not.
        ValueError: A reply in its list has its actions in an impossible order.
    """
    if isinstance(script, str | Reply | Action):
        return _always(as_reply(script))
    if callable(script):
        return _by_function(script)
    # It may come from code without types.
    if isinstance(script, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _in_turn(script)
    raise TypeError(f"a script is a function, an iterable of replies or one reply, not {script!r}")


def _always(reply: Reply) -> Callable[[ModelRequest], Awaitable[Reply]]:
    async def same(_request: ModelRequest) -> Reply:
        return reply

    return same


def _in_turn(script: Iterable[ReplyLike]) -> Callable[[ModelRequest], Awaitable[Reply]]:
    # A list is checked whole and now, where the mistake was made; an endless iterator cannot be.
    source = [as_reply(item) for item in script] if isinstance(script, Sequence) else script
    replies: Iterator[ReplyLike] = iter(source)

    async def following(request: ModelRequest) -> Reply:
        for item in replies:
            return as_reply(item)
        raise ScriptExhaustedError(
            f"the scripted model has no reply left for request {request.number + 1},"
            f" whose prompt is {request.prompt[:80]!r}"
        )

    return following


def _by_function(function: ScriptFunction) -> Callable[[ModelRequest], Awaitable[Reply]]:
    async def called(request: ModelRequest) -> Reply:
        answer = function(request)
        if inspect.isawaitable(answer):
            answer = await answer
        return as_reply(answer)

    return called
