"""A block of problems of one size in the layout in which products with it are fast.

Many tiny problems are stored with the problem as the last dimension, so that vector instructions
run along problems; larger ones with the problem first, so that a product is one pass of the
matrix library over memory. Row potentials are (n, B) in the first layout and (B, n) in the
second; all other code is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modalign.ot.result import MOST

_TINY_CELLS = 1024  # a problem with at most this number of cells counts as tiny
_MANY_PROBLEMS = 32
_LEAST = {torch.float32: -60.0, torch.float64: -300.0}  # smaller exponents of a kernel are dropped


@dataclass(frozen=True)
class ProblemBlock:
    """Matrices of a block: `-cost / reg`, or a kernel.

    Args:
        cells: (n, m, B) where `last`, else (B, n, m).
        last: whether the problem is the last dimension.
    """

    cells: Tensor
    last: bool
    check: ClassVar[int] = 5  # sweeps between checks of the errors

    @classmethod
    def of(cls, cells: Tensor) -> ProblemBlock:
        """The block of (B, n, m) numbers, in the layout for these sizes."""
        n_problems, n, m = cells.shape
        last = n * m <= _TINY_CELLS and n_problems >= _MANY_PROBLEMS
        return cls(cells.permute(1, 2, 0).contiguous() if last else cells.contiguous(), last)

    @property
    def tiny(self) -> bool:
        """Whether the problems have few cells, in either layout."""
        n, m = self.cells.shape[:2] if self.last else self.cells.shape[1:]
        return n * m <= _TINY_CELLS

    @property
    def batch(self) -> int:
        """The dimension of problems in vectors."""
        return 1 if self.last else 0

    @property
    def point(self) -> int:
        """The dimension of points in vectors."""
        return 0 if self.last else 1

    def turn(self, vector: Tensor) -> Tensor:
        """A (B, n) vector in this layout, or one of this layout as (B, n)."""
        return vector.t().contiguous() if self.last else vector.contiguous()

    def buffer(self) -> Tensor:
        """A buffer for one product, cell by cell."""
        return torch.empty_like(self.cells)

    def largest(self) -> float:
        """The largest cost over reg."""
        return float(-self.cells.amin())

    def take(self, index: Tensor) -> ProblemBlock:
        """Some of the problems."""
        return ProblemBlock(self.cells.index_select(2 if self.last else 0, index), self.last)

    def keep(self, index: Tensor) -> Callable[[Tensor], Tensor]:
        """The function that selects the same problems of a vector."""
        return lambda vector: vector.index_select(self.batch, index)

    def across_rows(self, row: Tensor) -> Tensor:
        """A row potential, broadcast over columns."""
        return row.unsqueeze(1 if self.last else 2)

    def across_columns(self, column: Tensor) -> Tensor:
        """A column potential, broadcast over rows."""
        return column.unsqueeze(0 if self.last else 1)

    def soft_rows(self, weight: Tensor, buffer: Tensor, heat: float = 1.0) -> Tensor:
        """`-heat log sum_l exp((w_l + cell_kl) / heat)` for each row; weights may be -inf."""
        torch.add(self.across_columns(weight), self.cells, out=buffer)
        return soft_min(buffer, 1 if self.last else 2, heat)

    def soft_columns(self, weight: Tensor, buffer: Tensor, heat: float = 1.0) -> Tensor:
        """`-heat log sum_k exp((w_k + cell_kl) / heat)` for each column."""
        torch.add(self.across_rows(weight), self.cells, out=buffer)
        return soft_min(buffer, 0 if self.last else 1, heat)

    def kernel(self, f: Tensor, g: Tensor) -> ProblemBlock:
        """The block of `exp(f_k + g_l + cell_kl)`, with 0 for negligible numbers."""
        cells = (self.cells + self.across_rows(f)).add_(self.across_columns(g))
        # Subnormal numbers make products about a hundred times slower.
        least = _LEAST[cells.dtype]
        torch.threshold_(cells, least, -float("inf")).clamp_max_(MOST)
        return ProblemBlock(cells.exp_(), self.last)

    def near(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor, ProblemBlock]:
        """A kernel and the potentials that it contains, close to those given."""
        return f, g, self.kernel(f, g)

    def rows(self, v: Tensor, buffer: Tensor) -> Tensor:
        """`sum_l cell_kl v_l`; the buffer is for the layout without a library product."""
        if self.last:
            return torch.sum(torch.mul(self.cells, v.unsqueeze(0), out=buffer), 1)
        # One row times a matrix; a matrix times one column would be slow.
        return torch.bmm(v.unsqueeze(1), self.cells.transpose(1, 2)).squeeze(1)

    def columns(self, u: Tensor, buffer: Tensor) -> Tensor:
        """`sum_k cell_kl u_k`."""
        if self.last:
            return torch.sum(torch.mul(self.cells, u.unsqueeze(1), out=buffer), 0)
        return torch.bmm(u.unsqueeze(1), self.cells).squeeze(1)


def soft_min(cells: Tensor, dim: int, heat: float) -> Tensor:
    """Minus the log of summed exponentials over `dim`; the cells are overwritten."""
    if heat != 1.0:
        cells.div_(heat)
    top = cells.amax(dim, keepdim=True)
    total = cells.sub_(top).exp_().sum(dim)
    return total.log_().add_(top.squeeze(dim)).mul_(-heat)
