"""The vocabulary of a script: what the scripted model says, and how it misbehaves.

All of it is plain frozen values. A reply is a sequence of actions that end in a finish reason and a
token count; wherever a reply is expected, a single action, a list of actions or a bare string do.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import attrs
from attrs.validators import ge, gt, instance_of, optional

from opencode_trio.testing._requests import ModelRequest
from opencode_trio.testing._usage import Usage

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why the model says it stopped."""


@attrs.frozen
class Text:
    """Say something, in several deltas that join to exactly this text."""

    text: str = attrs.field(validator=instance_of(str))
    chunks: int | None = attrs.field(default=None, kw_only=True, validator=optional(ge(1)))
    """How many deltas. By default one per word, and never more than 64."""
    delay_s: float = attrs.field(default=0.0, kw_only=True, validator=ge(0))
    """Pause between two deltas, in seconds."""


@attrs.frozen
class Reasoning:
    """Think aloud. opencode shows this when it is asked for reasoning."""

    text: str = attrs.field(validator=instance_of(str))
    chunks: int | None = attrs.field(default=None, kw_only=True, validator=optional(ge(1)))
    """How many deltas. By default one per word, and never more than 64."""
    delay_s: float = attrs.field(default=0.0, kw_only=True, validator=ge(0))
    """Pause between two deltas, in seconds."""


def _are_arguments(_: object, __: object, value: object) -> None:
    if not isinstance(value, Mapping | str):
        raise TypeError(f"arguments must be a mapping or a string, not {value!r}")


@attrs.frozen
class ToolCall:
    """Call a tool of opencode. Several in one reply are parallel calls of one step."""

    name: str = attrs.field(validator=instance_of(str))
    arguments: Mapping[str, Any] | str = attrs.field(
        factory=dict[str, Any], validator=_are_arguments
    )
    """The arguments; a string is sent as it stands, which need not be valid JSON."""
    call_id: str | None = attrs.field(default=None, kw_only=True)
    """The id of the call. By default one that no other call of the model has."""


@attrs.frozen
class Delay:
    """Wait, then go on."""

    seconds: float = attrs.field(validator=ge(0))


@attrs.frozen
class Stall:
    """Say nothing more and hold the connection until the client leaves. Ends the reply.

    As the first action it withholds even the response headers; after a `Raw(b"")` the client has the
    headers and nothing else.
    """

    comment_every_s: float | None = attrs.field(default=None, validator=optional(gt(0)))
    """Seconds between two SSE comments, which keep a client's chunk timeout from firing."""


@attrs.frozen
class Cut:
    """End the stream in mid-answer, with no finish reason and no end mark. Ends the reply.

    As a proxy does that has lost the model. opencode takes it for a finish of the reason `unknown`
    and asks again at once, and so on without end.
    """


@attrs.frozen
class Disconnect:
    """Break the connection in mid-answer. Ends the reply.

    opencode takes it for a network error, and repeats the request after a pause of two seconds and
    more, five times at most.
    """


@attrs.frozen
class ErrorFrame:
    """Send an error object inside the successful stream, then end the stream. Ends the reply."""

    message: str = "the provider failed in mid-answer"
    code: str | None = None
    type: str = "server_error"


@attrs.frozen
class Raw:
    """Send these bytes as they are: a frame that is not JSON, an SSE comment, a foreign chunk."""

    data: bytes = attrs.field(validator=instance_of(bytes))


@attrs.frozen
class HttpError:
    """Refuse the request with an HTTP status, before any answer. Ends the reply.

    opencode gives up at once on 400, 401 and 402, and retries 429 and 5xx for over a minute unless
    a `retry-after` header says otherwise. A 400 with the code `context_length_exceeded` is its
    context overflow.
    """

    status: int = attrs.field(validator=[instance_of(int), ge(400)])
    message: str = "the provider refused the request"
    code: str | None = attrs.field(default=None, kw_only=True)
    type: str = attrs.field(default="invalid_request_error", kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)


Action: TypeAlias = (
    Text | Reasoning | ToolCall | Delay | Raw | Stall | Cut | Disconnect | ErrorFrame | HttpError
)
"""What a reply does, one thing after the other."""


_LAST_WORDS = (Stall, Cut, Disconnect, ErrorFrame, HttpError)


_DEFAULT_USAGE = Usage(input=100, output=10)


@attrs.frozen(init=False)
class Reply:
    """One answer of the model: its actions in order, its finish reason and its token count.

    Example:
        `Reply("I ran out of ro", finish="length", usage=Usage(input=7, output=4))`

    Raises:
        TypeError: An action is not one of this module's, nor a string.
        ValueError: Something follows an action that ends the reply, or an `HttpError` comes after
            something other than a `Delay`; or the finish reason is unknown to the protocol.
    """

    actions: tuple[Action, ...]
    usage: Usage | None
    """What the reply says it used; `None` is a provider that does not say."""
    finish: FinishReason | None
    """Why the reply ended; `None` is a stream that ends in good order and gives no reason."""

    def __init__(
        self,
        *actions: Action | str,
        usage: Usage | None = _DEFAULT_USAGE,
        finish: FinishReason | Literal["auto"] | None = "auto",
    ) -> None:
        """Compose a reply.

        Args:
            *actions: What to do, in order. Strings are texts. None at all is an empty answer.
            usage: The tokens to report.
            finish: The finish reason. `"auto"` is `tool_calls` when the reply calls a tool, and
                `stop` when it does not.
        """
        done = tuple(_as_action(action) for action in actions)
        _check_order(done)
        if finish == "auto":
            finish = "tool_calls" if any(isinstance(a, ToolCall) for a in done) else "stop"
        if finish is not None and finish not in get_args(FinishReason):
            raise ValueError(f"finish must be one of {get_args(FinishReason)}, not {finish!r}")
        # pyright takes attrs for dataclasses, which have no such method.
        self.__attrs_init__(actions=done, usage=usage, finish=finish)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    @property
    def is_complete(self) -> bool:
        """Whether the reply reaches its finish reason, rather than failing on the way."""
        return not (self.actions and isinstance(self.actions[-1], _LAST_WORDS))


ReplyLike: TypeAlias = Reply | Action | str | Sequence[Action | str]
"""What a script may give where a reply is expected."""


def as_reply(value: ReplyLike) -> Reply:
    """Return the reply that a script meant.

    Raises:
        TypeError: The value is no reply, action, string or sequence of those.
        ValueError: The actions are in an impossible order.
    """
    if isinstance(value, Reply):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Reply(*value)
    return Reply(value)


def _as_action(value: object) -> Action:
    if isinstance(value, str):
        return Text(value)
    if isinstance(value, Action):
        return value
    raise TypeError(
        f"a scripted reply is made of strings and of the actions of opencode_trio.testing,"
        f" and this is neither: {value!r}"
    )


def _check_order(actions: Sequence[Action]) -> None:
    before = actions[:-1]
    ended = [action for action in before if isinstance(action, _LAST_WORDS)]
    if ended:
        raise ValueError(f"nothing can follow {ended[0]!r} in a reply: it ends it")
    refused = bool(actions) and isinstance(actions[-1], HttpError)
    if refused and not all(isinstance(action, Delay) for action in before):
        raise ValueError("an HttpError is the whole response: only a Delay can come before it")


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
