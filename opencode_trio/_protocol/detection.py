"""Which line of opencode a server speaks."""

from __future__ import annotations

from collections.abc import Sequence

from opencode_trio._json import text_of
from opencode_trio._protocol.calls import Call, an_object
from opencode_trio._protocol.v1 import V1
from opencode_trio._protocol.values import Send
from opencode_trio.errors import OpenCodeServerError

WRONG_ROUTE = 200
"""opencode answers a route that it does not have with a page of its web interface."""


def _version_of_2() -> Call[str]:
    return Call("GET", "/api/info", lambda answer: text_of(an_object(answer), "version"))


VERSIONS: Sequence[Call[str]] = (V1.requests.version(), _version_of_2())
"""How a server of each line is asked for its version, 1.x first."""


async def server_version(send: Send) -> str:
    """Ask a server for its version, in the way of each line.

    Args:
        send: sends a call.

    Raises:
        OpenCodeServerError: the server does not answer as an opencode of any line does.
    """
    failure: OpenCodeServerError | None = None
    for call in VERSIONS:
        try:
            return await send(call)
        except OpenCodeServerError as exc:
            failure = failure or exc
            if exc.status_code != WRONG_ROUTE:
                break
    raise failure or OpenCodeServerError("the server tells no version")
