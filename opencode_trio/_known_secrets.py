"""Which secrets a child is given, so that they can be kept out of errors and logs.

Blocking, and without trio: call it in a worker thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from opencode_trio._host_config import parse_config
from opencode_trio._isolation import home_of
from opencode_trio._json import Json
from opencode_trio._redact import Redactor, files_in, secrets_in
from opencode_trio.config import RunConfig

MAX_BYTES = 1 << 20
"""Credentials and settings are kilobytes; what is larger is something else."""

_CONFIG_FILES = ("config.json", "opencode.json", "opencode.jsonc")
_IN_VARIABLES = ("OPENCODE_CONFIG_CONTENT", "OPENCODE_AUTH_CONTENT")


def redactor_of(run_cfg: RunConfig, env: Mapping[str, str], workspace: Path) -> Redactor:
    """Return one that knows what a child can know: its settings, environment and credentials.

    Args:
        run_cfg: the settings.
        env: the child's whole environment.
        workspace: where it works.
    """
    objects = [
        run_cfg.build_opencode_config_dict(),
        dict(run_cfg.cli_kwargs or {}),
        *(_parsed(env.get(name, "")) for name in _IN_VARIABLES),
        *(_parsed(_text(path)) for path in _files(run_cfg, env, workspace)),
    ]
    return Redactor.of(
        [
            *secrets_in(dict(env), environ=env),
            *(secret for found in objects for secret in _all_in(found, env)),
        ]
    )


def _files(run_cfg: RunConfig, env: Mapping[str, str], workspace: Path) -> Iterator[Path]:
    """Yield the files that opencode takes credentials from; most are not there."""
    home = Path(home_of(env))
    data = Path(env.get("XDG_DATA_HOME") or home / ".local/share", "opencode")
    yield from (data / name for name in ("auth.json", "mcp-auth.json"))
    folders = [
        Path(env.get("XDG_CONFIG_HOME") or home / ".config", "opencode"),
        Path(env.get("OPENCODE_TEST_HOME") or home, ".opencode"),
        *([] if run_cfg.untrusted else [workspace, workspace / ".opencode"]),
    ]
    yield from (folder / name for folder in folders for name in _CONFIG_FILES)


def _all_in(found: Json, env: Mapping[str, str]) -> Iterator[str]:
    yield from secrets_in(found, environ=env)
    for name in files_in(found):
        path = os.path.expanduser(name)  # noqa: PTH111 - never raises
        yield _text(Path(path)).strip()  # as opencode reads it


def _parsed(text: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):  # what opencode does not understand either
        return parse_config(text)
    return {}


def _text(path: Path) -> str:
    with suppress(OSError, ValueError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
            return path.read_text("utf-8")
    return ""
