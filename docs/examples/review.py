"""Code review: one agent per repository, and one list of what they found, worst first.

    python docs/examples/review.py REPOSITORY...
    python docs/examples/review.py --model anthropic/claude-sonnet-4-5 REPOSITORY...

In the first, a script plays the model, and knows a few bad habits of Python programmers.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Literal

import attrs
import trio

from opencode_trio import AsyncOpenCodeClient, OpenCodeConfigError, open_swarm
from opencode_trio.progress import show_progress
from opencode_trio.testing import ModelRequest, ReplyLike, ToolCall, open_run_config

Severity = Literal["high", "medium", "low"]
RANKS: dict[Severity, int] = {"high": 0, "medium": 1, "low": 2}


@attrs.frozen
class Finding:
    """A problem in a repository."""

    severity: Severity
    file: str
    line: int
    problem: str


@attrs.frozen
class Review:
    """What an agent answers. opencode gets this class as a JSON schema."""

    findings: list[Finding]


PROMPT = (
    "Review this repository, and report defects: what does harm, not what is a matter of taste. "
    "Look at the code before you judge. At most ten findings, each in one sentence."
)
READ_ONLY = {
    "*": "deny",
    "read": "allow",
    "grep": "allow",
    "glob": "allow",
    "bash": {"*": "deny", "git grep *": "allow", "git log *": "allow", "git show *": "allow"},
}


async def main(model: str, repositories: Sequence[str]) -> int:
    """Review all repositories; return how many could not be reviewed."""
    client = AsyncOpenCodeClient()
    async with (
        open_run_config(model, script=play, permission=READ_ONLY, snapshot=False) as config,
        # If one review fails, the others go on.
        show_progress(
            open_swarm(client, run_cfg=config, on_failure="collect"), file=sys.stderr
        ) as swarm,
    ):
        not_started: list[str] = []
        for path in repositories:
            try:
                # A worktree has what is committed. Meanwhile you can go on working in the checkout.
                swarm.start_soon(
                    PROMPT,
                    name=path,
                    workspace=path,
                    worktree=True,
                    output=Review,
                    timeout_s=900,
                    max_cost_usd=1.00,
                )
            except OpenCodeConfigError as error:  # it is in no git repository, for example
                not_started.append(f"{path} was not reviewed: {error}")

    found = [
        (outcome.name, finding)
        for outcome in swarm.outcomes()
        if outcome.error is None
        for finding in outcome.unwrap().structured.findings
    ]
    for name, finding in sorted(found, key=lambda pair: RANKS[pair[1].severity]):
        print(f"{finding.severity:6} {name}/{finding.file}:{finding.line}: {finding.problem}")
    failed = [
        f"{outcome.name} was not reviewed: {outcome.error}"
        for outcome in swarm.outcomes()
        if outcome.error is not None
    ]
    print(*not_started, *failed, sep="\n", file=sys.stderr)
    return len(not_started) + len(failed)


# --- without a real model ----------------------------------------------------------------------

HABITS: dict[str, tuple[Severity, str]] = {
    "eval(": ("high", "runs whatever it is given"),
    "shell=True": ("high", "has a shell read its arguments"),
    "except:": ("medium", "catches Ctrl+C, too"),
    "TODO": ("low", "is not finished"),
}


def play(request: ModelRequest) -> ReplyLike:
    """Play the model: look for bad habits, and report where they are."""
    if not request.tool_results:
        patterns = " ".join(f"-e '{habit}'" for habit in HABITS)
        command = f"git grep -n -F {patterns} -- '*.py'"
        return ToolCall("bash", {"command": command, "description": "Look for bad habits"})
    findings: list[Finding] = []
    for file, line, code in re.findall(r"(?m)^(.+?):(\d+):(.*)$", request.tool_results[0]):
        severity, problem = next(HABITS[habit] for habit in HABITS if habit in code)
        findings.append(Finding(severity, file, int(line), problem))
    return ToolCall("StructuredOutput", attrs.asdict(Review(findings)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Review several repositories at once.")
    parser.add_argument("--model", default="scripted/review", metavar="PROVIDER/MODEL")
    parser.add_argument("repositories", nargs="+", metavar="REPOSITORY")
    args = parser.parse_args()
    sys.exit(1 if trio.run(main, args.model, args.repositories) else 0)
