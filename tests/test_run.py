"""A run over a child in memory and in virtual time: what it delivers, and what it calls its end."""

from __future__ import annotations

import json
import math
from collections import deque
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import assert_checkpoints

from opencode_trio._process.child import Child
from opencode_trio._process.output import plain
from opencode_trio._protocol.v1.run_lines import parse_event_line
from opencode_trio._run.ending import end_of_run
from opencode_trio._run.run import SETTLE_S, OwnedRun, RunPlan, _StderrReader
from opencode_trio._turn.redaction import Redactor
from opencode_trio.errors import (
    OpenCodeCancelledError,
    OpenCodeConfigError,
    OpenCodeError,
    OpenCodeLimitError,
    OpenCodeProcessError,
    OpenCodeTurnError,
)
from opencode_trio.events import Diagnostic, Event, StepFinished, StepStarted, TextPart
from opencode_trio.results import Teardown
from wire import data_of, lines_of, records_of

NEVER = math.inf
DYING_S = 0.1

Item = bytes | float


class FakeChild:
    """Writes chunks, pauses where a number stands between two, then ends.

    Once let go of it writes no more and is dead a moment later; what it had written can be read.
    """

    def __init__(
        self,
        *output: Item,
        exit_code: int = 0,
        exits_after: float = 0.0,
        closes_early: bool = False,
        stderr: str = "",
    ) -> None:
        self.teardown: Teardown | None = None
        self.stderr_tail = stderr
        self.times_let_go = 0
        self._pipe: deque[tuple[float, bytes]] = deque()
        now = trio.current_time()
        for item in output:
            if isinstance(item, bytes):
                self._pipe.append((now, item))
            else:
                now += item
        self._exit_code = exit_code
        self._exits_at = now + exits_after
        self._closes_at = now if closes_early else NEVER
        self._change = trio.Event()

    @property
    def exit_code(self) -> int | None:
        return self._exit_code if trio.current_time() >= self._exits_at else None

    def release(self) -> None:
        self.times_let_go += 1
        now = trio.current_time()
        self._pipe = deque((time, chunk) for time, chunk in self._pipe if time <= now)
        if self._exits_at > now + DYING_S:
            self._exits_at, self._exit_code = now + DYING_S, -15
        self._change.set()
        self._change = trio.Event()

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.exit_code is None:
            await self._until(self._exits_at)

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self._pipe and self._pipe[0][0] <= trio.current_time():
                return self._pipe.popleft()[1]
            ends_at = min(self._exits_at, self._closes_at)
            if trio.current_time() >= ends_at:
                return b""
            await self._until(min(ends_at, self._pipe[0][0] if self._pipe else NEVER))

    async def _until(self, time: float) -> None:
        with trio.move_on_at(time):
            await self._change.wait()


PLAN = RunPlan(argv=["opencode", "run"], prompt=b"go", cwd=Path(), env={}, scratch=Path("/nowhere"))


def run_of(child: FakeChild, **plan: Any) -> OwnedRun:
    return OwnedRun(cast("Child", child), attrs.evolve(PLAN, **plan), None)


async def collect(run: OwnedRun) -> list[Event]:
    return [event async for event in run]


def record(kind: str, **part: Any) -> bytes:
    return json.dumps({"type": kind, "sessionID": "ses_1", "part": part}).encode() + b"\n"


def error(name: str, **data: Any) -> bytes:
    told = {"type": "error", "sessionID": "ses_1", "error": {"name": name, "data": data}}
    return json.dumps(told).encode() + b"\n"


START = record("step_start", id="prt_1", messageID="msg_1")
TEXT = record("text", id="prt_2", messageID="msg_1", text="hello")
STOP = record("step_finish", id="prt_3", messageID="msg_1", reason="stop", cost=0.5)
TOOLS = record("step_finish", id="prt_3", messageID="msg_1", reason="tool-calls")
UNKNOWN = record("step_finish", reason="unknown")
COMPACTED = record(
    "text",
    id="prt_9",
    messageID="msg_9",
    text="Go on.",
    synthetic=True,
    metadata={"compaction_continue": True},
)
ANSWER = START + TEXT + STOP


# --- what is delivered -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
async def test_every_event_comes_once_whatever_the_chunks(autojump_clock, size):
    data = data_of("run-bash")
    run = run_of(FakeChild(*(data[i : i + size] for i in range(0, len(data), size))))

    events = await collect(run)

    assert [event.raw for event in events] == records_of("run-bash")
    assert run.result.events == records_of("run-bash")
    assert run.result.raw_stdout_lines == lines_of("run-bash")
    assert (run.result.final_text, run.result.stop_reason) == ("done", "completed")


async def test_the_result_grows_with_what_was_delivered(autojump_clock):
    run = run_of(FakeChild(ANSWER, 5.0, b"later"))

    assert run.result.stop_reason is None
    assert isinstance(await run.receive(), StepStarted)
    assert (run.result.final_text, run.result.total_cost) == ("", 0)
    assert isinstance(await run.receive(), TextPart)
    assert (run.result.final_text, run.result.turns) == ("hello", 0)
    assert isinstance(await run.receive(), StepFinished)
    assert (run.result.turns, run.result.total_cost) == (1, 0.5)
    assert run.result.stop_reason is None, "it has not ended"
    assert run.result.exit_code is None
    await collect(run)
    assert run.result.stop_reason == "completed"
    assert run.result.exit_code == 0
    assert run.result.duration_s == 5.0


async def test_the_end_stays_the_end(autojump_clock):
    run = run_of(FakeChild(ANSWER))
    await collect(run)
    ended = run.result

    await trio.sleep(60)
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            await run.receive()

    assert run.result == ended


async def test_a_failure_stays_a_failure(autojump_clock):
    run = run_of(FakeChild(error("APIError", message="no", statusCode=401), exit_code=1))
    await run.receive()
    for _ in range(2):
        with pytest.raises(OpenCodeTurnError, match="401"):
            await run.receive()


async def test_garbage_becomes_diagnostics(autojump_clock):
    garbage = [b"Warning: x", b"", b"[1, 2]", b"{", b"\xff\xfe text \xe2\x28", b"null", b"\x00"]
    run = run_of(FakeChild(START, b"".join(line + b"\n" for line in garbage), TEXT, STOP))

    events = await collect(run)

    assert [type(event) for event in events[1:-2]] == [Diagnostic] * len(garbage)
    assert run.result.stop_reason == "completed"
    assert run.result.raw_stdout_lines[5] == "\ufffd\ufffd text \ufffd("
    assert run.result.final_text == "hello"


async def test_invalid_utf8_in_an_event_is_replaced(autojump_clock):
    run = run_of(FakeChild(START, TEXT.replace(b"hello", b"a\xffb\xe2\x80\xa8c"), STOP))
    await collect(run)
    assert run.result.final_text == "a\ufffdb\u2028c"


async def test_deeply_nested_json_is_no_way_to_break_a_run(autojump_clock, tmp_path):
    lines = [b'{"type":"text","part":' + b"[" * n + b"]" * n + b"}\n" for n in (50, 900, 100_000)]
    run = run_of(FakeChild(*lines, ANSWER))
    assert len(await collect(run)) == len(lines) + 3
    assert run.result.stop_reason == "completed"


async def test_a_last_line_without_newline_counts(autojump_clock):
    run = run_of(FakeChild(ANSWER.removesuffix(b"\n")))
    assert len(await collect(run)) == 3
    assert run.result.stop_reason == "completed"


async def test_a_line_over_the_bound_ends_the_run(autojump_clock):
    child = FakeChild(START, b"x" * 600, b"x" * 600, 1.0, NEVER)
    run = run_of(child, max_line_bytes=1000)
    await run.receive()

    with pytest.raises(OpenCodeProcessError, match="longer than 1,000 bytes") as caught:
        await run.receive()

    assert child.times_let_go
    assert trio.current_time() < 1
    assert caught.value.partial is not None
    assert caught.value.partial.stop_reason == "incomplete"
    assert len(caught.value.partial.events) == 1


async def test_a_line_of_five_megabytes_is_an_event(autojump_clock):
    text = "y" * 5_000_000
    data = START + TEXT.replace(b"hello", text.encode()) + STOP
    run = run_of(FakeChild(*(data[i : i + 65536] for i in range(0, len(data), 65536))))
    await collect(run)
    assert run.result.final_text == text


# --- trio's rules ----------------------------------------------------------------------------


async def test_receiving_is_always_a_checkpoint(autojump_clock):
    run = run_of(FakeChild(ANSWER))
    for _ in range(3):
        with assert_checkpoints():
            await run.receive()
    with assert_checkpoints(), pytest.raises(trio.EndOfChannel):
        await run.receive()


async def test_a_receive_that_was_cancelled_before_takes_nothing(autojump_clock):
    run = run_of(FakeChild(ANSWER))
    for _ in range(20):
        with trio.CancelScope() as scope:
            scope.cancel()
            await run.receive()
        assert scope.cancelled_caught
    assert len(await collect(run)) == 3


async def _receive_under_fire(run: OwnedRun, checkpoints: int) -> Event | None:
    """Receive, but be cancelled after so many checkpoints of a neighbour."""
    async with trio.open_nursery() as nursery:

        async def fire() -> None:
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

        nursery.start_soon(fire)
        event = await run.receive()
        nursery.cancel_scope.cancel()
        return event
    return None


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8])
async def test_cancellation_at_any_checkpoint_loses_no_event(autojump_clock, most):
    data = data_of("run-bash") + b"no newline"
    chunks = [data[i : i + 97] for i in range(0, len(data), 97)]
    run = run_of(FakeChild(*(item for chunk in chunks for item in (0.001, chunk))))

    raws: list[Any] = []
    was_cancelled = 0
    try:
        for round_ in range(100_000):
            event = await _receive_under_fire(run, round_ % (most + 1))
            if event is None:
                was_cancelled += 1
                await trio.sleep(0.0005)
            else:
                raws.append(event.raw)
    except* trio.EndOfChannel:
        pass

    assert raws == [*records_of("run-bash"), parse_event_line("no newline")]
    assert run.result.events == raws
    assert was_cancelled > len(raws)


async def test_closing_ends_the_run(autojump_clock):
    child = FakeChild(ANSWER, NEVER)
    run = run_of(child)
    await run.receive()

    with assert_checkpoints():
        await run.aclose()

    assert child.times_let_go == 1
    with pytest.raises(trio.ClosedResourceError):
        await run.receive()
    with pytest.raises(trio.ClosedResourceError):
        async for _ in run:
            pass
    await run.aclose()


async def test_closing_when_cancelled_closes_all_the_same(autojump_clock):
    child = FakeChild(NEVER)
    run = run_of(child)
    with trio.CancelScope() as scope:
        scope.cancel()
        await run.aclose()
    assert child.times_let_go == 1
    with pytest.raises(trio.ClosedResourceError):
        await run.receive()


async def test_closing_wakes_the_task_that_waits(autojump_clock):
    run = run_of(FakeChild(START, NEVER))
    await run.receive()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await run.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await run.aclose()


# --- the time after the answer ---------------------------------------------------------------


async def test_an_agent_that_stays_after_its_answer_is_let_go(autojump_clock):
    child = FakeChild(ANSWER, NEVER)
    run = run_of(child)

    assert len(await collect(run)) == 3

    assert child.times_let_go == 1
    assert trio.current_time() == pytest.approx(SETTLE_S + DYING_S)
    assert run.result.stop_reason == "completed"


@pytest.mark.parametrize("end", ["length", "content-filter", "stop"])
async def test_so_is_one_whose_answer_was_cut_or_empty(autojump_clock, end):
    finish = record("step_finish", reason=end)
    run = run_of(FakeChild(START + finish, NEVER))
    await collect(run)
    expected = {"length": "length", "content-filter": "content_filter", "stop": "empty"}[end]
    assert run.result.stop_reason == expected
    assert trio.current_time() == pytest.approx(SETTLE_S + DYING_S)


async def test_what_comes_within_that_time_is_delivered(autojump_clock):
    late = record("text", id="prt_4", messageID="msg_1", text=" world")
    run = run_of(FakeChild(ANSWER, SETTLE_S - 1, late))
    assert len(await collect(run)) == 4
    assert run.result.final_text == "hello world"


async def test_half_a_line_at_the_end_of_that_time_is_kept_whole(autojump_clock):
    run = run_of(FakeChild(ANSWER, b'{"type":"te', NEVER))
    events = await collect(run)
    assert isinstance(events[-1], Diagnostic)
    assert run.result.stop_reason == "completed"


async def test_an_agent_that_works_is_given_all_the_time_it_needs(autojump_clock):
    finish = record("step_finish", id="prt_5", messageID="msg_2", reason="tool-calls")
    run = run_of(FakeChild(START, 3600.0, finish, 3600.0, ANSWER))
    await collect(run)
    assert run.result.stop_reason == "completed"
    assert run.result.duration_s == 7200


async def test_after_a_compaction_the_model_may_think_again(autojump_clock):
    # Said before the compaction, so that an answer seems to be there.
    said = record("text", id="prt_7", messageID="msg_0", text="Let me see.")
    run = run_of(FakeChild(START, said, TOOLS, ANSWER, 0.1, COMPACTED, 3600.0, ANSWER))
    await collect(run)
    assert run.result.stop_reason == "completed"
    assert trio.current_time() == pytest.approx(3600.1)


async def test_a_chatterer_does_not_stay_for_ever(autojump_clock):
    chatter = [item for _ in range(1000) for item in (SETTLE_S / 4, b"tick\n")]
    run = run_of(FakeChild(ANSWER, *chatter))
    await collect(run)
    assert trio.current_time() == pytest.approx(SETTLE_S, abs=1)
    assert run.result.stop_reason == "completed"


async def test_nor_under_a_reader_who_polls(autojump_clock):
    run = run_of(FakeChild(ANSWER, NEVER))
    with trio.fail_after(60):
        while run.result.stop_reason is None:
            with trio.move_on_after(0.5), pytest.raises(trio.EndOfChannel):
                for _ in range(4):
                    await run.receive()
    assert run.result.stop_reason == "completed"


async def test_a_poll_may_end_after_that_time(autojump_clock):
    run = run_of(FakeChild(ANSWER, NEVER))
    for _ in range(3):
        await run.receive()

    async def stand_still() -> None:
        await trio.sleep(SETTLE_S - 1)
        autojump_clock.jump(5)  # as a busy machine does

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand_still)
        with trio.move_on_after(SETTLE_S):
            await run.receive()

    with pytest.raises(trio.EndOfChannel):
        await run.receive()


async def test_a_slow_reader_is_not_the_agents_fault(autojump_clock):
    run = run_of(FakeChild(ANSWER, 1.0, TEXT, 1.0, STOP))
    events = 0
    async for _ in run:
        events += 1
        await trio.sleep(10 * SETTLE_S)
    assert events == 5


async def test_closing_stdout_is_no_exit(autojump_clock):
    child = FakeChild(ANSWER, exits_after=2.0, closes_early=True, exit_code=1)
    run = run_of(child)
    await collect(run)
    assert (run.result.exit_code, child.times_let_go) == (1, 0)
    assert run.result.duration_s == 2


@pytest.mark.parametrize("output", [ANSWER, START])
async def test_closing_stdout_and_staying_is_bounded(autojump_clock, output):
    child = FakeChild(output, exits_after=NEVER, closes_early=True)
    run = run_of(child)
    if output == ANSWER:
        await collect(run)
    else:
        with pytest.raises(OpenCodeProcessError):
            await collect(run)
    assert trio.current_time() == pytest.approx(SETTLE_S + DYING_S)
    assert child.times_let_go == 1


# --- the guards ------------------------------------------------------------------------------


async def test_the_guard_lets_go_before_its_error_travels(autojump_clock):
    child = FakeChild(data_of("run-drop"), NEVER)
    run = run_of(child)
    seen = []

    with pytest.raises(OpenCodeLimitError) as caught:
        async for event in run:
            assert not child.times_let_go
            seen.append(event)

    assert child.times_let_go == 1
    assert (caught.value.limit, caught.value.allowed) == ("unknown_finishes", 3)
    assert len(seen) == 8, "the ninth, which tripped it, is in the partial result alone"
    assert caught.value.partial is not None
    assert caught.value.partial.events == records_of("run-drop")[:9]
    assert caught.value.partial.turns == 3
    assert caught.value.partial.stop_reason == "limit"
    assert run.result.stop_reason == "limit"


async def test_a_guards_word_is_the_last(autojump_clock):
    run = run_of(FakeChild(UNKNOWN * 3, TEXT, NEVER))
    with pytest.raises(OpenCodeLimitError):
        await collect(run)
    with pytest.raises(OpenCodeError):
        await collect(run)
    run.leave()
    assert run.result.stop_reason == "limit"


async def test_one_broken_stream_is_forgiven(autojump_clock):
    run = run_of(FakeChild(UNKNOWN, UNKNOWN, TOOLS, UNKNOWN, UNKNOWN, ANSWER))
    await collect(run)
    assert run.result.stop_reason == "completed"


@pytest.mark.parametrize(
    ("output", "allowed", "trips_at"),
    [
        (ANSWER, 1, None),
        (START + TOOLS + ANSWER, 2, None),
        (START + TOOLS + ANSWER, 1, 2),  # before the second request goes out
        (START + UNKNOWN + ANSWER, 1, 2),
        (START + START + ANSWER, 2, 3),  # a step that broke off without a finish was asked, too
        (START + COMPACTED + STOP, 1, None),
    ],
)
async def test_max_steps(autojump_clock, output, allowed, trips_at):
    child = FakeChild(output)
    run = run_of(child, max_steps=allowed)
    if trips_at is None:
        await collect(run)
        return
    with pytest.raises(OpenCodeLimitError, match=f"max_steps={allowed}") as caught:
        await collect(run)
    assert caught.value.limit == "max_steps"
    assert caught.value.partial is not None
    assert len(caught.value.partial.events) == trips_at
    assert child.times_let_go == 1


# --- the verdict -----------------------------------------------------------------------------

BLOCKED = START + TOOLS
EMPTY = START + STOP
SUMMARY = record("text", id="prt_s2", messageID="msg_0", text="in short") + record(
    "step_finish", id="prt_s3", messageID="msg_0", reason="stop"
)
OVERFLOW = error("ContextOverflowError", message="too long") + SUMMARY


@pytest.mark.parametrize(
    ("output", "exit_code", "stop_reason"),
    [
        (data_of("run-ok"), 0, "completed"),
        (data_of("run-ok"), 1, "completed"),
        (data_of("run-ok"), -9, "completed"),
        (data_of("run-e429once"), 0, "completed"),
        (data_of("run-overonce"), 1, "completed"),
        (data_of("run-question"), 0, "completed"),
        (data_of("run-length"), 0, "length"),
        (data_of("run-length"), -15, "length"),
        (data_of("run-filter"), 1, "content_filter"),
        (data_of("run-empty"), 0, "empty"),
        (OVERFLOW + EMPTY, 1, "empty"),
        (BLOCKED, 0, "blocked"),
        (OVERFLOW + BLOCKED, 1, "blocked"),
    ],
)
async def test_ends_that_are_a_result(autojump_clock, output, exit_code, stop_reason):
    run = run_of(FakeChild(output, exit_code=exit_code))
    await collect(run)
    assert (run.result.stop_reason, run.result.exit_code) == (stop_reason, exit_code)


@pytest.mark.parametrize(
    ("output", "exit_code", "kind", "stop_reason", "words"),
    [
        (b"", 0, OpenCodeProcessError, "incomplete", "status 0 before the model was asked"),
        (b"", 1, OpenCodeProcessError, "incomplete", "status 1 before the model was asked"),
        (b"", -9, OpenCodeProcessError, "incomplete", "killed by SIGKILL"),
        (b"", -11, OpenCodeProcessError, "incomplete", "killed by SIGSEGV"),
        (b"", -40, OpenCodeProcessError, "incomplete", "killed by signal 40"),
        (START, 0, OpenCodeProcessError, "incomplete", "status 0 in the middle of the turn"),
        (START + TEXT, 1, OpenCodeProcessError, "incomplete", "in the middle of the turn"),
        (START + TEXT, -9, OpenCodeProcessError, "incomplete", "killed by SIGKILL"),
        (ANSWER + COMPACTED, 0, OpenCodeProcessError, "incomplete", "in the middle of the turn"),
        (START + UNKNOWN, 0, OpenCodeProcessError, "incomplete", "in the middle"),
        (BLOCKED, 1, OpenCodeProcessError, "incomplete", "status 1 in the middle of the turn"),
        (BLOCKED, -9, OpenCodeProcessError, "incomplete", "killed by SIGKILL"),
        (OVERFLOW + BLOCKED, -9, OpenCodeProcessError, "incomplete", "killed by SIGKILL"),
        (EMPTY, 1, OpenCodeProcessError, "incomplete", "status 1"),
        (data_of("run-e401"), 1, OpenCodeTurnError, "error", r"APIError \(HTTP 401\): bad key"),
        (data_of("run-e401"), 0, OpenCodeTurnError, "error", "bad key"),
        (data_of("run-e401"), -9, OpenCodeTurnError, "error", "bad key"),
        (data_of("run-over"), 1, OpenCodeTurnError, "error", "ContextOverflowError"),
        (error("MessageAbortedError"), 1, OpenCodeCancelledError, "cancelled", "aborted"),
    ],
)
async def test_ends_that_are_an_error(autojump_clock, output, exit_code, kind, stop_reason, words):
    run = run_of(FakeChild(output, exit_code=exit_code, stderr="\x1b[91mtail\x1b[0m"))

    with pytest.raises(kind, match=words) as caught:
        await collect(run)

    partial = caught.value.partial
    assert partial is not None
    assert (partial.stop_reason, partial.exit_code) == (stop_reason, exit_code)
    assert partial.events == [json.loads(line) for line in output.splitlines()]
    assert caught.value.stderr == "tail"
    assert caught.value.argv == ("opencode", "run")
    assert run.result.stop_reason == stop_reason
    if kind is OpenCodeProcessError:
        assert caught.value.exit_code == exit_code


async def test_an_error_of_the_model_can_be_branched_on(autojump_clock):
    run = run_of(FakeChild(data_of("run-e401"), exit_code=1))
    with pytest.raises(OpenCodeTurnError) as caught:
        await collect(run)
    found = caught.value
    assert (found.name, found.status_code, found.is_retryable) == ("APIError", 401, False)


LOG_OF_A_FAILED_REQUEST = (
    'level=ERROR message="stream error" providerID=corp modelID=m small=false agent=build '
    'error.error="AI_APICallError: Cannot connect to API: \\"refused\\""\n'
)


async def test_a_provider_that_cannot_be_reached_is_named(autojump_clock):
    failed = error("APIError", message="Cannot connect", metadata={"url": "http://corp:9/v1/chat"})
    run = run_of(FakeChild(failed, exit_code=1, stderr=LOG_OF_A_FAILED_REQUEST))
    with pytest.raises(OpenCodeTurnError, match=r"\(provider 'corp', http://corp:9/v1/chat\)"):
        await collect(run)


async def test_the_first_failure_of_a_provider_is_a_warning(autojump_clock, caplog):
    child, reader = FakeChild(), _StderrReader()
    for said in ("", LOG_OF_A_FAILED_REQUEST, LOG_OF_A_FAILED_REQUEST * 2):
        child.stderr_tail = said
        reader.read(child)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("a request to the provider corp failed, and opencode may repeat it")
    assert ": AI_APICallError: Cannot connect" in warning
    assert child.times_let_go == 0


LOG_OF_A_BAD_MODEL = (
    'timestamp=x level=ERROR message="failed" ref=err_1 error="Model \\"a/b\\" not found"\n'
)


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (LOG_OF_A_BAD_MODEL, 'Model "a/b" not found'),
        (LOG_OF_A_BAD_MODEL.replace("err_1", "err_2"), "Unexpected server error"),
        ("", "Unexpected server error"),
    ],
)
async def test_the_true_text_of_an_error_is_in_the_log(autojump_clock, stderr, words):
    told = error("UnknownError", message="Unexpected server error", ref="err_1")
    run = run_of(FakeChild(told, exit_code=1, stderr=stderr))
    with pytest.raises(OpenCodeTurnError) as caught:
        await collect(run)
    assert caught.value.error.message == words


FALLBACK = '\x1b[93m\x1b[1m! \x1b[0m agent "nope" not found. Falling back to default agent\n'


async def test_another_agent_than_asked_for_is_an_error_even_if_it_answered(autojump_clock):
    run = run_of(FakeChild(ANSWER, stderr=FALLBACK))
    with pytest.raises(OpenCodeConfigError, match="no primary agent 'nope'") as caught:
        await collect(run)
    assert caught.value.partial is not None
    assert caught.value.partial.final_text == "hello"


async def test_an_agent_that_only_talks_of_falling_back_is_none(autojump_clock):
    talk = "say: " + plain(FALLBACK)
    run = run_of(FakeChild(ANSWER, stderr=talk))
    await collect(run)
    assert run.result.stop_reason == "completed"


CALL = record("tool_use", id="prt_0", messageID="msg_0", tool="bash", state={"status": "completed"})
LOOKS = CALL + record("step_finish", id="prt_s3", messageID="msg_0", reason="stop")


@pytest.mark.parametrize("first", [LOOKS, OVERFLOW])
async def test_what_says_stop_and_is_none_is_not_the_end(autojump_clock, first):
    """Some providers say so of a step that called tools, and any of a summary."""
    run = run_of(FakeChild(first, SETTLE_S + 5, ANSWER))
    await collect(run)
    assert (run.result.stop_reason, run.result.final_text) == ("completed", "hello")
    assert run.result.text == "hello"
    dying = run_of(FakeChild(first, exit_code=-9))
    with pytest.raises(OpenCodeProcessError):
        await collect(dying)


@pytest.mark.parametrize(
    "data",
    [
        {"message": "no, see https://llm.example", "account": "me@x.com", "statusCode": 401},
        {"message": "no", "statusCode": 401, "responseHeaders": {"a": "https://b", "c": "d@e"}},
    ],
)
async def test_what_is_redacted_is_the_values_and_not_the_line(autojump_clock, data):
    run = run_of(FakeChild(error("APIError", **data), exit_code=1))
    with pytest.raises(OpenCodeTurnError) as failed:
        await collect(run)
    assert failed.value.status_code == 401
    [line] = run.result.raw_stdout_lines
    assert json.loads(line)["error"]["data"] == data


async def test_words_that_are_nested_too_deep_end_no_run(autojump_clock):
    deep: Any = "secret-value"
    for _ in range(480):
        deep = {"a": deep}
    child = FakeChild(error("APIError", message="no", statusCode=401, more=deep), exit_code=1)
    run = run_of(child, redactor=Redactor.of(["secret-value"]))
    with pytest.raises(OpenCodeTurnError) as failed:
        await collect(run)
    assert failed.value.status_code == 401
    assert "secret-value" not in run.result.raw_stdout_lines[0]


async def test_what_the_provider_ran_itself_is_followed_by_nothing(autojump_clock):
    searched = record(
        "tool_use",
        id="prt_0",
        messageID="msg_1",
        tool="web_search",
        state={"status": "completed"},
        metadata={"providerExecuted": True},
    )
    run = run_of(FakeChild(START + searched + TEXT + STOP))
    await collect(run)
    assert run.result.stop_reason == "completed"


async def test_a_run_that_was_left_is_closed(autojump_clock):
    run = run_of(FakeChild(ANSWER, NEVER))
    await run.receive()
    run.leave()
    with pytest.raises(trio.ClosedResourceError):
        await run.receive()


# --- leaving early ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "stop_reason"),
    [
        (b"", "incomplete"),
        (START, "incomplete"),
        (BLOCKED, "incomplete"),  # the next step may have been under way
        (EMPTY, "incomplete"),
        (ANSWER, "completed"),
        (data_of("run-e401"), "error"),
    ],
)
async def test_a_run_that_was_left_has_a_final_result(autojump_clock, output, stop_reason):
    run = run_of(FakeChild(output, NEVER))
    for _ in output.splitlines():
        await run.receive()
    assert run.result.stop_reason is None

    await trio.sleep(3)
    run.leave()
    await trio.sleep(3)

    assert run.result.stop_reason == stop_reason
    assert run.result.duration_s == 3


async def test_end_of_run_without_events():
    from opencode_trio._turn.fold import TurnFold  # noqa: PLC0415

    assert end_of_run(TurnFold(), None) == "incomplete"
    assert end_of_run(TurnFold(), 0) == "incomplete"
