"""The runner of benchmarks: progress on stderr, one table on stdout, all numbers in a JSON file.

    nox -s bench                     (or: python tests/bench/run.py)
    nox -s bench -- events turns --json out.json

`--scale 0.1` does a tenth of the work, to see that it works.  The exit status is 1 if a bound was
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import provide_opencode
from bench import (
    cancel,
    endurance,
    events,
    imports,
    machine,
    memory,
    runs,
    swarm,
    teardown,
    turns,
    warden,
)
from bench.benchmark import Benchmark, Setup
from bench.rows import Row
from bench.table import as_json, markdown, put_into

BENCHMARKS: Mapping[str, Benchmark] = {
    "imports": imports.BENCHMARK,
    "events": events.BENCHMARK,
    "runs": runs.BENCHMARK,
    "turns": turns.BENCHMARK,
    "cancel": cancel.BENCHMARK,
    "warden": warden.BENCHMARK,
    "teardown": teardown.BENCHMARK,
    "memory": memory.BENCHMARK,
    "swarm": swarm.BENCHMARK,
    "endurance": endurance.BENCHMARK,
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    binary = os.environ.get(provide_opencode.VARIABLE) or str(provide_opencode.provide())
    setup = Setup(binary, rival=options.rival, scale=options.scale, say=say)
    facts = machine.facts(binary)
    say(machine.described(facts))
    results: dict[str, Sequence[Row]] = {}
    told: list[dict[str, Any]] = []
    for name in options.names or BENCHMARKS:
        results[name], entry = measured(name, setup)
        told.append(entry)
        if options.json:  # each time: what has been measured is not lost with what comes after
            write(options.json, {"machine": facts, "scale": options.scale, "benchmarks": told})
    report = f"{machine.described(facts)}\n\n{markdown(results)}"
    print(f"\n{report}")
    if options.into:
        page = options.into.read_text("utf-8")
        options.into.write_text(put_into(page, report), "utf-8")
    return int(not all(row.is_kept for rows in results.values() for row in rows))


def measured(name: str, setup: Setup) -> tuple[Sequence[Row], dict[str, Any]]:
    benchmark = BENCHMARKS[name]
    say(f"\n{name}: {benchmark.measures}")
    began, load = time.perf_counter(), machine.load()
    rows = benchmark.run(setup)
    entry = {
        "name": name,
        "measures": benchmark.measures,
        "seconds": time.perf_counter() - began,
        "load": [load, machine.load()],
        "rows": [as_json(row) for row in rows],
    }
    return rows, entry


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Run benchmarks.")
    made.add_argument("names", nargs="*", type=known, help=f"of {', '.join(BENCHMARKS)}")
    made.add_argument("--json", type=Path, help="where to write all numbers")
    made.add_argument("--into", type=Path, help="a page between whose marks to put the table")
    made.add_argument("--rival", help="a Python that has py-opencode-wrapper, for `swarm`")
    made.add_argument("--scale", type=float, default=1.0, help="do a part of the work")
    return made


def known(name: str) -> str:
    if name not in BENCHMARKS:  # `choices` would refuse that none is given
        raise argparse.ArgumentTypeError(f"there is no {name}, only {', '.join(BENCHMARKS)}")
    return name


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
