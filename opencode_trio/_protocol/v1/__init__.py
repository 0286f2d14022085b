"""opencode 1.x: its routes, its event stream, its stored messages, and the lines of its `run`.

May import: what its parent folder may.
"""

from __future__ import annotations

from opencode_trio._protocol.dialect import Dialect
from opencode_trio._protocol.v1 import diffs, routes, rules, stored, stream_events
from opencode_trio._protocol.v1.ids import MessageIds

V1 = Dialect(
    name="1.x",
    requests=routes,
    stream=stream_events,
    stored=stored,
    diffs=diffs,
    rules=rules,
    message_ids=MessageIds,
)
