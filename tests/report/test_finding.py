"""Sentences say no more than the tests allow."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from modalign.evaluate.compare import RunResult, compare
from modalign.report.finding import finding, lead, p_value

N = 400


def result(name, values):
    frame = pl.DataFrame({"user_id": [f"u{i}" for i in range(N)], "recall@20": values})
    return RunResult(name, {"recall@20": float(np.mean(values))}, frame, "strict", "f")


@pytest.fixture
def values():
    rng = np.random.default_rng(3)
    base = rng.random(N)
    return {
        "low": base - 0.3 + rng.normal(0, 0.01, N),
        "best": base + rng.normal(0, 0.01, N),
        "near": base - 0.1 + rng.normal(0, 0.01, N),
    }


def told(values):
    comparison = compare([result(name, column) for name, column in values.items()])
    means = {name: float(np.mean(column)) for name, column in values.items()}
    return finding("recall@20", means, comparison, N), comparison, means


def test_a_winner_is_named_with_the_next_best(values):
    (first, second, third), comparison, means = told(values)
    gap = means["best"] - means["near"]
    assert first == (
        f"best is best in recall@20: {means['best']:.4f}, {gap:+.4f} over near, the next best."
    )
    test = lead("best", "near", "recall@20", comparison)
    assert f"95% interval {test.low:+.4f} to {test.high:+.4f} over users; p < 0.001" in second
    assert 0 < test.low < gap < test.high
    assert "significantly better than every other run" in second
    assert third == "Of 1 combinations of metric and cut-off, best wins 1."


def test_two_runs_have_no_next_best(values):
    (first, second, _), _, _ = told({name: values[name] for name in ("low", "best")})
    assert first.endswith("over low.")
    assert "every other" not in second


def test_a_lead_within_chance_is_no_win(values):
    rng = np.random.default_rng(4)
    values["near"] = values["best"] + rng.normal(0, 0.5, N)
    values["near"] += np.mean(values["best"]) - 0.001 - np.mean(values["near"])
    (first, second, third), _, means = told(values)
    assert first == (
        f"No run is best in recall@20: best has the highest mean, {means['best']:.4f}, "
        "but its lead over near is not significant."
    )
    assert second.startswith("+0.0010 over near, 95% interval -")
    assert "p = " in second
    assert third == "Of 1 combinations of metric and cut-off, 1 has no winner."


def test_equal_runs_and_several_rivals_within_chance(values):
    same = dict.fromkeys(("a", "b", "c"), values["best"])
    (first, second, _), _, _ = told(same)
    assert first.startswith("No run is best")
    assert "over b and 1 more is not significant" in first
    assert "p = 1.000" in second


def test_a_lead_can_be_read_from_either_side(values):
    _, comparison, _ = told(values)
    ahead, behind = (
        lead(one, other, "recall@20", comparison)
        for one, other in (("best", "low"), ("low", "best"))
    )
    assert (ahead.difference, ahead.low, ahead.high) == (
        -behind.difference,
        -behind.high,
        -behind.low,
    )
    assert (ahead.first, ahead.second) == ("best", "low")
    assert ahead.corrected == behind.corrected
    with pytest.raises(KeyError):
        lead("best", "other", "recall@20", comparison)


def test_without_a_comparison_nothing_is_claimed(values):
    assert finding("recall@20", {"only": 0.25}, None, 1234) == [
        "only reaches recall@20 0.2500 over 1,234 users.",
        "There is no other model or set of options to compare it with.",
    ]
    _, comparison, means = told(values)
    (only,) = finding("recall@7", means, comparison, N)
    assert "no cut-off in common" in only


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "p < 0.001"), (0.00099, "p < 0.001"), (0.001, "p = 0.001"), (1, "p = 1.000")],
)
def test_p_values(p, text):
    assert p_value(p) == text
