from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign_serve.ranker.topk import best_of_row, best_of_rows


def oracle(scores: np.ndarray, k: int) -> list[int]:
    """A full sort: by falling score, then by column; minus infinity is never listed."""
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    return [at for at in order if scores[at] > -np.inf][:k]


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 400),
    st.integers(1, 40),
    st.sampled_from([2, 5, 1000]),
    st.floats(0, 1),
)
def test_equals_a_full_sort(seed: int, width: int, k: int, levels: int, gone: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(levels, size=(4, width)).astype(np.float32)  # many ties
    scores[rng.random(scores.shape) < gone] = -np.inf
    columns, values = best_of_rows(scores, k)
    for row in range(4):
        wanted = oracle(scores[row], k)
        assert best_of_row(scores[row], k).tolist() == wanted
        assert columns[row].tolist() == wanted + [-1] * (k - len(wanted))
        assert values[row, : len(wanted)].tolist() == scores[row, wanted].tolist()
        assert np.isneginf(values[row, len(wanted) :]).all()


@pytest.mark.parametrize("k", [1, 20])
def test_one_row_alone_is_the_row_among_others(k: int) -> None:
    scores = np.random.default_rng(1).normal(size=(7, 5_000)).astype(np.float32)
    scores[3] = 0.0  # all equal: the slow path
    together = best_of_rows(scores, k)
    for row in range(7):
        alone = best_of_rows(scores[row : row + 1], k)
        np.testing.assert_array_equal(alone[0][0], together[0][row])
        np.testing.assert_array_equal(alone[1][0], together[1][row])


def test_no_rows() -> None:
    assert best_of_rows(np.zeros((0, 50), np.float32), 3)[0].shape == (0, 3)
