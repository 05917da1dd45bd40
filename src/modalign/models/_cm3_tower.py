"""One modality's side of CM3: its frozen features, its projection and its fusion head."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modalign.data.modality import Modality
from modalign.data.view import TrainView
from modalign.features.fill import present_mean
from modalign.features.reduce import reduced
from modalign.interfaces import MissingPolicy
from modalign.nn.modality_input import ModalityInput

FeatureRank = int | Literal["auto", "exact"] | None

SLOPE = 0.01


def unit(x: Tensor) -> Tensor:
    """Rows brought to unit length, in float32 even under autocast."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return functional.normalize(wide, dim=-1)


def fewer_columns(modality: Modality, rank: FeatureRank) -> Modality:
    """The modality on which a tower trains.

    "auto" takes the exact rank where there are more columns than items, so that it cannot
    lose; "exact" always; a number truncates; None leaves the features alone.
    """
    if rank is None or (rank == "auto" and modality.dim <= len(modality)):
        return modality
    return reduced(modality, rank if isinstance(rank, int) else None)


class Tower(nn.Module):
    """`P = LeakyReLU(X W1 + b1) W2` and `Q = X V + c` of all items, X read once.

    `[W1 | V]` is one matrix. Its entries are Gaussian with the spread that the default linear
    initialisation (W1) and Xavier's (V) have at the *original* width of the features, so that
    after an exact rank reduction, which rotates X, the same distribution of functions is
    drawn.

    Args:
        modality: the original features.
        view: for the policies for missing rows that look at other data.
        missing: policy for missing rows.
        rank: see `fewer_columns`.
        hidden: width of the hidden layer.
        width: of P and Q.
        head: whether there is a Q.
    """

    center: Tensor

    def __init__(
        self,
        modality: Modality,
        view: TrainView,
        missing: MissingPolicy,
        rank: FeatureRank,
        hidden: int,
        width: int,
        head: bool,
    ) -> None:
        super().__init__()
        narrow = fewer_columns(modality, rank)
        self.input = ModalityInput(narrow, missing, view)
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
        both = self.input.linear(self.first)  # (n_items, hidden + width)
        # In place: the sign of the result tells that of the argument.
        hidden = functional.leaky_relu(both[:, : self.hidden], SLOPE, inplace=True)
        return self.second(hidden), both[:, self.hidden :] if self.head else None

    def raw_directions(self, rows: Tensor) -> Tensor:
        """Directions of the centred frozen features, (b, d); zeros where a row is missing."""
        centred = self.input.features[rows] - self.center
        return unit(centred) * self.input.present[rows, None]
