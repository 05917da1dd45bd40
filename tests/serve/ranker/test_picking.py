from __future__ import annotations

import numpy as np
import pytest

from modalign_serve.ranker.picking import marginal_relevance


def slow(
    scores: np.ndarray, vectors: np.ndarray, k: int, diversity: float, codes: list[int], limit: int
) -> list[int]:
    """Carbonell and Goldstein's rule for one pool, one candidate at a time."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    there = [at for at in range(len(scores)) if scores[at] > -np.inf]
    low, high = scores[there].min(), scores[there].max()
    relevance = (scores - low) / ((high - low) or 1.0)
    chosen: list[int] = []
    while len(chosen) < k:
        best, best_value = -1, -np.inf
        for at in there:
            if at in chosen:
                continue
            if codes[at] >= 0 and sum(codes[one] == codes[at] for one in chosen) >= limit:
                continue
            value = relevance[at]
            if chosen:
                nearest = max(float(unit[at] @ unit[one]) for one in chosen)
                value = (1 - diversity) * relevance[at] - diversity * nearest
            if value > best_value + 1e-9:
                best, best_value = at, value
        if best < 0:
            break
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("limit", [1, 99])
def test_equals_the_slow_rule(diversity: float, limit: int) -> None:
    rng = np.random.default_rng(1)
    scores = -np.sort(-rng.normal(size=(3, 12)), axis=1).astype(np.float32)
    scores[1, 9:] = -np.inf
    vectors = rng.normal(size=(3, 12, 4)).astype(np.float32)
    codes = rng.integers(-1, 3, size=(3, 12))
    found = marginal_relevance(scores, vectors, 6, diversity, codes[None], np.array([limit]))
    for row in range(3):
        wanted = slow(scores[row], vectors[row], 6, diversity, codes[row].tolist(), limit)
        assert found[row].tolist() == wanted + [-1] * (6 - len(wanted))


def test_without_diversity_the_order_stays() -> None:
    scores = np.array([[3.0, 2.0, 1.0]], np.float32)
    found = marginal_relevance(scores, np.ones((1, 3, 2), np.float32), 3, 0.0)
    assert found.tolist() == [[0, 1, 2]]
