"""What becomes of an agent's family when its block is left: ways out x kinds of descendants.

`measure` starts a host (this file, as a program of its own), whose agent starts every kind of
descendant that has been seen to outlive opencode.  Then the host leaves its block, or is killed,
and `measure` watches from outside until nobody is left.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from families import carrying, kill_carriers, new_mark
from opencode_trio import AsyncOpenCodeClient, OpenCodeTimeoutError, Run, RunConfig
from opencode_trio._process.scratch import SCRATCH_PREFIX
from opencode_trio.testing import (
    ModelRequest,
    ReplyLike,
    ToolCall,
    assert_no_leaks,
    open_scripted_model,
)
from serving import Opener

HOST_SIGNALS = {f"host {name}": signal.Signals[name] for name in ("SIGTERM", "SIGINT", "SIGKILL")}
WAYS = ["normal end", "early break", "error", "cancellation", "timeout_s", *HOST_SIGNALS]
MODES = ["run", "serve"]

# What bash starts, besides a `sleep` that it waits for; # is a mark of each kind's own.
FROM_BASH = {
    "setsid": "setsid sleep #",
    "double fork": "setsid sh -c 'sleep # & sleep # &'",
    "env -i": "env -i setsid sleep #",
    "deaf": """sh -c 'trap "" TERM HUP INT; sleep #; sleep #'""",
}
KINDS = ["bash", *FROM_BASH, "MCP server"]

# As much of an MCP server as opencode waits for at its start; neither SIGTERM nor EOF ends it.
DEAF_MCP = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        version = request.get("params", {}).get("protocolVersion")
        result = {"protocolVersion": version, "capabilities": {"tools": {}},
                  "serverInfo": {"name": "deaf", "version": "1"}, "tools": []}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
while True:
    time.sleep(1)
"""

TIMEOUTS_S = (8, 16, 32)  # for `timeout_s`: the first in which the family gets under way
GIVE_UP_S = 30.0  # without which a failure would wait for ever


@attrs.frozen
class Cell:
    """How a host's block was left, and what followed."""

    mode: str
    way: str
    empty_ms: Mapping[str, float]
    """For each kind, how long after the beginning of the end somebody was still there."""
    left_ms: float | None
    """How long it took to leave the block; ``None`` if the host was killed."""
    survivors: Mapping[str, int]
    """For each kind, how many were there when the block had been left; empty after a kill."""
    scratch_ms: float
    """How long after the beginning of the end there still was a scratch directory."""
    exit_code: int
    """The host's."""
    teardown: Mapping[str, Any] | None
    """`RunResult.teardown`, in run mode and if the host lived to see it."""
    stderr: str
    """The host's; its leak check speaks here."""

    @property
    def is_clean(self) -> bool:
        """Whether nothing was left."""
        is_gone = math.isfinite(max(*self.empty_ms.values(), self.scratch_ms))
        return is_gone and not any(self.survivors.values()) and not self.failed

    @property
    def failed(self) -> bool:
        """Whether the host did not end as it should."""
        number = HOST_SIGNALS.get(self.way)
        if number is None:
            return self.exit_code != 0
        if number is signal.SIGINT:  # which Python turns into an error that nobody catches
            return self.exit_code not in {1, -number}
        return self.exit_code != -number


class TooSoonError(Exception):
    """The block was left before the family was there."""


def measure(mode: str, way: str, *, binary: str, directory: Path) -> Cell:
    """Have a host leave its block in some way; `directory` is for it alone."""
    for timeout_s in TIMEOUTS_S:
        try:
            return _measure(mode, way, str(timeout_s), binary, directory / f"{timeout_s}")
        except TooSoonError:
            continue
    raise TooSoonError


def _measure(mode: str, way: str, timeout_s: str, binary: str, directory: Path) -> Cell:
    directory.mkdir()
    marks = {kind: new_mark() for kind in KINDS}
    temporary = directory / "tmp"
    temporary.mkdir()
    # Not among its arguments: there they would be found.
    (directory / "marks").write_text(json.dumps(marks))
    words = [mode, way, timeout_s, binary, str(directory)]
    with (directory / "stderr").open("w+b") as stderr:
        host = subprocess.Popen(
            [sys.executable, __file__, *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"TMPDIR": str(temporary)},
        )
        try:
            return _watch(mode, way, host, marks, directory)
        finally:
            host.kill()
            host.wait()
            for mark in marks.values():
                kill_carriers(mark)


def _watch(
    mode: str, way: str, host: subprocess.Popen[bytes], marks: Mapping[str, str], directory: Path
) -> Cell:
    assert host.stdout is not None
    with host.stdout as words:
        said: dict[str, Any] = json.loads(words.readline() or "{}")  # all are there
        if "began" not in said:
            host.wait(GIVE_UP_S)
            raise TooSoonError((directory / "stderr").read_text(errors="replace"))
        if way in HOST_SIGNALS:
            said["began"] = time.monotonic()
            host.send_signal(HOST_SIGNALS[way])
        temporary = directory / "tmp"
        gone = _until_empty(marks, lambda: any(temporary.glob(f"{SCRATCH_PREFIX}*")))
        if rest := words.read():
            said |= json.loads(rest)
    exit_code = host.wait(GIVE_UP_S)
    *kinds_gone, scratch_gone = ((moment - said["began"]) * 1000 for moment in gone)
    return Cell(
        mode=mode,
        way=way,
        empty_ms=dict(zip(marks, kinds_gone, strict=True)),
        left_ms=(said["left"] - said["began"]) * 1000 if "left" in said else None,
        survivors=said.get("survivors", {}),
        scratch_ms=scratch_gone,
        exit_code=exit_code,
        teardown=said.get("teardown"),
        stderr=(directory / "stderr").read_text(errors="replace"),
    )


def _until_empty(marks: Mapping[str, str], has_scratch: Callable[[], bool]) -> list[float]:
    """Return when each kind was first found gone, and then when the scratch was; inf for never."""
    gone = [math.inf] * (len(marks) + 1)
    deadline = time.monotonic() + GIVE_UP_S
    while math.inf in gone and time.monotonic() < deadline:
        everybody = _commands()
        missing = missing_from(everybody, marks)
        there = [*(kind not in missing for kind in marks), has_scratch()]
        now = time.monotonic()
        gone = [
            moment if here else min(moment, now) for moment, here in zip(gone, there, strict=True)
        ]
        time.sleep(0.005)
    return gone


def missing_from(commands: list[bytes], marks: Mapping[str, str]) -> list[str]:
    """Return the kinds of which there is nobody."""
    everything = b"\n".join(commands)
    return [kind for kind, mark in marks.items() if mark.encode() not in everything]


def _commands() -> list[bytes]:
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a hundred times a second
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:  # noqa: PTH123 - as above
                    found.append(file.read())
            except OSError:
                continue
    return found


# --- the host -------------------------------------------------------------------------------


class Host:
    """A program with an agent, that leaves its block in one way."""

    def __init__(self, mode: str, way: str, timeout_s: str, binary: str, directory: str) -> None:
        self.mode, self.way, self.binary = mode, way, binary
        self.timeout_s = float(timeout_s)
        self.marks: Mapping[str, str] = json.loads((Path(directory) / "marks").read_text())
        self.workspace = Path(directory) / "workspace"
        self.workspace.mkdir()
        self.opened = 0.0
        self.stream: Run | None = None

    async def run(self) -> None:
        """Open the block, leave it, and tell who is there."""
        async with open_scripted_model(self.reply) as model, assert_no_leaks(models=[model]):
            mcp = [sys.executable, "-I", "-S", "-c", DEAF_MCP, self.marks["MCP server"]]
            cfg = model.run_config(
                snapshot=False, mcp={"deaf": {"type": "local", "command": mcp, "enabled": True}}
            )
            leave: Callable[[RunConfig], Awaitable[None]] = {
                "normal end": self.by_normal_end,
                "early break": self.by_break,
                "error": self.by_error,
                "timeout_s": self.by_timeout,
            }.get(self.way, self.by_cancellation)
            await leave(cfg)
            left = time.monotonic()
            survivors = {kind: len(carrying(mark)) for kind, mark in self.marks.items()}
            ended = self.stream and self.stream.result.teardown
            self.say(left=left, survivors=survivors, teardown=ended and attrs.asdict(ended))

    def say(self, **line: object) -> None:
        print(json.dumps(line), flush=True)

    def begin(self) -> None:
        """Note that from now on the block is being left."""
        self.say(began=time.monotonic())

    async def by_normal_end(self, cfg: RunConfig) -> None:
        async with self.open_turn(cfg) as events:
            async for _ in events:
                pass

    async def by_break(self, cfg: RunConfig) -> None:
        async with self.open_turn(cfg) as events:
            async for _ in events:
                await self.all_there()
                self.begin()
                break

    async def by_error(self, cfg: RunConfig) -> None:
        class BodyError(Exception):
            pass

        try:
            async with self.open_turn(cfg) as events:
                async for _ in events:
                    await self.all_there()
                    self.begin()
                    raise BodyError  # noqa: TRY301 - out of the block
        except BodyError:  # bare
            pass

    async def by_cancellation(self, cfg: RunConfig) -> None:
        """Read on until cancelled, or killed."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.cancel, scope)
                async with self.open_turn(cfg) as events:
                    async for _ in events:
                        pass

    async def cancel(self, scope: trio.CancelScope) -> None:
        await self.all_there()
        self.begin()
        if self.way == "cancellation":
            scope.cancel()

    async def by_timeout(self, cfg: RunConfig) -> None:
        try:
            async with self.open_turn(cfg, timeout_s=self.timeout_s) as events:
                async for _ in events:
                    await self.all_there()
                    self.say(began=self.opened + self.timeout_s)
                    await trio.sleep_forever()
        except OpenCodeTimeoutError:
            pass

    @asynccontextmanager
    async def open_turn(
        self, cfg: RunConfig, timeout_s: float | None = None
    ) -> AsyncIterator[trio.abc.ReceiveChannel[Any]]:
        if self.mode == "run":
            client = AsyncOpenCodeClient(self.binary)
            opened = client.async_stream("go", self.workspace, run_cfg=cfg, timeout_s=timeout_s)
            self.opened = time.monotonic()
            async with opened as self.stream:
                yield self.stream
        else:
            async with (
                Opener(self.binary).open_server(self.workspace, run_cfg=cfg) as server,
                server.open_session(self.workspace) as session,
            ):
                self.opened = time.monotonic()
                async with session.stream("go", timeout_s=timeout_s) as turn:
                    yield turn

    async def reply(self, request: ModelRequest) -> ReplyLike:
        """Start the family, then sleep in bash; or, for a normal end, say goodbye."""
        sleep = f"sleep {self.marks['bash']}"
        if not request.tool_results:
            jobs = [job.replace("#", self.marks[kind]) for kind, job in FROM_BASH.items()]
            if self.way == "normal end":
                jobs.append(sleep)
            # Whoever held bash's own streams would keep the tool waiting.
            script = "\n".join(f"({job}) </dev/null >/dev/null 2>&1 &" for job in jobs)
            return ToolCall("bash", {"command": script, "description": "start a family"})
        if self.way != "normal end":
            return ToolCall("bash", {"command": sleep, "description": "sleep"})
        await self.all_there()
        self.begin()
        return "done"

    async def all_there(self) -> None:
        while missing_from(_commands(), self.marks):  # noqa: ASYNC110 - processes ring no bell
            await trio.sleep(0.1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored in a shell's background
    trio.run(Host(*sys.argv[1:]).run)
