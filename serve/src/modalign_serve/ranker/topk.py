"""The k largest of each row, exactly and in the same order every time, with numpy.

Larger scores come first, then smaller columns, also where the k-th and the next score are equal.
`modalign.core.topk` does the same for tensors.

The columns of a row are divided into chunks (column j lies in chunk j mod c). Each of the k chunks
with the largest peaks holds a score of at least the k-th peak, so the k largest scores are all at
least as large. The peaks take one vectorised pass, and few more than k scores reach the k-th peak.
"""

from __future__ import annotations

import numpy as np

CHUNK = 16
LEAST = np.finfo(np.float32).min
"""The smallest finite score: minus infinity is never listed."""


def best_of_row(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest of one row, largest first; fewer if fewer are above minus infinity.

    Example:
        >>> best_of_row(np.array([1.0, 3.0, -np.inf, 3.0], np.float32), 5).tolist()
        [1, 3, 0]
    """
    n_chunks = len(scores) // CHUNK
    bound = LEAST
    if n_chunks >= 2 * k:
        peaks = scores[: CHUNK * n_chunks].reshape(CHUNK, n_chunks).max(axis=0)
        peaks.partition(n_chunks - k)
        bound = max(bound, peaks[n_chunks - k])
    found = np.flatnonzero(scores >= bound)
    values = scores[found]
    if len(found) > CHUNK * k:
        found, values = _thinned(found, values, k)
    return found[np.argsort(-values, kind="stable")[:k]]


def _thinned(found: np.ndarray, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """At most k candidates of one row, in their order: the larger ones, then the first equals."""
    edge = np.partition(values, len(values) - k)[len(values) - k]
    above = values > edge
    level = np.flatnonzero(values == edge)[: k - int(above.sum())]
    above[level] = True
    return found[above], values[above]


def best_of_rows(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and scores of the k largest of every row.

    Args:
        scores: float32, (B, width), without NaN; minus infinity is never listed.
        k: number of columns per row, at least 1; it may exceed the width.

    Returns:
        Columns int64 and scores float32, both (B, k). If a row has fewer than k scores above minus
        infinity, the rest is -1 and minus infinity.

    Example:
        >>> best_of_rows(np.array([[1.0, 3.0, 3.0], [-np.inf, 0.0, -np.inf]], np.float32), 2)[0]
        array([[ 1,  2],
               [ 1, -1]])
    """
    n_rows, width = scores.shape
    columns = np.full((n_rows, k), -1, np.int64)
    values = np.full((n_rows, k), -np.inf, np.float32)
    if n_rows == 1:
        found = best_of_row(scores[0], k)
        columns[0, : len(found)], values[0, : len(found)] = found, scores[0, found]
        return columns, values
    at = np.flatnonzero(scores >= _bounds(scores, k)[:, None])
    owner, column = np.divmod(at, width)
    reached = scores[owner, column]
    counts = np.bincount(owner, minlength=n_rows)
    if counts.max(initial=0) > CHUNK * k:
        # Many equal scores: rare, and slow only for these rows.
        for row in np.flatnonzero(counts > CHUNK * k):
            reached[(owner == row) & ~np.isin(column, best_of_row(scores[row], k))] = -np.inf
        kept = reached > -np.inf
        owner, column, reached = owner[kept], column[kept], reached[kept]
        counts = np.bincount(owner, minlength=n_rows)
    order = np.lexsort((-reached, owner))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = place < k
    order, place = order[kept], place[kept]
    columns[owner[order], place] = column[order]
    values[owner[order], place] = reached[order]
    return columns, values


def _bounds(scores: np.ndarray, k: int) -> np.ndarray:
    """A value that at least k scores of each row reach, or the smallest finite one, (B,)."""
    n_rows, width = scores.shape
    n_chunks = width // CHUNK
    if n_chunks < 2 * k:
        if width <= k:
            return np.full(n_rows, LEAST, np.float32)
        edge = np.partition(scores, width - k, axis=1)[:, width - k]
        return np.maximum(edge, LEAST)
    peaks = scores[:, : CHUNK * n_chunks].reshape(n_rows, CHUNK, n_chunks).max(axis=1)
    peaks.partition(n_chunks - k, axis=1)
    bounds: np.ndarray = np.maximum(peaks[:, n_chunks - k], LEAST)
    return bounds
