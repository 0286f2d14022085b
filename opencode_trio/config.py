"""`RunConfig`: what a caller may set, checked when it is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from opencode_trio import _checks as check
from opencode_trio._checks import OFF, check_actions, check_untrusted
from opencode_trio._json import is_mapping, is_sequence, object_of

PermissionMap: TypeAlias = Mapping[str, Any]
"""Tool to action, or tool to pattern to action; the last rule that matches wins."""


def _own(value: Any) -> Any:
    """Copy, so that a caller who goes on changing a dict does not change a frozen config."""
    try:
        return _copy(value)
    except RecursionError:
        return value  # too deep, or a circle: the field's check refuses it by name


def _copy(value: Any) -> Any:
    if is_mapping(value):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if is_sequence(value) else value


def _names(value: Any) -> str:
    """Show what is set, and not to what: keys and passwords live there."""
    return f"{{{', '.join(map(str, value))}}}" if is_mapping(value) else repr(value)


@attrs.frozen
class _Default:
    """Stands for the value of a flag that is not given."""

    value: bool

    def __repr__(self) -> str:
        return repr(self.value)


def _setting(
    test: Callable[[str, Any], None],
    default: bool | None = None,
    *,
    show: Callable[[Any], str] = repr,
) -> Any:
    def validate(_: RunConfig, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None or default is not None:
            test(attribute.name, value)

    def convert(value: Any, config: attrs.AttrsInstance, attribute: attrs.Attribute[Any]) -> Any:
        if isinstance(value, _Default):
            unset = frozenset({attribute.name, *getattr(config, "_unset")})  # noqa: B009
            object.__setattr__(config, "_unset", unset)
            return value.value
        return _own(value)

    # Configs are equal if they read the same: among permissions the order decides, and dicts,
    # which know none and have no hash, would not do.
    return attrs.field(
        default=None if default is None else _Default(default),
        validator=validate,
        converter=attrs.Converter(convert, takes_self=True, takes_field=True),
        eq=repr,
        repr=show,
    )


@attrs.frozen
class RunConfig:
    """Settings of a run or a session.  Checked on construction; change with `attrs.evolve`.

    A field that is not given is unset.  Where configurations lie over one another (server, swarm,
    agent, session, turn), an unset field takes the value of the one below; see `layered`.

    Raises:
        OpenCodeConfigError: a field is invalid; the message names it.
    """

    _unset: frozenset[str] = attrs.field(
        default=frozenset[str](), alias="_unset", kw_only=True, eq=False, repr=False
    )
    agent: str | None = _setting(check.is_text)
    """The primary agent; opencode's own default is ``build``."""
    model: str | None = _setting(check.is_model)
    """The model, as ``provider/model``.  Without one opencode chooses, and may choose a free
    third-party model."""
    disable_autoupdate: bool = _setting(check.is_flag, default=True)
    """Keep opencode from replacing itself."""
    inherit_user_config: bool = _setting(check.is_flag, default=False)
    """Use the host's own opencode setup.  By default only its providers and credentials are
    taken over."""
    extra_env: Mapping[str, str] | None = _setting(check.is_environment, show=_names)
    """Environment variables of the child, over everything else.  Tools the agent runs see them."""
    permission: Mapping[str, Any] | str | None = _setting(check.is_permission)
    """What tools may do: ``{"bash": "deny"}``, ``{"bash": {"*": "deny", "git *": "allow"}}``, or
    one action for all.  The last rule that matches wins."""
    mcp: Mapping[str, Any] | None = _setting(check.is_json_object, show=_names)
    """MCP servers by name."""
    tools: Mapping[str, Any] | None = _setting(check.are_switches)
    """Tools (MCP globs, too) switched on and off."""
    instructions: Sequence[str] | None = _setting(check.is_texts)
    """Paths and globs of instruction files."""
    config_overrides: Mapping[str, Any] | None = _setting(check.is_json_object, show=_names)
    """Anything else of opencode's configuration; the fields of this class are merged over it."""
    cli_kwargs: Mapping[str, Any] | None = _setting(check.is_flags, show=_names)
    """Further flags of ``opencode run``, without their dashes; sessions have no command line."""
    variant: str | None = _setting(check.is_text)
    """The model's variant, its reasoning effort for example: ``high``, ``max``."""
    small_model: str | None = _setting(check.is_model)
    """The model for titles and the like; by default `model`, so that none of your text goes to
    a provider you did not name."""
    snapshot: bool | None = _setting(check.is_flag)
    """Whether opencode keeps snapshots of the workspace, which `revert` needs and a large one
    pays for; by default opencode decides (it does)."""
    thinking: bool = _setting(check.is_flag, default=False)
    """Whether ``run`` prints the model's thinking.  Sessions always tell it."""
    max_steps: int | None = _setting(check.is_count)
    """The most requests to the model in a turn, 1000 unless given; one more ends it with
    `OpenCodeLimitError`.  In a session those of subagents count."""
    untrusted: bool = _setting(check.is_flag, default=False)
    """Whether the workspace is one that you do not trust: nothing that it brings for opencode
    (plugins, MCP servers, agents, commands, skills, permissions, providers, formatters,
    instructions) runs or counts; what you give does.  A workspace with plugins is refused, because
    opencode 1.18 runs them whatever it is told.  It is no sandbox: tools of the agent run as you."""

    def is_set(self, name: str) -> bool:
        """Whether a field was given, though it may have been given its default.

        ``None`` is as if it were left out.  `attrs.evolve` keeps what is set and what is not; a
        field that it changes is set.
        """
        return getattr(self, name) is not None and name not in self._unset

    def __attrs_post_init__(self) -> None:
        # `attrs.evolve` hands on all fields.  Those that it changed are set now.
        defaults: Mapping[str, Any] = {f.name: f.default for f in attrs.fields(RunConfig)}
        changed = {n for n in self._unset if getattr(self, n) != defaults[n].value}
        object.__setattr__(self, "_unset", self._unset - changed)
        if self.untrusted:
            check_untrusted(
                extra_env=self.extra_env or {}, config=self.build_opencode_config_dict()
            )

    def build_opencode_config_dict(self) -> dict[str, Any]:
        """Build the configuration that opencode is given."""
        fields = {
            "permission": self.permission,
            "mcp": self.mcp,
            "tools": self.tools,
            "instructions": self.instructions,
            "small_model": self.small_model,
            "snapshot": self.snapshot,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        overrides = self.config_overrides or {}
        model = self.model or overrides.get("model")
        defaults: dict[str, Any] = dict(OFF) if self.untrusted else {}
        defaults |= {"small_model": model} if model else {}
        return deep_merge(deep_merge(defaults, overrides), given)

    def opencode_config_content_json(self) -> str | None:
        """Write that configuration as ``OPENCODE_CONFIG_CONTENT`` wants it; ``None`` if empty."""
        config = self.build_opencode_config_dict()
        return json.dumps(config, ensure_ascii=False) if config else None


def setting_names() -> frozenset[str]:
    """Return the names of all settings."""
    return frozenset(field.name for field in attrs.fields(RunConfig)) - {"_unset"}


def layered(outer: RunConfig | None, inner: RunConfig | None) -> RunConfig:
    """Lay a configuration over another one.

    A field that `inner` leaves unset comes from `outer`.  Mappings are merged: ``mcp``, ``tools``,
    ``extra_env`` and ``cli_kwargs`` by key, ``config_overrides`` key by key in depth, and
    ``permission`` rule by rule (see `layered_permission`).  Every other field that `inner` sets
    replaces that of `outer`.

    Args:
        outer: the settings below: of a server, a swarm or a session.
        inner: the settings on top: of an agent, a session or a turn.

    Raises:
        OpenCodeConfigError: the two together are invalid.
    """
    if outer is None or inner is None:
        return inner or outer or RunConfig()
    changes: dict[str, Any] = {}
    for name in filter(inner.is_set, setting_names()):
        below, own = getattr(outer, name), getattr(inner, name)
        merge = _MERGED.get(name)
        changes[name] = own if merge is None or below is None else merge(below, own)
    return attrs.evolve(outer, **changes)


def layered_permission(outer: PermissionMap | str, inner: PermissionMap | str) -> PermissionMap:
    """Lay permissions over others, so that the inner ones win where both name the same tool.

    Of two names that match one tool the more specific comes last, and the last rule wins.  So what
    `outer` denies by name is lifted only by a rule of `inner` for that name, and never by one for
    all tools.
    """
    below, own = _by_tool(outer), _by_tool(inner)
    merged = dict(below)
    for name, setting in own.items():
        merged[name] = _layered_patterns(below[name], setting) if name in below else setting
    return {name: merged[name] for name in sorted(merged, key=_specificity)}


def _by_tool(permission: PermissionMap | str) -> PermissionMap:
    return {"*": permission} if isinstance(permission, str) else permission


def _layered_patterns(outer: Any, inner: Any) -> Any:
    if not is_mapping(inner):
        return inner  # one action for whatever the tool does
    return _by_key(outer if is_mapping(outer) else {"*": outer}, inner)


def _specificity(name: str) -> tuple[bool, int]:
    """Sort globs before names, and of globs the one with fewer letters first."""
    return "*" not in name, len(name.replace("*", "")) if "*" in name else 0


def _by_key(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in outer.items() if key not in inner}, **inner}


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two JSON objects; where both have an object, key by key, else `over` wins.

    The keys of `over` come last, because of permissions the last rule that matches wins.
    """
    merged = {key: _copy(value) for key, value in base.items() if key not in over}
    for key, value in over.items():
        below = base.get(key)
        if is_mapping(below) and is_mapping(value):
            merged[key] = deep_merge(below, value)
        else:
            merged[key] = _copy(value)
    return merged


_MERGED: Mapping[str, Callable[[Any, Any], Any]] = {
    "permission": layered_permission,
    "mcp": _by_key,
    "tools": _by_key,
    "extra_env": _by_key,
    "cli_kwargs": _by_key,
    "config_overrides": deep_merge,
}
"""How the fields that are mappings are laid over one another."""


def split_model(model: str) -> dict[str, str]:
    """Split ``provider/model`` into the server's ``{"providerID", "modelID"}``.

    Only the first slash separates; model ids have slashes of their own.  Without a slash the
    provider is empty.
    """
    provider, slash, rest = model.partition("/")
    return {"providerID": provider if slash else "", "modelID": rest if slash else model}


def validate_permission_actions(obj: Any, *, _path: str = "", allow_ask: bool = False) -> None:
    """Check that every action in a permission map is one that opencode knows.

    Args:
        obj: an action, or a map of maps of actions.
        allow_ask: whether ``ask`` is possible, as it is in a session.

    Raises:
        OpenCodeConfigError: an action is unknown, or ``ask`` where nobody can answer.
    """
    check_actions(obj, _path or "permission", allow_ask=allow_ask)


def validate_config_for_run(cfg: RunConfig) -> None:
    """Check what only run mode cannot do.

    Raises:
        OpenCodeConfigError: a permission is ``ask``.
    """
    for path, permission in _permissions(cfg):
        if permission is not None:
            check_actions(permission, path, allow_ask=False)


def _permissions(cfg: RunConfig) -> Iterator[tuple[str, Any]]:
    """Yield every permission that a config sets, with where it stands."""
    overrides = object_of(cfg.config_overrides)
    yield "permission", cfg.permission
    yield "config_overrides.permission", overrides.get("permission")
    for name, agent in object_of(overrides.get("agent")).items():
        yield f"config_overrides.agent.{name}.permission", object_of(agent).get("permission")
