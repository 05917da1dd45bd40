"""ELSA: a linear autoencoder whose item-item matrix is a product of unit vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, Queries, Recommender, TrainedConfig
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.nn.bags import Bags, bag_sums

SMALLEST = 1e-8
"""Squared lengths of an output below this count as this."""


class ELSAConfig(TrainedConfig):
    """Options of ELSA; the defaults are those of the authors' release."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 256
    """Width of an item vector: the rank of the item-item matrix."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Learning rate of the optimizer; large, since the lengths of the rows only grow."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Users in a training step."""


@register(
    "elsa",
    config=ELSAConfig,
    toy={"embedding_size": 16, "epochs": 10, "batch_size": 20},
    family="collaborative",
    paper="Vančura et al., RecSys 2022",
)
class ELSA(Recommender):
    """The linear autoencoder with a zero diagonal whose weights are a product of thin matrices.

    With x a user's history as zeros and ones, and A the rows of the only parameter scaled to
    length 1, one for each item,

        y = x (A A' - I),   loss = mean over users of 1 - cos(y, x)

    The diagonal of `A A' - I` is zero by construction, as EASE's is by a constraint, and the
    memory is linear in the number of items. `score = x A A'`: the identity concerns only items of
    the history. Neither A A' nor y is computed in training: with h = x A and n = |x|^2,

        cos(y, x) = (|h|^2 - n) / sqrt(n (h A'A h' - 2 |h|^2 + n))

    Only the history is read, so a user that training never saw is scored in the same way.

    Limits: a user with one item adds a constant to the loss. The row of an item without training
    interactions stays random.

    Source: Vančura et al., "Scalable linear shallow autoencoder for collaborative filtering",
    RecSys 2022, section 3.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> ELSA(ELSAConfig(embedding_size=4), view).items.shape
        torch.Size([3, 4])
    """

    needs = ("history",)
    unseen_users = True
    factorised = False

    def __init__(self, config: ELSAConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: ELSAConfig = config
        self.items = nn.Parameter(torch.empty(view.n_items, config.embedding_size))
        nn.init.xavier_uniform_(self.items)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"distance": ...}`: one minus the cosine of output and history."""
        rows = functional.normalize(self.items, dim=1)
        bags = Bags.of(batch.histories())
        hidden = bag_sums(bags, bags.weights.unsqueeze(1), rows).squeeze(1)
        n, squares = bags.total(bags.weights), hidden.square().sum(1)
        length = torch.linalg.vecdot(hidden @ (rows.T @ rows), hidden) - 2 * squares + n
        cosine = (squares - n) / (n * length.clamp(min=SMALLEST)).sqrt()
        return {"distance": 1.0 - cosine.mean()}

    def score(self, queries: Queries) -> Tensor:
        """Scores of all items from the histories alone, (B, n_items)."""
        bags, rows = Bags.of(queries.histories()), self.history_items()
        return bag_sums(bags, bags.weights.unsqueeze(1), rows).squeeze(1) @ rows.T

    def history_encoder(self) -> HistorySum:
        """The sum of the rows of a history, for ONNX."""
        return HistorySum(self)

    def history_items(self) -> Tensor:
        """The rows scaled to length 1, (n_items, embedding_size)."""
        return functional.normalize(self.items, dim=1)


class HistorySum(nn.Module):
    """From rows of items, int64, (n,), to the sum of their unit vectors, (embedding_size,).

    Args:
        model: its parameters are used, not copied.
    """

    def __init__(self, model: ELSA) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> Tensor:
        """The vector of a history; see the class."""
        return self.model.history_items()[items].sum(0)
