"""Programs of their own: the model, and whatever is measured in a tree that holds nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from bench.processes import PeakWatch, family
from opencode_trio import RunConfig

TESTS = Path(__file__).resolve().parents[1]


def module(name: str) -> tuple[str, ...]:
    """Return the command line that runs a module of this package."""
    return (sys.executable, "-m", f"bench.{name}")


@attrs.frozen
class Model:
    """A scripted model in a process of its own, because it works and remembers, too."""

    cfg: RunConfig
    """Settings that lead to it."""
    pid: int


@contextmanager
def model_elsewhere() -> Iterator[Model]:
    """Run a model that answers `model.ANSWER` to all."""
    with subprocess.Popen(
        module("model"), cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield Model(RunConfig(**json.loads(process.stdout.readline())), process.pid)
        finally:
            process.kill()


@attrs.frozen
class Finished:
    """What a program has said, and what it and all below it have used."""

    said: Any
    seconds: float
    """From its start to its end."""
    cpu_s: float
    peak_pss: int
    peak_rss: int


class ProgramFailedError(Exception):
    """A program ended with an error; its own words are on stderr."""


def run_program(argv: Sequence[str], job: Mapping[str, Any]) -> Finished:
    """Run a program that reads a job from stdin and writes what came of it to stdout, as JSON."""
    began = time.perf_counter()
    with subprocess.Popen(
        argv, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with PeakWatch(lambda: family(process.pid)) as watch:
                with process.stdin as stdin:
                    stdin.write(json.dumps(job).encode())
                said = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)  # of all that it has waited for, too
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise ProgramFailedError(f"{argv} ended with {process.returncode}")
    return Finished(
        said=json.loads(said),
        seconds=time.perf_counter() - began,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_pss=watch.peak.proportional,
        peak_rss=watch.peak.resident,
    )


def answer_job(answer: Any) -> None:
    """In such a program: say what came of it."""
    print(json.dumps(answer), flush=True)


def read_job() -> Any:
    """In such a program: read what to do."""
    return json.loads(sys.stdin.read())
