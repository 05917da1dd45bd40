"""Methods that map a list of items to a user's vector, fitted and measured on known users.

`modalign_serve.ranker.foldin` describes the methods. Options are chosen by the reported metrics
on users that are not part of the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.sparse as sp

from modalign.export.fidelity import best_lists, overlap, recall
from modalign_serve.ranker.foldin import Fold, folded_by_ridge

K = 20
FITTED, MEASURED, TRIED = 20_000, 1_000, 200
"""Maximum numbers of users to fit the map, to measure the methods, and to choose options."""
REGS = (1e-3, 1e-2, 1e-1, 1.0)
WEIGHTS = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class KnownUsers:
    """Users whose trained vectors are known.

    Attributes:
        users: trained vectors of users, (n, d).
        items: trained vectors of items, (n_items, d).
        history: the users' training items, (n, n_items).
        relevant: the users' validation items, (n, n_items).
    """

    users: np.ndarray
    items: np.ndarray
    history: sp.csr_array
    relevant: sp.csr_array

    def at(self, rows: np.ndarray) -> KnownUsers:
        """Some of the users."""
        picked = sp.csr_array(self.history[rows]), sp.csr_array(self.relevant[rows])
        return KnownUsers(self.users[rows], self.items, *picked)

    def means(self) -> np.ndarray:
        """Mean vector of each user's items, (n, d)."""
        counts = np.maximum(np.diff(self.history.indptr), 1)[:, None]
        return np.asarray((self.history @ self.items) / counts, np.float32)


@dataclass(frozen=True)
class FoldIns:
    """Matrices of the methods, and their description in the manifest."""

    matrices: dict[str, np.ndarray]
    report: dict[str, Any]


def fit_fold_ins(
    known: KnownUsers, rng: np.random.Generator, encoder: Fold | None = None
) -> FoldIns:
    """Fit the map and the ridge, measure all methods, and choose the best.

    The best has the highest Recall@20 on validation items if there are any, otherwise the largest
    overlap of its lists with those of the trained vectors. Both and the mean cosine with the
    trained vectors are reported, on users that are not part of the fit.

    Args:
        known: users; those without a history are left out.
        rng: draws the users to fit on and the users to measure.
        encoder: the model's own method, if it has one.
    """
    having = rng.permutation(np.flatnonzero(np.diff(known.history.indptr)))
    n_measured = min(MEASURED, max(1, len(having) // 4))
    judged, fitted = known.at(having[:n_measured]), known.at(having[n_measured:][:FITTED])
    if not len(fitted.users):
        fitted = judged
    trained = best_lists(judged.users, judged.items, judged.history, K)
    weights = _best_map(fitted, judged, trained)
    gram, scale = _best_ridge(fitted, judged, trained)
    inverse = np.linalg.inv(gram.astype(np.float64)).astype(np.float32)
    folded = {
        "map": judged.means() @ weights,
        "ridge": _each(judged, lambda r, v: folded_by_ridge(v, gram, inverse, scale)),
    }
    if encoder is not None:
        folded["encoder"] = _each(judged, encoder)
    report: dict[str, Any] = {name: _measured(judged, f, trained) for name, f in folded.items()}
    by = f"recall@{K}" if judged.relevant.nnz else f"overlap@{K}"
    report = {
        "default": max(folded, key=lambda name: report[name][by]),
        "chosen_by": by,
        "users": len(judged.users),
        "trained": {f"recall@{K}": recall(trained, judged.relevant)},
        **report,
    }
    scales = np.array([scale], np.float32)
    return FoldIns({"map": weights, "gram": gram, "scale": scales}, report)


def _measured(judged: KnownUsers, folded: np.ndarray, trained: np.ndarray) -> dict[str, float]:
    lists = best_lists(folded, judged.items, judged.history, K)
    found = {f"overlap@{K}": overlap(trained, lists), "cosine": _cosine(folded, judged.users)}
    if judged.relevant.nnz:
        found[f"recall@{K}"] = recall(lists, judged.relevant)
    return found


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.mean((first * second).sum(axis=1) / np.maximum(lengths, 1e-12)))


def _each(known: KnownUsers, fold: Fold) -> np.ndarray:
    """Fold in users one by one, as a server does; only for a sample."""
    edges = known.history.indptr
    rows = [known.history.indices[edges[i] : edges[i + 1]] for i in range(len(known.users))]
    return np.stack([fold(one, known.items[one]) for one in rows])


def _score(judged: KnownUsers, folded: np.ndarray, trained: np.ndarray) -> tuple[float, float]:
    found = _measured(judged, folded, trained)
    return found.get(f"recall@{K}", 0.0), found[f"overlap@{K}"]


def _best_map(fitted: KnownUsers, judged: KnownUsers, trained: np.ndarray) -> np.ndarray:
    means = fitted.means().astype(np.float64)
    left, right = means.T @ means, means.T @ fitted.users
    scale = np.trace(left) / len(left) or 1.0
    every = (
        np.linalg.solve(left + reg * scale * np.eye(len(left)), right).astype(np.float32)
        for reg in REGS
    )
    return max(every, key=lambda weights: _score(judged, judged.means() @ weights, trained))


def _best_ridge(
    fitted: KnownUsers, judged: KnownUsers, trained: np.ndarray
) -> tuple[np.ndarray, float]:
    items = judged.items.astype(np.float64)
    whole = items.T @ items
    mean = np.trace(whole) / len(whole) / len(items) or 1.0
    some = np.arange(min(TRIED, len(judged.users)))
    few, lists = judged.at(some), trained[some]
    tried: list[tuple[tuple[float, float], np.ndarray, np.ndarray]] = []
    for weight, reg in product(WEIGHTS, REGS):
        gram = weight * whole + reg * mean * np.eye(len(whole))
        single = gram.astype(np.float32)
        inverse = np.linalg.inv(gram).astype(np.float32)
        folded = _each(few, _ridge(single, inverse))
        tried.append((_score(few, folded, lists), single, folded))
    _, gram, folded = max(tried, key=lambda one: one[0])
    # The length matters when a trained vector is updated by feedback.
    scale = float((folded * few.users).sum() / max(float((folded**2).sum()), 1e-12))
    return gram, scale if scale > 0 else 1.0


def _ridge(gram: np.ndarray, inverse: np.ndarray) -> Fold:
    return lambda rows, vectors: folded_by_ridge(vectors, gram, inverse)
