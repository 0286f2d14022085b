"""Which settings belong to the server, which to a session, which to a turn."""

from __future__ import annotations

import attrs

from opencode_trio.config import RunConfig
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
    default = RunConfig()
    for field in attrs.fields(RunConfig):
        value = getattr(cfg, field.name)
        if field.name in OF_A_TURN or value in (
            getattr(base, field.name),
            default_of(default, field),
        ):
            continue
        raise OpenCodeConfigError(
            f"{what}.{field.name}: belongs to the whole server and cannot differ here; set it "
            "where the server is opened, or open another server"
        )


def default_of(default: RunConfig, field: attrs.Attribute[object]) -> object:
    """Return what a field is when nobody set it."""
    return getattr(default, field.name)


def merged(server: RunConfig, session: RunConfig | None) -> RunConfig:
    """Lay a session's or a turn's settings over those below: what it leaves out stays."""
    if session is None:
        return server
    chosen = {name: getattr(session, name) for name in ("model", "agent", "variant", "max_steps")}
    return attrs.evolve(server, **{k: v for k, v in chosen.items() if v is not None})
