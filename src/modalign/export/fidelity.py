"""Lists of sampled users, to measure what an approximation loses."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from modalign.core.sparse import row_of_entries
from modalign_serve.artifact.artifact import Csr
from modalign_serve.ranker.topk import best_of_rows

CELLS = 2**22


def csr_of(matrix: sp.csr_array, values: bool = False) -> Csr:
    """A scipy matrix in the form that an artifact stores."""
    matrix.sort_indices()
    return Csr(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32),
        matrix.data.astype(np.float32) if values else None,
    )


def best_lists(users: np.ndarray, items: np.ndarray, seen: sp.csr_array, k: int) -> np.ndarray:
    """Rows of the k best items by `users @ items.T` without seen ones, (B, min(k, n)).

    Args:
        users: vectors of users, (B, d).
        items: vectors of items, (n, d).
        seen: items to leave out, (B, n).
        k: length of the lists.
    """
    k = min(k, len(items))
    found = np.empty((len(users), k), np.int64)
    step = max(1, CELLS // max(1, len(items)))
    for start in range(0, len(users), step):
        some = slice(start, min(start + step, len(users)))
        cells = users[some] @ items.T
        hide(cells, seen[some])
        found[some] = best_of_rows(cells, k)[0]
    return found


def best_of_cells(cells: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k best items by scores, (B, min(k, n)), -1 after the end of a shorter list."""
    return best_of_rows(cells, min(k, cells.shape[1]))[0]


def hide(cells: np.ndarray, seen: sp.csr_array) -> None:
    """Set the scores of seen items to minus infinity."""
    cells[row_of_entries(seen), seen.indices] = -np.inf


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the items of each list that are also in the other, averaged, in [0, 1].

    Example:
        >>> overlap(np.array([[1, 2], [3, -1]]), np.array([[2, 9], [3, -1]]))
        0.75
    """
    if not len(first):
        return 1.0
    both = (first[:, :, None] == second[:, None, :]) & (first >= 0)[:, :, None]
    return float(np.mean(both.any(axis=2).sum(axis=1) / np.maximum((first >= 0).sum(axis=1), 1)))


def recall(lists: np.ndarray, relevant: sp.csr_array) -> float:
    """Share of the relevant items that are listed, averaged over users with relevant items.

    Example:
        >>> recall(np.array([[1, 2]]), sp.csr_array([[0.0, 1.0, 0.0, 1.0]]))
        0.5
    """
    counts = np.diff(relevant.indptr)
    owner = row_of_entries(relevant)
    found = (lists[owner] == relevant.indices[:, None]).any(axis=1)
    hits = np.bincount(owner, weights=found, minlength=len(lists))
    asked = counts > 0
    return float(np.mean(hits[asked] / counts[asked])) if asked.any() else 0.0
