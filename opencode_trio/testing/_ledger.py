"""What happened at the model: requests, replies under way, tokens reported, what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from ._requests import ModelRequest, is_title_request
from ._usage import Usage


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
