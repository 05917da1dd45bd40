"""The content adapter: maps features of items without interactions to item vectors.

The items' features, unit rows reduced by a truncated singular value decomposition of each
modality, are mapped to the item vectors by ridge regression, then also with a second term:
`mean |v^ - v|^2 + penalty + weight * S(v^, v)`, where S is the debiased Sinkhorn divergence between
the predicted and the true vectors of a batch, in units of the vectors' spread; with and without a
small network in addition to the linear map. A regression shrinks its predictions to the mean, so
that new items rank low; the divergence favours vectors with the distribution of trained ones.

All options are chosen on held-out items: they are removed from the catalogue, added again with the
vectors of the adapter, and the ranking of all items is measured on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from modalign import ot
from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.core.sparse import row_of_entries
from modalign.export.fidelity import best_lists, recall
from modalign_serve.ranker.adapter import unit_rows

K = 20
RANK = 256
"""Number of columns to which a modality is reduced for the regression."""
SHOWN = 64
"""Number of columns to which a modality is reduced for explanations."""
REGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
HIDDEN = 64
STEPS, BATCH, RATE = 100, 256, 1e-2
HELD_OUT = 0.2
JUDGES = 1_000
"""Maximum number of users whose rankings are measured."""


@dataclass(frozen=True)
class ReducedFeatures:
    """The features of all items, reduced.

    Attributes:
        bases: by name, (width of the modality, rank).
        centres: mean unit row of the training items, by name.
        x: inputs of all items, (n_items, sum of ranks + number of modalities).
        splits: columns of x of each modality, the last one says whether it is present.
        shown: reduced unit rows for explanations, by name.
    """

    names: tuple[str, ...]
    bases: Mapping[str, np.ndarray]
    centres: Mapping[str, np.ndarray]
    x: np.ndarray
    splits: Mapping[str, slice]
    shown: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Map:
    """`v = x W + tanh(x A + a) B + b` on reduced inputs."""

    linear: np.ndarray
    bias: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    out: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Vectors of inputs x."""
        bent = np.tanh(x @ self.hidden + self.hidden_bias) @ self.out
        return np.asarray(x @ self.linear + self.bias + bent, np.float32)


@dataclass(frozen=True)
class Choice:
    """Options of an adapter.

    Attributes:
        reg: regularisation of the ridge, in units of the mean squared singular value of x.
        transport: weight of the divergence.
    """

    reg: float
    transport: float = 0.0
    hidden: int = 0

    def described(self) -> dict[str, Any]:
        """For the manifest."""
        return {"reg": self.reg, "transport_weight": self.transport, "hidden": self.hidden}


def choices(reg: float) -> list[Choice]:
    """Options to try in addition to the ridges, where `reg` is the best of these."""
    return [
        Choice(reg, 1.0),
        Choice(reg, 4.0),
        Choice(10 * reg, 4.0),
        Choice(reg, 4.0, HIDDEN),
        Choice(10 * reg, 4.0, HIDDEN),
    ]


def read_content(
    modalities: Mapping[str, Modality], warm: np.ndarray, seed: int
) -> ReducedFeatures:
    """Reduce all item modalities.

    Args:
        modalities: item features by name.
        warm: rows of the items that determine the reduction.
        seed: seed of the randomised decomposition.
    """
    names = tuple(sorted(modalities))
    bases, centres, reduced, shown, splits = {}, {}, {}, {}, {}
    start = 0
    for name in names:
        modality = modalities[name]
        there = warm[modality.present[warm]]
        unit = unit_rows(modality.features)
        centre = unit[there].mean(axis=0) if len(there) else np.zeros(modality.dim, np.float32)
        rank = max(1, min(RANK, len(there) - 1, modality.dim))
        bases[name] = _basis(unit[there] - centre, rank, seed)
        centres[name] = centre.astype(np.float32)
        reduced[name] = (unit - centre) @ bases[name] * modality.present[:, None]
        shown_basis = _basis(unit[there], min(SHOWN, rank), seed)
        shown[name] = unit_rows(unit @ shown_basis * modality.present[:, None])
        bases[f"shown.{name}"] = shown_basis
        splits[name] = slice(start, start + rank + 1)
        start += rank + 1
    parts = [
        np.concatenate([reduced[name], modalities[name].present[:, None]], axis=1) for name in names
    ]
    x = np.concatenate(parts, axis=1).astype(np.float32)
    return ReducedFeatures(names, bases, centres, x, splits, shown)


def _basis(rows: np.ndarray, rank: int, seed: int) -> np.ndarray:
    if not len(rows):
        return np.zeros((rows.shape[1], rank), np.float32)
    state = seeds.derive(seed, "export", "svd") % 2**32
    right = randomized_svd(rows, n_components=rank, n_iter=3, random_state=state)[2]
    return np.ascontiguousarray(right.T, np.float32)


def fit_map(x: np.ndarray, vectors: np.ndarray, choice: Choice, seed: int) -> Map:
    """Train one adapter.

    Args:
        x: inputs, (n, p).
        vectors: targets, (n, d).
        choice: the options.
        seed: seed of the network's initial weights and of the batches.
    """
    if choice.transport or choice.hidden:
        return _aligned(x, vectors, choice, seed)
    linear, bias = _ridge(x, vectors, choice.reg)
    hidden = np.zeros((x.shape[1], 0), np.float32)
    return Map(linear, bias, hidden, np.zeros(0, np.float32), np.zeros((0, len(bias)), np.float32))


def _ridge(x: np.ndarray, vectors: np.ndarray, reg: float) -> tuple[np.ndarray, np.ndarray]:
    centre, mean = x.mean(axis=0, dtype=np.float64), vectors.mean(axis=0, dtype=np.float64)
    inner = x - centre
    left = inner.T @ inner
    left.flat[:: len(left) + 1] += reg * np.trace(left) / len(left) + 1e-8
    linear = np.linalg.solve(left, inner.T @ (vectors - mean))
    return linear.astype(np.float32), (mean - centre @ linear).astype(np.float32)


def _aligned(x: np.ndarray, vectors: np.ndarray, choice: Choice, seed: int) -> Map:
    """Gradient steps on the regression and the divergence, starting from the ridge."""
    linear, bias = _ridge(x, vectors, choice.reg)
    rng = seeds.torch_generator(seed, "export", "adapter")
    given, targets = torch.from_numpy(x), torch.from_numpy(np.array(vectors, np.float32))
    spread = float((targets - targets.mean(0)).square().sum(1).mean().sqrt()) or 1.0
    targets = targets / spread
    width = x.shape[1]
    params = [
        torch.from_numpy(linear / spread),
        torch.from_numpy(bias / spread),
        torch.randn(width, choice.hidden, generator=rng),
        torch.zeros(choice.hidden),
        torch.zeros(choice.hidden, vectors.shape[1]),
    ]
    for one in params:
        one.requires_grad_()
    penalty = choice.reg * float((x - x.mean(axis=0)).var(axis=0).sum()) / width
    optimizer = torch.optim.Adam(params, lr=RATE)
    for _ in range(STEPS):
        batch = torch.randperm(len(x), generator=rng)[:BATCH]
        optimizer.zero_grad(set_to_none=True)
        guess, truth = _forward(params, given[batch]), targets[batch]
        loss = (guess - truth).square().sum(1).mean()
        loss = loss + penalty * (params[0].square().sum() + 10 * params[4].square().sum())
        if choice.transport:
            gap = ot.sinkhorn_divergence(guess, truth, reg=0.1, tolerance=1e-2, max_iterations=50)
            loss = loss + choice.transport * gap.value
        loss.backward()
        optimizer.step()
    linear_, bias_, hidden, hidden_bias, out = (one.detach().numpy() for one in params)
    return Map(linear_ * spread, bias_ * spread, hidden, hidden_bias, out * spread)


def _forward(params: list[Tensor], x: Tensor) -> Tensor:
    linear, bias, hidden, hidden_bias, out = params
    guess = x @ linear + bias
    return guess + torch.tanh(x @ hidden + hidden_bias) @ out if out.numel() else guess


@dataclass(frozen=True)
class Trained:
    """An adapter with its measurements.

    Attributes:
        matrices: in the form of `modalign_serve.ranker.adapter.ContentAdapter`.
        report: entries of the manifest.
    """

    matrices: dict[str, np.ndarray]
    report: dict[str, Any]


def train_adapter(
    content: ReducedFeatures, users: np.ndarray, items: np.ndarray, history: sp.csr_array, seed: int
) -> Trained:
    """Choose and train an adapter on the items that have interactions.

    Args:
        content: reduced features of all items.
        users: trained vectors of users, (n_users, d).
        items: trained vectors of items, (n_items, d).
        history: training interactions, (n_users, n_items).
        seed: seed of all random choices.
    """
    counts = np.bincount(history.indices, minlength=len(items))
    flags = [split.stop - 1 for split in content.splits.values()]
    warm = np.flatnonzero((counts > 0) & content.x[:, flags].any(axis=1))
    rng = seeds.numpy_generator(seed, "export", "held-out")
    held = np.sort(rng.permutation(warm)[: max(1, round(HELD_OUT * len(warm)))])
    learnt = np.setdiff1d(warm, held)
    if len(learnt) < 2:
        learnt = warm
    judge = _Judge(users, items, history, held, rng)

    def judged(choice: Choice) -> tuple[float, Choice]:
        found = fit_map(content.x[learnt], items[learnt], choice, seed)
        return judge(found(content.x[held])), choice

    tried = [judged(Choice(reg)) for reg in REGS]
    best_reg = max(tried, key=lambda one: one[0])[1].reg
    tried += [judged(choice) for choice in choices(best_reg)]
    score, best = max(tried, key=lambda one: one[0])
    found = fit_map(content.x[warm], items[warm], best, seed)
    report = {
        "modalities": list(content.names),
        "trained_items": len(warm),
        **best.described(),
        "held_out_items": len(held),
        f"recall@{K}": score,
        f"recall@{K} of the trained vectors": judge(items[held]),
        f"recall@{K} of random vectors": judge(items[rng.permutation(learnt)[: len(held)]]),
        "tried": [{**choice.described(), f"recall@{K}": one} for one, choice in tried],
    }
    return Trained(unreduced(found, content), report)


class _Judge:
    """Recall@20 of held-out items among all items, with given vectors for the held-out ones."""

    def __init__(
        self,
        users: np.ndarray,
        items: np.ndarray,
        history: sp.csr_array,
        held: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        relevant = sp.csr_array(sp.csc_array(history)[:, held])
        having = np.flatnonzero(np.diff(relevant.indptr))
        some = np.sort(rng.permutation(having)[:JUDGES])
        self.items, self.held, self.users = items, held, users[some]
        theirs = sp.csr_array(relevant[some])
        owner, columns = row_of_entries(theirs), held[theirs.indices]
        ones = np.ones(len(owner), np.float32)
        shape = (len(some), len(items))
        self.relevant = sp.csr_array((ones, (owner, columns)), shape=shape)
        self.seen = sp.csr_array(history[some] - self.relevant)
        self.seen.eliminate_zeros()

    def __call__(self, vectors: np.ndarray) -> float:
        """Recall with these vectors of the held-out items."""
        items = self.items.copy()
        items[self.held] = vectors
        return recall(best_lists(self.users, items, self.seen, K), self.relevant)


def unreduced(found: Map, content: ReducedFeatures) -> dict[str, np.ndarray]:
    """The map for unreduced features: its matrices are multiplied by the reduction."""
    linear: list[np.ndarray] = []
    hidden: list[np.ndarray] = []
    for name in content.names:
        split, basis = content.splits[name], content.bases[name]
        for parts, matrix in ((linear, found.linear), (hidden, found.hidden)):
            rows = matrix[split]
            parts += [basis @ rows[:-1], rows[-1:]]
    return {
        "linear": np.concatenate(linear).astype(np.float32),
        "bias": found.bias,
        "hidden": np.concatenate(hidden).astype(np.float32),
        "hidden_bias": found.hidden_bias,
        "out": found.out,
        **{f"centre.{name}": content.centres[name] for name in content.names},
    }
