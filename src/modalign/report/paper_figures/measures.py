"""Measures of trained models: distances and angles of vectors, scores of pairs, densities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from scipy.stats import gaussian_kde, norm

from modalign.core.interfaces import Factors, Queries
from modalign.core.sparse import csr_tensor
from modalign.data.dataset import Dataset
from modalign.experiments.fitted import FittedModel

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

USERS_AT_ONCE = 256
"""For a model without vectors, which scores all items of a user."""
PAIRS_AT_ONCE = 65_536
"""For a model with vectors."""


def vectors(fitted: FittedModel) -> tuple[Floats, Floats] | None:
    """Final vectors of users (n_users, d) and items (n_items, d); None where there are none."""
    if not fitted.model.factorised:
        return None
    with torch.inference_mode():
        users, items = fitted.model.eval().tables()
    # A table may be a parameter itself, which asks for gradients even in inference mode.
    return _numpy(users), _numpy(items)


def _numpy(table: torch.Tensor) -> Floats:
    found: Floats = table.detach().double().cpu().numpy()
    return found


def procrustes(source: Floats, target: Floats) -> tuple[Floats, float]:
    """The rotation and the factor that bring one table nearest to another.

    The rotation R minimises `|source R - target|` in the Frobenius norm over orthogonal matrices
    (Schoenemann 1966, as in `scipy.linalg.orthogonal_procrustes`); with the singular values s of
    `source^T target` the factor `sum(s) / |source|^2` then minimises `|factor source R - target|`.

    Args:
        source: (n, d).
        target: (n, d).

    Returns:
        R, (d, d), and the factor; 0 for a source of zeros.

    Example:
        >>> target = np.array([[0.0, 2.0], [-4.0, 0.0]])
        >>> turn, factor = procrustes(np.array([[1.0, 0.0], [0.0, 2.0]]), target)
        >>> (turn + 0.0).round(6).tolist(), round(float(factor), 6)
        ([[0.0, 1.0], [-1.0, 0.0]], 2.0)
    """
    rotation, singular = orthogonal_procrustes(source, target)
    size = float(np.square(source).sum())
    return np.asarray(rotation, np.float64), float(singular) / size if size else 0.0


def neighbour_cosines(users: Floats, items: Floats, train: sp.csr_array) -> tuple[Floats, Floats]:
    """The mean cosine of every node with its neighbours in the training graph.

    Args:
        users: (n_users, d).
        items: (n_items, d).
        train: binary, (n_users, n_items).

    Returns:
        One number per user and one per item; NaN without neighbours. A vector of zeros has
        no direction: its cosine with anything counts as 0.

    Example:
        >>> train = sp.csr_array([[1.0, 1.0], [0.0, 0.0]])
        >>> both = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> [one.tolist() for one in neighbour_cosines(both, 3 * both, train)]
        [[0.5, nan], [1.0, 0.0]]
    """
    users, items = unit_rows(users), unit_rows(items)
    found = []
    for own, other, graph in ((users, items, train), (items, users, sp.csr_array(train.T))):
        degree = np.diff(graph.indptr)
        total = (own * (graph @ other)).sum(1)
        found.append(np.where(degree > 0, total / np.maximum(degree, 1), np.nan))
    return found[0], found[1]


def unit_rows(table: Floats) -> Floats:
    """Rows of length 1; zeros stay."""
    length = np.linalg.norm(table, axis=1, keepdims=True)
    found: Floats = np.divide(table, length, out=np.zeros_like(table), where=length > 0)
    return found


@dataclass(frozen=True)
class Sample:
    """Pairs to score, the same for every run.

    Attributes:
        users: rows, (n,); of the test part.
        observed: rows of the items that these users have there, (n,).
        random: rows of items drawn from the whole catalogue for the same users, (n,).
        block_users: rows, most active first.
        block_items: rows, most popular first.
    """

    users: Rows
    observed: Rows
    random: Rows
    block_users: Rows
    block_items: Rows


def draw(
    dataset: Dataset, known: NDArray[np.bool_], n: int, block: int, rng: np.random.Generator
) -> Sample:
    """Draw the pairs to score.

    Args:
        dataset: its test part is sampled, without replacement.
        known: mask of the users that can be scored, (n_users,).
        n: maximum number of pairs.
        block: maximum number of users in the block, and of items that have training interactions.
        rng: random generator; nothing else is random.
    """
    test, train = dataset.test, dataset.train
    places = np.flatnonzero(known[test.users])
    chosen = np.sort(rng.choice(places, min(n, len(places)), replace=False))
    active = np.bincount(train.users, minlength=dataset.n_users)
    popular = np.bincount(train.items, minlength=dataset.n_items)
    people, goods = np.flatnonzero(known), np.flatnonzero(popular)
    people = np.sort(rng.choice(people, min(block, len(people)), replace=False))
    goods = np.sort(rng.choice(goods, min(block, len(goods)), replace=False))
    return Sample(
        users=test.users[chosen],
        observed=test.items[chosen],
        random=rng.integers(dataset.n_items, size=len(chosen)),
        block_users=people[np.argsort(-active[people], kind="stable")],
        block_items=goods[np.argsort(-popular[goods], kind="stable")],
    )


def pair_scores(fitted: FittedModel, users: Rows, items: Rows) -> Floats:
    """The model's score of each pair, (n,); the matrix of users x items is never held whole.

    Args:
        fitted: the model.
        users: rows, (n,).
        items: rows, (n,).
    """
    scorer = fitted.model.scorer()
    with torch.inference_mode():
        if isinstance(scorer, Factors):
            rows = (torch.from_numpy(one).split(PAIRS_AT_ONCE) for one in (users, items))
            parts = zip(*rows, strict=True)
            found = [(scorer.users[u] * scorer.items[i]).sum(1) for u, i in parts]
            return _numpy(torch.cat(found))
        had = fitted.dataset.history
        known, trained = had.read("test"), had.trained
        order = np.argsort(users, kind="stable")
        scores = np.empty(len(users))
        people, starts = np.unique(users[order], return_index=True)
        ends = np.append(starts, len(users))
        for first in range(0, len(people), USERS_AT_ONCE):
            some = people[first : first + USERS_AT_ONCE]
            places = order[ends[first] : ends[min(first + USERS_AT_ONCE, len(people))]]
            queries = Queries(
                torch.from_numpy(np.where(trained[some], some, -1)), _rows(known, some)
            )
            block = _numpy(scorer.score(queries))
            scores[places] = block[np.searchsorted(some, users[places]), items[places]]
    return scores


def _rows(matrix: sp.csr_array, rows: Rows) -> torch.Tensor:
    part = matrix[rows]
    arrays = (part.indptr.astype(np.int64), part.indices.astype(np.int64), part.data)
    indptr, indices, values = map(torch.from_numpy, arrays)
    return csr_tensor(indptr, indices, values.clamp(max=1.0).float(), part.shape)


def grid(series: list[Floats], high: float | None = None, points: int = 320) -> Floats:
    """Places at which to draw densities: the range of all values but 0.2% at each end, and a
    margin of 6%.

    Args:
        series: arrays of values.
        high: upper end of the range where the values have one.
        points: number of places.
    """
    ends = np.array([np.quantile(values, (0.002, 0.998)) for values in series])
    low, top = float(ends[:, 0].min()), float(ends[:, 1].max())
    room = 0.06 * (top - low) or 0.05 * abs(top) or 0.5
    return np.linspace(low - room, top + room if high is None else min(top + room, high), points)


def density(values: Floats, places: Floats, high: float | None = None) -> Floats:
    """A Gaussian kernel density with Silverman's bandwidth, at least a step of the grid.

    The bandwidth is `0.9 min(deviation, interquartile range / 1.34) n^(-1/5)` (Silverman 1986,
    equation 3.31).

    Args:
        values: (n,).
        places: where to evaluate, rising by equal steps.
        high: upper end of the values' range, at which kernels are mirrored.
    """
    quarter, three = np.quantile(values, (0.25, 0.75))
    spread = min(values.std(), (three - quarter) / 1.34) or values.std()
    width = max(0.9 * spread * len(values) ** -0.2, places[1] - places[0])
    mirrored = values if high is None else np.append(values, 2 * high - values)
    deviation = mirrored.std(ddof=1)
    found: Floats = (
        gaussian_kde(mirrored, width / deviation)(places)
        if deviation
        else norm.pdf(places, mirrored[0], width)
    )
    return found * (len(mirrored) / len(values))
