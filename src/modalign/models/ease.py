"""EASE: one linear layer from a user's items to all items, solved in closed form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from scipy.linalg import lapack
from torch import Tensor

from modalign.core.interfaces import Config, Queries, Recommender
from modalign.core.view import TrainView
from modalign.data.interactions import Interactions
from modalign.errors import ConfigError
from modalign.models._registry import register

log = logging.getLogger(__name__)

BLOCK_ROWS = 1024
REG = 200.0
"""Where `reg=auto` starts, and what it takes where it cannot try several."""
AUTO_ITEMS = 10_000
"""Maximum number of items for which `reg=auto` solves more than once."""
BYTES_PER_PAIR = 8 + 4  # the float64 inverse and the float32 weights


class EASEConfig(Config):
    """Options of EASE."""

    reg: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Weight of the squared weights. auto starts at 200 and doubles or halves it as long as that
    is better on validation; it takes 200 without a validation part or above 10,000 items."""
    max_items: Annotated[int, Field(ge=1, le=46_340)] = 40_000
    """Maximum number of items: the weights are a dense items x items matrix."""


@register(
    "ease",
    config=EASEConfig,
    toy={"reg": 50.0},
    family="baseline",
    paper="Steck, WWW 2019",
)
class EASE(Recommender):
    """The linear autoencoder with a zero diagonal that fits the training matrix best.

    With X the binary users x items matrix, the weights minimise `|X - X B|^2 + reg |B|^2`
    subject to `diag(B) = 0`. With `P = (X^T X + reg I)^-1` the solution is
    `B_ij = -P_ij / P_jj` for i != j, and `score(u) = x_u B`.

    Only the history is read, so a user that training never saw is scored in the same way.

    The best `reg` depends on how dense the data are, and it is the only option: with `auto` a few
    values are solved for, and `chosen` says which one was best on validation.

    Limits: time grows with n_items^3 and memory with n_items^2: 12 bytes for each pair of items
    while it is solved (in float64, on the CPU), 4 afterwards. Catalogues with more than
    `max_items` items are rejected.

    It is solved in float64 because items that were chosen by the same users have equal scores:
    rounded from float64 they stay equal, in float32 rounding errors would order them.

    Source: Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019,
    equations 1 to 8.

    Raises:
        ConfigError: the catalogue has more than `max_items` items.

    Example:
        >>> view = TrainView(2, 2, users=torch.tensor([0, 0, 1]), items=torch.tensor([0, 1, 1]))
        >>> model = EASE(EASEConfig(reg=1.0), view)
        >>> model.solve(view)  # X^T X + I = [[2, 1], [1, 3]], its inverse [[3, -1], [-1, 2]] / 5
        >>> [[round(one, 4) for one in row] for row in model.weights.tolist()]
        [[0.0, 0.5], [0.3333, 0.0]]
    """

    needs = ("history",)
    unseen_users = True
    factorised = False

    weights: Tensor

    def __init__(self, config: EASEConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: EASEConfig = config
        n_items = view.n_items
        if n_items > config.max_items:
            needed = BYTES_PER_PAIR * n_items**2 / 2**30
            raise ConfigError(
                f"at most max_items = {config.max_items} items for the dense weights of EASE",
                f"{n_items} items, whose weights need {needed:.3g} GiB while they are solved",
                "filter rare items, choose itemknn, or raise max_items where memory allows",
            )
        # The system allocates numpy's zeros when they are first written: a model that is built
        # only for its description takes no memory.
        self.register_buffer("weights", torch.from_numpy(np.zeros((n_items, n_items), np.float32)))

    def choose(self, view: TrainView, measure: Callable[[], float]) -> Mapping[str, float]:
        """Solve with `reg`, or for auto climb from 200 in steps of a factor of two.

        Args:
            view: training data.
            measure: measures the model as it is on validation; larger is better.

        Returns:
            `reg`, the value that was chosen; nothing where it was given.

        Raises:
            ConfigError: `reg` is too small for the matrix to be invertible.
        """
        if self.config.reg != "auto":
            self.solve(view)
            return {}
        if view.n_items > AUTO_ITEMS:
            log.info("reg = %g: auto tries several values up to %d items", REG, AUTO_ITEMS)
            self.solve(view)
            return {"reg": REG}
        self._solve(view, REG)
        found = {REG: measure()}
        best, weights = REG, self.weights.clone()
        for step in (2.0, 0.5):
            while (value := best * step) not in found:
                self._solve(view, value)
                found[value] = measure()
                if found[value] <= found[best]:
                    break
                best = value
                weights.copy_(self.weights)
        self.weights.copy_(weights)
        tried = ", ".join(f"{reg:g}: {found[reg]:.4f}" for reg in sorted(found))
        log.info("reg = %g is the best on validation (%s)", best, tried)
        return {"reg": best}

    def solve(self, view: TrainView) -> None:
        """Invert the regularised Gram matrix and scale its columns; `reg=auto` counts as 200.

        Raises:
            ConfigError: `reg` is too small for the matrix to be invertible.
        """
        self._solve(view, REG if self.config.reg == "auto" else self.config.reg)

    def _solve(self, view: TrainView, reg: float) -> None:
        matrix = Interactions(view.users.numpy(), view.items.numpy()).csr(
            view.n_users, view.n_items
        )
        inverse = _inverse(_gram(matrix, reg), reg)
        diagonal = inverse.diagonal().copy()
        for start in range(0, view.n_items, BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, view.n_items)
            rows = -_symmetric_rows(inverse, start, end) / diagonal  # P_ij by -P_jj
            self.weights[start:end] = torch.from_numpy(rows)
        self.weights.fill_diagonal_(0.0)

    def score(self, queries: Queries) -> Tensor:
        """`history @ B`, (B, n_items)."""
        scores: Tensor = queries.histories() @ self.weights
        return scores

    def score_pairs(self, queries: Queries, items: Tensor) -> Tensor:
        """Entries of `history @ B` at items (B, K), from the weights of these items only."""
        history = queries.histories()
        owner = torch.repeat_interleave(history.crow_indices().diff())
        needed = self.weights[history.col_indices()[:, None], items[owner]]
        return torch.zeros_like(items, dtype=needed.dtype).index_add_(0, owner, needed)


def _gram(matrix: sp.csr_array, reg: float) -> np.ndarray:
    """`X^T X + reg I`, dense float64 in LAPACK's order of columns, filled block by block."""
    n_items = matrix.shape[1]
    gram = np.empty((n_items, n_items), np.float64, order="F")
    by_item = sp.csr_array(matrix.T)
    for start in range(0, n_items, BLOCK_ROWS):
        block = by_item[start : start + BLOCK_ROWS] @ matrix
        gram[:, start : start + BLOCK_ROWS] = block.toarray().T
    gram[np.diag_indices(n_items)] += reg
    return gram


def _inverse(gram: np.ndarray, reg: float) -> np.ndarray:
    """Inverse of a positive definite matrix in its own memory; only the lower half is filled."""
    factor, failed = lapack.dpotrf(gram, lower=1, clean=0, overwrite_a=1)
    if failed:
        raise ConfigError(
            "a reg that makes the Gram matrix of the items invertible",
            f"reg={reg:g}",
            "choose a larger reg; 50 for sparse data and 200 for dense data are usual",
        )
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    return np.asarray(inverse)


def _symmetric_rows(lower: np.ndarray, start: int, end: int) -> np.ndarray:
    """Rows start to end of the symmetric matrix whose lower half is given."""
    rows = np.hstack([lower[start:end, :end], lower[end:, start:end].T])
    square = rows[:, start:end]
    rows[:, start:end] = np.tril(square) + np.tril(square, -1).T
    return rows
