"""The parts of MMSSL that other models can have too.

Features propagated over the interactions, graphs of the modalities, views of id vectors over
them, and both self-supervised losses, which need only tables of vectors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from modalign.core import seeds
from modalign.core.interfaces import Batch, MissingPolicy, Need, OptimizerSettings, Phase
from modalign.core.view import TrainView
from modalign.graph.one_sided import TwoWayGraph
from modalign.graph.preference import NOBODY, PreferenceGraph, best_items
from modalign.graph.propagate import cut
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.models.mmssl.config import SelfSupervisedConfig
from modalign.nn.losses.adversarial import AdversarialTask, TablePair, dropped
from modalign.nn.losses.contrastive import view_contrast
from modalign.nn.modality_input import ModalityInput
from modalign.nn.rows import unit_rows

log = logging.getLogger("modalign.models")

CHUNK = 256
"""Users computed at a time in a contrast with all users."""

DIAGNOSED = 256
"""Number of users, evenly spaced, on whom the critic is measured."""


class PropagatedFeatures(nn.Module):
    """`F_U = A_UI (X W + b)` and `F_I = A_IU F_U` for each modality, dropout before A.

    An item receives its content through the users who chose it, and directly with `residual`.

    Args:
        names: modalities in order.
        view: training data with their features.
        missing: policy for missing rows.
        size: width d of a modality's vectors.
        rate: dropout rate.
        residual: add an item's own projection to F_I.
    """

    def __init__(
        self,
        names: Sequence[str],
        view: TrainView,
        missing: MissingPolicy,
        size: int,
        rate: float,
        residual: bool,
    ) -> None:
        super().__init__()
        self.size, self.rate, self.residual = size, rate, residual
        sources = [ModalityInput(view.modalities[name], missing, view) for name in names]
        layers = [nn.Linear(source.dim, size) for source in sources]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.inputs = cast("Sequence[ModalityInput]", nn.ModuleList(sources))
        self.projections = cast("Sequence[nn.Linear]", nn.ModuleList(layers))

    def forward(self, graph: TwoWayGraph, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Users (n_users, M d) and items (n_items, M d); no dropout without a generator."""
        both = zip(self.inputs, self.projections, strict=True)
        projected = torch.cat([source.linear(layer) for source, layer in both], dim=1)
        projected = dropped(projected, self.rate, rng)
        users = graph.to_users.matmul(projected)
        items = graph.to_items.matmul(users)
        return users, items + projected if self.residual else items

    def split(self, table: Tensor) -> list[Tensor]:
        """The columns of each modality, each (n, d)."""
        return list(table.split(self.size, dim=1))


class ModalityGraphs(nn.Module):
    """A graph of users and their preferred items for each modality; first, the interactions.

    Args:
        config: how the graphs are made.
        names: modalities in order.
        observed: the interactions.
    """

    def __init__(
        self, config: SelfSupervisedConfig, names: Sequence[str], observed: TwoWayGraph
    ) -> None:
        super().__init__()
        self.config, self.n_modalities = config, len(names)
        k = config.n_neighbours(observed.n_items)
        learnt = [] if config.graph == "observed" else [PreferenceGraph(observed, k) for _ in names]
        self.graphs = cast("Sequence[PreferenceGraph]", nn.ModuleList(learnt))
        self._batches = 0
        self._collected: list[tuple[Tensor, list[Tensor]]] = []

    def current(self, observed: TwoWayGraph) -> list[TwoWayGraph]:
        """The graph of each modality as it is now."""
        if not len(self.graphs):
            return [observed] * self.n_modalities
        return [one.graph(observed) for one in self.graphs]

    def views(self, users: Tensor, items: Tensor, observed: TwoWayGraph) -> list[TablePair]:
        """Id vectors averaged over each graph: users from their items, items from their users.

        Args:
            users: vectors of all users, (n_users, d).
            items: vectors of all items, (n_items, d).
            observed: the interactions.
        """
        graphs = self.current(observed)
        made: dict[int, TablePair] = {}
        for graph in graphs:
            if id(graph) not in made:
                made[id(graph)] = graph.to_users.matmul(items), graph.to_items.matmul(users)
        return [made[id(graph)] for graph in graphs]

    def user_views(self, items: Tensor, observed: TwoWayGraph) -> list[Tensor]:
        """The users' side of `views`."""
        return [graph.to_users.matmul(items) for graph in self.current(observed)]

    def start_epoch(
        self, epoch: int, observed: TwoWayGraph, relations: Callable[[], Sequence[TablePair]]
    ) -> None:
        """Build new graphs where they are due.

        Args:
            epoch: number of the epoch, from 0.
            observed: the interactions.
            relations: returns users and items of each modality; called where they are needed.
        """
        config = self.config
        self._batches, self._collected = 0, []
        if epoch == 0:
            for graph in self.graphs:
                graph.reset()
        first = config.first_graph == "observed"
        if config.graph != "generated" or epoch < first or epoch % config.refresh_every:
            return
        for graph, (users, items) in zip(self.graphs, relations(), strict=True):
            if config.relation_scores == "cosine":
                users, items = unit_rows(users), unit_rows(items)
            seen_score = None if config.own_items else -torch.inf
            graph.set(best_items(users, items, graph.k, observed.seen, seen_score=seen_score))
            empty = float((graph.neighbours[:, :1] == NOBODY).float().mean())
            if empty > 0.5:
                log.warning(
                    "%.0f%% of the users have no item in a modality's graph: their vectors in "
                    "that modality are zero",
                    100 * empty,
                )

    def after_batch(
        self, users: Tensor, observed: TwoWayGraph, relations: Callable[[], Sequence[TablePair]]
    ) -> None:
        """Collect edges after a batch, or build graphs from them, as the released code does.

        Edges of a batch's users are collected, except after every `refresh_every`-th batch of
        an epoch but the first: then the graphs are built from the edges collected since the last
        time. The list of users is tiled where that of items goes user by user, so that most items
        are assigned to another user.

        Args:
            users: the different users of the batch, int64.
            observed: the interactions.
            relations: returns users and items of each modality; called where they are needed.
        """
        if self.config.graph != "batchwise":
            return
        at = self._batches
        self._batches += 1
        if at and at % self.config.refresh_every == 0:
            for place, graph in enumerate(self.graphs):
                neighbours = torch.full_like(graph.neighbours, NOBODY)
                for who, theirs in self._collected:
                    neighbours[who] = theirs[place].to(neighbours.dtype)
                graph.set(neighbours)
            self._collected = []
            return
        seen_score = 0.0 if self.config.mask_observed else -torch.inf
        chosen = []
        for graph, (vectors, items) in zip(self.graphs, relations(), strict=True):
            best = best_items(
                vectors[users], items, graph.k, observed.seen, seen_score=seen_score, rows=users
            )
            chosen.append(best.flatten().view(graph.k, len(users)).T)
        self._collected.append((users, chosen))

    def diagnostics(self, observed: TwoWayGraph) -> dict[str, float]:
        """Edges of a user, share of all edges, and share of users without an edge; means over
        modalities.
        """
        graphs = self.current(observed)
        degrees = torch.stack([g.seen.indptr[1:] - g.seen.indptr[:-1] for g in graphs]).float()
        return {
            "graph_degree": degrees.mean().item(),
            "graph_density": degrees.mean().item() / max(observed.n_items, 1),
            "empty_views": (degrees == 0).float().mean().item(),
        }


class SelfSupervision(nn.Module):
    """The adversarial and the contrastive part, for any model with tables of vectors.

    Args:
        config: the options of both parts.
        n_items: number of items, the length of a row that the critic sees.
    """

    def __init__(self, config: SelfSupervisedConfig, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.adversarial: AdversarialTask | None = None
        self.scale: nn.Parameter | None = None
        if config.is_adversarial:
            self.adversarial = AdversarialTask(n_items, config.adversarial_settings(n_items))
        elif config.self_supervision == "autoencoder" and config.adversarial_weight:
            self.scale = nn.Parameter(torch.ones(()))

    @property
    def is_generative(self) -> bool:
        """Whether the modalities' scores are in a loss."""
        return self.adversarial is not None or self.scale is not None

    def critic_phase(self) -> Phase:
        """The critic's optimizer: Adam with moments 0.5 and 0.9."""
        settings = OptimizerSettings(self.config.critic_learning_rate, betas=(0.5, 0.9))
        assert self.adversarial is not None
        return Phase("critic", list(self.adversarial.parameters()), settings)

    def generator_loss(
        self,
        relations: Sequence[TablePair],
        users: Tensor,
        batch: Batch,
        observed: TwoWayGraph,
        rng: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """The weighted loss of the generated rows, as `generator` or `autoencoder`.

        Args:
            relations: for each modality all users (n_users, d) and all items (n_items, d).
            users: the different users of the batch, int64.
            batch: triples of user, chosen and other item.
            observed: the interactions.
            rng: for the critic's dropout; None applies no dropout.
        """
        weight = self.config.adversarial_weight
        if self.adversarial is not None:
            pairs = [(of_users[users], items) for of_users, items in relations]
            loss = self.adversarial.generator_loss(pairs, cut(observed.seen, users), rng)
            return {"generator": weight * loss}
        if self.scale is not None:
            losses = [_reconstruction(*pair, batch, self.scale) for pair in relations]
            return {"autoencoder": weight * torch.stack(losses).mean()}
        return {}

    def critic_loss(
        self,
        relations: Sequence[TablePair],
        fused: TablePair,
        users: Tensor,
        observed: TwoWayGraph,
        rng: torch.Generator,
    ) -> dict[str, Tensor]:
        """The critic's loss: `critic_fake`, `critic_real` and `critic_penalty`.

        Args:
            relations: for each modality all users (n_users, d) and all items (n_items, d).
            fused: final vectors of all users and of all items, for the real rows.
            users: the different users of the batch, int64.
            observed: the interactions.
            rng: for dropout, noise and the positions of the gradient penalty.
        """
        assert self.adversarial is not None
        return self.adversarial.critic_loss(
            [(of_users[users], items) for of_users, items in relations],
            (fused[0][users], fused[1]),
            cut(observed.seen, users),
            rng,
        )

    def contrast(self, views: Sequence[Tensor], anchor: Tensor, users: Tensor) -> dict[str, Tensor]:
        """The weighted contrast of final and single-modality vectors, as `contrast`.

        Args:
            views: for each modality vectors of all users, (n_users, d).
            anchor: final vectors of all users with `contrast_negatives=full`, else of `users`.
            users: the different users of the batch, int64.
        """
        config = self.config
        if not config.contrast_weight:
            return {}
        whole = config.contrast_negatives == "full"
        losses = [
            view_contrast(
                view[users],
                anchor[users] if whole else anchor,
                config.temperature,
                others=(anchor, view, users) if whole else None,
                keep_self=config.keep_self,
                drop_empty=config.empty_views == "drop",
                chunk=CHUNK if whole else None,
            )
            for view in views
        ]
        return {"contrast": config.contrast_weight * torch.stack(losses).sum()}

    def diagnostics(
        self, relations: Sequence[TablePair], fused: TablePair, observed: TwoWayGraph
    ) -> dict[str, float]:
        """Outputs of the critic on a fixed sample of users.

        Args:
            relations: for each modality all users (n_users, d) and all items (n_items, d).
            fused: final vectors of all users and of all items.
            observed: the interactions.
        """
        if self.adversarial is None:
            return {}
        active = torch.nonzero(observed.seen.indptr[1:] > observed.seen.indptr[:-1]).flatten()
        users = active[:: -(-len(active) // DIAGNOSED)]
        rng = seeds.torch_generator(0, "diagnostics", device=users.device)
        return self.adversarial.diagnostics(
            [(of_users[users], items) for of_users, items in relations],
            (fused[0][users], fused[1]),
            cut(observed.seen, users),
            rng,
        )


class SelfSupervisedModel(SeededLoss):
    """A model with MMSSL's self-supervision: its parts, its hooks and its phases.

    A subclass makes the four parts in its constructor, in an order of its own.

    Attributes:
        observed: the interactions.
        features: propagated features of each modality.
        modality_graphs: a graph for each modality.
        self_supervision: the adversarial and the contrastive part.
    """

    needs: ClassVar[tuple[Need, ...]] = ("negatives", "modalities")
    observed: TwoWayGraph
    features: PropagatedFeatures
    modality_graphs: ModalityGraphs
    self_supervision: SelfSupervision

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw the seed of the first step, and build the modalities' graphs where they are due."""
        super().on_epoch(epoch, rng)
        self.modality_graphs.start_epoch(epoch, self.observed, self._plain_relations)

    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        """Draw the seed of the next step; with `graph=batchwise`, collect edges."""
        super().after_step(step, batch, rng)
        users = batch.users.unique()
        self.modality_graphs.after_batch(users, self.observed, self._plain_relations)

    def phases(self) -> Sequence[Phase]:
        """The model's phase, then the critic's where there is one."""
        critic = self.self_supervision.adversarial
        others = set() if critic is None else {id(p) for p in critic.parameters()}
        mine = [p for p in self.parameters() if p.requires_grad and id(p) not in others]
        settings = self._optimizer()
        if critic is None:
            return [Phase("main", mine, settings)]
        main = Phase("main", mine, settings, every=self.config.n_critic)
        return [main, self.self_supervision.critic_phase()]

    def _optimizer(self) -> OptimizerSettings:
        return OptimizerSettings.of(self.config)

    def _relations(self, rng: torch.Generator | None) -> list[TablePair]:
        """F_U and F_I of each modality (M1, M2); dropout only with a generator."""
        users, items = self.features(self.observed, rng)
        split = self.features.split
        return list(zip(split(users), split(items), strict=True))

    def _plain_relations(self) -> list[TablePair]:
        with torch.no_grad():
            return self._relations(None)


def _reconstruction(users: Tensor, items: Tensor, batch: Batch, scale: Tensor) -> Tensor:
    """Cross entropy of `sigmoid(scale * cosine)` at the chosen and at one other item each."""
    assert batch.positives is not None
    assert batch.negatives is not None
    of_users = unit_rows(users[batch.users])
    logits = [
        scale * torch.linalg.vecdot(of_users, unit_rows(items[index]))
        for index in (batch.positives, batch.negatives)
    ]
    # -log sigmoid(x) at the chosen, -log(1 - sigmoid(x)) at the other items.
    return torch.cat([functional.softplus(-logits[0]), functional.softplus(logits[1])]).mean()
