"""BPR-MF: a vector for each user and each item, learned from pairs of items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, Recommender, TrainedConfig
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty


class BPRConfig(TrainedConfig):
    """Options of BPR-MF."""

    reg: Annotated[float, Field(ge=0)] = 3e-2
    """Weight of the squared vectors of the batch."""


@register(
    "bpr",
    config=BPRConfig,
    toy={"embedding_size": 16, "learning_rate": 0.02, "epochs": 60, "batch_size": 128},
    family="collaborative",
    paper="Rendle et al., UAI 2009",
)
class BPR(Recommender):
    """Matrix factorisation trained so that a chosen item scores above an unseen one.

    With p_u and q_i the vectors of users and items, `score(u, i) = <p_u, q_i>`, and for a batch
    of B triples (u, i, j), i chosen and j not seen by u, the loss is

        mean softplus(<p_u, q_j> - <p_u, q_i>) + reg / (2 B) sum (|p_u|^2 + |q_i|^2 + |q_j|^2)

    The vectors start Xavier-uniform.

    Limits: the vector of an item without training interactions stays random.

    Source: Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback",
    UAI 2009, sections 4 and 4.3.1; without item biases, as in the comparisons of He et al.,
    SIGIR 2020, and with Adam instead of plain gradient steps.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = BPR(BPRConfig(embedding_size=4), view)
        >>> [tuple(table.shape) for table in model.tables()]
        [(2, 4), (3, 4)]
    """

    needs = ("negatives",)

    def __init__(self, config: BPRConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: BPRConfig = config
        self.users = nn.Parameter(torch.empty(view.n_users, config.embedding_size))
        self.items = nn.Parameter(torch.empty(view.n_items, config.embedding_size))
        nn.init.xavier_uniform_(self.users)
        nn.init.xavier_uniform_(self.items)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"bpr": ..., "reg": ...}`, the second only where it has a weight."""
        size = len(batch)
        user = functional.embedding(batch.users, self.users)
        # One lookup for both kinds of items: its backward fills one dense table, not two.
        both = functional.embedding(batch.items(), self.items)
        scores = torch.linalg.vecdot(user, both.view(2, size, -1))  # (2, B)
        parts = {"bpr": bpr_loss(scores[0], scores[1])}
        if self.config.reg:
            parts["reg"] = self.config.reg * l2_penalty(user, both, batch_size=size)
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """The parameters themselves."""
        return self.users, self.items
