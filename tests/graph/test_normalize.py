"""Normalised weights against dense formulas."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from modalign.graph.normalize import normalise

WEIGHTS = np.array([[0.0, 2, 1], [1, 0, 0], [0, 0, 0]])


def test_rows_sum_to_one_or_stay_zero():
    dense = normalise(sp.csr_array(WEIGHTS), "row").toarray()
    np.testing.assert_allclose(dense, [[0, 2 / 3, 1 / 3], [1, 0, 0], [0, 0, 0]], rtol=1e-6)


def test_symmetric_divides_by_both_row_sums():
    dense = normalise(sp.csr_array(WEIGHTS), "symmetric").toarray()
    # Node 2 has no edges out: an edge to it has no finite weight, and gets none.
    np.testing.assert_allclose(
        dense, [[0, 2 / 3**0.5, 0], [1 / 3**0.5, 0, 0], [0, 0, 0]], rtol=1e-6
    )


def test_none_keeps_the_weights_and_the_input_stays():
    matrix = sp.csr_array(WEIGHTS)
    for how in ("row", "symmetric", "none"):
        normalise(matrix, how)
    np.testing.assert_array_equal(matrix.toarray(), WEIGHTS)
    np.testing.assert_array_equal(normalise(matrix, "none").toarray(), WEIGHTS)
