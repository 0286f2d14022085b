"""What a turn can have its own of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import attrs

from opencode_trio._json import Json
from opencode_trio._session.attachments import FileLike
from opencode_trio._turn.guards import LONGEST_RETRY_WAIT_S, MAX_STEPS, TurnLimits
from opencode_trio.config import RunConfig, layered, setting_names
from opencode_trio.errors import OpenCodeConfigError


class TurnOptions(TypedDict, total=False):
    """Options of one turn; all may be left out, or ``None``."""

    run_cfg: RunConfig | None
    """Model, agent, variant, permission, tools and max_steps of this turn.  What belongs to the
    server (mcp, instructions, providers) is refused."""
    model: str | None
    """The model, as ``provider/model``."""
    agent: str | None
    """The agent."""
    variant: str | None
    """The model's variant."""
    system: str | None
    """Instructions beside the agent's own."""
    files: Sequence[FileLike] | None
    """Paths, or ``(bytes, media_type)``; they are sent with the prompt."""
    max_steps: int | None
    """The most requests to the model, subagents' included; 1000 unless given, here or in the settings."""
    max_cost_usd: float | None
    """The most US dollars, subagents' included."""
    max_retry_wait_s: float | None
    """The longest wait, in seconds, that the provider may ask for; 900 if left out, ``None`` is no
    limit."""
    fail_if_silent: float | None
    """Fail when nothing is heard for so many seconds, while neither a human nor a retry of the
    provider is waited for.  A tool that works without output is silent, too."""
    answer_by_hand: bool
    """Let what no handler answers wait for `Turn.answer`, rather than refusing it."""


@attrs.frozen
class TurnSettings:
    """Options, checked, over the settings of their session."""

    cfg: RunConfig
    rules: Sequence[Json] = ()
    """The permissions of this turn alone."""
    limits: TurnLimits = attrs.field(factory=TurnLimits)
    system: str | None = None
    files: Sequence[FileLike] = ()
    fail_if_silent_s: float | None = None
    by_hand: bool = False


def turn_settings(
    session: RunConfig,
    server: RunConfig | None,
    options: TurnOptions,
    rules_of: Callable[[RunConfig], Sequence[Json]],
) -> TurnSettings:
    """Lay a turn's options over its session's settings.

    Raises:
        OpenCodeConfigError: an option is unknown or invalid, or belongs to the server.
        TypeError: an option is unknown.
    """
    unknown = options.keys() - TurnOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option of a turn: {', '.join(sorted(unknown))}")
    own = options.get("run_cfg") or RunConfig()
    check_scope(own, server, what="run_cfg of a turn")
    named: dict[str, Any] = {
        name: options.get(name) for name in ("model", "agent", "variant", "max_steps")
    }
    cfg = layered(layered(session, own), RunConfig(**named))
    changes_rules = own.is_set("permission") or own.is_set("tools")
    return TurnSettings(
        cfg=cfg,
        # Laid over the session's, so that what this one denies by name stays denied.
        rules=rules_of(cfg) if changes_rules else (),
        limits=TurnLimits(
            max_steps=cfg.max_steps or MAX_STEPS,
            max_cost_usd=_positive(options, "max_cost_usd"),
            max_retry_wait_s=_positive(options, "max_retry_wait_s", LONGEST_RETRY_WAIT_S),
        ),
        system=options.get("system"),
        files=options.get("files") or (),
        fail_if_silent_s=_positive(options, "fail_if_silent"),
        by_hand=options.get("answer_by_hand", False),
    )


def _positive(options: TurnOptions, name: str, default: float | None = None) -> float | None:
    value: object = options.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise OpenCodeConfigError(f"{name}: expected a positive number, got {value!r}")
    return value


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
