"""What goes to opencode and comes back, in terms that every line of opencode has in common."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

import attrs

from opencode_trio._json import Json
from opencode_trio._protocol.calls import Call
from opencode_trio.events import Event

T = TypeVar("T")


class Send(Protocol):
    """Sends a call and reads its answer; raises `OpenCodeServerError`."""

    def __call__(self, call: Call[T], /) -> Awaitable[T]: ...


@attrs.frozen
class SessionRecord:
    """What a server has of a session."""

    session_id: str
    directory: str
    parent_id: str | None
    agent: str | None
    raw: Json = attrs.field(repr=False)
    """The record as the server sent it."""


@attrs.frozen
class Attachment:
    """A file that goes with a prompt."""

    data: bytes = attrs.field(repr=False)
    """Its content."""
    media_type: str
    """Its kind, for example ``image/png`` or ``text/plain``."""
    filename: str = ""
    """The name that the model is told."""


@attrs.frozen(kw_only=True)
class Prompt:
    """What a turn begins with."""

    session_id: str
    message_id: str
    text: str
    files: Sequence[Attachment] = ()
    model: str | None = None
    """As ``provider/model``."""
    agent: str | None = None
    variant: str | None = None
    system: str | None = None
    """Instructions beside the agent's own."""
    schema: Json | None = None
    """The JSON schema of the answer."""


@attrs.frozen(kw_only=True)
class Command:
    """A slash command, which begins a turn as a prompt does."""

    session_id: str
    message_id: str
    name: str
    arguments: str
    model: str | None = None
    agent: str | None = None
    variant: str | None = None


@attrs.frozen
class Answer:
    """How the server answered a prompt, once the agent had finished."""

    message_id: str = ""
    """The agent's last message; empty if the answer shows none of this turn."""
    is_of_former_turn: bool = False
    """Whether it shows what the agent said in a turn before, or the prompt itself."""
    created_ms: float = 0.0
    """When the message was created, in milliseconds of the server's clock."""
    is_cut_off: bool = False
    """Whether the turn was aborted before the agent had said anything."""
    replies_to_prompt: bool = False
    """Whether the message replies to the prompt itself."""
    events: Sequence[Event] = ()
    """The message, as the events that would make it."""
