"""A few long rows as a sum of a dense, a low-rank and a sparse part that are never added up.

Scores of B users over I items are a product of two thin matrices; the first layer of a network on
them needs only the thin matrices, `(left right^T) W = left (right^T W)`, which takes
`(B + I) d h` operations instead of `B I h`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from modalign.graph.propagate import CSR

SMALLEST = 1e-12
"""Squared lengths below this count as zero."""


def wide(x: Tensor) -> Tensor:
    """float32 for half precision; other tensors unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unit_rows(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Rows scaled to unit length; rows shorter than `eps` become zero and get no gradient.

    Division by a clamped length would give a row of zeros a gradient of `1 / eps`.

    Example:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = wide(x)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    # One factor per row needs fewer passes over all numbers than a quotient and a choice.
    return x * torch.where(length > eps, 1 / length.clamp(min=eps), 0.0)


@dataclass(frozen=True)
class Rows:
    """`left right^T + dense + sparse`, (B, I).

    Attributes:
        left: (B, r).
        right: (I, r).
        dense: (B, I), or None.
        sparse: entries by row, shape (B, I), or None. Its values may require a gradient.
    """

    left: Tensor
    right: Tensor
    dense: Tensor | None = None
    sparse: CSR | None = None

    def __len__(self) -> int:
        return len(self.left)

    @property
    def owner(self) -> Tensor:
        """The row of each sparse entry."""
        assert self.sparse is not None
        return self.sparse.owner

    def at(self, owner: Tensor, columns: Tensor) -> Tensor:
        """The low-rank part at single entries, (n,)."""
        rows = functional.embedding(owner, self.left)
        products: Tensor = torch.linalg.vecdot(rows, functional.embedding(columns, self.right))
        return products

    def squared_lengths(self) -> Tensor:
        """`|row|^2` of each row, (B,): by a Gram matrix of the thin part."""
        squares: Tensor = torch.linalg.vecdot(self.left @ (self.right.T @ self.right), self.left)
        if self.dense is not None:
            cross = torch.linalg.vecdot(self.dense @ self.right, self.left)
            squares = squares + 2 * cross + torch.linalg.vector_norm(self.dense, dim=1).square()
        if self.sparse is not None:
            columns, owner = self.sparse.indices.long(), self.owner
            rest = self.at(owner, columns)
            if self.dense is not None:
                rest = rest + self.dense[owner, columns]
            entries = self.sparse.values * (2 * rest + self.sparse.values)
            squares = squares.index_add(0, owner, entries)
        return squares.clamp(min=0.0)

    def times(self, weight: Tensor) -> Tensor:
        """`rows @ weight`, (I, h) to (B, h)."""
        result = self.left @ (self.right.T @ weight)
        if self.dense is not None:
            result = torch.addmm(result, self.dense, weight)
        if self.sparse is not None and len(self.sparse.indices):
            result = result + functional.embedding_bag(
                self.sparse.indices,
                weight,
                self.sparse.indptr,
                mode="sum",
                per_sample_weights=self.sparse.values,
                include_last_offset=True,
            )
        return result

    def scaled(self, factor: Tensor) -> Rows:
        """Each row times its factor, (B,)."""
        column = factor[:, None]
        sparse = self.sparse
        if sparse is not None:
            sparse = sparse._replace(values=sparse.values * factor[self.owner])
        dense = None if self.dense is None else self.dense * column
        return Rows(self.left * column, self.right, dense, sparse)

    def unit(self) -> Rows:
        """Rows of length one; a row of zeros stays zero."""
        squares = self.squared_lengths()
        # Clamped before the root, whose slope at zero is infinite.
        lengths = squares.clamp(min=SMALLEST).sqrt()
        return self.scaled(torch.where(squares > SMALLEST, 1 / lengths, 0.0))

    def detach(self) -> Rows:
        """The same numbers without a gradient."""
        sparse = self.sparse
        if sparse is not None:
            sparse = sparse._replace(values=sparse.values.detach())
        dense = None if self.dense is None else self.dense.detach()
        return Rows(self.left.detach(), self.right.detach(), dense, sparse)

    def __add__(self, other: Rows) -> Rows:
        """The sum; two sparse parts must have the same entries."""
        dense = _sum(self.dense, other.dense)
        sparse = other.sparse if self.sparse is None else self.sparse
        if self.sparse is not None and other.sparse is not None:
            sparse = self.sparse._replace(values=self.sparse.values + other.sparse.values)
        left = torch.cat([self.left, other.left], dim=1)
        return Rows(left, torch.cat([self.right, other.right], dim=1), dense, sparse)

    def join(self) -> Tensor:
        """All parts added, (B, I); for small cases."""
        joined = self.left @ self.right.T
        if self.dense is not None:
            joined = joined + self.dense
        if self.sparse is not None:
            at = (self.owner, self.sparse.indices.long())
            joined = joined.index_put(at, self.sparse.values, accumulate=True)
        return joined


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
