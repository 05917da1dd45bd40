"""Lists with limits per category and diversity, chosen from a pool of the best items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modalign_serve.ranker.catalogue import Catalogue
from modalign_serve.ranker.diversity import marginal_relevance
from modalign_serve.ranker.rules import Rules, within_limit
from modalign_serve.ranker.topk import best_of_rows

POOL = 100
"""Minimum size of the pool, which is otherwise five times the length of the list."""


def picked(
    cells: np.ndarray, k: int, rules: Rules, catalogue: Catalogue
) -> tuple[np.ndarray, np.ndarray]:
    """Lists that follow limits and diversity; the pool grows until it suffices.

    Args:
        cells: scores of all items, (B, n_items); minus infinity for items that may not be listed.
        k: length of the lists.
        rules: with `at_most_per` and `diversity`; the others are already applied.
        catalogue: the items.

    Returns:
        Rows int64 and scores float32, both (B, k); -1 and minus infinity if nothing is left.

    Raises:
        UnknownName: a limit for a column that items do not have.
    """
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
    """Places of the first k of each pool that exceed no limit, -1 if there are fewer."""
    kept = scores > -np.inf
    for code, limit in zip(codes, limits, strict=True):
        kept &= within_limit(code, limit)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    places = np.where(np.take_along_axis(kept, order, axis=1), order, -1)
    short = k - places.shape[1]
    return np.pad(places, ((0, 0), (0, short)), constant_values=-1) if short else places
