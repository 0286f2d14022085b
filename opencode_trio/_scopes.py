"""Which settings belong to the server, which to a session, which to a turn."""

from __future__ import annotations

from opencode_trio.config import RunConfig, setting_names
from opencode_trio.errors import OpenCodeConfigError

OF_A_TURN = frozenset(
    {"model", "agent", "variant", "permission", "tools", "max_steps", "thinking", "cli_kwargs"}
)
"""What each turn can have its own of.  Two of them are of no effect here: sessions have no command
line, and always tell the model's thinking."""


def check_scope(cfg: RunConfig, server: RunConfig | None, *, what: str) -> None:
    """Check that a configuration changes nothing that the whole server has in common.

    Args:
        cfg: of a session or a turn.
        server: what the server was started with; ``None`` if that is not known.
        what: names `cfg` in the error.

    Raises:
        OpenCodeConfigError: it does.
    """
    base = server or RunConfig()
    for name in setting_names() - OF_A_TURN:
        if cfg.is_set(name) and getattr(cfg, name) != getattr(base, name):
            raise OpenCodeConfigError(
                f"{what}.{name}: belongs to the whole server and cannot differ here; set it "
                "where the server is opened, or open another server"
            )
