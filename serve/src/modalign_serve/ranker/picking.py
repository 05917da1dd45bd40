"""Lists under limits per category and for diversity, from a pool of the best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modalign_serve.ranker.catalogue import Catalogue
from modalign_serve.ranker.diversity import marginal_relevance
from modalign_serve.ranker.rules import Rules, within_limit
from modalign_serve.ranker.topk import best_of_rows

POOL = 100
"""Least size of the pool; five times the list, where that is more."""


def picked(
    cells: np.ndarray, k: int, rules: Rules, catalogue: Catalogue
) -> tuple[np.ndarray, np.ndarray]:
    """Lists under limits and for diversity, from a pool that grows until it suffices."""
    codes = [catalogue.codes(column) for column in rules.at_most_per]
    limits = list(rules.at_most_per.values())
    pool = min(cells.shape[1], max(POOL, 5 * k))
    while True:
        columns, scores = best_of_rows(cells, pool)
        of_pool = [np.where(columns >= 0, code[columns], -1) for code in codes]
        if rules.diversity:
            places = marginal_relevance(
                scores,
                catalogue.vectors(np.maximum(columns, 0)),
                k,
                rules.diversity,
                np.stack(of_pool) if of_pool else None,
                np.array(limits) if limits else None,
            )
        else:
            places = _first(scores, of_pool, limits, k)
        short = (places < 0).any(axis=1) & (columns[:, -1] >= 0)
        if pool == cells.shape[1] or not short.any():
            break
        pool = min(cells.shape[1], 4 * pool)
    safe = np.maximum(places, 0)
    there = places >= 0
    rows = np.where(there, np.take_along_axis(columns, safe, axis=1), -1)
    return rows, np.where(there, np.take_along_axis(scores, safe, axis=1), np.float32(-np.inf))


def _first(
    scores: np.ndarray, codes: Sequence[np.ndarray], limits: Sequence[int], k: int
) -> np.ndarray:
    """Places of the first k of each pool that keep within every limit, -1 where fewer do."""
    kept = scores > -np.inf
    for code, limit in zip(codes, limits, strict=True):
        kept &= within_limit(code, limit)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    places = np.where(np.take_along_axis(kept, order, axis=1), order, -1)
    short = k - places.shape[1]
    return np.pad(places, ((0, 0), (0, short)), constant_values=-1) if short else places
