"""The k largest of each row: in torch, in the server's numpy, and by a full sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modalign.core import seeds
from modalign.core.topk import CHUNK, MASKED, top
from modalign_serve.ranker.topk import best_of_rows

widths = st.sampled_from([1, 7, CHUNK, 5 * CHUNK, 40 * CHUNK, 40 * CHUNK + 3])


@given(st.integers(0, 2**32 - 1), widths, st.integers(1, 12), st.sampled_from([1, 2, 5, 1000]))
def test_torch_and_the_server_list_as_a_full_sort_does(seed, width, k, n_values):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, n_values, (6, width)).astype(np.float32)
    scores[rng.random((6, width)) < 0.2] = MASKED
    k = min(k, width)
    order = np.lexsort((np.broadcast_to(np.arange(width), scores.shape), -scores), axis=1)[:, :k]
    values = np.take_along_axis(scores, order, 1)
    listed = values > MASKED
    found, columns = (part.numpy() for part in top(torch.from_numpy(scores), k))
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(columns[listed], order[listed])
    served, served_values = best_of_rows(scores, k)
    np.testing.assert_array_equal(served, np.where(listed, order, -1))
    np.testing.assert_array_equal(served_values, values)


def test_without_ties_it_is_torch_topk():
    rng = seeds.torch_generator(3, "scores")
    scores = torch.rand(50, 1600, generator=rng, dtype=torch.float64)
    for found, expected in zip(top(scores, 50), scores.topk(50), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("k", [0, 3, 9])
def test_none_some_and_more_than_there_are(k):
    values, columns = top(torch.ones(2, 4), k)
    assert values.shape == columns.shape == (2, min(k, 4))
    assert columns.tolist() == [list(range(min(k, 4)))] * 2
