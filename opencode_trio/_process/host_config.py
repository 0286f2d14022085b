"""What an isolated child may know of the host's global config: its providers.

Pure: text and dictionaries in, dictionaries out.  How opencode reads a config file (1.18): it puts
``{env:NAME}`` and then ``{file:PATH}`` into the *text*, and parses what comes out.  A relative
path counts from the directory of that file, ``~/`` is the real home (``os.homedir()``).
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from opencode_trio._json import (
    Json,
    is_list,
    is_mapping,
    is_object,
    is_sequence,
    list_of,
    object_of,
    texts_of,
)

CONFIG_FILES = ("opencode.json", "opencode.jsonc")
"""Where opencode looks for a config: in a project, ``.opencode`` and ``OPENCODE_CONFIG_DIR``; the
later wins."""

GLOBAL_CONFIG_FILES = ("config.json", *CONFIG_FILES)
"""Likewise, in its config directory.  (The TOML file ``config`` of 2025 is left out: opencode turns
it into ``config.json`` at its first start.)"""

PROVIDER_KEYS = ("$schema", "provider", "disabled_providers", "enabled_providers")
"""The keys that say where models come from; every other key is a capability or a taste."""

_ENV = re.compile(r"\{env:([^}]+)\}")
# A path may itself hold {env:NAME}, because opencode puts those in first.
_FILE = re.compile(r"\{file:((?:\{env:[^}]+\}|[^}])+)\}")


# What is no {env:NAME} outside of strings: a string, a comment.
_UNQUOTED_ENV = re.compile(
    r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?\*/|\{env:(?P<name>[^}"\n]+)\}', re.DOTALL
)


def parse_config(text: str, *, environ: Mapping[str, str]) -> Json:
    """Parse a config: JSON, or JSON with comments and trailing commas.

    Args:
        text: The config.
        environ: What ``{env:NAME}`` means outside of strings, where it stands for a number, say.
            In strings it is kept.

    Raises:
        ValueError: it is neither, or its root is not an object.
        RecursionError: it is nested a thousand deep.
    """
    value = _loads(_UNQUOTED_ENV.sub(lambda found: _value_of(found, environ), text))
    if not is_object(value):
        raise ValueError("its root is not an object")
    return value


def _value_of(found: re.Match[str], environ: Mapping[str, str]) -> str:
    return found[0] if found["name"] is None else environ.get(found["name"], "")


def _loads(text: str) -> object:
    text = text.removeprefix("\ufeff")
    try:
        return json.loads(text)
    except ValueError:
        # Here, because most hosts have no comments in their config, or no config.  It has
        # annotations, but does not say so (no py.typed).
        import jsonc  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]

        return jsonc.loads(text)


def render_config(config: Mapping[str, Any]) -> str:
    """Write a config so that opencode reads it back.

    Raises:
        ValueError: it holds what JSON has no word for (NaN, half a surrogate pair).
    """
    # Not ASCII only: opencode looks for {file:...} in the text as it stands, so an escape
    # such as \u00e9 would become part of the path.
    text = json.dumps(config, ensure_ascii=False, allow_nan=False)
    text.encode()
    return text


def provider_config(
    config: Mapping[str, Any], *, directory: str, home: str, environ: Mapping[str, str]
) -> Json:
    """Keep what selects and configures providers, such that it works from any directory.

    Args:
        config: A parsed config file.
        directory: Where the file lies (not where a link to it leads: opencode does not look).
        home: What ``~/`` means in ``{file:~/...}``.
        environ: What ``{env:NAME}`` means *inside a path*; elsewhere it is left to the child.
    """
    kept = {key: config[key] for key in PROVIDER_KEYS if key in config}
    return _anchored(kept, directory=directory, home=home, environ=environ)


def settings_file(
    config: Mapping[str, Any], *, directory: str, home: str, environ: Mapping[str, str]
) -> Json:
    """Write settings such that they mean in a file what they mean in a variable.

    Args:
        config: Settings, as they would go into ``OPENCODE_CONFIG_CONTENT``.
        directory: Where opencode works, which is where their relative paths start.
        home: What ``~/`` means in ``{file:~/...}``.
        environ: What ``{env:NAME}`` means inside a path.
    """
    rewritten = _anchored(config, directory=directory, home=home, environ=environ)
    if is_sequence(plugins := rewritten.get("plugin")):
        rewritten["plugin"] = [_anchored_plugin(plugin, directory) for plugin in plugins]
    # Without it opencode adds it to the file.
    return {"$schema": "https://opencode.ai/config.json", **rewritten}


def _anchored(
    config: Mapping[str, Any], *, directory: str, home: str, environ: Mapping[str, str]
) -> Json:
    def absolute(match: re.Match[str]) -> str:
        path = _ENV.sub(lambda name: environ.get(name[1], ""), match[1])
        path = _below_home(path, home)
        return f"{{file:{os.path.normpath(os.path.join(directory, path))}}}"  # noqa: PTH118 - pure

    rewritten: Json = _map_strings(config, lambda text: _FILE.sub(absolute, text))
    return rewritten


def _anchored_plugin(plugin: object, directory: str) -> object:
    if is_list(plugin) and plugin:  # with its options
        return [_anchored_plugin(plugin[0], directory), *plugin[1:]]
    if isinstance(plugin, str) and plugin.startswith(("./", "../")):
        return os.path.join(directory, plugin)  # noqa: PTH118 - pure
    return plugin


def variables_of(config: Mapping[str, Any]) -> frozenset[str]:
    """Name the environment variables that providers take their credentials from.

    They are asked for by ``{env:NAME}`` anywhere, or by name in ``provider.<id>.env``.
    """
    providers = object_of(config.get("provider")).values()
    listed = [name for provider in providers for name in texts_of(object_of(provider).get("env"))]
    placed = [name for text in _strings(config) for name in _ENV.findall(text)]
    return frozenset(listed + placed)


def expand_home(config: Mapping[str, Any], home: str) -> Json:
    """Replace a leading ``~/`` where an isolated opencode would look into its private home.

    Those are ``instructions``, ``skills.paths`` and local ``references``.  Permission patterns
    and ``{file:~/...}`` are not touched: opencode takes the real home there.

    Args:
        config: A config, as it goes into ``OPENCODE_CONFIG_CONTENT``.
        home: The host's home directory.

    Returns:
        A copy; parts of a shape that opencode would refuse anyway come back as they are.
    """

    def expand(value: object) -> object:
        return _map_strings(value, lambda text: _below_home(text, home))

    skills = object_of(config.get("skills"))
    rewritten: Json = {key: expand(config[key]) for key in _HOME_KEYS if key in config}
    if "paths" in skills:
        rewritten["skills"] = {**skills, "paths": expand(skills["paths"])}
    return {**config, **rewritten}


# `reference` is the older name of `references`.
_HOME_KEYS = ("instructions", "references", "reference")


def _below_home(path: str, home: str) -> str:
    return os.path.join(home, path[2:]) if path.startswith("~/") else path  # noqa: PTH118 - pure


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Rebuild a JSON value with each string changed, the keys of objects excepted."""
    if isinstance(value, str):
        return change(value)
    if is_sequence(value):
        return [_map_strings(item, change) for item in value]
    if is_mapping(value):
        return {key: _map_strings(item, change) for key, item in value.items()}
    return value


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in [*list_of(value), *object_of(value).values()]:
        yield from _strings(item)
