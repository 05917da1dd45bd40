"""Attention between the modalities of one node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from modalign.nn.rows import unit_rows

HeadValues = Literal["whole", "slice"]
Mode = Literal["cross", "collapsed"]


class CrossModalAttention(nn.Module):
    """Mixes M views of each of N nodes, node by node, with the same parameters for every node.

    For head h with queries `q_m = e_m W_Q` and keys `k_m = e_m W_K` of width d / H,

        beta_mm' = softmax over m' of (q_m . k_m' / sqrt(d / H))
        out_m    = [ over heads: sum_m' beta_mm' e_m' ] W_O

    Values are not projected; `W_O` is (H d, d). With `values="slice"` head h mixes only its own
    d / H columns of the value and `W_O` is (d, d). With `mode="collapsed"` the result is
    `e_m sum_h W_O^h`, as in the authors' code: it takes the values of the query's modality, so that
    the weights sum to one and no modalities are mixed.

    Args:
        width: d, divisible by `n_heads`.
        n_heads: H.
        values: "whole" or "slice".
        mode: "cross" or "collapsed".

    Raises:
        ValueError: the width is not divisible by the number of heads.

    Source: Wei et al., "Multi-modal self-supervised learning for recommendation", WWW 2023,
    equation 9 with its indices corrected.

    Example:
        >>> attention = CrossModalAttention(4, 2)
        >>> views = [torch.ones(3, 4), torch.zeros(3, 4)]
        >>> tuple(attention(views).shape), tuple(attention.mean(views).shape)
        ((2, 3, 4), (3, 4))
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        values: HeadValues = "whole",
        mode: Mode = "cross",
        output_matrix: bool = True,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(f"expected a width divisible by {n_heads} heads, got {width}")
        self.width, self.n_heads, self.values, self.mode = width, n_heads, values, mode
        self.scaled = scaled
        sliced = values == "slice" and mode == "cross"
        self.out: nn.Parameter | None = None
        if output_matrix or mode == "collapsed":
            self.out = nn.Parameter(torch.empty(width if sliced else n_heads * width, width))
            nn.init.xavier_uniform_(self.out)
        self.query: nn.Parameter | None = None
        self.key: nn.Parameter | None = None
        if mode == "cross":
            self.query = nn.Parameter(torch.empty(width, width))
            self.key = nn.Parameter(torch.empty(width, width))
            for weight in (self.query, self.key):
                nn.init.xavier_uniform_(weight)

    def weights(self, views: Sequence[Tensor]) -> Tensor:
        """Weights beta, (H, M, M, N): head, query's modality, key's modality, node.

        Raises:
            ValueError: the attention is collapsed.
        """
        if self.query is None or self.key is None:
            raise ValueError("collapsed attention has no weights")
        size = (-1, self.n_heads, self.width // self.n_heads)
        if self.scaled:
            views = [unit_rows(view) * math.sqrt(self.width) for view in views]
        queries = [(view @ self.query).view(size) for view in views]
        keys = [(view @ self.key).view(size) for view in views]
        scores = torch.stack(
            [torch.stack([torch.linalg.vecdot(q, k) for k in keys]) for q in queries]
        )  # (M, M, N, H)
        beta: Tensor = (scores / math.sqrt(size[2])).softmax(dim=1).permute(3, 0, 1, 2)
        return beta

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Every view after attention, (M, N, d)."""
        if self.mode == "collapsed":
            return torch.stack([view @ self._sum_of_heads() for view in views])
        beta = self.weights(views)
        return torch.stack([self._mix(beta[:, m], views) for m in range(len(views))])

    def mean(self, views: Sequence[Tensor]) -> Tensor:
        """`forward(views).mean(0)`, (N, d), with one product with `W_O` instead of M."""
        if self.mode == "collapsed":
            return torch.stack(tuple(views)).mean(0) @ self._sum_of_heads()
        return self._mix(self.weights(views).mean(1), views)

    def _mix(self, beta: Tensor, views: Sequence[Tensor]) -> Tensor:
        """Heads' mixtures by weights (H, M, N), joined and projected, (N, d)."""
        width = self.width // self.n_heads if self.values == "slice" else self.width
        mixed: Tensor | None = None
        for of_heads, view in zip(beta.unbind(1), views, strict=True):
            # (N, H, 1) times (N, H, d / H) or, the same value for all heads, (N, 1, d).
            weight, value = of_heads.T[:, :, None], view.unflatten(1, (-1, width))
            mixed = weight * value if mixed is None else torch.addcmul(mixed, weight, value)
        assert mixed is not None
        if self.out is not None:
            return mixed.flatten(1) @ self.out
        # Without a matrix: own columns side by side, or the mean of whole vectors over heads.
        return mixed.flatten(1) if self.values == "slice" else mixed.mean(1)

    def _sum_of_heads(self) -> Tensor:
        assert self.out is not None
        return self.out.view(self.n_heads, self.width, self.width).sum(0)
