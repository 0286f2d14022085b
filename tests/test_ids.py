"""Message ids sort as opencode's own do, whatever the clocks say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_trio._protocol.v1.ids import (
    LATEST_MS,
    RANDOM_CHARACTERS,
    MessageIds,
    checked_id,
    message_id,
    milliseconds_near,
    stamp_of,
)
from opencode_trio.errors import OpenCodeConfigError

ZEROES = bytes(RANDOM_CHARACTERS)
# Seen from opencode 1.18.33, with the time that its message's record has.
SEEN = ("msg_202762049001ijyIzmSivnl4Tc", 1795337625673)
NOW = 1_795_340_000_000.0
times = st.floats(0, 2**42)


def test_an_id_is_of_opencodes_make():
    identifier, time = SEEN
    ours = message_id(time << 12 | 1, ZEROES)
    assert ours[:16] == identifier[:16]
    assert len(ours) == len(identifier)
    assert checked_id("msg", ours) == ours


def test_the_time_of_an_id_can_be_read():
    identifier, time = SEEN
    stamp = stamp_of(identifier)
    assert stamp is not None
    assert milliseconds_near(stamp, NOW) == time
    assert stamp_of("nonsense") is None


@given(times, st.binary(min_size=RANDOM_CHARACTERS, max_size=64))
def test_any_id_is_well_formed(now: float, randomness: bytes):
    made = MessageIds().next(now, randomness)
    assert checked_id("msg", made) == made
    assert len(made) == 30


@given(st.lists(st.floats(-(10**6), 10**6), min_size=2, max_size=50))
def test_the_ids_of_a_session_ascend_even_if_the_clock_does_not(steps: list[float]):
    ids = MessageIds()
    made: list[str] = []
    for step in steps:
        made.append(ids.next(NOW + step, ZEROES, after=made[-1] if made else None))
    assert made == sorted(set(made))


def test_another_session_follows_a_clock_that_was_set_back():
    ids = MessageIds()
    before = ids.next(NOW, ZEROES)
    assert ids.next(NOW - 600_000, ZEROES) == MessageIds().next(NOW - 600_000, ZEROES) < before


def test_the_skew_falls_when_the_servers_clock_is_set_back():
    ids = MessageIds()
    heard = [(0, 0), (-LATEST_MS, 0), (-600_000, -600_000), (-600_500, -600_000), (5, 5)]
    for told, skew in heard:  # an event that is late is not believed, one that is later still is
        ids.saw(message_id(int(NOW + told) << 12, ZEROES), NOW)
        assert ids.skew_ms == skew
        assert ids.server_ms(NOW) == NOW + skew


@given(st.floats(-(10**7), 10**7), st.floats(0, 500))
def test_the_servers_clock_counts(skew: float, latency: float):
    ids = MessageIds()
    ids.saw(message_id(int(NOW + skew) << 12, ZEROES).replace("msg", "evt"), NOW + latency)
    ids.saw("evt_of another make", NOW)
    later = NOW + 10_000
    stamp = stamp_of(ids.next(later, ZEROES))
    assert stamp is not None
    error = milliseconds_near(stamp, later) - (later + skew)
    assert -latency - 3 <= error <= 1  # never ahead of the server


def test_a_clock_that_is_set_back_is_believed():
    """Other sessions start at the new time, and the skew falls again."""
    ids = MessageIds()
    before = ids.next(NOW, ZEROES)
    assert ids.next(NOW - 600_000, ZEROES) < before
    ids.saw(message_id(int(NOW + 600_000) << 12, ZEROES), NOW)
    assert ids.skew_ms == pytest.approx(600_000, abs=1)
    ids.saw(message_id(int(NOW + 1) << 12, ZEROES), NOW)
    assert ids.skew_ms == pytest.approx(1, abs=1)


def test_an_id_comes_after_what_the_session_has():
    future = message_id(int(NOW + 60_000) << 12 | 7, b"\xff" * RANDOM_CHARACTERS)
    assert MessageIds().next(NOW, ZEROES, after=future) > future
    past = message_id(int(NOW - 60_000) << 12, ZEROES)
    assert MessageIds().next(NOW, ZEROES, after=past) == MessageIds().next(NOW, ZEROES)


@pytest.mark.parametrize("wrong", ["abc", "", "msg_/../x", "ses_1?x", None, 7, "msg_\n"])
def test_what_is_no_id_is_refused(wrong: object):
    with pytest.raises(OpenCodeConfigError, match="not a session id"):
        checked_id("ses", wrong)
