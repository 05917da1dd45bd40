"""Items as bags of words: counts of words as they are, other features by a codebook."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from modalign.core.modality import Modality
from modalign.errors import DataError

ROWS = 4096
"""Number of rows processed at a time."""


def word_bags(modality: Modality, features: np.ndarray | None = None) -> sp.csr_array:
    """The features of present rows as a sparse matrix, float32 CSR (n, d).

    Args:
        modality: without negative numbers, (n, d).
        features: rows (n, d) that replace the modality's own; all of them count as present.

    Raises:
        DataError: a number is negative.
    """
    whole = modality.features if features is None else features
    blocks = []
    for start in range(0, len(whole), ROWS):
        rows = np.asarray(whole[start : start + ROWS], np.float32)
        if features is None:
            rows = np.where(modality.present[start : start + ROWS, None], rows, np.float32(0))
        if rows.size and rows.min() < 0:
            expected = f"counts or weights of words of at least 0 in modality {modality.name!r}"
            got = f"{rows.min():g}"
            raise DataError(expected, got, "encode it with the encoder `words`, or use a codebook")
        blocks.append(sp.csr_array(rows))
    return sp.csr_array(sp.vstack(blocks, format="csr", dtype=np.float32))


def codebook_bags(
    modality: Modality,
    size: int = 512,
    neighbours: int = 8,
    temperature: float = 0.1,
    seed: int = 0,
    centre: bool = True,
) -> sp.csr_array:
    """Soft assignments of the items to centroids of their features, float32 CSR (n, size).

    K-means of the rows, less their mean and scaled to length 1, gives `size` centroids. The
    weights of an item's `neighbours` nearest centroids by cosine c are `softmax(c / temperature)`
    times `ln((1 + N) / (1 + df)) + 1`, as tf-idf weights a word, where N is the number of items
    and df the number of those with the centroid; rows are scaled to length 1. Rows of items
    without features are empty.

    Args:
        modality: features (n, d), of any sign.
        size: maximum number of centroids; fewer if there are fewer distinct rows.
        neighbours: number of centroids of an item.
        temperature: of the softmax, positive.
        seed: of k-means.
        centre: subtract the mean row; a shift of all features then changes nothing.

    Raises:
        DataError: no item has features.

    Source: visual words by Sivic and Zisserman, "Video Google", ICCV 2003; the soft weights and
    the default sizes are our own choice.

    Example:
        >>> rows = np.float32([[1, 0], [1, 0.1], [0, 1], [0, 0]])
        >>> modality = Modality("image", rows, np.array([True, True, True, False]))
        >>> codebook_bags(modality, size=2, neighbours=1).toarray().round(1).sum(1).tolist()
        [1.0, 1.0, 1.0, 0.0]
    """
    # Heavy, and not needed by most importers of this module.
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    there = np.flatnonzero(modality.present)
    rows = modality.features[there].astype(np.float32)
    if centre and len(rows):
        rows = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows = _unit(rows)
    distinct = len(np.unique(rows, axis=0)) if len(rows) <= 2 * size else len(rows)
    if not distinct:
        raise DataError(
            f"features of modality {modality.name!r}", "no item with any", "encode it again"
        )
    size = min(size, distinct)
    # With several threads the order of sums varies, and one seed gives several codebooks.
    with threadpool_limits(limits=1):
        fitted = KMeans(size, n_init=1, max_iter=50, random_state=seed).fit(rows)
    centroids = _unit(fitted.cluster_centers_.astype(np.float32))
    kept = min(neighbours, size)
    columns = np.empty((len(rows), kept), np.int64)
    weights = np.empty((len(rows), kept), np.float32)
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        cosine = rows[part] @ centroids.T
        best = np.argpartition(-cosine, kept - 1, axis=1)[:, :kept]
        columns[part] = best
        near = np.take_along_axis(cosine, best, axis=1) / temperature
        near = np.exp(near - near.max(axis=1, keepdims=True))
        weights[part] = near / near.sum(axis=1, keepdims=True)
    found = np.bincount(columns.ravel(), minlength=size)
    weights = weights * (np.log((1 + len(rows)) / (1 + found)) + 1).astype(np.float32)[columns]
    shape = (len(modality), size)
    matrix = sp.csr_array(
        (_unit(weights).ravel(), (np.repeat(there, kept), columns.ravel())), shape=shape
    )
    matrix.sort_indices()
    return matrix


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), np.float32)
