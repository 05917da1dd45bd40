"""One modality of CM3: its frozen features, its projection and its fusion head."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.features.fill import present_mean
from modalign.models._shared.feature_rank import fewer_columns
from modalign.models._shared.unit import unit
from modalign.models.cm3.config import CM3Config
from modalign.nn.modality_input import ModalityInput

SLOPE = 0.01

BLOCK = 1024
"""Items computed at a time, forward and backward, so that they stay in the cache."""

CHEAP = 512
"""Columns of features up to which the hidden layer is computed again instead of kept."""


class _Projection(torch.autograd.Function):
    """P and Q of a `Tower` on a CPU, from features without a gradient.

    Items are computed in blocks, so that neither the (n_items, hidden + width) matrix nor its
    gradient ever exists, nor the temporaries of autograd's backward pass (slices, an activation
    in place). Only the hidden layer is kept for the backward pass, and with features of `CHEAP`
    columns or fewer not even that: it is computed again.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        n, hidden, width = len(features), second.shape[1], len(second)
        p, q = features.new_empty(n, width), features.new_empty(n, len(weight) - hidden)
        kept = features.new_empty(n if features.shape[1] > CHEAP else 0, hidden)
        for at in range(0, n, BLOCK):
            rows = slice(at, at + BLOCK)
            both = functional.linear(features[rows], weight, bias)
            active = functional.leaky_relu_(both[:, :hidden], SLOPE)
            torch.mm(active, second.T, out=p[rows])
            q[rows] = both[:, hidden:]
            if len(kept):
                kept[rows] = active
        ctx.save_for_backward(features, weight, bias, second, kept)
        return p, q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, second, kept = ctx.saved_tensors
        hidden = second.shape[1]
        # A tenth faster transposed, but the transposed copy would raise the peak of memory.
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        of_second = torch.zeros_like(second)
        for at in range(0, len(features), BLOCK):
            rows = slice(at, at + BLOCK)
            x, of_p, of_q = features[rows], *(one[rows] for one in gradients)
            if len(kept):
                active = kept[rows]
            else:
                active = functional.linear(x, weight[:hidden], bias[:hidden])
                active = functional.leaky_relu_(active, SLOPE)
            of_second.addmm_(of_p.T, active)
            # The activation's result has the sign of its argument.
            of_active = torch.where(active > 0, 1, SLOPE) * (of_p @ second)
            of_both = torch.cat([of_active, of_q], dim=1)
            of_weight.addmm_(of_both.T, x)
            of_bias += of_both.sum(0)
        return None, of_weight, of_bias, of_second


class Tower(nn.Module):
    """`P = LeakyReLU(X W1 + b1) W2` and `Q = X V + c` of all items, X read once.

    `[W1 | V]` is one matrix. Its entries are Gaussian with the spread that the default linear
    initialisation (W1) and Xavier's (V) have at the *original* width of the features, so that
    after an exact rank reduction, which rotates X, the same distribution of functions is
    drawn.

    Args:
        modality: the original features.
        view: training data, for the policies for missing rows that read other data.
        config: options.
        head: whether there is a Q.
    """

    center: Tensor

    def __init__(
        self, modality: Modality, view: TrainView, config: CM3Config, *, head: bool
    ) -> None:
        super().__init__()
        hidden, width = config.hidden_size, config.embedding_size
        narrow = fewer_columns(modality, config.feature_rank)
        self.input = ModalityInput(narrow, config.missing, view)
        self.hidden, self.width, self.head = hidden, width, head
        self.first = nn.Linear(narrow.dim, hidden + (width if head else 0))
        self.second = nn.Linear(hidden, width, bias=False)
        bound = 1 / math.sqrt(modality.dim)
        nn.init.normal_(self.first.weight[:hidden], std=bound / math.sqrt(3))
        if head:
            nn.init.normal_(self.first.weight[hidden:], std=math.sqrt(2 / (modality.dim + width)))
        nn.init.uniform_(self.first.bias, -bound, bound)
        self.register_buffer("center", torch.from_numpy(present_mean(narrow)), persistent=False)

    def forward(self) -> tuple[Tensor, Tensor | None]:
        """P and Q, each (n_items, width); Q is None without a head."""
        x = self.input.features
        if (
            x.device.type == "cpu"
            and self.input.vector is None
            and not torch.is_autocast_enabled("cpu")
        ):
            p, q = _Projection.apply(x, self.first.weight, self.first.bias, self.second.weight)  # type: ignore[no-untyped-call]
            return p, q if self.head else None
        both = self.input.linear(self.first)  # (n_items, hidden + width)
        # In place: the result has the sign of the argument.
        hidden = functional.leaky_relu(both[:, : self.hidden], SLOPE, inplace=True)
        return self.second(hidden), both[:, self.hidden :] if self.head else None

    def raw_directions(self, rows: Tensor) -> Tensor:
        """Directions of the centred features at `rows`, (b, d); zeros where one is missing."""
        centred = self.input.features[rows] - self.center
        return unit(centred) * self.input.present[rows, None]
