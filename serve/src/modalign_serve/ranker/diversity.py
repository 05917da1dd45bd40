"""Lists that do not say the same thing twice: maximal marginal relevance."""

from __future__ import annotations

import numpy as np


def marginal_relevance(
    scores: np.ndarray,
    vectors: np.ndarray,
    k: int,
    diversity: float,
    codes: np.ndarray | None = None,
    limits: np.ndarray | None = None,
) -> np.ndarray:
    """Places of k items of each pool, chosen one after the other (Carbonell and Goldstein 1998).

    The next item maximises `(1 - diversity) r_i - diversity max_j cos(v_i, v_j)` over the chosen
    j, where r is the score brought to 0..1 within the pool; the first is the best score. Of
    equals the earlier place wins.

    Args:
        scores: of the pool, best first, (B, P); minus infinity where there is nothing.
        vectors: of the pool, (B, P, d); lengths do not matter.
        k: how many.
        diversity: 0 keeps the order of scores, 1 looks at novelty alone after the first.
        codes: of the categories under a limit, int (C, B, P), -1 where there is none.
        limits: at most so many of one code, (C,).

    Returns:
        Places in the pool, int64 (B, k); -1 where nothing is left.
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
        value = relevance if step == 0 else (1 - diversity) * relevance - diversity * nearest
        value = np.where(free, value, -np.inf)
        place = value.argmax(axis=1)
        there = free[every, place]
        chosen[there, step] = place[there]
        free[every, place] = False
        similarity = (unit @ unit[every, place][:, :, None])[:, :, 0]
        np.maximum(nearest, similarity, out=nearest)
        if codes is not None and limits is not None:
            _close(free, codes, limits, chosen, every)
    return chosen


def _scaled(scores: np.ndarray, free: np.ndarray) -> np.ndarray:
    low = np.where(free, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = scores.max(axis=1, keepdims=True, initial=-np.inf)
    spread = np.where(high > low, high - low, 1.0)
    return np.where(free, (scores - np.where(np.isfinite(low), low, 0.0)) / spread, 0.0)


def _close(
    free: np.ndarray, codes: np.ndarray, limits: np.ndarray, chosen: np.ndarray, every: np.ndarray
) -> None:
    """Take out of the running what a category has no more room for."""
    taken = chosen >= 0
    for code, limit in zip(codes, limits, strict=True):
        theirs = np.where(taken, code[every[:, None], np.maximum(chosen, 0)], -1)  # (B, k)
        same = (code[:, :, None] == theirs[:, None, :]).sum(axis=2)
        free &= (code < 0) | (same < limit)
