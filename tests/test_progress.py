"""Progress: what is said of a swarm, the lines, the table, and that nobody waits for it."""

from __future__ import annotations

import builtins
import io
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.cells import cell_len
from trio.testing import MockClock

from opencode_trio._report.table_view import (
    COLUMNS,
    FRAME_LINES,
    TableView,
    choose,
    fitted,
    picture,
    widths_for,
)
from opencode_trio._report.terminal_text import (
    answer_of,
    count_of,
    doing,
    dollars,
    duration,
    printable,
    question_of,
    totals,
)
from opencode_trio._swarm.agent import AgentStatus
from opencode_trio._swarm.snapshots import AgentSnapshot, Forecast, SwarmSnapshot, forecast
from opencode_trio._turn.budgets import Budget, Spending
from opencode_trio.asks import PermissionRequest, Reject
from opencode_trio.errors import OpenCodeConfigError, OpenCodeTurnError
from opencode_trio.progress import LinesView, ask_in_terminal, show_progress
from opencode_trio.swarm import open_swarm
from swarming import FakeSession, World, after, failing, steps


def agent(name: str, status: AgentStatus = "running", **facts: Any) -> AgentSnapshot:
    cost = facts.pop("cost", 0.0)
    facts.setdefault("attempts", int(status != "waiting"))
    return AgentSnapshot(name=name, status=status, spent=Spending(cost, 100), **facts)


def swarm_of(*agents: AgentSnapshot, elapsed_s: float = 65.0) -> SwarmSnapshot:
    spent = sum((agent.spent for agent in agents), Spending())
    return SwarmSnapshot(agents=agents, spent=spent, elapsed_s=elapsed_s)


@pytest.fixture
def threaded_clock(mock_clock: MockClock) -> MockClock:
    """Jump only when threads have had time to do their work, too."""
    mock_clock.autojump_threshold = 0.15
    return mock_clock


# --- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (duration(4.21), "4.2 s"),
        (duration(59.9), "59.9 s"),
        (duration(59.97), "1 min 00 s"),
        (duration(185), "3 min 05 s"),
        (duration(3599.7), "1 h 00 min"),
        (duration(7800), "2 h 10 min"),
        (dollars(0.01234), "$0.0123"),
        (dollars(12.345), "$12.35"),
        (count_of(9999), "9,999"),
        (count_of(12_345), "12.3k"),
        (count_of(999_960), "1.0M"),
        (printable(" \x1b[31m \x07red\nmore"), "\ufffd[31m \ufffdred"),
    ],
)
def test_amounts_and_names(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (agent("a", "waiting"), ""),
        (agent("a", "starting", phase="server"), "waiting for a server"),
        (agent("a", "starting", phase="session"), "opening a session"),
        (agent("a"), "no turn is open"),
        (agent("a", phase="waiting"), "waiting for the first token"),
        (agent("a", phase="thinking"), "thinking"),
        (agent("a", phase="writing"), "writing"),
        (agent("a", phase="calling"), "writing a tool call"),
        (agent("a", call="bash: ls\nrm", phase="writing"), "bash: ls"),
        (agent("a", call="bash: ls", asks=1), "waiting for an answer"),
        (agent("a", asks=1, asked="may it? ls"), "waiting for an answer: may it? ls"),
        (agent("a", is_retrying=True, phase="waiting"), "retrying"),
        (
            agent("a", is_retrying=True, retry_in_s=11.2, retry_reason="Overloaded"),
            "retrying in 12 s: Overloaded",
        ),
        (agent("a", is_retrying=True, retry_in_s=0.0, retry_reason="No"), "retrying: No"),
        (agent("a", "completed", call="bash: ls"), ""),
        (agent("a", "failed", error="Oh: no\nreally"), "Oh: no"),
        (agent("a", "cancelled", error="it was cancelled"), ""),
    ],
)
def test_what_an_agent_is_at(state: AgentSnapshot, expected: str) -> None:
    assert doing(state) == expected


def test_totals_tell_limits_and_what_is_left() -> None:
    state = swarm_of(
        agent("a", "completed", elapsed_s=10, cost=1.0),
        agent("b", elapsed_s=4, cost=0.25),
        agent("c", "waiting"),
    )
    assert totals(state, Budget(max_cost_usd=5, max_tokens=20_000)) == [
        "1 of 3 over (1 waiting, 1 running, 1 completed)",
        "$1.25 of $5.00",
        "300 of 20.0k tokens",
        "1 min 05 s",
        "about 16.0 s and $1.75 left",
    ]
    unpriced = SwarmSnapshot(spent=Spending(0.5, 10, 10))
    assert totals(unpriced, Budget())[:2] == ["0 of 0 over", "at least $0.5000"]


def test_a_forecast_needs_an_agent_that_is_done_and_one_that_is_not() -> None:
    done = agent("a", "completed", elapsed_s=10, cost=1.0)
    assert forecast(swarm_of(agent("a"))) is None
    assert forecast(swarm_of(done)) is None
    four = [agent("b", elapsed_s=elapsed, cost=0.5) for elapsed in (2, 4, 6, 12)]
    assert forecast(swarm_of(done, *four)) == Forecast(8, 2)
    assert forecast(swarm_of(done, four[0], *[agent("w", "waiting", cost=0.5)] * 4)) == (
        Forecast(8 + 4 * 10, 2.5)
    )


# --- lines -------------------------------------------------------------------------------------


def test_a_line_for_each_change() -> None:
    out = io.StringIO()
    view = LinesView(out, Budget())
    states = [
        [agent("a", "waiting")],
        [agent("a"), agent("b", "waiting")],
        [agent("a", call="bash: ls")],
        [agent("a")],
        [agent("a", call="bash: ls")],
        [agent("a", call="read: b"), agent("b", "failed", error="E: no", cost=0.5)],
        [agent("a", "completed", elapsed_s=3)],
    ]
    for number, state in enumerate(states):
        view.show(swarm_of(*state, elapsed_s=number))
    view.close()
    assert out.getvalue().splitlines() == [
        "[1.0 s] a: running",
        "[2.0 s] a: running: bash: ls",
        "[5.0 s] a: running: read: b",
        "[5.0 s] b: failed: E: no (0.0 s, $0.5000)",
        "[6.0 s] a: completed (3.0 s, $0.0000)",
        "[6.0 s] 1 of 1 over (1 completed); $0.0000; 100 tokens; 6.0 s",
    ]


def test_a_phase_that_lasts_gets_a_line_and_a_countdown_only_one() -> None:
    out = io.StringIO()
    view = LinesView(out, Budget())
    story: dict[range, dict[str, Any]] = {
        range(3): {"phase": "waiting"},
        range(3, 11): {"phase": "thinking"},
        range(11, 13): {"phase": "writing"},
        range(13, 20): {"asks": 1, "asked": "may it bash? ls"},
        range(20, 24): {"is_retrying": True, "retry_reason": "Overloaded"},
        range(24, 26): {"phase": "thinking"},
        range(26, 33): {"phase": "waiting"},
    }
    for times, facts in story.items():
        for second in times:
            wait: dict[str, Any] = (
                {"retry_in_s": times.stop - second} if "is_retrying" in facts else {}
            )
            view.show(swarm_of(agent("a", **facts, **wait), elapsed_s=second))
    assert out.getvalue().splitlines() == [
        "[0.0 s] a: running",
        "[8.0 s] a: running: thinking",
        "[13.0 s] a: running: waiting for an answer: may it bash? ls",
        "[20.0 s] a: running: retrying in 4 s: Overloaded",
        "[31.0 s] a: running: waiting for the first token",
    ]


async def test_lines_of_a_swarm(threaded_clock: MockClock) -> None:
    world = World(bad=failing(OpenCodeTurnError("the model failed")), good=steps(3))
    out = io.StringIO()
    async with show_progress(
        open_swarm(world.server(), on_failure="collect", max_cost_usd=9), file=out
    ) as swarm:
        swarm.start_soon("good", name="one")
        swarm.start_soon("bad", name="two")
    text = out.getvalue()
    assert "one: running\n" in text
    assert "two: failed: OpenCodeTurnError: the model failed (1.0 s, $0.0000)\n" in text
    assert "one: completed (3.0 s, $1.50)\n" in text
    assert text.endswith("2 of 2 over (1 completed, 1 failed); $1.50 of $9.00; 300 tokens; 3.0 s\n")


async def test_a_cancelled_swarm_is_shown_to_its_end(threaded_clock: MockClock) -> None:
    world = World(long=steps(100))
    out = io.StringIO()
    with trio.move_on_after(5):
        async with show_progress(open_swarm(world.server()), file=out) as swarm:
            swarm.start_soon("long", name="one")
    assert "one: cancelled" in out.getvalue()
    assert "1 of 1 over (1 cancelled)" in out.getvalue()


async def test_a_swarm_that_cannot_be_opened() -> None:
    out = io.StringIO()
    with pytest.raises(OpenCodeConfigError, match="limit"):
        async with show_progress(open_swarm(World().server(), limit=0), file=out):
            pytest.fail("opened")
    assert out.getvalue() == ""


async def test_errors_leave_the_block_as_they_are(threaded_clock: MockClock) -> None:
    world = World(bad=failing(OpenCodeTurnError("the model failed")))
    with pytest.raises(ExceptionGroup) as info:
        async with show_progress(open_swarm(world.server()), file=io.StringIO()) as swarm:
            swarm.start_soon("bad")
    assert isinstance(info.value.exceptions[0], OpenCodeTurnError)


# --- nobody waits for it -------------------------------------------------------------------------


async def test_the_time_goes_on_when_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencode_trio.progress.TICK_S", 0.05)
    out = io.StringIO()
    async with show_progress(
        open_swarm(World(long=after(1)).server()), file=out, is_live=True
    ) as swarm:
        swarm.start_soon("long")
    assert len({*re.findall(r"tokens \u00b7 ([0-9.]+) s", out.getvalue())}) >= 3


class Stuck(io.StringIO):
    """A terminal after Ctrl+S."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.go_on.wait()
        return super().write(text)


@pytest.mark.parametrize("is_live", [False, True])
async def test_a_stuck_terminal_holds_up_nobody(
    is_live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opencode_trio.progress.GOODBYE_S", 0.2)
    world = World(short=brief)
    out = Stuck()
    monkeypatch.setattr("sys.stdout", out)
    try:
        with trio.fail_after(5):
            async with show_progress(open_swarm(world.server()), is_live=is_live) as swarm:
                began = trio.current_time()
                await swarm.map(["short"] * 20)
                assert trio.current_time() - began < 0.5
    finally:
        out.go_on.set()
    # When it goes on after all, the terminal and what was redirected are given back.
    last = "\x1b[?25h" if is_live else " over"
    with trio.fail_after(5):
        while last not in out.getvalue() or sys.stdout is not out:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def brief(session: FakeSession) -> str:
    await trio.sleep(0.05)
    return "ok"


async def test_a_broken_pipe_is_no_failure(
    threaded_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as out, caplog.at_level(logging.WARNING):
        async with show_progress(open_swarm(World().server()), file=out) as swarm:
            assert (await swarm.start_soon("hello").result()).final_text == "ok"
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # closing it flushes what is left
    assert "progress is shown no longer: BrokenPipeError" in caplog.text


async def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_rich(name: str, *args: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "rich":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args)

    monkeypatch.delitem(sys.modules, "opencode_trio._report.table_view")
    monkeypatch.setattr(builtins, "__import__", without_rich)
    opening = open_swarm(World().server())
    with pytest.raises(ImportError, match=r"opencode-trio\[progress\]"):
        async with show_progress(opening, is_live=True):
            pass


# --- the table -----------------------------------------------------------------------------------


def test_whom_to_show_when_there_is_no_room_for_all() -> None:
    statuses: list[AgentStatus] = ["completed", "completed", "failed", "running"]
    agents = tuple(agent(f"a{n}", status) for n, status in enumerate(statuses))
    names = [[a.name for a in choose(agents, rows)[0]] for rows in range(5)]
    assert names == [
        [],
        ["a3"],
        ["a2", "a3"],
        ["a1", "a2", "a3"],
        ["a0", "a1", "a2", "a3"],
    ]
    assert [a.name for a in choose(agents, 3)[1]] == ["a0"]


def test_without_room_for_anybody_the_totals_are_shown() -> None:
    state = SwarmSnapshot(agents=(agent("a", "running"), agent("b", "running")))
    assert str(picture(state, Budget(), rows=0, width=80)).splitlines()[0].startswith("and 2 more")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("short", "short   "),
        ("exactly8", "exactly8"),
        ("too long for it", "too lon\N{HORIZONTAL ELLIPSIS}"),
        ("\u65e5\u672c\u8a9e", "\u65e5\u672c\u8a9e  "),
        ("\u65e5\u672c\u8a9e" * 2, "\u65e5\u672c\u8a9e \N{HORIZONTAL ELLIPSIS}"),
    ],
)
def test_a_cell_has_its_width(text: str, cell: str) -> None:
    assert fitted(text, 8, is_amount=False) == cell


@pytest.mark.parametrize("longest", [1, 12, 300])
@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (30, {"tokens", "steps", "cost"}),
        (60, {"tokens", "steps", "cost"}),
        (80, {"tokens"}),
        (120, set()),
        (200, set()),
    ],
)
def test_columns_share_the_width(width: int, left_out: set[str], longest: int) -> None:
    widths = widths_for(width, longest)
    assert widths.keys() == COLUMNS.keys() - left_out
    assert sum(widths.values()) + 2 * (len(widths) - 1) == max(width, 40)
    assert len("agent") <= widths["agent"] <= widths["doing"]


def test_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", str(FRAME_LINES + 3))
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    view = TableView(out, Budget(max_cost_usd=5))
    agents = [
        agent("[bold]one\x1b]0;title\x07", call="bash: ls"),
        agent("two", "failed", error="OpenCodeTurnError: E: no"),
    ]
    agents += [agent(f"done {n}", "completed") for n in range(10)]
    view.show(swarm_of(*agents, *[agent(f"w{n}", "waiting") for n in range(40)]))
    view.close()
    text = out.getvalue()
    assert "[bold]one\ufffd]0;title" in text
    assert "E: no" in text
    assert "OpenCode" not in text
    assert "bash: ls" in text
    assert "and 9 more: 9 completed" in text
    assert "40 waiting: w0, w1, w2" in text
    assert "waiting  " not in text  # as a row's state
    assert "of $5.00" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("number", [3, 60])
def test_a_picture_fits_its_terminal_and_says_of_every_agent_what_it_does(
    width: int, number: int
) -> None:
    kinds: list[dict[str, Any]] = [
        {"status": "starting", "phase": "server"},
        {"phase": "thinking"},
        {"call": "bash: " + "x" * 200},
        {"is_retrying": True, "retry_in_s": 9.0, "retry_reason": "Overloaded " * 20},
        {"status": "waiting"},
    ]
    agents = [agent(f"agent {n}" * (1 + n % 9), **kinds[n % 5]) for n in range(number)]
    lines = str(picture(swarm_of(*agents), Budget(), 100, width)).splitlines()
    rows = [line for line in lines if line.startswith("agent ")][1:]
    assert len(rows) == sum(a.status != "waiting" for a in agents)
    assert {cell_len(row) for row in rows} == {width}
    doing = lines[0].index("doing")
    assert all(row[doing : doing + 8].strip() for row in rows)


def test_a_picture_of_a_thousand_agents_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "50")
    view = TableView(io.StringIO(), Budget())
    state = swarm_of(*[agent(f"agent {n}", tool="bash") for n in range(1000)])
    view.show(state)
    began = time.thread_time()
    view.show(state)
    assert time.thread_time() - began < 0.1
    view.close()


PROGRAM = """
import sys, trio
sys.path.insert(0, {tests!r})
from opencode_trio.progress import show_progress
from opencode_trio.swarm import open_swarm
from swarming import World, after

async def main():
    world = World(long=after(60))
    async with show_progress(open_swarm(world.server()), every_s=0.05) as swarm:
        swarm.start_soon("long", name="the agent")

trio.run(main)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_terminal_is_sane_afterwards(how: signal.Signals) -> None:
    """Nothing of it is switched to another state, whatever ends the program."""
    pytest.importorskip("termios")
    import termios  # noqa: PLC0415 - not everywhere

    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(tests=str(Path(__file__).parent))],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    ) as process:
        text = b""
        while b"the agent" not in text or b"running" not in text:
            text += os.read(leader, 4096)
        process.send_signal(how)
        os.set_blocking(leader, False)
        while process.poll() is None:
            text += available(leader)
            time.sleep(0.02)
    text += available(leader)
    assert termios.tcgetattr(follower) == before
    os.close(follower)
    os.close(leader)
    assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l")
    assert b"\x1b[?1049h" not in text  # no other screen
    if how == signal.SIGINT:
        assert b"cancelled" in text
        assert b"KeyboardInterrupt" in text


def available(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except BlockingIOError:
        return b""


# --- a human -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("o\n", "once"),
        ("Always\n", "always"),
        ("r\n", "reject"),
        ("\n", "reject"),
        ("", "reject"),
        ("not today\n", Reject("not today")),
    ],
)
def test_what_a_human_answers(typed: str, answer: Any) -> None:
    assert answer_of(typed) == answer


def test_a_question_hides_nothing() -> None:
    request = PermissionRequest(
        request_id="per_1",
        session_id="ses_1",
        permission="bash",
        patterns=("ls\nrm -rf \x1b[8m/", "pwd"),
        always=("ls *",),
    )
    text = question_of(request, "one")
    assert "one wants permission: bash\n    ls\n    rm -rf \ufffd[8m/\n    pwd\n" in text
    assert "a: always (ls *)" in text


async def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("o\n"))
    request = PermissionRequest(request_id="per_1", session_id="ses_1")
    assert await ask_in_terminal(request) == Reject("nobody is there to ask")


@pytest.mark.parametrize("is_live", [True, False])
async def test_a_human_is_asked_one_thing_at_a_time(
    is_live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was typed before the question does not count, and a cancelled question is withdrawn."""
    leader, follower = pty.openpty()
    answers: dict[str, Any] = {}

    async def asking(session: FakeSession) -> str:
        answer = session.options["on_permission"](
            PermissionRequest(
                request_id="per", session_id=session.session_id, permission=session.session_id
            )
        )
        answers[session.session_id] = await answer
        return "ok"

    async def until(text: bytes) -> None:
        seen = b""
        while text not in seen:
            await trio.lowlevel.wait_readable(leader)
            seen += os.read(leader, 4096)

    world = World(ask=asking)
    os.write(leader, b"o\n")
    with os.fdopen(follower, "r+b", buffering=0) as raw, trio.fail_after(10):
        terminal = io.TextIOWrapper(raw, write_through=True)
        monkeypatch.setattr("sys.stdin", terminal)
        async with show_progress(
            open_swarm(world.server(), on_permission=ask_in_terminal),
            file=terminal,
            is_live=is_live,
            every_s=0.05,
        ) as swarm:
            first = swarm.start_soon("ask", name="first")
            await until(b"first wants permission: ses_1_1")
            swarm.start_soon("ask", name="second")
            await trio.sleep(0.1)
            assert answers == {}
            first.cancel()
            await until(b"second wants permission: ses_1_2")
            os.write(leader, b"a\n")
        await until(b"2 of 2 over")
    os.close(leader)
    assert answers == {"ses_1_2": "always"}
