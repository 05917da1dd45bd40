"""Kernels of points on the line for p = 2, of which only a band is computed.

For sorted points the plan is concentrated near a rising curve: cells far from it are zero at the
float's precision. The kernel is a list of dense matrices, one for a few consecutive rows each,
with only the columns that matter to them; a cell takes a product and an exponential, and the cost
matrix is never held. Points are in units of `sqrt(reg)`, so that `C_kl / reg = (x_k - y_l)^2 / 2`,
and potentials are divided by reg.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from modalign.ot._block import soft_min
from modalign.ot.result import MOST

_CELLS = 1 << 18  # cells of a band's matrix before columns are dropped: they fit in the cache
# Exponents below which a cell is dropped: twice the drift of potentials that is allowed before a
# kernel is recomputed, plus what is below the rounding of a sum.
_CUT = {torch.float32: -42.0, torch.float64: -64.0}
_CLOSE = 6.0  # a kernel is reused while the potentials are this close to those it contains
# Powers of two take half the time of those of e; subnormal numbers would make products slow.
_LOG2_E = 1.0 / math.log(2.0)
_LEAST, _MOST = -80.0 * _LOG2_E, MOST * _LOG2_E
_KEPT_CELLS = 1 << 23
_SOFT_CELLS = 1 << 16  # cells of a soft minimum's temporary


@dataclass(frozen=True)
class Band:
    """A kernel: matrices of consecutive rows, each with its first column."""

    parts: list[tuple[slice, slice, Tensor]]
    n: int
    m: int

    def rows(self, v: Tensor, buffer: Tensor) -> Tensor:
        """`sum_l cell_kl v_l`, (1, n)."""
        out, v = v.new_zeros(self.n), v[0]  # a row may have no cell in the band
        for rows, columns, cells in self.parts:
            torch.mv(cells, v[columns], out=out[rows])
        return out.unsqueeze(0)

    def columns(self, u: Tensor, buffer: Tensor) -> Tensor:
        """`sum_k cell_kl u_k`, (1, m)."""
        out, u = u.new_zeros(self.m), u[0]
        for rows, columns, cells in self.parts:
            out[columns].addmv_(cells.t(), u[rows])
        return out.unsqueeze(0)


@dataclass
class Line:
    """One problem between sorted points x (n) and y (m), with the methods of a `ProblemBlock`."""

    x: Tensor
    y: Tensor
    room: Tensor  # memory for the cells of one kernel
    last: ClassVar[bool] = False
    tiny: ClassVar[bool] = False
    batch: ClassVar[int] = 0
    point: ClassVar[int] = 1
    check: ClassVar[int] = 2
    absorbed: tuple[Tensor, Tensor, Band] | None = field(default=None, repr=False)

    def turn(self, vector: Tensor) -> Tensor:
        """A vector in this layout, which has the problem first."""
        return vector

    def take(self, index: Tensor) -> Line:
        """The problem itself: the only one."""
        return self

    def keep(self, index: Tensor) -> Callable[[Tensor], Tensor]:
        """The function that selects the problem, or nothing, of a vector."""
        return lambda vector: vector.index_select(0, index)

    def buffer(self) -> Tensor:
        """An empty tensor: no product needs a buffer."""
        return self.x.new_empty(0)

    def largest(self) -> float:
        """The largest cost over reg."""
        ends = torch.stack([self.x[-1] - self.y[0], self.y[-1] - self.x[0]])
        return float(ends.square().amax()) / 2.0

    def soft_rows(self, weight: Tensor, buffer: Tensor, heat: float = 1.0) -> Tensor:
        """`-heat log sum_l exp((w_l - (x_k - y_l)^2 / 2) / heat)`, (1, n)."""
        return soft_minimum(self.x, self.y, weight[0], heat).unsqueeze(0)

    def soft_columns(self, weight: Tensor, buffer: Tensor, heat: float = 1.0) -> Tensor:
        """`-heat log sum_k exp((w_k - (x_k - y_l)^2 / 2) / heat)`, (1, m)."""
        return soft_minimum(self.y, self.x, weight[0], heat).unsqueeze(0)

    def kernel(self, f: Tensor, g: Tensor) -> Band:
        """The band of `exp(f_k + g_l - (x_k - y_l)^2 / 2)`; it overwrites the previous one.

        Around a point o among a matrix's rows, with x' = x - o, y' = y - o, an exponent is
        `(f_k - x'_k^2 / 2) + x'_k y'_l + (g_l - y'_l^2 / 2)`: a product of 3 columns and 3 rows.
        """
        step = max(1, _CELLS // len(self.y))
        starts = range(0, len(self.x), step)
        middles = torch.stack([part[len(part) // 2] for part in self.x.split(step)])
        x = self.x - middles.repeat_interleave(step)[: len(self.x)]
        y = self.y - middles.unsqueeze(1)
        left = torch.stack([f[0] - 0.5 * x.square(), x, torch.ones_like(x)], 1)
        right = torch.stack([torch.ones_like(y), y, g[0] - 0.5 * y.square()], 1)
        parts, taken = [], 0
        bounds = _bounds(left.split(step), right)
        left = left * _LOG2_E
        for i, (low, high) in zip(starts, bounds, strict=True):
            rows = slice(i, min(i + step, len(self.x)))
            shape = rows.stop - i, max(0, high - low)
            cells = self.room[taken : taken + shape[0] * shape[1]].view(shape)
            taken += cells.numel()
            torch.mm(left[rows], right[i // step, :, low : low + shape[1]], out=cells)
            parts.append((rows, slice(low, high), cells.clamp_(_LEAST, _MOST).exp2_()))
        self.absorbed = (
            f,
            g,
            Band([part for part in parts if part[2].numel()], len(self.x), len(self.y)),
        )
        return self.absorbed[2]

    def near(self, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Band]:
        """A kernel and the potentials that it contains: the last kernel if it is close enough."""
        if self.absorbed is not None:
            old_f, old_g, band = self.absorbed
            drift = torch.maximum((f - old_f).abs().amax(), (g - old_g).abs().amax())
            if float(drift) < _CLOSE:
                return old_f, old_g, band
        return f, g, self.kernel(f, g)


def _bounds(left: Sequence[Tensor], right: Tensor) -> list[tuple[int, int]]:
    """First column that may matter and the one after the last, for each matrix's rows.

    For any column c, `E(k, l) = E'(k, c) + x'_k (y'_l - y'_c) + right_l`, with E' the exponent
    without its part that depends on the column alone. The first term is bounded by its maximum
    over rows; the second is largest at one of the ends. c is the best column of the middle row.
    """
    _, y, alone = right.unbind(1)
    centre = y.gather(1, alone.argmax(1, keepdim=True))
    best = [(part[:, 0] + part[:, 1] * c).amax() for part, c in zip(left, centre, strict=True)]
    ends = torch.stack([torch.stack([part[0, 1], part[-1, 1]]) for part in left])
    gap = y - centre
    most = alone + torch.stack(best).unsqueeze(1)
    most += torch.maximum(gap * ends[:, :1], gap * ends[:, 1:])
    there = (most > _CUT[y.dtype]).to(torch.uint8)
    low, high = there.argmax(1), y.shape[1] - there.flip(1).argmax(1)
    high = torch.where(there.amax(1) > 0, high, low)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def soft_minimum(x: Tensor, y: Tensor, weight: Tensor, heat: float = 1.0) -> Tensor:
    """`-heat log sum_l exp((w_l - (x_k - y_l)^2 / 2) / heat)` in the log domain, (n)."""
    parts = []
    for rows in x.split(max(1, _SOFT_CELLS // len(y))):
        cells = (rows.unsqueeze(1) - y).square_().mul_(-0.5).add_(weight)
        parts.append(soft_min(cells, 1, heat))
    return torch.cat(parts)


class _Memory(threading.local):
    """The memory of each thread by type of float."""

    def __init__(self) -> None:
        self.rooms: dict[torch.dtype, Tensor] = {}


_memory = _Memory()


def room_of(cells: int, like: Tensor) -> Tensor:
    """Memory for a number of cells, kept between calls: allocating it takes longer than filling it.

    A thread keeps at most 8M cells of each type of float.
    """
    if cells > _KEPT_CELLS:
        return like.new_empty(cells)
    room = _memory.rooms.get(like.dtype)
    if room is None or len(room) < cells:
        room = _memory.rooms[like.dtype] = torch.empty(cells, dtype=like.dtype)
    return room
