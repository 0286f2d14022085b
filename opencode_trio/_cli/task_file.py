"""The tasks of a batch: a file of JSON lines, read and checked before anything starts."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from opencode_trio._checks import checked_workspace, shown
from opencode_trio._json import Json, is_object
from opencode_trio._swarm.task import AgentTask
from opencode_trio.config import RunConfig, layered, setting_names
from opencode_trio.errors import OpenCodeConfigError

PROBLEMS_TOLD = 20
"""More would scroll the first ones away."""

ID_DIGITS = 16
"""Of the hash: among a million tasks the chance that two are alike is one in 40 million."""


@attrs.frozen
class BatchTask:
    """A line of the file."""

    task_id: str
    """What it is known by from one run to the next."""
    line: int
    """Where it stands, from 1."""
    given: Json = attrs.field(repr=False)
    """What stands there."""
    agent: AgentTask
    """What the swarm is told."""


def is_text(value: object) -> bool:
    """Whether it is text, and not empty."""
    return isinstance(value, str) and bool(value)


def is_positive(value: object) -> bool:
    """Whether it is a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


Check = tuple[Callable[[object], bool], str]
TEXT: Check = (is_text, "text")
NUMBER: Check = (is_positive, "a positive number")
COUNT: Check = (lambda value: is_positive(value) and isinstance(value, int), "a positive integer")
PERMISSION: Check = (lambda value: isinstance(value, str | dict), "an action, or an object")
FLAG: Check = (lambda value: isinstance(value, bool), "true or false")
OBJECT: Check = (lambda value: isinstance(value, dict), "an object")

KEYS: Mapping[str, Check] = {
    "prompt": TEXT,
    "id": TEXT,
    "name": TEXT,
    "workspace": TEXT,
    "run_cfg": OBJECT,
    "model": TEXT,
    "agent": TEXT,
    "permission": PERMISSION,
    "tools": OBJECT,
    "output": OBJECT,
    "timeout_s": NUMBER,
    "max_cost_usd": NUMBER,
    "max_tokens": COUNT,
    "restartable": FLAG,
    "worktree": FLAG,
}
"""What may stand in a line: the options of `AgentOptions`, and an id."""

AGENT_KEYS = tuple(KEYS.keys() - {"prompt", "id", "workspace", "run_cfg"})
"""Those that go to the swarm as they are."""


def read_tasks(path: Path, *, workspace: Path, run_cfg: RunConfig) -> list[BatchTask]:
    """Read the tasks of a batch.

    Args:
        path: the file.
        workspace: where relative workspaces start, and the one of tasks that name none.
        run_cfg: the settings that a task's own are laid over.

    Raises:
        OpenCodeConfigError: the file cannot be read, or lines of it are no tasks; the text names
            the file and each of those lines.
        ImportError: a task has an `output`, and the extra `structured` is not installed.
    """
    tasks: list[BatchTask] = []
    problems: list[str] = []
    seen: Counter[str] = Counter()
    for number, line in lines_of(path):
        try:
            given = read_object(line)
            task = _task_of(given, workspace, run_cfg)
            task_id = _id_of(given, seen)
        except OpenCodeConfigError as exc:
            problems.append(f"{path}:{number}: {exc}")
        else:
            tasks.append(BatchTask(task_id, number, given, task))
    if problems:
        more = len(problems) - PROBLEMS_TOLD
        rest = [f"and {more} more lines are wrong"] if more > 0 else []
        raise OpenCodeConfigError("\n".join([*problems[:PROBLEMS_TOLD], *rest]))
    if not tasks:
        raise OpenCodeConfigError(f"{path}: contains no task")
    return tasks


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty, with their numbers.

    Raises:
        OpenCodeConfigError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise OpenCodeConfigError(f"{path}: {exc.strerror}") from exc
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line


def read_object(text: bytes) -> Json:
    """Read a JSON object.

    Raises:
        OpenCodeConfigError: it is not one.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise OpenCodeConfigError(f"is not JSON: {exc}") from exc
    if not is_object(value):
        raise OpenCodeConfigError("is not a JSON object")
    return value


def read_run_config(path: Path) -> RunConfig:
    """Read a file that holds the fields of a `RunConfig` as a JSON object.

    Raises:
        OpenCodeConfigError: it does not; the text names the file.
    """
    try:
        return config_with(RunConfig(), read_object(path.read_bytes()))
    except OSError as exc:
        raise OpenCodeConfigError(f"{path}: {exc.strerror}") from exc
    except OpenCodeConfigError as exc:
        raise OpenCodeConfigError(f"{path}: {exc}") from exc


def config_with(cfg: RunConfig, fields: Mapping[str, Any]) -> RunConfig:
    """Return the settings with others laid over them.

    Raises:
        OpenCodeConfigError: a setting is unknown or invalid; the text names it.
    """
    known = sorted(setting_names())
    if unknown := [name for name in fields if name not in known]:
        raise OpenCodeConfigError(f"unknown setting {unknown[0]!r}; there are: {', '.join(known)}")
    return layered(cfg, RunConfig(**fields))


def _task_of(given: Json, workspace: Path, run_cfg: RunConfig) -> AgentTask:
    for key, value in given.items():
        if key not in KEYS:
            raise OpenCodeConfigError(f"unknown key {key!r}; there are: {', '.join(KEYS)}")
        fits, expected = KEYS[key]
        if not fits(value):
            raise OpenCodeConfigError(f"{key}: expected {expected}, got {shown(value)}")
    if "prompt" not in given:
        raise OpenCodeConfigError("the prompt is missing")
    return AgentTask(
        given["prompt"],
        workspace=checked_workspace(_path(workspace, given.get("workspace", "."))),
        run_cfg=_not_more_trusting(config_with(run_cfg, given.get("run_cfg", {})), run_cfg),
        **{key: given[key] for key in AGENT_KEYS if key in given},
    )


def _not_more_trusting(own: RunConfig, common: RunConfig) -> RunConfig:
    if common.untrusted and not own.untrusted:
        raise OpenCodeConfigError(
            "run_cfg: untrusted: a task cannot switch off what the command asks for"
        )
    return own


def _path(start: Path, given: str) -> Path:
    return Path(given) if given.startswith("~") else start / given


def _id_of(given: Json, seen: Counter[str]) -> str:
    """Return the task's own id; else one by what it says, whatever it is called and wherever."""
    if "id" in given:
        own: str = given["id"]
        if seen[own]:
            raise OpenCodeConfigError(f"id: {own!r} is already the id of a task above")
        seen[own] += 1
        return own
    meaning = {key: value for key, value in given.items() if key != "name"}
    digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]
    seen[digest] += 1
    if seen[digest] == 1:
        return digest
    numbered = (f"{digest}-{number}" for number in count(seen[digest]))
    own = next(name for name in numbered if not seen[name])  # somebody may have called his so
    seen[own] += 1
    return own
