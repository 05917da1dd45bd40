"""k nearest neighbours against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.graph.knn import knn_graph


def brute_force(features, present, k, include_self) -> np.ndarray:
    """The oracle: one row at a time, Python's sort, exact integers compared by their cosines."""
    n = len(features)
    adjacency = np.zeros((n, n))
    norm = np.linalg.norm(features.astype(np.float64), axis=1)
    known = [i for i in range(n) if present[i] and norm[i] > 0]
    for i in range(n):
        if i not in known:
            adjacency[i, i] = include_self
            continue
        cosine = {
            j: np.float32(features[i].astype(np.float64) @ features[j] / norm[i] / norm[j])
            for j in known
            if j != i
        }
        nearest = sorted(cosine, key=lambda j: (-cosine[j], j))
        chosen = ([i] if include_self else []) + nearest
        adjacency[i, chosen[:k]] = 1.0
    return adjacency


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 14), st.integers(1, 6), st.booleans(), st.integers(1, 15), st.integers(0, 999)
)
def test_equals_brute_force_with_many_ties(n, k, include_self, block, seed):
    rng = np.random.default_rng(seed)
    # Few directions, powers of two as lengths: equal cosines are equal to the last bit.
    directions = np.array([[1, 0, 0], [0, 1, 0], [3, 4, 0], [0, 0, 0], [0, 3, 4]], np.float32)
    features = directions[rng.integers(0, 5, n)] * 2.0 ** rng.integers(-2, 3, (n, 1))
    features = features.astype(np.float32)
    present = rng.random(n) < 0.8
    graph = knn_graph(features, present, k, include_self, block, normalisation="none")
    np.testing.assert_array_equal(
        graph.scipy().toarray(), brute_force(features, present, k, include_self)
    )


def features_of(n: int = 50, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_real_numbers_equal_brute_force():
    features, present = features_of(), np.arange(50) % 7 != 0
    graph = knn_graph(features, present, 5, normalisation="none")
    np.testing.assert_array_equal(graph.scipy().toarray(), brute_force(features, present, 5, True))


@pytest.mark.parametrize("block", [1, 3, 16, 49, 50, 51, 4096])
def test_the_block_size_changes_nothing(block):
    features = np.repeat(features_of(25), 2, axis=0)  # every row twice: ties everywhere
    whole = knn_graph(features, np.ones(50, bool), 5)
    other = knn_graph(features, np.ones(50, bool), 5, block=block)
    np.testing.assert_array_equal(whole.scipy().toarray(), other.scipy().toarray())


@pytest.mark.parametrize("normalisation", ["row", "symmetric"])
def test_rows_sum_to_one_with_exactly_k_neighbours(normalisation):
    graph = knn_graph(features_of(), np.ones(50, bool), 10, normalisation=normalisation).scipy()
    np.testing.assert_array_equal(np.diff(graph.indptr), 10)
    np.testing.assert_allclose(graph.data, 0.1, rtol=1e-6)
    assert (graph.diagonal() > 0).all()


def test_missing_and_zero_rows_have_only_themselves():
    features, present = features_of(12), np.ones(12, bool)
    features[3] = 0.0
    features[5] = np.nan  # never looked at, for it is missing
    present[5] = False
    dense = knn_graph(features, present, 4).scipy().toarray()
    for row in (3, 5):
        np.testing.assert_array_equal(dense[row], np.eye(12)[row])
        np.testing.assert_array_equal(dense[:, row], np.eye(12)[row])
    alone = knn_graph(features, present, 4, include_self=False).scipy().toarray()
    assert not alone[[3, 5]].any()
    assert not alone.diagonal().any()


def test_a_row_is_its_own_neighbour_even_among_many_twins():
    dense = knn_graph(np.ones((9, 2), np.float32), np.ones(9, bool), 3, normalisation="none")
    expected = np.zeros((9, 9))
    for row in range(9):
        others = [j for j in range(9) if j != row]
        expected[row, [row, *others[:2]]] = 1.0
    np.testing.assert_array_equal(dense.scipy().toarray(), expected)


@pytest.mark.parametrize("include_self", [True, False])
def test_few_items_are_all_chosen(include_self):
    dense = knn_graph(features_of(4), np.ones(4, bool), 9, include_self).scipy().toarray()
    n = 4 if include_self else 3
    np.testing.assert_allclose(dense, (1 - (not include_self) * np.eye(4)) / n, rtol=1e-6)
    one = knn_graph(features_of(1), np.ones(1, bool), 9, include_self).scipy().toarray()
    assert one.tolist() == [[float(include_self)]]


def test_nobody_present():
    dense = knn_graph(features_of(3), np.zeros(3, bool), 2).scipy().toarray()
    np.testing.assert_array_equal(dense, np.eye(3))


def test_scaling_rows_changes_nothing():
    features = features_of()
    scale = np.random.default_rng(1).uniform(0.1, 9, (50, 1)).astype(np.float32)
    a = knn_graph(features, np.ones(50, bool), 5).scipy().toarray()
    b = knn_graph(features * scale, np.ones(50, bool), 5).scipy().toarray()
    np.testing.assert_array_equal(a, b)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        knn_graph(features_of(), np.ones(50, bool), 0)
    with pytest.raises(ValueError, match="present"):
        knn_graph(features_of(), np.ones(49, bool), 2)
