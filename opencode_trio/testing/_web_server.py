"""The scripted model's web server: hypercorn under trio. Nothing else here imports hypercorn.

Everything of the extra `testing` is imported by this module, so that importing the package costs
nothing and needs nothing.
"""

from __future__ import annotations

import logging
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import hypercorn.trio
import trio
from hypercorn.config import Config, Sockets

if TYPE_CHECKING:
    from opencode_trio.testing._asgi import ScriptedApp

# hypercorn shields its writes from cancellation. A client that is frozen with a full window would
# hold the model's block open for ever; the kernel gives up on it after this long instead.
_FROZEN_CLIENT_MS = 2_000
# A swarm connects all at once.
_BACKLOG = 1024


class _LoopbackConfig(Config):
    """A listener on a free loopback port that children do not inherit."""

    def create_sockets(self) -> Sockets:
        sockets = super().create_sockets()
        for sock in sockets.insecure_sockets:
            sock.set_inheritable(False)
            if sys.platform == "linux":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _FROZEN_CLIENT_MS)
        return sockets


def _config() -> _LoopbackConfig:
    config = _LoopbackConfig()
    config.bind = ["127.0.0.1:0"]
    config.backlog = _BACKLOG
    config.accesslog = None
    config.errorlog = logging.getLogger("opencode_trio.testing")
    config.graceful_timeout = 0.1
    return config


async def serve(
    app: ScriptedApp, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the app on a free loopback port until cancelled; report its `http://host:port`.

    **Cancellation:** connections are dropped at once, answered or not.
    """
    async with trio.open_nursery() as nursery:
        # The socket listens before hypercorn reports it, so nothing polls for readiness.
        hypercorn_serve = cast("Any", hypercorn.trio).serve  # has types, but no complete ones
        binds = await nursery.start(partial(hypercorn_serve, app, _config(), mode="asgi"))
        task_status.started(binds[0])
