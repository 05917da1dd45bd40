"""Slow and plain versions of what the library does quickly, to hold it against.

Dense matrices and loops, written from the definitions and sharing no code with what they
check. For toys: nothing here should meet a real catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.nn.bags import Bags

SMALL = TrainView(2, 3, users=torch.tensor([0, 0, 1, 1]), items=torch.tensor([0, 1, 1, 2]))
"""Two users, three items, four interactions; the numbers of several tests were computed by hand."""
SMALL_VECTORS = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 2], [2, -1]], dtype=torch.float64)
"""Vectors of its users, then of its items."""
SMALL_TRIPLES = Batch(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 0]))
"""Users, chosen items and unseen items."""


def interaction_matrix(view: TrainView) -> np.ndarray:
    """Users x items, one where there is a training interaction, float64.

    Example:
        >>> from modalign.testing.toy import tiny_view
        >>> interaction_matrix(tiny_view()).astype(int).tolist()
        [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]]
    """
    matrix = np.zeros((view.n_users, view.n_items))
    for user, item in zip(view.users.tolist(), view.items.tolist(), strict=True):
        matrix[user, item] = 1.0
    return matrix


def light_propagation(edges: np.ndarray, vectors: np.ndarray, n_layers: int) -> np.ndarray:
    """Mean over layers 0 to `n_layers` of `A^l vectors`, A the symmetric normalised graph.

    Args:
        edges: users x items, one where there is an edge.
        vectors: (n_users + n_items, d).
        n_layers: steps of propagation.

    Source: He et al., "LightGCN", SIGIR 2020, equations 7 and 8.

    Example:
        >>> light_propagation(np.ones((1, 1)), np.array([[0.0], [1.0]]), 1).ravel().tolist()
        [0.5, 0.5]
    """
    n_users, n_items = edges.shape
    adjacency = np.zeros((n_users + n_items, n_users + n_items))
    for user in range(n_users):
        for item in range(n_items):
            if edges[user, item]:
                weight = 1 / math.sqrt(edges[user].sum() * edges[:, item].sum())
                adjacency[user, n_users + item] = adjacency[n_users + item, user] = weight
    layers = [vectors]
    for _ in range(n_layers):
        layers.append(adjacency @ layers[-1])
    return np.asarray(np.mean(layers, axis=0))


def neighbour_graph(features: np.ndarray, present: np.ndarray, k: int) -> np.ndarray:
    """Items x items: each row 1 / k at the item's k nearest by cosine, itself among them.

    Rows that are not present are zero.

    Example:
        >>> neighbour_graph(np.eye(2), np.array([True, False]), 1).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    graph = np.zeros((len(features), len(features)))
    there = [row for row in range(len(features)) if present[row]]
    for row in there:
        cosine = {
            other: features[row]
            @ features[other]
            / math.hypot(*features[row])
            / math.hypot(*features[other])
            for other in there
        }
        nearest = sorted(there, key=lambda other: (other != row, -cosine[other], other))[:k]
        for other in nearest:
            graph[row, other] = 1 / len(nearest)
    return graph


def item_graph(view: TrainView, weights: dict[str, float], k: int) -> np.ndarray:
    """Rows are means over the modalities an item has; without any, the item itself."""
    graphs = {
        name: neighbour_graph(m.features.astype(float), m.present, k)
        for name, m in view.modalities.items()
    }
    total = np.zeros((view.n_items, view.n_items))
    for item in range(view.n_items):
        has = [name for name in weights if view.modalities[name].present[item] and weights[name]]
        for name in has:
            share = weights[name] / sum(weights[other] for other in has)
            total[item] += share * graphs[name][item]
        if not has:
            total[item, item] = 1.0
    return total


def ease_weights(matrix: np.ndarray, reg: float) -> np.ndarray:
    """Items x items: column j is the ridge regression of item j on all *other* items.

    That is the problem EASE solves, one column at a time and without Lagrange multipliers.

    Example:
        >>> ease_weights(np.array([[1.0, 1.0], [0.0, 1.0]]), 1.0).round(4).tolist()
        [[0.0, 0.5], [0.3333, 0.0]]
    """
    n_items = matrix.shape[1]
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        others = [other for other in range(n_items) if other != item]
        x, y = matrix[:, others], matrix[:, item]
        weights[others, item] = np.linalg.solve(x.T @ x + reg * np.eye(len(others)), x.T @ y)
    return weights


def item_knn_scores(
    similarities: np.ndarray, history: Sequence[int], neighbours: int
) -> list[float]:
    """For each item, the sum of its similarities to those of its nearest that are in `history`.

    Args:
        similarities: items x items; an item's likeness to itself is not looked at.
        history: rows of items.
        neighbours: how many of the nearest count; of equals, the lower rows.

    Example:
        >>> item_knn_scores(np.array([[1.0, 0.5], [0.5, 1.0]]), [0], 1)
        [0.0, 0.5]
    """
    scores = []
    for item in range(len(similarities)):
        others = [other for other in range(len(similarities)) if other != item]
        nearest = _ranked(similarities[:, item], others)[:neighbours]
        scores.append(float(sum(similarities[o, item] for o in nearest if o in set(history))))
    return scores


def bpr(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Mean over pairs of `-log(1 / (1 + exp(-(positive - negative))))`.

    Example:
        >>> round(bpr([1.0], [1.0]), 4)
        0.6931
    """
    terms = [
        -math.log(1 / (1 + math.exp(-(p - n)))) for p, n in zip(positive, negative, strict=True)
    ]
    return sum(terms) / len(terms)


def recall_and_ndcg(
    scores: np.ndarray, seen: np.ndarray, wanted: np.ndarray, k: int
) -> tuple[float, float]:
    """Recall@k and NDCG@k over users who want something, all items ranked, the seen left out.

    Of equal scores the lower row ranks first.

    Args:
        scores: users x items.
        seen: users x items, bool; left out of the ranking.
        wanted: users x items, bool.
        k: length of the list.

    Example:
        >>> yes = np.array([[False, True, False]])
        >>> recall_and_ndcg(np.array([[3.0, 1.0, 2.0]]), np.zeros((1, 3), bool), yes, 3)
        (1.0, 0.5)
    """
    recalls, gains = [], []
    for user in range(len(scores)):
        if not wanted[user].any():
            continue
        open_items = [item for item in range(scores.shape[1]) if not seen[user, item]]
        best = _ranked(scores[user], open_items)[:k]
        hits = [bool(wanted[user, item]) for item in best]
        n_wanted = int(wanted[user].sum())
        ideal = sum(1 / math.log2(place + 2) for place in range(min(k, n_wanted)))
        recalls.append(sum(hits) / n_wanted)
        gains.append(sum(hit / math.log2(p + 2) for p, hit in enumerate(hits)) / ideal)
    return sum(recalls) / len(recalls), sum(gains) / len(gains)


def _ranked(values: np.ndarray, rows: Sequence[int]) -> list[int]:
    """Rows by falling value, lower rows first among equals."""
    return sorted(rows, key=lambda row: (-values[row], row))


def bags_of(matrix: Tensor) -> Bags:
    """The entries of a dense matrix that are not zero.

    Example:
        >>> bags_of(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).starts.tolist()
        [0, 1, 1]
    """
    rows, columns = matrix.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(matrix))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Bags(rows, columns, matrix[rows, columns], starts, matrix.shape[1])
