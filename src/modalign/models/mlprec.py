"""MLPRec: vectors of users and items, mapped by one small network; the student of distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, Recommender, TrainedConfig
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.nn.losses.pairwise import bpr_loss, l2_penalty


class MLPRecConfig(TrainedConfig):
    """Options of MLPRec; the defaults are those of TARec's student."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4
    """Learning rate of the optimizer; the paper searches 1e-4 to 1e-3."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """Adam, or AdamW with decoupled weight decay."""
    batch_size: Annotated[int, Field(ge=1)] = 1024
    """Training pairs in a training step."""
    n_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of linear maps of the network; 0 is BPR-MF."""
    shared: bool = True
    """Use one network for users and items, instead of one for each."""
    residual: bool = False
    """Add the network's input to its output; the sum starts as the identity."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the squared vectors of the batch, before the network."""


@register(
    "mlprec",
    config=MLPRecConfig,
    toy={"embedding_size": 16, "learning_rate": 0.02, "epochs": 60, "batch_size": 128},
    family="collaborative",
    paper="Zhuang et al., 2025 (student)",
)
class MLPRec(Recommender):
    """A free vector for each user and item, mapped by one shared multilayer perceptron.

        u = phi(e_u),  i = phi(e_i),  score(u, i) = <u, i>
        phi(x) = W_2 relu(W_1 x + b_1) + b_2

    trained by BPR on triples (user, chosen item, unseen item) plus `reg / (2 B) sum |e|^2` over
    the batch's vectors before the network. The vectors start Xavier-uniform. With `residual`,
    phi(x) is replaced by `x + phi(x)` and the last map starts at zero: the model then starts as
    the plain product of its tables.

    Serving stores `phi(E)`: scoring a user costs the same as in matrix factorisation, whatever the
    teacher was.

    Source: TARec (Zhuang et al. 2025), equations 3 and 6. Depth, activation and sharing are not
    given there; the parameter counts of its Table 3 imply one or two maps with biases.

    Example:
        >>> view = TrainView(2, 3, users=torch.tensor([0, 1]), items=torch.tensor([0, 1]))
        >>> model = MLPRec(MLPRecConfig(embedding_size=4), view)
        >>> [tuple(table.shape) for table in model.tables()]
        [(2, 4), (3, 4)]
        >>> sum(p.numel() for p in model.parameters())  # (2 + 3) * 4 + 2 * (4 * 4 + 4)
        60
    """

    needs = ("negatives",)

    def __init__(self, config: MLPRecConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: MLPRecConfig = config
        self.users = nn.Parameter(torch.empty(view.n_users, config.embedding_size))
        self.items = nn.Parameter(torch.empty(view.n_items, config.embedding_size))
        nn.init.xavier_uniform_(self.users)
        nn.init.xavier_uniform_(self.items)
        self.network = _Network(config)
        self.item_network = None if config.shared else _Network(config)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`{"bpr": ..., "reg": ...}`, the second only where it has a weight."""
        user, items, raw = self.at(batch.users, batch.items())
        positive, negative = torch.linalg.vecdot(user, items.view(2, len(batch), -1))
        parts = {"bpr": bpr_loss(positive, negative)}
        if self.config.reg:
            parts["reg"] = self.config.reg * l2_penalty(raw, batch_size=len(batch))
        return parts

    def at(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Final vectors of rows of users (B, d) and items (C, d), and both before the network
        (B + C, d). The network is applied to these rows only.
        """
        raw_users = functional.embedding(users, self.users)
        raw_items = functional.embedding(items, self.items)
        raw = torch.cat([raw_users, raw_items])
        if self.item_network is not None:
            return self.network(raw_users), self.item_network(raw_items), raw
        final_users, final_items = self.network(raw).split([len(users), len(items)])
        return final_users, final_items, raw

    def ego_tables(self) -> tuple[Tensor, Tensor]:
        """The tables before the network."""
        return self.users, self.items

    def tables(self) -> tuple[Tensor, Tensor]:
        """`phi` of all users and of all items."""
        for_items = self.network if self.item_network is None else self.item_network
        return self.network(self.users), for_items(self.items)


class _Network(nn.Module):
    def __init__(self, config: MLPRecConfig) -> None:
        super().__init__()
        d = config.embedding_size
        self.maps = nn.ModuleList(nn.Linear(d, d) for _ in range(config.n_layers))
        self.residual = config.residual
        if config.residual and self.maps:
            for zero in self.maps[-1].parameters():
                nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for depth, one in enumerate(self.maps):
            y = one(functional.relu(y) if depth else y)
        return x + y if self.residual and self.maps else y
