"""DA-MRS: item graphs where all modalities agree, BPR weighted by them, and two alignments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from modalign.core.interfaces import Batch, Recommender
from modalign.core.topk import top
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.propagate import SparseGraph
from modalign.models._registry import register
from modalign.models._shared.agreeing import agreeing_graphs, common_users
from modalign.models._shared.content import ContentConfig, prepared
from modalign.models._shared.unit import unit

BLOCK = 512
"""Items or users whose similarities to all others are held at a time."""
TINY = 1e-9


class DAMRSConfig(ContentConfig):
    """Options of DA-MRS over LightGCN; the defaults are those of the authors for Amazon Baby."""

    n_layers: Annotated[int, Field(ge=0, le=8)] = 2
    """Number of propagation steps between users and items."""
    n_item_layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of steps over each item graph."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Maximum number of neighbours of an item in each modality, the item itself included."""
    n_common: Annotated[int, Field(ge=0, le=1000)] = 2
    """Neighbours of an item by common users, the item itself not included."""
    list_size: Annotated[int, Field(ge=1, le=1000)] = 10
    """Length of the two lists of similar items of an item."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    """Temperature of the alignment of items."""
    align_items_weight: Annotated[float, Field(ge=0)] = 1e-3
    """Weight of the alignment of the views' neighbours; 0.1 and more collapses."""
    align_users_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the alignment of what ids and what views say of users and items."""
    batch_size: Annotated[int, Field(ge=1)] = 4096
    """Training pairs in a training step."""


@register(
    "da-mrs",
    config=DAMRSConfig,
    toy={
        "embedding_size": 8,
        "k": 5,
        "list_size": 4,
        "learning_rate": 0.03,
        "batch_size": 128,
        "epochs": 8,
    },
    family="multimodal",
    paper="Xv et al., KDD 2024",
    variants={"without-alignment": {"align_items_weight": 0.0, "align_users_weight": 0.0}},
)
class DAMRS(Recommender):
    """Item graphs where the modalities agree, BPR weighted by their plausibility, two alignments.

    Items j are candidates of i where their cosine is at least the mean cosine in every modality.
    The graph of modality m joins i with its k nearest candidates in m, a further graph with the
    `n_common` items that share most users (two or more). With S the graphs, all of weight
    `1 / sqrt(r_i r_j)`, N(x) unit rows, s the logistic function,

        [e; c] = mean of A^l [P; Q],   h_m = S_m^n Q,   h = mean of the h_m,   f = c + h
        p_m = s(e_u . N(h_m)_i),   w+ = mean_m p exp(-2 var_m p),   n = mean p of the negatives
        w- = (mean_m p < n) (max_m p - n), both in [0, 1] and constants
        bpr = mean of -w+ log s(e_u.f_i - e_u.f_j) - w- log s(e_u.f_j - e_u.f_i)
        users = mean over users and items of the batch of (s(a) - s(b)) (a - b),
                a = e_u . N(c)_i,  b = e_u . N(h)_i

    and `items`, for each view m and item of the batch: with softmaxes q of the cosines to all
    items, list A the `list_size` largest of 2 q_m + the other q, list B the largest of q_m outside
    A, and sums X of exp(cos_m / T), `-log(X_A / X_all) - log(X_B / (X_all - X_A))`.
    `score(u, i) = <e_u, f_i>`.

    An item that lacks a modality has only itself as a neighbour in the graphs of content.

    Limits: features choose neighbours and nothing else. The alignment of items compares the items
    of the batch with all items in each view, in blocks that are computed again for the gradient.

    Source: Xv et al., "Improving multi-modal recommender systems by denoising and aligning
    multi-modal content and user feedback", KDD 2024, as in the authors' release.
    """

    needs = ("negatives", "modalities")

    def __init__(self, config: DAMRSConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: DAMRSConfig = config
        size = config.embedding_size
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_users, size)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_items, size)))
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        agreeing = agreeing_graphs(list(prepared(config, view).values()), config.k)
        graphs = [SparseGraph(one) for one in (*agreeing, common_users(view, config.n_common))]
        self.item_graphs = cast("Sequence[SparseGraph]", nn.ModuleList(graphs))

    def _views(self) -> list[Tensor]:
        """h_m of all items, of each graph."""
        found = []
        for graph in self.item_graphs:
            table: Tensor = self.items
            for _ in range(self.config.n_item_layers):
                table = graph.matmul(table)
            found.append(table)
        return found

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, and `items` and `users` where they have a weight."""
        config = self.config
        users, user_at = batch.users.unique(return_inverse=True)
        items, item_at = batch.items().unique(return_inverse=True)
        nodes = torch.cat([users, items + self.n_users])
        free = torch.cat([self.users, self.items])
        vectors = self.graph.propagate(free, config.n_layers, rows=nodes)
        e, c = vectors.split([len(users), len(items)])
        views = self._views()
        mean = torch.stack(views).mean(0)[items]
        places = item_at.view(2, -1)
        mine, final = e[user_at], c + mean
        scores = torch.linalg.vecdot(mine, final[places])
        with torch.no_grad():
            directions = torch.stack([unit(one[items]) for one in views])  # (views, D, d)
            plausible = torch.linalg.vecdot(mine, directions[:, places]).sigmoid()
            kept, turned = weights(plausible[:, 0], plausible[:, 1])
        margin = scores[0] - scores[1]
        bpr = kept * functional.softplus(-margin) + turned * functional.softplus(margin)
        parts = {"bpr": bpr.mean()}
        if config.align_items_weight:
            tables = [unit(one) for one in views]
            total = mean.new_zeros(())
            for rows in items.split(BLOCK):
                total = total + cast(
                    Tensor, checkpoint(self._lists, rows, *tables, use_reentrant=False)
                )
            parts["items"] = config.align_items_weight * total / (len(items) * len(views))
        if config.align_users_weight:
            total = mean.new_zeros(())
            ids, contents = unit(c), unit(mean)
            for rows in e.split(BLOCK):
                total = total + cast(
                    Tensor, checkpoint(divergence, rows, ids, contents, use_reentrant=False)
                )
            parts["users"] = config.align_users_weight * total / (len(users) * len(items))
        return parts

    def _lists(self, rows: Tensor, *tables: Tensor) -> Tensor:
        """Sum over views and rows of the losses of both lists."""
        size = min(self.config.list_size, self.n_items // 2)
        cosines = [table[rows] @ table.T for table in tables]  # (b, n_items) each
        with torch.no_grad():
            shares = torch.stack([one.softmax(1) for one in cosines])
            together = shares.sum(0)
        total = rows.new_zeros((), dtype=cosines[0].dtype)
        for cosine, share in zip(cosines, shares, strict=True):
            best = top(together + share, size)[1]
            rest = top(share.scatter(1, best, 0.0), size)[1]
            x = (cosine / self.config.temperature).exp()
            everything, first = x.sum(1), x.gather(1, best).sum(1)
            second = x.gather(1, rest).sum(1)
            total = total - (first / everything + TINY).log().sum()
            total = total - (second / (everything - first) + TINY).log().sum()
        return total

    def tables(self) -> tuple[Tensor, Tensor]:
        """Propagated users, and items with the mean of their views."""
        free = torch.cat([self.users, self.items])
        users, items = self.graph.propagate(free, self.config.n_layers).split(
            [self.n_users, self.n_items]
        )
        return users, items + torch.stack(self._views()).mean(0)


def weights(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """w+ and w- of each pair, from plausibilities of its positive and its negative, (views, B)."""
    mean, common = positive.mean(0), negative.mean()
    kept = mean * (-2 * positive.var(0)).exp()
    turned = (mean < common) * (positive.amax(0) - common)
    return kept.clamp(0, 1), turned.clamp(0, 1)


def divergence(users: Tensor, ids: Tensor, contents: Tensor) -> Tensor:
    """Sum of KL both ways between Bernoulli numbers of `<u, id>` and of `<u, content>`.

    Args:
        users: (b, d).
        ids: (n, d).
        contents: (n, d).
    """
    a, b = users @ ids.T, users @ contents.T
    return ((a.sigmoid() - b.sigmoid()) * (a - b)).sum()
