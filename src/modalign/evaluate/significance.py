"""Tests of differences between runs: paired over users, with correction, and between seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from modalign.errors import DataError


@dataclass(frozen=True)
class PairedTest:
    """Difference of means (first minus second), two-sided p-values over the same users, and the
    95% confidence interval of the difference by the t distribution.
    """

    difference: float
    t_test: float
    wilcoxon: float
    low: float
    high: float


def paired(first: np.ndarray, second: np.ndarray) -> PairedTest:
    """Paired t-test and Wilcoxon's signed-rank test (zero differences dropped).

    Equal samples have p-values of 1; with the same difference for every user that of the t-test
    is 0. Differences are rounded to about 1e-12 of the largest value, so that sums of the same
    numbers in another order are equal, and count as ties in Wilcoxon's ranks.

    Raises:
        DataError: the samples are not paired or not finite, or have fewer than 2 users.

    Example:
        >>> paired(np.array([1.0, 2.0]), np.array([1.0, 2.0])).t_test
        1.0
    """
    gap = _differences(first, second)
    if not gap.any():
        return PairedTest(0.0, 1.0, 1.0, 0.0, 0.0)
    signed = float(stats.wilcoxon(gap).pvalue)
    mean = float(gap.mean())
    if bool((gap == gap[0]).all()):
        return PairedTest(mean, 0.0, signed, mean, mean)
    test = stats.ttest_1samp(gap, 0.0)
    interval = test.confidence_interval(0.95)
    return PairedTest(mean, float(test.pvalue), signed, float(interval.low), float(interval.high))


def between_seeds(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Welch's t-test between the results of two methods' seeds: the two-sided p-value, or None.

    A test over users takes both trained models as given; this one takes the users as given and
    tests whether the difference holds when training is repeated. Three seeds have little power: a
    p-value above the level does not show that the methods are equal.

    Args:
        first: means over users of one method, one number for each seed.
        second: means over users of the other method; its seeds may differ.

    Returns:
        None if either has fewer than two seeds. Without any variance, as for deterministic
        models, 1 for equal results and 0 otherwise.

    Example:
        >>> round(between_seeds([0.30, 0.32, 0.31], [0.28, 0.29, 0.27]), 4)
        0.0213
    """
    if min(len(first), len(second)) < 2:
        return None
    # Rounded, so that sums of the same numbers in another order are equal.
    one, other = np.round(first, 12), np.round(second, 12)
    if not np.ptp(one) and not np.ptp(other):
        return float(one[0] == other[0])
    found = stats.ttest_ind_from_stats(
        *(one.mean(), one.std(ddof=1), len(one)),
        *(other.mean(), other.std(ddof=1), len(other)),
        equal_var=False,
    )
    return float(found.pvalue)


def _differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """First minus second, without rounding errors."""
    if first.shape != second.shape or len(first) < 2:
        got = f"{len(first)} and {len(second)} values"
        fix = "compare runs on the same data, split and mask"
        raise DataError("values of the same two or more users", got, fix)
    gap: np.ndarray = first - second
    bad = int((~np.isfinite(gap)).sum())
    if bad:
        raise DataError(
            "a finite value for every user", f"{bad} that are not", "evaluate the run again"
        )
    largest = float(max(np.abs(first).max(), np.abs(second).max()))
    return gap.round(12 - math.ceil(math.log10(largest))) if largest else gap


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted by Holm's method (1979), which bounds the family-wise error rate.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted


def holm_of_known(p_values: Sequence[float | None]) -> list[float | None]:
    """`holm` of the p-values that are not None.

    Example:
        >>> holm_of_known([0.25, None, 0.5])
        [0.5, None, 0.5]
    """
    raised = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else float(next(raised)) for p in p_values]
