"""`assert_no_leaks`: it finds what is left, waits for what is leaving, and hides no error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import trio

from families import marked
from opencode_trio._process.environment import RUN_MARKER
from opencode_trio._process.scratch import make_scratch, remove_scratch
from opencode_trio.testing import Stall, _leaks, assert_no_leaks, open_scripted_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

OURS = os.environ | {RUN_MARKER: f"{os.getpid()}.test"}


@pytest.fixture
def after() -> Iterator[ExitStack]:
    with ExitStack() as after:
        yield after


@pytest.fixture(autouse=True)
def _in_a_hurry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.function not in SLOW:
        monkeypatch.setattr(_leaks, "SETTLE_S", 0.1)


@pytest.fixture
def mark() -> Iterator[str]:
    with marked() as mark:
        yield mark


def leave_process(after: ExitStack, mark: str) -> str:
    process = subprocess.Popen(["sleep", mark])
    after.callback(process.wait)
    after.callback(process.kill)
    return f"process {process.pid} (parent {os.getpid()}, state S): sleep {mark}"


def leave_orphan(after: ExitStack, mark: str) -> str:
    # Its parent is gone, but it has inherited the variable.
    words = ["sh", "-c", f"setsid sleep {mark} >/dev/null & echo $!"]
    pid = int(subprocess.check_output(words, env=OURS))
    after.callback(os.kill, pid, signal.SIGKILL)
    return f"process {pid} "


def leave_zombie(after: ExitStack, mark: str) -> str:
    process = subprocess.Popen(["true"])
    after.callback(process.wait)
    return f"process {process.pid} (parent {os.getpid()}, state Z): true"


def leave_scratch(after: ExitStack, mark: str) -> str:
    scratch = make_scratch()
    after.callback(remove_scratch, scratch)
    return f"directory {scratch}"


def leave_descriptor(after: ExitStack, mark: str) -> str:
    number = os.open(__file__, os.O_RDONLY)
    after.callback(os.close, number)
    return f"descriptor {number} -> {__file__}"


LEAKS = [leave_process, leave_orphan, leave_zombie, leave_scratch, leave_descriptor]
Leave = Callable[[ExitStack, str], str]


@pytest.mark.parametrize("leave", LEAKS)
def test_leaks_are_found(leave: Leave, after: ExitStack, mark: str) -> None:
    with pytest.raises(AssertionError) as caught, assert_no_leaks():
        expected = leave(after, mark)
    assert expected in str(caught.value)
    assert str(caught.value).count("\n") == 1  # and nothing else


@pytest.mark.parametrize("leave", LEAKS)
async def test_leaks_are_found_from_within(leave: Leave, after: ExitStack, mark: str) -> None:
    with pytest.raises(AssertionError) as caught:
        async with assert_no_leaks():
            expected = leave(after, mark)
    assert expected in str(caught.value)


def test_everything_is_listed(after: ExitStack, mark: str) -> None:
    with pytest.raises(AssertionError) as caught, assert_no_leaks():
        expected = [leave(after, mark) for leave in LEAKS]
    assert [text for text in expected if text not in str(caught.value)] == []


@pytest.mark.parametrize("leave", LEAKS)
def test_what_was_there_before_is_nobodys_leak(leave: Leave, after: ExitStack, mark: str) -> None:
    leave(after, mark)
    with assert_no_leaks():
        pass


def test_what_others_run_meanwhile_is_not_ours(after: ExitStack, mark: str) -> None:
    # As a second program on this machine would: another pid in the variable, and an own scratch.
    words = ["sh", "-c", f"setsid sleep {mark} >/dev/null & echo $!"]
    with assert_no_leaks():
        pid = int(subprocess.check_output(words, env=OURS | {RUN_MARKER: "1.x"}))
        after.callback(os.kill, pid, signal.SIGKILL)


def test_what_is_leaving_gets_a_moment(after: ExitStack) -> None:
    with assert_no_leaks():
        process = subprocess.Popen(["sleep", "0.3"])
        after.callback(process.wait)
        scratch = make_scratch()
        words = ["sh", "-c", f"sleep 0.3; rmdir {scratch}"]
        helper = subprocess.Popen(words)
        reaper = trio.lowlevel.start_thread_soon
        reaper(lambda: (process.wait(), helper.wait()), lambda _: None)


def test_the_wait_is_bounded(after: ExitStack, mark: str) -> None:
    began = time.monotonic()
    with pytest.raises(AssertionError), assert_no_leaks():
        leave_process(after, mark)
    assert 0.9 < time.monotonic() - began < 3


async def test_time_is_the_walls(autojump_clock: Any, after: ExitStack, mark: str) -> None:
    began = time.monotonic()
    with pytest.raises(AssertionError):
        async with assert_no_leaks():
            leave_process(after, mark)
    assert time.monotonic() - began > 0.9


async def test_an_open_request_is_found() -> None:
    async with open_scripted_model([Stall()]) as model, trio.open_nursery() as nursery:

        async def ask() -> None:
            body = {"model": model.model_id, "stream": True, "messages": []}
            async with httpx.AsyncClient(trust_env=False) as http:
                await http.post(f"{model.base_url}/chat/completions", json=body, timeout=None)

        with pytest.raises(AssertionError, match=f"1 open request at {model.base_url}"):
            async with assert_no_leaks(models=[model]):
                nursery.start_soon(ask)
                await model.wait_for_requests(1)
        async with assert_no_leaks(models=[model]):  # it was open before
            pass
        nursery.cancel_scope.cancel()


def test_error_of_the_block_is_kept(after: ExitStack, mark: str) -> None:
    with pytest.raises(KeyError) as caught, assert_no_leaks():
        expected = leave_process(after, mark)
        raise KeyError("its own")
    assert expected in caught.value.__notes__[0]


async def test_a_cancelled_block_is_checked(after: ExitStack, mark: str) -> None:
    with pytest.raises(AssertionError) as caught, trio.CancelScope() as scope:
        async with assert_no_leaks():
            expected = leave_process(after, mark)
            scope.cancel()
            await trio.sleep_forever()
    assert expected in str(caught.value)
    assert isinstance(caught.value.__context__, trio.Cancelled)


def test_fixture(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["opencode_trio.testing.pytest_plugin"]')
    pytester.makepyfile(
        """
        def test_clean(no_leaks): pass
        def test_leaky(no_leaks):
            global kept
            kept = open(__file__)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*left behind:*", "*descriptor * -> *test_fixture.py*"])


SLOW = [test_what_is_leaving_gets_a_moment, test_the_wait_is_bounded, test_time_is_the_walls]
"""These need the full second."""
