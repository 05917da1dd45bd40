"""A modality as the input of a network: frozen features with replacements for missing rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear as affine

from modalign.core.interfaces import MissingPolicy
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.features.fill import fill, present_mean

PAGE = 4096
"""Bytes. Numbers whose addresses differ by a multiple of it evict each other from the cache."""
GAP = 64
"""Bytes of a cache line."""


def apart(rows: np.ndarray) -> Tensor:
    """The same rows as a tensor; rows whose length is a multiple of 4,096 bytes are copied with a
    gap after each.

    Without the gap all rows map to the same few cache lines, and the product `gradient^T X` for the
    gradient of a weight takes more than twice as long (4,096 columns of float32 on a processor with
    48 KiB of first-level cache). Other rows share memory with the array if it is writable.

    Args:
        rows: (n, d).

    Example:
        >>> apart(np.zeros((3, 2048), np.float32)).stride(), apart(np.zeros((3, 2000))).stride()
        ((2064, 1), (2000, 1))
    """
    n, width = rows.shape
    if width and width * rows.itemsize % PAGE == 0:
        wide = np.empty((n, width + GAP // rows.itemsize), rows.dtype)
        wide[:, :width] = rows
        return torch.from_numpy(wide)[:, :width]
    # torch refuses to share memory that numpy holds read-only.
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


class ModalityInput(nn.Module):
    """Frozen features `X` of all items, with missing rows replaced by a policy.

    `zero`, `mean` and `neighbours` are written into the rows once (`modalign.features.fill`).
    With `learned` the missing rows are one trained vector `v`, which starts at the mean:
    `X W + (1 - present) (v W)'` is then computed without a copy of the raw features.

    The features are a buffer that is not saved: they belong to the data set. If no row is missing
    they share memory with the modality, unless `apart` copies rows of their width.

    Args:
        modality: features of shape (n, d).
        policy: "zero", "mean", "neighbours" or "learned".
        view: the other modalities and the interactions, for `neighbours`.
        k: number of neighbours.

    Shapes:
        features (n, d), present (n,) bool, vector (d,) or None.

    Raises:
        UnknownName: no such policy.

    Example:
        >>> import numpy as np
        >>> text = Modality("text", np.float32([[1, 3], [3, 5], [0, 0]]), np.array([1, 1, 0], bool))
        >>> view = TrainView(1, 3, torch.tensor([0]), torch.tensor([1]), {"text": text})
        >>> ModalityInput(text, "learned", view).rows(torch.tensor([2])).tolist()
        [[2.0, 4.0]]
    """

    features: Tensor
    present: Tensor
    missing: Tensor

    def __init__(
        self,
        modality: Modality,
        policy: MissingPolicy,
        view: TrainView,
        k: int = 10,
    ) -> None:
        super().__init__()
        self.policy = policy
        features = apart(fill(modality, policy, view, k))
        present = torch.from_numpy(modality.present.copy())
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("missing", (~present).nonzero().flatten(), persistent=False)
        self.vector: nn.Parameter | None = None
        if policy == "learned" and len(self.missing):
            self.vector = nn.Parameter(torch.from_numpy(present_mean(modality)))

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.features.shape[1]

    def matmul(self, weight: Tensor) -> Tensor:
        """`X @ weight` of all items: (d, h) to (n, h)."""
        return self._add_learned(self.features @ weight, weight)

    def linear(self, linear: nn.Linear) -> Tensor:
        """`linear(X)` of all items, (n, h)."""
        return self._add_learned(affine(self.features, linear.weight, linear.bias), linear.weight.T)

    def rows(self, index: Tensor) -> Tensor:
        """Rows of `X`, missing ones replaced: (b,) to (b, d)."""
        rows = self.features.index_select(0, index)  # twice as fast as indexing
        if self.vector is None:
            return rows
        return torch.where(self.present[index, None], rows, self.vector)

    def forward(self, index: Tensor | None = None) -> Tensor:
        """All rows, or those of `index`."""
        if index is not None:
            return self.rows(index)
        if self.vector is None:
            return self.features
        return torch.where(self.present[:, None], self.features, self.vector)

    def _add_learned(self, product: Tensor, weight: Tensor) -> Tensor:
        if self.vector is None:
            return product
        # Missing rows of the product are those of zero rows, so that adding replaces them, and the
        # gradient passes through without a copy.
        row = self.vector @ weight
        return product.index_add_(0, self.missing, row.expand(len(self.missing), -1))

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return f"n={len(self)}, dim={self.dim}, missing={len(self.missing)}, policy={self.policy!r}"
