"""What the model was asked: one recorded chat-completions request."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from opencode_trio._json import objects_of
from opencode_trio.testing._usage import Usage

# How opencode's built-in title agent introduces itself, for requests whose model id does not tell.
_TITLE_PROMPT = "You are a title generator"


@attrs.frozen(eq=False)
class ModelRequest:
    """One request as it arrived, and what is usually asked of it."""

    number: int
    """How many requests of its kind (titles, or all others) came before it."""
    body: Mapping[str, Any] = attrs.field(repr=False)
    """The JSON of the request."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """The HTTP headers, names in lower case."""
    received_at: float
    """When it had arrived in full, on trio's clock, in seconds."""
    is_title: bool = False
    """Whether opencode asks for a session title rather than for a turn of the conversation."""

    @property
    def model(self) -> str:
        """The id of the model that was asked for."""
        return str(self.body.get("model", ""))

    @property
    def session_id(self) -> str | None:
        """The opencode session that asks, from the `x-session-id` header that it sends."""
        return self.headers.get("x-session-id")

    @property
    def is_streaming(self) -> bool:
        """Whether the answer is wanted as a stream."""
        return self.body.get("stream") is True

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation, as it came."""
        return [m for m in self.body.get("messages") or () if isinstance(m, dict)]

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools that the model may call, in their order."""
        tools = self.body.get("tools") or ()
        return tuple(str(tool.get("function", {}).get("name", "")) for tool in tools)

    @property
    def prompt(self) -> str:
        """The text of the last user message, character for character.

        A message of several text parts (a prompt with an attachment, say) is those parts joined by
        a newline; `""` when there is no user message.
        """
        return next((_text(m) for m in reversed(self.messages) if m.get("role") == "user"), "")

    @property
    def system(self) -> str:
        """The text of all system messages, joined by newlines."""
        return "\n".join(_text(m) for m in self.messages if m.get("role") == "system")

    @property
    def tool_results(self) -> tuple[str, ...]:
        """What the tools answered since the last user message, oldest first.

        Empty on the first step of a turn, so that a function script can tell the steps apart.
        """
        results: list[str] = []
        for message in self.messages:
            if message.get("role") == "user":
                results.clear()
            elif message.get("role") == "tool":
                results.append(_text(message))
        return tuple(results)


def is_title_request(body: Mapping[str, Any], title_model_id: str) -> bool:
    """Tell a request for a session title from a turn.

    Args:
        body: The JSON of the request.
        title_model_id: The model that the configuration reserves for titles.
    """
    if body.get("model") == title_model_id:
        return True
    request = ModelRequest(number=0, body=body, headers={}, received_at=0.0)
    return not request.tools and request.system.lstrip().startswith(_TITLE_PROMPT)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = objects_of(content)
    return "\n".join(str(part["text"]) for part in parts if part.get("type") == "text")


@attrs.define(eq=False)
class Ledger:
    """The books of one scripted model, and the bell that rings at every entry."""

    title_model_id: str
    requests: list[ModelRequest] = attrs.field(factory=list[ModelRequest])
    title_requests: list[ModelRequest] = attrs.field(factory=list[ModelRequest])
    unanswered: list[ModelRequest] = attrs.field(factory=list[ModelRequest])
    charged: dict[ModelRequest, Usage] = attrs.field(factory=dict[ModelRequest, Usage])
    """What was reported to whom, of replies that were sent to their end."""
    open: set[ModelRequest] = attrs.field(factory=set[ModelRequest])
    """Whose reply is under way."""
    failure: Exception | None = None
    """The first error of the script or of the server itself."""
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def record(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> ModelRequest:
        """Enter a request that has arrived in full."""
        is_title = is_title_request(body, self.title_model_id)
        book = self.title_requests if is_title else self.requests
        request = ModelRequest(
            number=len(book),
            body=body,
            headers=headers,
            received_at=trio.current_time(),
            is_title=is_title,
        )
        book.append(request)
        self._ring()
        return request

    @contextmanager
    def kept_open(self, request: ModelRequest) -> Generator[None]:
        """Have a request among the open ones for the length of the block."""
        self.open.add(request)
        self._ring()
        try:
            yield
        finally:
            self.open.remove(request)
            self._ring()

    def record_failure(self, failure: Exception) -> None:
        """Keep the first error; later ones are mostly its consequences."""
        if self.failure is None:
            self.failure = failure

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the books holds.

        **Cancellation:** nothing is lost, and the wait can be repeated. It is a checkpoint even
        when the condition holds already.
        """
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
