from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign_serve.artifact.artifact import Category, Column
from modalign_serve.artifact.strings import Strings
from modalign_serve.errors import ConfigError, UnknownName
from modalign_serve.ranker.rules import Lift, Rules, matches, within_limit

COLUMNS: dict[str, Column] = {
    "brand": Strings.of(["x", "y", None, "x"]),
    "kind": Category(np.array([0, 1, 1, -1], np.int32), ("bag", "cup")),
    "price": np.array([1.0, 5.0, np.nan, 9.0]),
    "since": Strings.of(["2020-01-01T08:00", "2021-05-06T00:00", None, "2021-05-06T09:30"]),
}


@pytest.mark.parametrize(
    ("where", "met"),
    [
        ({}, [0, 1, 2, 3]),
        ({"kind": "cup"}, [1, 2]),
        ({"kind": ["cup", "bag"]}, [0, 1, 2]),
        ({"kind": "plate"}, []),
        ({"brand": "x"}, [0, 3]),
        ({"price": 5}, [1]),
        ({"price": {"min": 5}}, [1, 3]),
        ({"price": {"min": 1, "max": 5}}, [0, 1]),
        ({"price": {"max": 5}, "kind": "cup"}, [1]),
        ({"since": {"min": "2021"}}, [1, 3]),
        ({"since": {"max": "2021-05-06"}}, [0, 1, 3]),  # a day holds all its times
        ({"since": {"min": "2020-01-02", "max": "2021-05-06T08:00"}}, [1]),
        ({"kind": {"min": "c"}}, [1, 2]),
    ],
)
def test_conditions(where: dict[str, object], met: list[int]) -> None:
    assert np.flatnonzero(matches(COLUMNS, where, 4)).tolist() == met


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ({"colour": "red"}, UnknownName),
        ({"kind": 3}, ConfigError),
        ({"kind": [3]}, ConfigError),
        ({"price": "low"}, ConfigError),
        ({"price": True}, ConfigError),
        ({"price": {}}, ConfigError),
        ({"price": {"above": 3}}, ConfigError),
        ({"price": {"min": None}}, ConfigError),
        ({"price": {"min": "2020"}}, ConfigError),
        ({"since": {"min": 2020}}, ConfigError),
        ({"since": {}}, ConfigError),
        ({"since": {"above": "2020"}}, ConfigError),
    ],
)
def test_conditions_that_make_no_sense(where: dict[str, object], error: type) -> None:
    with pytest.raises(error):
        matches(COLUMNS, where, 4)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.integers(-1, 3), min_size=9, max_size=9), min_size=1), st.integers(1, 4)
)
def test_limits_equal_a_slow_count(rows: list[list[int]], limit: int) -> None:
    found = within_limit(np.array(rows), limit)
    for row, kept in zip(rows, found.tolist(), strict=True):
        counts: Counter[int] = Counter()
        wanted = []
        for code in row:
            counts[code] += 1
            wanted.append(code < 0 or counts[code] <= limit)
        assert kept == wanted


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rules(diversity=1.5),
        lambda: Rules(diversity=float("nan")),
        lambda: Rules(at_most_per={"kind": 0}),
        lambda: Rules(at_most_per={"kind": True}),
        lambda: Lift(1.0),
        lambda: Lift(float("inf"), items=["a"]),
    ],
)
def test_rules_that_cannot_be(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]
