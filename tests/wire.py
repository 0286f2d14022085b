"""The recorded wire traffic in `traces/`, and what the library makes of it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from opencode_trio._protocol.v1.run_lines import parse_event_line
from opencode_trio._turn.result import aggregate_run_result, aggregate_server_result
from opencode_trio.results import RunResult

FOLDER = Path(__file__).parent / "traces"
TRACES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
RUN_TRACES = [name for name in TRACES if name.startswith("run-")]
SERVE_TRACES = [name for name in TRACES if name.startswith("serve-")]

Record = dict[str, Any]


@cache
def data_of(name: str) -> bytes:
    return (FOLDER / f"{name}.jsonl").read_bytes()


def lines_of(name: str) -> list[str]:
    return data_of(name).decode().removesuffix("\n").split("\n")


def records_of(name: str) -> list[Record]:
    """Return a trace's events; a server's trace also has HTTP answers, which are left out."""
    return [record for record in _parsed(lines_of(name)) if "http" not in record]


def answers_of(name: str) -> dict[str, Any]:
    """Return the bodies of a server trace's HTTP answers, by request."""
    return {r["http"]: r["body"] for r in _parsed(lines_of(name)) if "http" in r}


def root_of(name: str) -> str:
    """Return the session that was prompted: the one the answer names, else the first."""
    answer = answers_of(name)["POST /session/:id/message"]
    if "info" in answer:
        return str(answer["info"]["sessionID"])
    created = (r["payload"]["properties"] for r in records_of(name) if "directory" in r)
    return str(next(props["sessionID"] for props in created if "sessionID" in props))


def stored_messages(name: str) -> list[Record] | None:
    """Return what the server stored, if it could tell: on one trace it answered 400."""
    body = answers_of(name)["GET /session/:id/message"]
    return body if isinstance(body, list) else None


def result_of_lines(name: str, lines: Iterable[str]) -> RunResult:
    """Fold lines, those of the trace `name` or like them, in its dialect."""
    lines = list(lines)
    records = [record for record in _parsed(lines) if "http" not in record]
    if name in RUN_TRACES:
        return aggregate_run_result(events=records, raw_stdout_lines=lines, exit_code=0, stderr="")
    return aggregate_server_result(events=records, session_id=root_of(name))


def _parsed(lines: Iterable[str]) -> Iterable[Record]:
    return map(parse_event_line, lines)
