"""The command line: ``python -m opencode_trio``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import attrs
import trio

from opencode_trio import __version__
from opencode_trio._cli.batch import Batch, Show, open_stop
from opencode_trio._cli.doctor import CHECKS, Installation
from opencode_trio._cli.result_file import open_results
from opencode_trio._cli.task_file import BatchTask, is_positive, read_run_config, read_tasks
from opencode_trio._process.binary import probe_version
from opencode_trio.client import AsyncOpenCodeClient
from opencode_trio.config import RunConfig
from opencode_trio.errors import OpenCodeError
from opencode_trio.progress import ask_in_terminal, is_terminal, show_progress

Number = TypeVar("Number", int, float)

DONE, FAILED, UNUSABLE = 0, 1, 2
"""Exit codes: all is well; something failed; nothing was tried.  Beyond 128: a signal."""

SWARM_HELP = """\
TASKS has a JSON object on each line: {"prompt": "...", "workspace": "repo", "name": "..."}, and,
if wanted, "id", "model", "run_cfg" (fields of RunConfig), "output" (a JSON schema), "timeout_s",
"max_cost_usd", "max_tokens", "restartable", "worktree".

Each result is appended to the file of results when its task ends.  Run the same command again to
go on where it was stopped: completed tasks are skipped, failed ones tried again.  A task is known
by its "id"; without one by all that its line says, its name excepted.  The options of the command
are no part of that: for another model name another file.

Exit code: 0 if all tasks are completed, 1 if some are not, 2 if the input is wrong, 130 after
Ctrl+C, 143 after SIGTERM.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = trio.run(args.command, args)
    except (OpenCodeError, ImportError) as exc:
        say(f"error: {exc}", sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m opencode_trio", description="Run the OpenCode coding agent."
    )
    parser.add_argument("--version", action="version", version=f"opencode-trio {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    swarm = commands.add_parser(
        "swarm",
        help="do the tasks of a file, many at once",
        epilog=SWARM_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    swarm.set_defaults(command=swarm_command)
    swarm.add_argument("tasks", type=Path, metavar="TASKS", help="a file of JSON lines")
    add = swarm.add_argument
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="the results (default: TASKS, ending in .results.jsonl)",
    )
    add("--limit", type=count, default=16, metavar="N", help="tasks at once (default: 16)")
    add("--budget", type=amount, metavar="USD", help="the most this run may spend")
    add("--max-tokens", type=count, metavar="N", help="the most tokens it may spend")
    add("--config", type=Path, metavar="FILE", help="fields of RunConfig, as a JSON object")
    add("--progress", choices=["auto", "table", "lines", "none"], default="auto")
    add("--ask", action="store_true", help="ask here for permission, where the settings say so")
    _add_common(
        swarm, workspace_help="where tasks work, and relative workspaces start (default: here)"
    )

    doctor = commands.add_parser("doctor", help="see what is installed, and whether it works")
    doctor.set_defaults(command=doctor_command)
    _add_common(doctor, workspace_help="where the model is tried (default: an empty directory)")
    return parser


def _add_common(parser: argparse.ArgumentParser, *, workspace_help: str) -> None:
    parser.add_argument("--model", metavar="PROVIDER/MODEL", help="the model")
    parser.add_argument("--workspace", type=Path, metavar="DIR", help=workspace_help)
    parser.add_argument(
        "--untrusted",
        action="store_true",
        help="nothing that a workspace brings for opencode runs or counts",
    )
    parser.add_argument("--opencode", default="opencode", metavar="PATH", help="opencode itself")


# --- swarm ---------------------------------------------------------------------------------------


async def swarm_command(args: argparse.Namespace) -> int:
    """Do a batch."""
    cfg = RunConfig() if args.config is None else read_run_config(args.config)
    if args.model is not None:
        cfg = attrs.evolve(cfg, model=args.model)
    if args.untrusted:
        cfg = attrs.evolve(cfg, untrusted=True)
    tasks = read_tasks(args.tasks, workspace=args.workspace or Path.cwd(), run_cfg=cfg)
    client = AsyncOpenCodeClient(args.opencode)
    await probe_version(client.resolved_binary())
    return await run_batch(client, tasks, args)


async def run_batch(source: Any, tasks: Sequence[BatchTask], args: argparse.Namespace) -> int:
    """Do these tasks; return the exit code."""
    out = args.out or args.tasks.with_suffix(".results.jsonl")
    options = {
        "limit": args.limit,
        "max_cost_usd": args.budget,
        "max_tokens": args.max_tokens,
        "on_permission": ask_in_terminal if args.ask else None,
    }
    with open_results(out) as results:
        async with open_stop() as stop:
            batch = Batch(tasks, results, stop)
            await batch.run(source, show_of(args.progress), options)
    say(f"{batch.summary()}; results: {out}")
    if batch.failure is not None:
        say(f"error: {out}: {batch.failure.strerror}", sys.stderr)
        return FAILED
    if batch.is_complete:
        return DONE
    if stop.reason is None:
        return FAILED
    say(f"stopped by {stop.reason.name}; the same command goes on from here")
    return 128 + stop.reason


def show_of(progress: str) -> Show:
    """Return how a swarm is shown."""
    if progress == "none":
        return lambda opening: opening
    is_live = progress == "table" or (
        progress == "auto" and is_terminal(sys.stdout) and _has_rich()
    )
    return lambda opening: show_progress(opening, is_live=is_live)


def _has_rich() -> bool:
    if importlib.util.find_spec("rich") is not None:
        return True
    say("for a live table: pip install 'opencode-trio[progress]'", sys.stderr)
    return False


# --- doctor --------------------------------------------------------------------------------------


async def doctor_command(args: argparse.Namespace) -> int:
    """Examine this installation."""
    is_well = True
    patient = Installation(args.opencode, args.model, args.workspace, args.untrusted)
    for check in CHECKS:
        for finding in await check(patient):
            say(str(finding))
            is_well = is_well and not finding.is_bad
    return DONE if is_well else FAILED


# --- values --------------------------------------------------------------------------------------


def count(text: str) -> int:
    """Read how many."""
    return positive(int(text))


def amount(text: str) -> float:
    """Read how much."""
    return positive(float(text))


def positive(value: Number) -> Number:
    """Return the number.

    Raises:
        argparse.ArgumentTypeError: it is not positive.
    """
    if not is_positive(value):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {value}")
    return value


def say(text: str, file: TextIO | None = None) -> None:
    """Print; a reader who has left (``| head``) is no failure of what was done."""
    out = file or sys.stdout
    try:
        print(text, file=out, flush=True)
    except BrokenPipeError:
        # What is still buffered would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


if __name__ == "__main__":
    sys.exit(main())
