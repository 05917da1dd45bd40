"""GRCN: edges weighted by content attention, over which ids are propagated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core.interfaces import Batch, Recommender
from modalign.core.view import TrainView
from modalign.models._registry import register
from modalign.models._shared.adjacency import InteractionEdges
from modalign.models._shared.content import ContentConfig, Projections, prepared
from modalign.models._shared.unit import unit
from modalign.nn.bags import Bags, bag_dots, bag_sums
from modalign.nn.losses.pairwise import bpr_of_vectors


class GRCNConfig(ContentConfig):
    """Options of GRCN; the defaults are those of the authors' release, with routing."""

    content_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Width of the projected content and of a user's taste in each modality."""
    n_routing: Annotated[int, Field(ge=0, le=16)] = 3
    """Rounds in which a user's taste moves towards the content of the user's items; in the
    authors' release they have no effect (0)."""
    n_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of propagation steps of the ids."""
    pruning: Literal["soft", "hard"] = "soft"
    """Use the edge weights as they are, or set negative ones to zero, after which a node that
    sends nothing is not trained any more."""
    reg: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the mean squares of the batch's ids and tastes."""


@register(
    "grcn",
    config=GRCNConfig,
    toy={
        "embedding_size": 8,
        "content_size": 8,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 10,
    },
    family="multimodal",
    paper="Wei et al., MM 2020",
    variants={"without-routing": {"n_routing": 0}, "hard-pruning": {"pruning": "hard"}},
)
class GRCN(Recommender):
    """Ids propagated over edges that content attention weighs, beside content vectors.

    With N(x) unit rows, c_m = N(LeakyReLU(X_m W_m + b_m)) and p_m = N(a free taste of users),

        p_u <- N(p_u + sum over i of a_ui c_i), `n_routing` times, a_ui = softmax of p_u . c_i
        z_u = p_u + sum over i of a_ui c_i,    z_i = c_i + sum over u of a_iu p_u
        w(s to t) = max over m of a^m_st k_sm,  e' = e + sum over layers of W^l e,  e = N(E)
        vector = [e', z_1, ..., z_M],  score = inner product

    where a_ui is a softmax over the user's items, a_iu one over the item's users, k a free number
    of each node and modality, read at the source of the edge, and W the matrix of the w. The loss
    is BPR plus `reg` times the mean squares of the batch's rows of E and of the tastes, before N.
    An edge of an item that lacks m is not weighed by m; without any modality its weight is 0.

    Limits: all edges are visited in every step. An item without interactions is ranked by its
    content and a random unit vector.

    Source: Wei et al., "Graph-refined convolutional network for multimedia recommendation with
    implicit feedback", ACM Multimedia 2020.
    """

    needs = ("negatives", "modalities")

    def __init__(self, config: GRCNConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: GRCNConfig = config
        n_nodes = view.n_users + view.n_items
        self.content = Projections(prepared(config, view), config, view, config.content_size)
        self.ids = nn.Parameter(torch.empty(n_nodes, config.embedding_size))
        self.confidence = nn.Parameter(torch.empty(n_nodes, len(self.content)))
        self.tastes = nn.ParameterList(
            torch.empty(view.n_users, config.content_size) for _ in range(len(self.content))
        )
        for table in (self.ids, self.confidence, *self.tastes):
            nn.init.xavier_normal_(table)
        self.edges = InteractionEdges(view)

    def _vectors(self) -> Tensor:
        """Vectors of all users and items, (n_users + n_items, d + M content_size)."""
        by_user, by_item, order = self.edges.by_user, self.edges.by_item, self.edges.order
        contents, to_users, to_items = [], [], []
        for taste, projected in zip(self.tastes, self.content(), strict=True):
            p, c = unit(taste), unit(functional.leaky_relu(projected))
            for _ in range(self.config.n_routing):
                p = unit(p + self._sums(by_user, self._shares(by_user, self._dots(p, c)), c))
            dots = self._dots(p, c)
            of_users, of_items = self._shares(by_user, dots), self._shares(by_item, dots[order])
            of_p, of_c = self._sums(by_user, of_users, c), self._sums(by_item, of_items, p)
            contents.append(torch.cat([p + of_p, c + of_c]))
            to_users.append(of_users)
            to_items.append(of_items)
        user_trust, item_trust = self.confidence.split([self.n_users, self.n_items])
        there = self.content.present
        into_users = self._weights(to_users, item_trust[by_user.columns], there[:, by_user.columns])
        into_items = self._weights(to_items, user_trust[by_item.columns], there[:, by_item.rows])
        users, items = unit(self.ids).split([self.n_users, self.n_items])
        total = torch.cat([users, items])
        for _ in range(self.config.n_layers):
            users, items = (
                self._sums(by_user, into_users, items),
                self._sums(by_item, into_items, users),
            )
            total = total + torch.cat([users, items])
        return torch.cat([total, *contents], dim=1)

    def _dots(self, p: Tensor, c: Tensor) -> Tensor:
        return bag_dots(self.edges.by_user, p[:, None], c)[:, 0]

    @staticmethod
    def _sums(bags: Bags, values: Tensor, table: Tensor) -> Tensor:
        return bag_sums(bags, values[:, None], table)[:, 0]

    @staticmethod
    def _shares(bags: Bags, dots: Tensor) -> Tensor:
        """Softmax in each row; products of unit vectors need no maximum taken out."""
        exponentials = dots.exp()
        sums = exponentials.new_zeros(len(bags)).index_add(0, bags.rows, exponentials)
        return exponentials / sums[bags.rows]

    def _weights(self, shares: list[Tensor], trust: Tensor, there: Tensor) -> Tensor:
        """The largest of the modalities' weights of each edge, of those that its item has."""
        each = torch.stack(shares) * trust.T
        best = each.masked_fill(~there, -torch.inf).amax(0)
        best = torch.where(there.any(0), best, 0.0)
        return best.relu() if self.config.pruning == "hard" else best

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, and `reg` where it has a weight."""
        index = batch.items()
        vectors, nodes = self._vectors(), index + self.n_users
        parts = {"bpr": bpr_of_vectors(vectors[batch.users], vectors[nodes])}
        if self.config.reg:
            squares = self.ids[batch.users].square().mean() + self.ids[nodes].square().mean()
            for taste in self.tastes:
                squares = squares + taste[batch.users].square().mean()
            parts["reg"] = self.config.reg * squares
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items."""
        users, items = self._vectors().split([self.n_users, self.n_items])
        return users, items
