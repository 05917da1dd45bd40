"""Metrics against ranx, ir_measures, a slow loop and tables by hand, and their laws."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.errors import ConfigError, UnknownName
from modalign.evaluate import metrics
from modalign.evaluate.metrics import METRICS, JudgedLists, checked_ks, compute, hit_matrix

KS = (1, 2, 5, 10, 20)
ACCURACY = [name for name, metric in METRICS.items() if metric.accuracy]


def random_case(
    seed: int = 0, n_users: int = 40, n_items: int = 60, width: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Ranked items (n, width), some lists cut short by -1, and the truth as bools."""
    rng = np.random.default_rng(seed)
    items = rng.permuted(np.tile(np.arange(n_items), (n_users, 1)), axis=1)[:, :width]
    items[np.arange(width) >= rng.integers(width // 2, 3 * width, n_users)[:, None]] = -1
    relevant = rng.random((n_users, n_items)) < rng.choice([0.02, 0.1, 0.5], (n_users, 1))
    relevant[np.arange(n_users), rng.integers(n_items, size=n_users)] = True
    return items, relevant


def lists_of(items: np.ndarray, relevant: np.ndarray) -> JudgedLists:
    hits = hit_matrix(items, sp.csr_array(relevant.astype(np.float32)))
    return JudgedLists(hits, relevant.sum(1))


def slow(listed: list[int], wanted: set[int], k: int) -> dict[str, float]:
    """All accuracy metrics of one list, from their definitions."""
    first = [item for item in listed if item >= 0][:k]
    hits = [item in wanted for item in first]
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
    places = [place for place, hit in enumerate(hits, 1) if hit]
    return {
        "recall": len(places) / len(wanted),
        "precision": len(places) / k,
        "hit": float(bool(places)),
        "mrr": 1 / places[0] if places else 0.0,
        "ndcg": sum(1 / math.log2(place + 1) for place in places) / ideal,
        "map": sum(n / place for n, place in enumerate(places, 1)) / min(k, len(wanted)),
    }


def as_judged(items: np.ndarray, relevant: np.ndarray) -> tuple[dict, dict]:
    """The truth and the lists as information retrieval libraries take them."""
    truth = {f"u{u}": {f"i{i}": 1 for i in np.flatnonzero(row)} for u, row in enumerate(relevant)}
    run = {
        f"u{u}": {f"i{i}": float(len(row) - place) for place, i in enumerate(row) if i >= 0}
        for u, row in enumerate(items)
    }
    return truth, run


def map_over_all_relevant(values: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """Our MAP, whose denominator is min(K, |R|), as libraries have it that divide by |R|."""
    return values * np.minimum(n_relevant, k) / n_relevant


def test_every_accuracy_metric_has_an_oracle_here() -> None:
    assert set(slow([0], {0}, 1)) == set(ACCURACY)


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_slow_loop(seed: int) -> None:
    items, relevant = random_case(seed)
    _, values = compute(lists_of(items, relevant), KS, ACCURACY)
    for k in KS:
        for user, row in enumerate(items):
            expected = slow(row.tolist(), set(np.flatnonzero(relevant[user]).tolist()), k)
            found = {name: values[f"{name}@{k}"][user] for name in expected}
            assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_equals_ranx() -> None:
    items, relevant = random_case()
    truth, run = as_judged(items, relevant)
    theirs = {name: name if name != "hit" else "hit_rate" for name in ACCURACY}
    asked = [f"{name}@{k}" for name in theirs.values() for k in KS]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ranx_apart.py"))],
        input=json.dumps({"qrels": truth, "run": run, "metrics": asked}),
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout)
    _, values = compute(lists_of(items, relevant), KS, ACCURACY)
    for name, their_name in theirs.items():
        for k in KS:
            ours = values[f"{name}@{k}"]
            if name == "map":
                ours = map_over_all_relevant(ours, relevant.sum(1), k)
            want = [expected[f"{their_name}@{k}"][user] for user in truth]
            np.testing.assert_allclose(ours, want, atol=1e-12, err_msg=f"{name}@{k}")


def test_equals_ir_measures() -> None:
    items, relevant = random_case()
    truth, run = as_judged(items, relevant)
    theirs = {
        "recall": ir_measures.R,
        "precision": ir_measures.P,
        "ndcg": ir_measures.nDCG,
        "map": ir_measures.AP,
        "mrr": ir_measures.RR,
        "hit": ir_measures.Success,
    }
    assert set(theirs) == set(ACCURACY)
    asked = {measure @ k: (name, k) for name, measure in theirs.items() for k in KS}
    _, values = compute(lists_of(items, relevant), KS, ACCURACY)
    seen = 0
    for one in ir_measures.iter_calc(list(asked), truth, run):
        name, k = asked[one.measure]
        user = int(one.query_id[1:])
        ours = values[f"{name}@{k}"]
        if name == "map":
            ours = map_over_all_relevant(ours, relevant.sum(1), k)
        assert ours[user] == pytest.approx(one.value, abs=1e-6), (one, name)
        seen += 1
    assert seen == len(items) * len(asked)


def test_by_hand() -> None:
    # Hits at places 1 and 3 of three relevant items; at place 4 of one; nowhere.
    hits = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    _, values = compute(JudgedLists(hits, np.array([3, 1, 2])), [2, 4], ACCURACY)
    third, fourth = 1 / math.log2(4), 1 / math.log2(5)
    two, three = 1 + 1 / math.log2(3), 1 + 1 / math.log2(3) + 1 / math.log2(4)
    table = {
        "recall@2": [1 / 3, 0, 0],
        "recall@4": [2 / 3, 1, 0],
        "precision@2": [1 / 2, 0, 0],
        "precision@4": [2 / 4, 1 / 4, 0],
        "hit@2": [1, 0, 0],
        "hit@4": [1, 1, 0],
        "mrr@2": [1, 0, 0],
        "mrr@4": [1, 1 / 4, 0],
        "ndcg@2": [1 / two, 0, 0],
        "ndcg@4": [(1 + third) / three, fourth, 0],
        "map@2": [1 / 2, 0, 0],
        "map@4": [(1 + 2 / 3) / 3, 1 / 4, 0],
    }
    assert set(values) == set(table)
    for key, expected in table.items():
        np.testing.assert_allclose(values[key], expected, rtol=1e-12, err_msg=key)


def test_means_are_means_of_the_users() -> None:
    means, values = compute(lists_of(*random_case()), KS, ACCURACY)
    assert set(means) == set(values)
    for key in means:
        assert means[key] == pytest.approx(values[key].mean(), abs=1e-15)


def test_beyond_accuracy_by_hand() -> None:
    # Items 0 to 4 have 4, 2, 1, 0, 0 interactions of 4 users; the second list is short, the
    # third empty.
    lists = JudgedLists(
        np.zeros((3, 3), bool),
        np.ones(3, int),
        np.array([[0, 1, 3], [2, -1, -1], [-1, -1, -1]]),
        np.array([4, 2, 1, 0, 0]),
        4,
    )
    means, values = compute(lists, [2, 3], ["novelty", "popularity", "coverage"])
    np.testing.assert_allclose(values["novelty@2"], [(0 + 1) / 2, 2, 0])
    np.testing.assert_allclose(values["novelty@3"], [(0 + 1 + 2) / 3, 2, 0])  # 0 counts as 1
    np.testing.assert_allclose(values["popularity@2"], [3, 1, 0])
    np.testing.assert_allclose(values["popularity@3"], [2, 1, 0])
    assert (means["coverage@2"], means["coverage@3"]) == (3 / 5, 4 / 5)
    assert means["popularity@3"] == pytest.approx(1.0)
    assert not any(key.startswith("coverage") for key in values)


def test_places_beyond_the_list_count_as_misses() -> None:
    hits = np.array([[True, False]])
    means, _ = compute(JudgedLists(hits, np.array([1])), [10], ["precision", "recall", "ndcg"])
    assert means == {"precision@10": 0.1, "recall@10": 1.0, "ndcg@10": 1.0}


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 25), n_items=st.integers(25, 40))
@pytest.mark.slow
def test_laws(seed: int, width: int, n_items: int) -> None:
    lists = lists_of(*random_case(seed, 6, n_items, width))
    ks = range(1, width + 1)
    _, values = compute(lists, ks, ACCURACY)
    for key, one in values.items():
        np.testing.assert_array_equal(one, one.clip(0, 1), err_msg=key)
    for name in ("recall", "hit", "mrr"):
        growth = np.diff(np.stack([values[f"{name}@{k}"] for k in ks]), axis=0)
        assert (growth >= 0).all(), name
    for k in ks:
        np.testing.assert_allclose(
            values[f"precision@{k}"] * k, values[f"recall@{k}"] * lists.n_relevant, atol=1e-12
        )


@given(n_relevant=st.integers(1, 12), k=st.integers(1, 12))
def test_an_ideal_list_has_one(n_relevant: int, k: int) -> None:
    hits = np.arange(12)[None] < n_relevant
    means, _ = compute(
        JudgedLists(hits, np.array([n_relevant])), [k], ["ndcg", "map", "mrr", "hit"]
    )
    assert list(means.values()) == pytest.approx([1.0] * 4)


def test_users_in_another_order_have_the_same_values() -> None:
    items, relevant = random_case()
    order = np.random.default_rng(1).permutation(len(items))
    _, values = compute(lists_of(items, relevant), KS, ACCURACY)
    _, shuffled = compute(lists_of(items[order], relevant[order]), KS, ACCURACY)
    for key, one in values.items():
        np.testing.assert_array_equal(shuffled[key], one[order], err_msg=key)


# ------------------------------------------------------------------ hit matrix


@pytest.mark.parametrize("pairs", [1, 19, 400, 4_000_000])
def test_hit_matrix_is_membership_whatever_the_block(
    monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    monkeypatch.setattr(metrics, "PAIRS_AT_ONCE", pairs)
    items, relevant = random_case(5)
    expected = [
        [item >= 0 and bool(relevant[user, item]) for item in row] for user, row in enumerate(items)
    ]
    found = hit_matrix(items.astype(np.int32), sp.csr_array(relevant.astype(np.float32)))
    np.testing.assert_array_equal(found, expected)


def test_nothing_relevant_is_never_hit() -> None:
    assert not hit_matrix(np.array([[0, 1]]), sp.csr_array((1, 5))).any()


# ------------------------------------------------------------------ mistakes


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'recall'"):
        compute(lists_of(*random_case()), [5], ["recal"])


@pytest.mark.parametrize("ks", [[], [0], [5, -1]])
def test_ks_are_one_or_more(ks: list[int]) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_ks(ks)
    assert caught.value.expected.startswith("at least one K")


def test_ks_are_sorted_and_each_once() -> None:
    assert checked_ks([20, 5, 20]) == (5, 20)


def test_no_user_at_all_has_mean_zero() -> None:
    means, values = compute(JudgedLists(np.zeros((0, 5), bool), np.zeros(0, int)), [5], ACCURACY)
    assert set(means.values()) == {0.0}
    assert all(one.shape == (0,) for one in values.values())
