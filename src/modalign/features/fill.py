"""What stands in for a missing row: the missing-modality policies that need no training.

The fourth policy, a learned vector, is a parameter and so lives in
`modalign.nn.modality_input`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike

from modalign.core.modality import Modality
from modalign.core.topk import MASKED, top
from modalign.errors import ConfigError, UnknownName

FillPolicy = Literal["zero", "mean", "neighbours"]

ROWS = 4096
"""Rows that are copied at a time to sum them."""
SCORES = 4_000_000
"""Similarities (missing rows x all rows) that are held at a time."""


def present_mean(modality: Modality) -> np.ndarray:
    """Mean of the rows that are there, float32, shape (d,); zeros where none is."""
    total = np.zeros(modality.dim)
    for start in range(0, len(modality), ROWS):
        rows = slice(start, start + ROWS)
        total += modality.features[rows][modality.present[rows]].sum(axis=0, dtype=np.float64)
    return (total / max(1, int(modality.present.sum()))).astype(np.float32)


def fill(
    modality: Modality,
    policy: FillPolicy,
    *,
    others: Mapping[str, Modality] | None = None,
    users: ArrayLike | None = None,
    items: ArrayLike | None = None,
    k: int = 10,
) -> np.ndarray:
    """Features with every missing row replaced by a policy.

    `zero` writes zeros, `mean` the mean of the rows that are there. `neighbours` writes the
    mean of the `k` items nearest by the mean cosine over the other modalities that both items
    have; an item without any other modality takes the `k` items with which it shares most
    users, and an item without either the mean. Ties go to the smaller row.

    Args:
        modality: features of shape (n, d); rows that are there are never changed.
        policy: one of the three.
        others: the other modalities of the same n items, by name (for `neighbours`).
        users: users' rows of the training interactions (for `neighbours`).
        items: items' rows of the same, parallel to `users`.
        k: how many neighbours.

    Returns:
        float32, shape (n, d). Where nothing is missing, the modality's own array, not a copy:
        do not write to it.

    Raises:
        UnknownName: no such policy.
        ConfigError: `k` is not positive, or another modality has other rows.

    Limits:
        `neighbours` costs (missing rows) x n x (width of the others) multiplications; at most
        `SCORES` similarities are held at a time.

    Example:
        >>> import numpy as np
        >>> x = Modality("text", np.float32([[1, 3], [3, 5], [0, 0]]), np.array([1, 1, 0], bool))
        >>> fill(x, "mean")[2].tolist()
        [2.0, 4.0]
    """
    if policy not in get_args(FillPolicy):
        raise UnknownName("policy for missing rows", policy, get_args(FillPolicy))
    if k < 1:
        raise ConfigError("1 or more neighbours", f"k={k}", "give a positive k")
    if modality.present.all():
        return modality.features.astype(np.float32, copy=False)
    out = np.array(modality.features, dtype=np.float32)
    missing = np.flatnonzero(~modality.present)
    out[missing] = 0.0 if policy == "zero" else present_mean(modality)
    if policy == "neighbours" and modality.present.any():
        todo = _fill_by_features(out, modality, missing, list((others or {}).values()), k)
        if users is not None and items is not None and len(todo):
            _fill_by_users(out, modality, todo, np.asarray(users), np.asarray(items), k)
    return out


def _fill_by_features(
    out: np.ndarray, modality: Modality, missing: np.ndarray, others: list[Modality], k: int
) -> np.ndarray:
    """Fill what the other modalities can tell of; return the rows they cannot."""
    for other in others:
        if len(other) != len(modality) or other.entity != modality.entity:
            raise ConfigError(
                f"other modalities of the same {len(modality)} {modality.entity}s",
                f"modality {other.name!r} of {len(other)} {other.entity}s",
                "give modalities of one data set",
            )
    inverse_norms = [_inverse_norms(other.features) for other in others]
    left = []
    for block in _blocks(missing, len(modality)):
        total = np.zeros((len(block), len(modality)), np.float32)
        count = np.zeros((len(block), len(modality)), np.float32)
        for other, inverse in zip(others, inverse_norms, strict=True):
            both = other.present[block, None] & other.present[None, :]
            cosine = other.features[block] @ other.features.T
            cosine *= inverse[block, None] * inverse[None, :]
            total += np.where(both, cosine, np.float32(0))
            count += both
        count[:, ~modality.present] = 0
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = np.where(count > 0, total / count, -np.inf)
        left.append(block[~_write_means(out, modality, block, scores, k)])
    return np.concatenate(left)


def _fill_by_users(
    out: np.ndarray,
    modality: Modality,
    missing: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    k: int,
) -> None:
    """Fill by the items with most common users."""
    shape = (len(modality), int(users.max(initial=0)) + 1)
    matrix = sp.csr_array((np.ones(len(users), np.float32), (items, users)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    for block in _blocks(missing, len(modality)):
        common = (matrix[block] @ matrix.T).toarray()
        common[:, ~modality.present] = 0
        _write_means(out, modality, block, np.where(common > 0, common, -np.inf), k)


def _write_means(
    out: np.ndarray, modality: Modality, block: np.ndarray, scores: np.ndarray, k: int
) -> np.ndarray:
    """Write the mean of each row's k best scored items; return which rows had any."""
    values, best = (part.numpy() for part in top(torch.from_numpy(scores), k))
    rows, places = np.nonzero(values > MASKED)
    columns = best[rows, places]
    counts: np.ndarray = np.bincount(rows, minlength=len(block))
    weights = (1.0 / np.maximum(1, counts)).astype(np.float32)[rows]
    mixing = sp.csr_array((weights, (rows, columns)), shape=scores.shape)
    found: np.ndarray = counts > 0
    means: np.ndarray = mixing @ modality.features
    out[block[found]] = means[found]
    return found


def _inverse_norms(features: np.ndarray) -> np.ndarray:
    """One over the Euclidean norm of each row, 0 for a row of zeros."""
    norms = np.sqrt(np.einsum("nd,nd->n", features, features))
    inverse: np.ndarray = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return inverse


def _blocks(rows: np.ndarray, n: int) -> list[np.ndarray]:
    size = max(1, SCORES // max(1, n))
    return [rows[start : start + size] for start in range(0, len(rows), size)]
