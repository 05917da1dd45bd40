"""Weights of edges: by the row, symmetric, or as they are.

With r_i the sum of row i of a non-negative matrix W (rows that sum to zero stay zero):

    "row"         W_ij / r_i                 rows sum to one: the mean over neighbours
    "symmetric"   W_ij / sqrt(r_i r_j)       keeps a symmetric W symmetric, eigenvalues in [-1, 1]
    "none"        W_ij

On a bipartite or otherwise symmetric 0/1 matrix r is the degree. On a directed k-nearest
neighbours graph r is the number of neighbours a row *has* (not how often it is chosen), on
both sides, as FREEDOM does: with k everywhere both normalisations are 1 / k.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp

from modalign.core.sparse import row_of_entries

Normalisation = Literal["row", "symmetric", "none"]


def normalise(matrix: sp.csr_array, how: Normalisation) -> sp.csr_array:
    """The matrix with its weights normalised in float64 and rounded to float32.

    Args:
        matrix: non-negative CSR, (n, m); square for "symmetric".
        how: see the module.

    Source: Kipf and Welling, ICLR 2017, section 2.1 (symmetric, there with self-loops); He et
    al., SIGIR 2020, equation 3; Zhou and Shen, MM 2023, equation 3.

    Example:
        >>> chain = sp.csr_array(np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]))
        >>> normalise(chain, "row").toarray().tolist()
        [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]
    """
    sums = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    rows = row_of_entries(matrix)
    values = matrix.data.astype(np.float64)
    if how == "row":
        values *= power(sums, -1.0)[rows]
    elif how == "symmetric":
        factor = power(sums, -0.5)
        values *= factor[rows] * factor[matrix.indices]
    return sp.csr_array(
        (values.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape
    )


def power(sums: np.ndarray, exponent: float) -> np.ndarray:
    """`sums ** exponent`, zero where a sum is zero."""
    positive = sums > 0
    return np.where(positive, np.where(positive, sums, 1.0) ** exponent, 0.0)
