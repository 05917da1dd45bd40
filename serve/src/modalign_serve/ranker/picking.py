"""Lists with limits per category and diversity, chosen from a pool of the best items."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from modalign_serve.ranker.catalogue import Catalogue
from modalign_serve.ranker.rules import Rules, within_limit
from modalign_serve.ranker.topk import best_of_rows

POOL = 100
"""Minimum size of the pool, which is otherwise five times the length of the list."""
CELLS = 2**21
"""Numbers of the vectors of all pools at a time."""


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
    pool = min(cells.shape[1], max(POOL, 5 * k))
    width = catalogue.vectors(np.zeros(0, np.int64)).shape[1] if rules.diversity else 1
    step = max(1, CELLS // max(1, pool * width))
    parts = [
        _picked(cells[start : start + step], k, rules, catalogue)
        for start in range(0, max(1, len(cells)), step)
    ]
    rows, scores = zip(*parts, strict=True)
    return np.concatenate(rows), np.concatenate(scores)


def _picked(
    cells: np.ndarray, k: int, rules: Rules, catalogue: Catalogue
) -> tuple[np.ndarray, np.ndarray]:
    codes = [catalogue.codes(column) for column in rules.at_most_per]
    limits = list(rules.at_most_per.values())
    pool = min(cells.shape[1], max(POOL, 5 * k))
    while True:
        rules.check_time()
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
                rules.check_time,
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


def marginal_relevance(
    scores: np.ndarray,
    vectors: np.ndarray,
    k: int,
    diversity: float,
    codes: np.ndarray | None = None,
    limits: np.ndarray | None = None,
    check_time: Callable[[], None] | None = None,
) -> np.ndarray:
    """Places of k items of each pool, chosen greedily by maximal marginal relevance.

    The first item has the best score. Each next item i maximises

        (1 - diversity) r_i - diversity max_j cos(v_i, v_j)

    over the items j chosen so far, where r is the score scaled to 0..1 within the pool (Carbonell
    and Goldstein, SIGIR 1998). Among equals the earlier place is chosen.

    Args:
        scores: of the pool, best first, (B, P); minus infinity for an empty place.
        vectors: of the pool, (B, P, d); only their directions matter.
        k: number of items to choose.
        diversity: 0 keeps the order of scores; 1 considers only dissimilarity after the first.
        codes: of the categories under a limit, int (C, B, P), -1 for an item without one.
        limits: maximum number of items with one code, (C,).
        check_time: called before each item is chosen; may raise.

    Returns:
        Places in the pool, int64 (B, k); -1 if nothing is left.

    Example:
        >>> same = np.array([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]])
        >>> marginal_relevance(np.array([[3.0, 2.9, 1.0]]), same, 2, 0.5).tolist()
        [[0, 2]]
    """
    n_rows, width = scores.shape
    lengths = np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
    unit = vectors / lengths
    free = scores > -np.inf
    relevance = _scaled(scores, free)
    nearest = np.full((n_rows, width), -np.inf, np.float32)
    chosen = np.full((n_rows, k), -1, np.int64)
    every = np.arange(n_rows)
    for step in range(min(k, width)):
        if check_time is not None:
            check_time()
        value = relevance if step == 0 else (1 - diversity) * relevance - diversity * nearest
        value = np.where(free, value, -np.inf)
        place = value.argmax(axis=1)
        there = free[every, place]
        chosen[there, step] = place[there]
        free[every, place] = False
        similarity = (unit @ unit[every, place][:, :, None])[:, :, 0]
        np.maximum(nearest, similarity, out=nearest)
        if codes is not None and limits is not None:
            _close(free, codes, limits, chosen, step)
    return chosen


def _scaled(scores: np.ndarray, free: np.ndarray) -> np.ndarray:
    low = np.where(free, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = scores.max(axis=1, keepdims=True, initial=-np.inf)
    spread = np.where(high > low, high - low, 1.0)
    return np.where(free, (scores - np.where(np.isfinite(low), low, 0.0)) / spread, 0.0)


def _close(
    free: np.ndarray, codes: np.ndarray, limits: np.ndarray, chosen: np.ndarray, step: int
) -> None:
    """Mark the items of the categories that the last choice filled as not available.

    Args:
        free: places that may still be chosen, (B, P); changed.
        codes: of the categories, (C, B, P).
        limits: maximum number of items with one code, (C,).
        chosen: places chosen so far, (B, k); -1 for none.
        step: of the last choice.
    """
    last = chosen[:, step]
    before = chosen[:, : step + 1]
    every = np.arange(len(free))
    for code, limit in zip(codes, limits, strict=True):
        new = np.where(last >= 0, code[every, np.maximum(last, 0)], -1)
        held = np.where(before >= 0, code[every[:, None], np.maximum(before, 0)], -1)
        full = (new >= 0) & ((held == new[:, None]).sum(axis=1) >= limit)
        free &= ~(full[:, None] & (code == new[:, None]))
