"""Replies as the chat-completions protocol puts them on the wire. Pure: values in, bytes out.

The streaming form is a series of server-sent events, each a `chat.completion.chunk`; the last ones
carry the finish reason and the token count, as `stream_options.include_usage` asks for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import attrs

from opencode_trio.testing._script import (
    Cut,
    Delay,
    Disconnect,
    ErrorFrame,
    HttpError,
    Raw,
    Reasoning,
    Reply,
    Stall,
    Text,
    ToolCall,
)
from opencode_trio.testing._usage import Usage, wire_usage

# A delta per word shows streaming; beyond this many a long text would only cost time.
_MAX_DELTAS = 64
_WORDS = re.compile(r"\S+\s*|\s+")


@attrs.frozen
class Reported:
    """The token count is on the wire up to here: the reply has been paid for."""

    usage: Usage


Step: TypeAlias = bytes | Delay | Stall | Cut | Disconnect | HttpError | Reported
"""What the server does next: send, wait, hang, end, break off, refuse, or book the tokens."""


@attrs.frozen
class Envelope:
    """What every chunk of one response repeats."""

    reply_id: str
    model: str
    created: int = 0

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        """Return one event that carries a delta."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self._event(choices=[choice])

    def usage(self, usage: Usage) -> bytes:
        """Return the event that carries the token count."""
        return self._event(choices=[], usage=wire_usage(usage))

    def fields(self, kind: str) -> dict[str, Any]:
        """Return the fields that chunks and whole completions have in common."""
        return {
            "id": self.reply_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
        }

    def _event(self, **fields: Any) -> bytes:
        return event({**self.fields("chat.completion.chunk"), **fields})


def event(value: object) -> bytes:
    """Return one server-sent event with JSON in it."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def error_body(message: str, *, code: str | None, kind: str) -> dict[str, Any]:
    """Return the error object of the protocol."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def stream_steps(reply: Reply, envelope: Envelope) -> Iterator[Step]:
    """Yield what the server does to stream a reply, in order."""
    role: dict[str, Any] = {"role": "assistant"}
    for step in _action_steps(reply, envelope.reply_id):
        if isinstance(step, dict):
            # The role rides on the first delta, so that nothing is sent before a leading stall.
            yield envelope.chunk({**role, **step})
            role = {}
        else:
            yield step
    if reply.is_complete:
        yield from _ending(reply, envelope, role)


def completion(reply: Reply, envelope: Envelope) -> dict[str, Any]:
    """Return a reply as the single JSON object of a request that did not ask for a stream."""
    calls = [a for a in reply.actions if isinstance(a, ToolCall)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _joined(reply, Text),
        "reasoning_content": _joined(reply, Reasoning),
        "tool_calls": [_call(c, i, envelope.reply_id) for i, c in enumerate(calls)],
    }
    kept = {key: value for key, value in message.items() if value or key == "content"}
    body = envelope.fields("chat.completion")
    body["choices"] = [{"index": 0, "message": kept, "finish_reason": reply.finish}]
    if reply.usage is not None:
        body["usage"] = wire_usage(reply.usage)
    return body


def pieces(text: str, count: int | None) -> list[str]:
    """Cut a text into deltas that join to exactly that text.

    Args:
        text: What to cut.
        count: How many pieces, as far as there are characters; `None` cuts at words.
    """
    units: Sequence[str] = text if count is not None else _WORDS.findall(text)
    wanted = min(len(units), count or _MAX_DELTAS)
    edges = [len(units) * i // wanted for i in range(wanted + 1)] if wanted else [0]
    return ["".join(units[a:b]) for a, b in pairwise(edges)]


def _action_steps(reply: Reply, reply_id: str) -> Iterator[Step | dict[str, Any]]:
    calls = 0
    for action in reply.actions:
        match action:
            case Text():
                yield from _deltas("content", action)
            case Reasoning():
                yield from _deltas("reasoning_content", action)
            case ToolCall():
                yield from _call_deltas(action, calls, reply_id)
                calls += 1
            case ErrorFrame(message, code, kind):
                yield event(error_body(message, code=code, kind=kind))
            case Raw(data):
                yield data
            case _:
                yield action


def _deltas(field: str, action: Text | Reasoning) -> Iterator[Step | dict[str, Any]]:
    for number, piece in enumerate(pieces(action.text, action.chunks)):
        if number and action.delay_s:
            yield Delay(action.delay_s)
        yield {field: piece}


def _call_deltas(call: ToolCall, index: int, reply_id: str) -> Iterator[dict[str, Any]]:
    whole = _call(call, index, reply_id)
    arguments = whole["function"]["arguments"]
    whole["function"]["arguments"] = ""
    yield {"tool_calls": [whole]}
    for piece in pieces(arguments, 2):
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _call(call: ToolCall, index: int, reply_id: str) -> dict[str, Any]:
    arguments = call.arguments
    return {
        "index": index,
        "id": call.call_id or f"call_{reply_id}_{index}",
        "type": "function",
        "function": {
            "name": call.name,
            "arguments": arguments if isinstance(arguments, str) else json.dumps(dict(arguments)),
        },
    }


def _ending(reply: Reply, envelope: Envelope, role: dict[str, Any]) -> Iterator[Step]:
    if reply.finish is not None or role:
        yield envelope.chunk(role, reply.finish)
    if reply.usage is not None:
        yield envelope.usage(reply.usage)
        yield Reported(reply.usage)
    yield b"data: [DONE]\n\n"


def _joined(reply: Reply, kind: type[Text | Reasoning]) -> str:
    return "".join(action.text for action in reply.actions if isinstance(action, kind))
