"""What a config accepts, and what opencode is given of it."""

from __future__ import annotations

import copy
import inspect
import json
import re
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_trio.config import (
    RunConfig,
    deep_merge,
    setting_names,
    split_model,
    validate_config_for_run,
    validate_permission_actions,
)
from opencode_trio.errors import OpenCodeConfigError

# --- fields ----------------------------------------------------------------------------------


def test_the_fields_and_their_defaults() -> None:
    """In this order, too: the first eleven may be given by position."""
    assert {name: getattr(RunConfig(), name) for name in setting_names()} == {
        "agent": None,
        "model": None,
        "disable_autoupdate": True,
        "inherit_user_config": False,
        "extra_env": None,
        "permission": None,
        "mcp": None,
        "tools": None,
        "instructions": None,
        "config_overrides": None,
        "cli_kwargs": None,
        "variant": None,
        "small_model": None,
        "snapshot": None,
        "thinking": False,
        "max_steps": None,
        "untrusted": False,
    }
    assert [field.name for field in attrs.fields(RunConfig) if not field.kw_only][:11] == [
        *("agent", "model", "disable_autoupdate", "inherit_user_config", "extra_env"),
        *("permission", "mcp", "tools", "instructions", "config_overrides", "cli_kwargs"),
    ]


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE
DEEP: dict[str, Any] = {}
for _ in range(5000):
    DEEP = {"a": DEEP}

NO_STRINGS = [1, True, 1.5, b"x", ["x"], {"x": "y"}, object()]
NO_TEXTS = [*NO_STRINGS, "", "  ", "a\0b", "a\ud800", "\udcff"]
NO_MODELS = [*NO_TEXTS, "model", "/model", "provider/", "pro vider/m", "p/m odel", "p/m\n"]
NO_FLAGS = [0, 1, "true", None, [], {}]
NO_MAPPINGS: list[Any] = [1, True, "x", ["x"], ("x",), object(), {1, 2}]
NO_JSON = [
    *NO_MAPPINGS,
    {1: "x"},
    {None: "x"},
    {"x": {"y": {2: 3}}},
    {"x": object()},
    {"x": {1, 2}},
    {"x": b"y"},
    {"x": float("nan")},
    {"x": [float("inf")]},
    {"x": "\ud800"},
    CIRCLE,
    DEEP,
]

WRONG: dict[str, list[Any]] = {
    "agent": NO_TEXTS,
    "model": NO_MODELS,
    "disable_autoupdate": NO_FLAGS,
    "inherit_user_config": NO_FLAGS,
    "untrusted": NO_FLAGS,
    "extra_env": [
        *NO_MAPPINGS,
        {1: "x"},
        {"": "x"},
        {"A=B": "x"},
        {"A\0": "x"},
        {"A\ud800": "x"},
        {"A": 1},
        {"A": None},
        {"A": "x\0"},
        {"A": "\ud800"},
    ],
    "permission": [
        *(value for value in NO_JSON if value != "x"),
        "never",
        {"bash": "never"},
        {"bash": None},
        {"bash": True},
        {"bash": ["allow"]},
        {"bash": {"git *": "never"}},
    ],
    "mcp": NO_JSON,
    "tools": [*NO_JSON, {"bash": "deny"}, {"bash": None}, {"bash": {"git *": True}}],
    "instructions": [
        "\udcff",
        ["\udcff"],
        1,
        True,
        "a.md",
        {"a": 1},
        object(),
        [1],
        ["a", None],
        ["\0"],
        [["a"]],
    ],
    "config_overrides": NO_JSON,
    "cli_kwargs": [
        *NO_MAPPINGS,
        {1: "x"},
        {"": "x"},
        {"--title": "x"},
        {"-f": "x"},
        {"a b": "x"},
        {"a=b": "x"},
        {"format": "default"},
        {"attach": "http://localhost"},
        {"dir": "/elsewhere"},
        {"title": {"a": "b"}},
        {"f": [["a"]]},
        {"f": ["a", object()]},
        {"title": "a\0"},
        {"title": b"x"},
        {"title": "\ud800"},
    ],
    "variant": NO_TEXTS,
    "small_model": NO_MODELS,
    "snapshot": [value for value in NO_FLAGS if value is not None],
    "thinking": NO_FLAGS,
    "max_steps": [0, -1, 1.0, 1.5, "3", True, [3]],
}


def test_every_field_has_its_wrong_values() -> None:
    assert set(WRONG) == setting_names()


@pytest.mark.parametrize(
    ("field", "index"),
    [(field, index) for field, row in WRONG.items() for index in range(len(row))],
)
def test_a_wrong_value_is_refused_by_name(field: str, index: int) -> None:
    with pytest.raises(OpenCodeConfigError, match=rf"^RunConfig\.{field}\b") as caught:
        RunConfig(**{field: WRONG[field][index]})
    assert isinstance(caught.value, ValueError)


RIGHT: dict[str, list[Any]] = {
    "agent": [None, "plan", "my agent", "ä"],
    "model": [None, "p/m", "openrouter/anthropic/claude", "p/m:free"],
    "disable_autoupdate": [True, False],
    "inherit_user_config": [True, False],
    "extra_env": [None, {}, {"A": ""}, {"A": "a=b\nc"}, {"A": "raw byte \udcff"}],
    "permission": [
        *(None, {}, "allow", "ask", "deny"),
        {"bash": "allow", "edit": "ask", "*": "deny"},
        {"bash": {"*": "deny", "git *": "allow"}, "webfetch": "ask"},
    ],
    "mcp": [None, {}, {"demo": {"type": "local", "command": ["npx"], "enabled": True}}],
    "tools": [None, {"bash": False, "demo_*": True}],
    "instructions": [None, [], ["a.md", "docs/*.md"]],
    "config_overrides": [None, {"a": [1, 1.5, None, True, {"b": "\0"}]}],
    "cli_kwargs": [
        None,
        {},
        {"f": ["a", "b"], "fork": True, "title": "t", "n": 1, "no": None},
        {"f": "\udcff"},
    ],
    "variant": [None, "high"],
    "small_model": [None, "p/m"],
    "snapshot": [None, True, False],
    "thinking": [True, False],
    "max_steps": [None, 1, 10**6],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, row in RIGHT.items() for value in row]
)
def test_a_right_value_is_kept(field: str, value: Any) -> None:
    assert getattr(RunConfig(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"agent": 3}, "RunConfig.agent: expected a string, got 3"),
        ({"agent": " "}, "RunConfig.agent: is empty; leave it out for opencode's default"),
        ({"agent": "a\0"}, "RunConfig.agent: holds a NUL byte, which no .*"),
        ({"agent": "\ud800"}, "RunConfig.agent: cannot be written as UTF-8: .*"),
        ({"model": "gpt"}, "RunConfig.model: expected 'provider/model', got 'gpt'"),
        ({"thinking": 1}, "RunConfig.thinking: expected True or False, got 1"),
        ({"max_steps": 0}, "RunConfig.max_steps: expected a positive integer, got 0"),
        ({"mcp": []}, r"RunConfig.mcp: expected a mapping, got \[\]"),
        ({"mcp": {"a": {1: 2}}}, "RunConfig.mcp.a: key 1 is not a string"),
        ({"mcp": {"a": {1}}}, "RunConfig.mcp: cannot be written as JSON: .*"),
        ({"tools": CIRCLE}, "RunConfig.tools: cannot be written as JSON: .*"),
        (
            {"tools": {"bash": "deny"}},
            r"RunConfig.tools\['bash'\]: expected True or False, got 'deny'",
        ),
        (
            {"instructions": "a.md"},
            "RunConfig.instructions: expected a list of strings, got str",
        ),
        ({"instructions": ["a", 1]}, r"RunConfig.instructions\[1\]: expected a string, got 1"),
        (
            {"extra_env": {"A=": ""}},
            "RunConfig.extra_env: 'A=' cannot name an environment variable",
        ),
        ({"extra_env": {"A": 1}}, r"RunConfig.extra_env\['A'\]: expected a string, got 1"),
        ({"cli_kwargs": {"-f": "a"}}, "RunConfig.cli_kwargs: '-f' cannot name a flag; .*"),
        ({"cli_kwargs": {"format": "x"}}, "RunConfig.cli_kwargs: 'format' cannot be set: .* JSON"),
        ({"cli_kwargs": {"attach": "x"}}, "RunConfig.cli_kwargs: 'attach' cannot be set: .*"),
        (
            {"cli_kwargs": {"f": [[]]}},
            r"RunConfig.cli_kwargs\['f'\]: cannot be a flag's value: \[\]",
        ),
        (
            {"permission": {"bash": {"git *": "alow"}}},
            r"RunConfig.permission.bash.git \*: unknown action 'alow'; expected one of allow, .*",
        ),
    ],
)
def test_what_a_refusal_says(cfg: Any, message: str) -> None:
    with pytest.raises(OpenCodeConfigError, match=f"^{message}$"):
        RunConfig(**cfg)


@pytest.mark.parametrize(
    ("cfg", "warning"),
    [
        ({"permission": {"bahs": "deny"}}, "RunConfig.permission: .* 'bahs'; did you mean 'bash'?"),
        ({"tools": {"webfech": False}}, "RunConfig.tools: .* 'webfech'; did you mean 'webfetch'?"),
        ({"permission": {"*": "ask", "bash": "deny", "edit": "deny", "task": "deny"}}, None),
        (
            {"permission": {"weather_today": "allow", "demo_*": "deny"}, "tools": {"jira": True}},
            None,
        ),
    ],
)
def test_a_slip_in_a_tools_name_is_told(
    caplog: pytest.LogCaptureFixture, cfg: Any, warning: str | None
) -> None:
    RunConfig(**cfg)
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == (warning is not None)
    assert all(re.match(warning or "", text) for text in found)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(WRONG)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_value_is_either_kept_or_refused(fields: Any) -> None:
    try:
        cfg = RunConfig(**fields)
    except OpenCodeConfigError as exc:
        assert any(f"RunConfig.{field}" in str(exc) for field in fields)  # noqa: PT017 - it may succeed
    else:
        assert {name: getattr(cfg, name) for name in fields} == fields
        (cfg.opencode_config_content_json() or "").encode()


# --- a value ---------------------------------------------------------------------------------


def test_a_config_does_not_change() -> None:
    cfg = RunConfig(model="p/m")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        cfg.model = "p/other"  # type: ignore[misc]
    assert attrs.evolve(cfg, agent="plan") == RunConfig(model="p/m", agent="plan")


@pytest.mark.parametrize(
    ("field", "given", "change"),
    [
        ("extra_env", {"A": "1"}, lambda v: v.update(A="2")),
        ("permission", {"bash": {"*": "deny"}}, lambda v: v["bash"].update({"*": "allow"})),
        ("mcp", {"demo": {"command": ["a"]}}, lambda v: v["demo"]["command"].append("b")),
        ("tools", {"bash": True}, lambda v: v.clear()),
        ("instructions", ["a.md"], lambda v: v.append("b.md")),
        ("config_overrides", {"a": {"b": [1]}}, lambda v: v["a"]["b"].append(2)),
        ("cli_kwargs", {"f": ["a"]}, lambda v: v["f"].append("b")),
    ],
)
def test_what_its_maker_changes_later_does_not_change_it(
    field: str, given: Any, change: Any
) -> None:
    before = copy.deepcopy(given)
    cfg = RunConfig(**{field: given})
    change(given)
    assert given != before
    assert getattr(cfg, field) == before


def test_what_it_builds_can_be_changed() -> None:
    cfg = RunConfig(permission={"bash": {"*": "deny"}}, config_overrides={"a": {"b": [1]}})
    before = cfg.opencode_config_content_json()
    built = cfg.build_opencode_config_dict()
    built["permission"]["bash"]["*"] = "allow"
    built["a"]["b"].append(2)
    assert cfg.opencode_config_content_json() == before


@pytest.mark.parametrize("kind", [MappingProxyType, dict])
def test_any_mapping_will_do(kind: Any) -> None:
    cfg = RunConfig(
        permission=kind({"bash": kind({"*": "deny"})}),
        extra_env=kind({"A": "1"}),
        config_overrides=kind({"a": ("b", "c")}),
        cli_kwargs=kind({"f": ("a", "b")}),
        instructions=("a.md",),
    )
    assert cfg.build_opencode_config_dict() == {
        "a": ["b", "c"],
        "permission": {"bash": {"*": "deny"}},
        "instructions": ["a.md"],
    }
    assert cfg.extra_env == {"A": "1"}
    assert cfg.cli_kwargs == {"f": ["a", "b"]}


def test_equal_configs_have_one_hash() -> None:
    configs = [RunConfig(model="p/m", permission={"bash": {"*": "deny"}}) for _ in range(2)]
    assert configs[0] == configs[1]
    assert len(set(configs)) == 1


def test_the_order_of_rules_tells_configs_apart() -> None:
    rules = {"*": "deny", "git *": "allow"}
    turned = dict(reversed(rules.items()))
    assert rules == turned
    first, second = (RunConfig(permission={"bash": r}) for r in (rules, turned))
    assert first != second
    assert first.opencode_config_content_json() != second.opencode_config_content_json()


# --- opencode's configuration ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("cfg", "config"),
    [
        ({}, {}),
        ({"agent": "plan", "thinking": True, "max_steps": 3, "extra_env": {"A": "1"}}, {}),
        ({"permission": {}}, {"permission": {}}),
        ({"permission": "deny"}, {"permission": "deny"}),
        ({"mcp": {"a": {}}}, {"mcp": {"a": {}}}),
        ({"tools": {"bash": False}}, {"tools": {"bash": False}}),
        ({"instructions": ["a"]}, {"instructions": ["a"]}),
        ({"snapshot": False}, {"snapshot": False}),
        ({"snapshot": True}, {"snapshot": True}),
        ({"config_overrides": {"x": None}}, {"x": None}),
        # fields over overrides, and what they do not name is kept
        (
            {
                "permission": {"bash": "deny"},
                "config_overrides": {"permission": {"bash": "allow", "edit": "deny"}, "x": 1},
            },
            {"permission": {"edit": "deny", "bash": "deny"}, "x": 1},
        ),
        (
            {
                "mcp": {"a": {"enabled": False}},
                "config_overrides": {"mcp": {"a": {"type": "local"}, "b": {}}},
            },
            {"mcp": {"b": {}, "a": {"type": "local", "enabled": False}}},
        ),
        (
            {"permission": "deny", "config_overrides": {"permission": {"bash": "allow"}}},
            {"permission": "deny"},
        ),
        (
            {"permission": {"bash": "allow"}, "config_overrides": {"permission": "deny"}},
            {"permission": {"bash": "allow"}},
        ),
        (
            {"instructions": ["a"], "config_overrides": {"instructions": ["b"]}},
            {"instructions": ["a"]},
        ),
        ({"snapshot": True, "config_overrides": {"snapshot": False}}, {"snapshot": True}),
        # the small model
        ({"model": "p/m"}, {"small_model": "p/m"}),
        ({"model": "p/m", "small_model": "p/s"}, {"small_model": "p/s"}),
        ({"small_model": "p/s"}, {"small_model": "p/s"}),
        ({"model": "p/m", "config_overrides": {"small_model": "p/o"}}, {"small_model": "p/o"}),
        ({"small_model": "p/s", "config_overrides": {"small_model": "o"}}, {"small_model": "p/s"}),
        ({"config_overrides": {"model": "p/o"}}, {"small_model": "p/o", "model": "p/o"}),
        (
            {"model": "p/m", "config_overrides": {"model": "p/o"}},
            {"small_model": "p/m", "model": "p/o"},
        ),
    ],
)
def test_what_opencode_is_given(cfg: Any, config: Any) -> None:
    cfg = RunConfig(**cfg)
    assert cfg.build_opencode_config_dict() == config
    content = cfg.opencode_config_content_json()
    assert (json.loads(content) if content else {}) == config
    assert (content is None) == (not config)


def test_it_is_written_as_it_reads() -> None:
    assert RunConfig(instructions=["ä\u2028"]).opencode_config_content_json() == (
        '{"instructions": ["ä\u2028"]}'
    )


def test_a_field_s_rule_has_the_last_word() -> None:
    """The last rule that matches wins, so a field's rules stand behind those of the overrides."""
    cfg = RunConfig(
        permission={"bash": {"git *": "allow"}},
        config_overrides={"permission": {"bash": {"git *": "deny", "*": "deny"}, "*": "deny"}},
    )
    permission = cfg.build_opencode_config_dict()["permission"]
    assert list(permission) == ["*", "bash"]
    assert list(permission["bash"].items()) == [("*", "deny"), ("git *", "allow")]


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.sampled_from("abc"), json_values, max_size=3)


@settings(deadline=None)
@given(base=json_objects, over=json_objects)
def test_merging(base: Any, over: Any) -> None:
    before = copy.deepcopy((base, over))
    merged = deep_merge(base, over)
    assert set(merged) == set(base) | set(over)
    assert list(merged)[len(merged) - len(over) :] == list(over)
    for key, value in merged.items():
        if key not in over:
            assert value == base[key]
        elif isinstance(over[key], dict) and isinstance(base.get(key), dict):
            assert value == deep_merge(base[key], over[key])
        else:
            assert value == over[key]
    assert deep_merge(merged, over) == merged
    assert (base, over) == before


# --- the functions that users know -----------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (split_model, ["model"]),
        (validate_config_for_run, ["cfg"]),
        (validate_permission_actions, ["obj", "*_path=''", "*allow_ask=False"]),
        (RunConfig.build_opencode_config_dict, ["self"]),
        (RunConfig.opencode_config_content_json, ["self"]),
    ],
)
def test_signatures(function: Any, parameters: Any) -> None:
    found = inspect.signature(function).parameters.values()
    assert [
        f"{'*' * (p.kind is p.KEYWORD_ONLY)}{p.name}"
        + (f"={p.default!r}" if p.default is not p.empty else "")
        for p in found
    ] == parameters


@pytest.mark.parametrize(
    ("model", "provider_id", "model_id"),
    [
        ("p/m", "p", "m"),
        ("openrouter/anthropic/claude", "openrouter", "anthropic/claude"),
        ("bare", "", "bare"),
        ("", "", ""),
        ("p/", "p", ""),
        ("/m", "", "m"),
    ],
)
def test_split_model(model: str, provider_id: str, model_id: str) -> None:
    assert split_model(model) == {"providerID": provider_id, "modelID": model_id}


@pytest.mark.parametrize(
    ("obj", "allow_ask"),
    [
        ("allow", False),
        ("deny", False),
        ("ask", True),
        ({}, False),
        ({"bash": "allow", "edit": {"*": "deny", "src/*": "allow"}}, False),
        ({"bash": {"*": "ask"}}, True),
    ],
)
def test_right_actions(obj: Any, allow_ask: bool) -> None:
    validate_permission_actions(obj, allow_ask=allow_ask)


@pytest.mark.parametrize(
    ("obj", "path", "allow_ask", "message"),
    [
        ("ask", "", False, "permission: 'ask' is not supported in run mode.*"),
        ({"bash": "ask"}, "", False, "permission.bash: 'ask' is not supported in run mode.*"),
        ({"bash": {"git *": "ask"}}, "", False, r"permission\.bash\.git \*: 'ask' is not.*"),
        ({"bash": "ask"}, "mine", False, "mine.bash: 'ask' is not supported.*on_permission"),
        ({"bash": "allwo"}, "", True, "permission.bash: unknown action 'allwo'; expected.*"),
        ({"bash": "allwo"}, "", False, "permission.bash: unknown action 'allwo'; expected.*"),
        ({"bash": None}, "", True, "permission.bash: unknown action None.*"),
        ({"bash": ["allow"]}, "", True, r"permission.bash: unknown action \['allow'\].*"),
        (True, "", True, "permission: unknown action True.*"),
    ],
)
def test_wrong_actions_are_named(obj: Any, path: str, allow_ask: bool, message: str) -> None:
    with pytest.raises(OpenCodeConfigError, match=f"^{message}$"):
        validate_permission_actions(obj, _path=path, allow_ask=allow_ask)


@pytest.mark.parametrize(
    ("cfg", "path"),
    [
        ({"permission": "ask"}, "permission"),
        ({"permission": {"bash": {"*": "ask"}}}, r"permission\.bash\.\*"),
        ({"config_overrides": {"permission": "ask"}}, r"config_overrides\.permission"),
        (
            {"config_overrides": {"permission": {"edit": "ask"}}, "permission": {"bash": "deny"}},
            r"config_overrides\.permission\.edit",
        ),
        (
            {"config_overrides": {"agent": {"build": {"permission": {"bash": "ask"}}}}},
            r"config_overrides\.agent\.build\.permission\.bash",
        ),
    ],
)
def test_run_mode_refuses_to_ask(cfg: Any, path: str) -> None:
    cfg = RunConfig(**cfg)  # in a session it may
    with pytest.raises(OpenCodeConfigError, match=f"^{path}: 'ask' is not supported in run mode"):
        validate_config_for_run(cfg)


@pytest.mark.parametrize(
    "cfg",
    [
        {},
        {"permission": {"*": "deny", "bash": {"git *": "allow"}}},
        {"config_overrides": {"permission": "allow", "agent": {"build": {"permission": "deny"}}}},
        {"config_overrides": {"agent": {"build": {"steps": 3}, "odd": 1}, "x": "ask"}},
        {"config_overrides": {"agent": "odd"}},
    ],
)
def test_run_mode_takes_what_it_can_do(cfg: Any) -> None:
    validate_config_for_run(RunConfig(**cfg))
