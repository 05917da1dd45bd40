import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalign.preferences.pace import Pace, retry_after


class Clock:
    def __init__(self):
        self.time = 0.0

    def sleep(self, seconds):
        assert seconds > 0
        self.time += seconds


def never():
    return False


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 120), st.floats(0, 30)), min_size=1, max_size=60),
    st.integers(1, 7),
    st.integers(50, 300),
)
def test_no_minute_sees_more_than_the_limits_allow(asked, most, tokens):
    clock = Clock()
    pace = Pace(most, tokens, lambda: clock.time, clock.sleep)
    sent = []
    for n, pause in asked:
        clock.time += pause
        assert pace.wait(n, never)
        sent.append((clock.time, n))
    for start, _ in sent:
        window = [n for moment, n in sent if start <= moment < start + 60 - 1e-6]
        assert len(window) <= most
        # A request that alone is too large goes out alone.
        assert sum(window) <= tokens or len(window) == 1


def test_the_limit_is_used_to_the_full():
    # Oracle: by hand. Three a minute: the fourth waits for the first to be a minute old.
    clock = Clock()
    pace = Pace(3, None, lambda: clock.time, clock.sleep)
    moments = []
    for _ in range(7):
        pace.wait(1, never)
        moments.append(clock.time)
    assert moments == [0, 0, 0, 60, 60, 60, 120]
    tokens = Pace(None, 100, lambda: clock.time, clock.sleep)
    clock.time, moments = 0.0, []
    for n in (60, 40, 30, 70, 1000, 1):
        tokens.wait(n, never)
        moments.append(clock.time)
    assert moments == [0, 0, 60, 60, 120, 180]


def test_a_pause_holds_all_back_and_a_stop_ends_the_wait():
    clock = Clock()
    pace = Pace(None, None, lambda: clock.time, clock.sleep)
    pace.wait(1, never)
    pace.pause(5)
    pace.pause(2)
    pace.wait(1, never)
    assert clock.time == 5
    stop = threading.Event()
    pace.pause(10)
    halted = Pace(1, None, lambda: 0.0, lambda seconds: stop.set())
    assert halted.wait(1, stop.is_set)
    assert not halted.wait(1, stop.is_set)


def test_a_server_may_ask_to_wait_in_seconds_or_until_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after(format_datetime(soon, usegmt=True)) == pytest.approx(90, abs=3)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 -0000") == 0
    assert (retry_after("-3"), retry_after("2.5"), retry_after("tomorrow")) == (0, 2.5, None)
    assert retry_after("nan") is None
    assert retry_after("inf") is None
