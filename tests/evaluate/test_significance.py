"""Paired tests against scipy, corrections against slow definitions and tables by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modalign.errors import DataError
from modalign.evaluate.significance import (
    between_seeds,
    holm,
    paired,
)

P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), max_size=12)


def samples(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Like metrics of users: few different values, many equal."""
    rng = np.random.default_rng(seed)
    first = rng.integers(5, size=n) / 4
    return first, np.where(rng.random(n) < 0.5, first, rng.integers(4, size=n) / 4)


# ------------------------------------------------------------------ paired tests


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [5, 60, 3000])
def test_equals_scipy(seed: int, n: int) -> None:
    first, second = samples(seed, n)
    found = paired(first, second)
    theirs = stats.ttest_rel(first, second)
    interval = theirs.confidence_interval(0.95)
    assert found.difference == pytest.approx((first - second).mean(), abs=1e-12)
    assert found.t_test == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(first, second).pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 2 sqrt(3) at two degrees, where
    # the two-sided p-value is 1 - t / sqrt(t^2 + 2). Signed ranks: 1 of 8 signs on each side.
    found = paired(np.array([1.0, 3.0, 5.0]), np.array([0.0, 1.0, 2.0]))
    t = 2 * 3**0.5
    assert found.difference == 2.0
    assert found.t_test == pytest.approx(1 - t / (t**2 + 2) ** 0.5)
    assert found.wilcoxon == pytest.approx(2 / 8)
    assert (found.low + found.high) / 2 == pytest.approx(2.0)


def test_swapping_the_samples_turns_the_sign() -> None:
    first, second = samples(0)
    one, other = paired(first, second), paired(second, first)
    assert other.difference == pytest.approx(-one.difference)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert (other.t_test, other.wilcoxon) == pytest.approx((one.t_test, one.wilcoxon))


def test_equal_samples_do_not_differ() -> None:
    first, _ = samples(0)
    found = paired(first, first.copy())
    assert (found.difference, found.t_test, found.wilcoxon) == (0, 1, 1)
    assert (found.low, found.high) == (0, 0)


def test_all_zeros_do_not_differ() -> None:
    assert paired(np.zeros(4), np.zeros(4)).t_test == 1.0


def test_a_difference_equal_for_all_is_no_chance() -> None:
    first, _ = samples(0, 30)
    found = paired(first, first - 0.25)
    assert (found.difference, found.t_test, found.low, found.high) == (0.25, 0, 0.25, 0.25)
    # Equal but for the last bits, about which scipy would warn.
    noisy = np.random.default_rng(0).random(30)
    found = paired(noisy + 0.1, noisy)
    assert (found.difference, found.t_test) == (pytest.approx(0.1), 0.0)
    assert found.low == found.high == found.difference


def test_the_order_of_a_sum_makes_no_difference() -> None:
    parts = np.random.default_rng(0).random((3, 200))
    there, back = parts[0] + parts[1] + parts[2], parts[2] + parts[1] + parts[0]
    assert (there != back).any()
    assert paired(there, back) == paired(there, there)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0], [2.0], "1 and 1 values"),
        ([1.0, 2.0], [2.0, 3.0, 4.0], "2 and 3 values"),
        ([1.0, np.nan, 3.0], [1.0, 2.0, 3.0], "1 that are not"),
        ([1.0, 2.0], [np.inf, np.nan], "2 that are not"),
    ],
)
def test_what_cannot_be_paired_is_refused(first, second, message: str) -> None:
    with pytest.raises(DataError, match=message):
        paired(np.array(first), np.array(second))


# ------------------------------------------------------------------ between seeds


def test_between_seeds_is_welch_by_its_formula() -> None:
    first, second = np.array([0.2, 0.26, 0.23, 0.25]), np.array([0.18, 0.21, 0.2])
    shares = first.var(ddof=1) / 4, second.var(ddof=1) / 3
    t = (first.mean() - second.mean()) / np.sqrt(sum(shares))
    freedom = sum(shares) ** 2 / (shares[0] ** 2 / 3 + shares[1] ** 2 / 2)
    by_hand = 2 * stats.t.sf(abs(t), freedom)
    assert between_seeds(first, second) == pytest.approx(by_hand)
    assert between_seeds(second, first) == pytest.approx(by_hand)
    assert between_seeds(7 * first, 7 * second) == pytest.approx(by_hand)


def test_a_method_without_deviation_is_a_number_the_other_is_tested_against() -> None:
    seeds = [0.2, 0.26, 0.23]
    by_hand = stats.ttest_1samp(seeds, 0.3).pvalue
    assert between_seeds(seeds, [0.3, 0.3]) == pytest.approx(by_hand)
    assert between_seeds([0.1 + 0.2, 0.3], seeds) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([0.2], [0.1, 0.3], None),
        ([0.2, 0.1], [0.3], None),
        ([0.2, 0.2], [0.2, 0.2, 0.2], 1.0),
        ([0.2, 0.2], [0.3, 0.3], 0.0),
        ([0.2, 0.3], [0.3, 0.2], 1.0),
        ([0.1 + 0.2, 0.3], [0.3, 0.3, 0.1 + 0.2], 1.0),
    ],
)
def test_few_seeds_and_seeds_that_change_nothing(
    first: list[float], second: list[float], wanted: float | None
) -> None:
    assert between_seeds(first, second) == wanted


# ------------------------------------------------------------------ corrections


def slow_holm(p: list[float]) -> list[float]:
    """Adjusted p of i: the largest (m - rank) p over all that rank no later than i, at most 1."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    out = [0.0] * len(p)
    for place, i in enumerate(order):
        out[i] = min(1.0, max((len(p) - r) * p[order[r]] for r in range(place + 1)))
    return out


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 by 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 -> 0.06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []


@given(p=P_VALUES)
def test_holm_equals_its_slow_definition(p: list[float]) -> None:
    np.testing.assert_allclose(holm(p), slow_holm(p), rtol=1e-12)


@given(p=P_VALUES, level=st.floats(0.001, 0.5))
def test_holm_rejects_what_stepping_down_rejects(p: list[float], level: float) -> None:
    rejected: set[int] = set()
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if (len(p) - place) * p[i] > level:
            break
        rejected.add(i)
    assert {i for i, one in enumerate(holm(p)) if one <= level} == rejected


@pytest.mark.slow
@given(p=P_VALUES, seed=st.integers(0, 99))
def test_corrections_do_not_depend_on_the_order_and_never_lower_p(
    p: list[float], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(p))
    np.testing.assert_allclose(holm(np.array(p)[order]), holm(p)[order], rtol=1e-12)
    assert (holm(p) >= np.array(p) * (1 - 1e-12)).all()
    if p:
        assert (holm(p) >= stats.false_discovery_control(p) * (1 - 1e-12)).all()
