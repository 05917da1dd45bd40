"""MMGCL: channels of ids and modalities, contrasted after dropping edges and masking a modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.errors import UnknownName
from modalign.graph.bipartite import kept_edges
from modalign.graph.one_sided import TwoWayGraph
from modalign.models._registry import register
from modalign.models._shared.adjacency import InteractionEdges
from modalign.models._shared.channels import Channels, Propagated
from modalign.models._shared.content import ContentConfig
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.nn.losses.infonce import info_nce
from modalign.nn.losses.pairwise import bpr_of_vectors


class MMGCLConfig(ContentConfig):
    """Options of MMGCL; weight of the contrast, learning rate and decay were chosen here."""

    n_layers: Annotated[int, Field(ge=0, le=8)] = 3
    """Number of propagation steps in every channel."""
    contrast_weight: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the contrast between the two views, for users and items; 0.4 in the release."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Temperature of the contrast."""
    edge_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the interactions that the first view leaves out."""
    mask_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Weights with which a modality is drawn to be masked in the second view; null: all equal."""
    hard_negatives: bool = True
    """Contrast items also with copies of themselves whose last modality is another item's."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-3
    """Learning rate of the optimizer; 1e-3 in the release."""


@register(
    "mmgcl",
    config=MMGCLConfig,
    toy={
        "embedding_size": 8,
        "n_layers": 1,
        "contrast_weight": 0.1,
        "learning_rate": 0.01,
        "batch_size": 64,
        "epochs": 12,
    },
    family="multimodal",
    paper="Yi et al., SIGIR 2022",
    variants={
        "without-contrast": {"contrast_weight": 0.0},
        "without-hard-negatives": {"hard_negatives": False},
    },
)
class MMGCL(SeededLoss):
    """Channels of ids and modalities; a contrast of dropped edges with a masked modality.

    Channels and fusion are those of SLMRec. With N(x) unit rows and B pairs (u, i) and negatives j,

        view 1: all channels on a graph without a share `edge_dropout` of the edges
        view 2: the full graph, with the features of one modality counted as zero
        n = view 1 of i with the last modality's channel of j
        L_u = mean of -log softmax(N(u1) N(u2)' / T) at the same user, over the users of the batch
        L_i = the same of its items, with all n as further wrong answers
        loss = BPR of the clean vectors + contrast_weight (L_u + L_i)

    and `score(u, i) = <u, i>` of the clean vectors. Edges and modality are drawn in each step. No n
    is made where i or j lacks the modality.

    Limits: the authors' code does not run, and its loss contrasts neither the masked view nor the
    hard negatives; L_u and L_i are this library's reading of the paper.

    Source: Yi et al., "Multi-modal graph contrastive learning for micro-video recommendation",
    SIGIR 2022.

    Raises:
        UnknownName: a weight for a modality that is not in use.
    """

    needs = ("negatives", "modalities")

    def __init__(self, config: MMGCLConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: MMGCLConfig = config
        self.channels = Channels(config, view, config.n_layers)
        self.edges = InteractionEdges(view)
        names = self.channels.names
        for name in config.mask_weights or ():
            if name not in names:
                raise UnknownName("modality in mask_weights", name, names)
        weights = config.mask_weights or dict.fromkeys(names, 1.0)
        self.mask_weights = [weights.get(name, 0.0) for name in names]

    def _thinned(self, rng: torch.Generator) -> TwoWayGraph:
        """The graph of the edges that are kept in this step."""
        users, items = self.edges.users.cpu(), self.edges.items.cpu()
        kept = kept_edges(users, items, self.config.edge_dropout, rng)
        graph = TwoWayGraph(users[kept], items[kept], self.n_users, self.n_items, "symmetric")
        return graph.to(self.edges.users.device)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, and `contrast` where it has a weight."""
        config, n = self.config, len(batch)
        users, user_at = batch.users.unique(return_inverse=True)
        items, item_at = batch.items().unique(return_inverse=True)
        clean = self.channels.propagate(users, items)
        of_users, of_items = self.channels.fuse(self.channels.channels(clean))
        parts = {"bpr": bpr_of_vectors(of_users[user_at], of_items[item_at])}
        if config.contrast_weight:
            rng = seeds.torch_generator(self._seed, phase)
            masked = int(torch.multinomial(torch.tensor(self.mask_weights), 1, generator=rng))
            thinned = self.channels.propagate(users, items, self._thinned(rng))
            both = self._contrast(clean, thinned, masked, items, item_at.view(2, n))
            parts["contrast"] = config.contrast_weight * (both[0] + both[1])
        return parts

    def _contrast(
        self, clean: Propagated, thinned: Propagated, masked: int, items: Tensor, at: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_u and L_i.

        Args:
            clean: channels of the different users and items of the batch.
            thinned: the same on the graph of the kept edges.
            masked: the modality without features in the second view.
            items: the different items of the batch.
            at: places among them of the positives and the negatives, (2, B).
        """
        config, channels = self.config, self.channels
        first = channels.channels(thinned)
        users_one, items_one = channels.fuse(first)
        users_two, items_two = channels.fuse(channels.channels(clean, masked))
        of_users = info_nce(users_one, users_two, config.temperature)
        chosen = at[0].unique()
        columns = items_two[chosen]
        if config.hard_negatives:
            columns = torch.cat([columns, self._hard(first[1], items, at)])
        targets = torch.arange(len(chosen), device=chosen.device)
        of_items = info_nce(items_one[chosen], columns, config.temperature, targets=targets)
        return of_users, of_items

    def _hard(self, channels: Tensor, items: Tensor, at: Tensor) -> Tensor:
        """Hard negatives of the pairs whose items both have the last modality, (b, d)."""
        size, there = self.config.embedding_size, self.channels.content.present[-1, items]
        usable = there[at[0]] & there[at[1]]
        own, other = channels[at[0][usable]], channels[at[1][usable]]
        swapped = torch.cat([own[:, :-size], other[:, -size:]], dim=1)
        fused: Tensor = self.channels.fuse_items(swapped)
        return fused

    def tables(self) -> tuple[Tensor, Tensor]:
        """Fused vectors of all users and items."""
        return self.channels.fuse(self.channels.channels(self.channels.propagate()))
