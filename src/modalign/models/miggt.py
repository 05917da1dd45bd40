"""MIG-GT: ids and modalities propagated over numbers of steps of their own, and sampled items."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, cast

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core import seeds
from modalign.core.interfaces import Batch, OptimizerSettings, Phase
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.normalize import normalise
from modalign.graph.propagate import CSR, multiply, plain
from modalign.models._registry import register
from modalign.models._shared.content import ContentConfig, prepared
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.nn.dropout import kept
from modalign.nn.modality_input import ModalityInput

Share = Annotated[float, Field(ge=0, lt=1)]
CHANNELS = 4
"""Width of the queries and keys of the attention."""
MIXED = 0.1
"""Share of the attention's result in a vector."""


class MIGGTConfig(ContentConfig):
    """Options of MIG-GT; the defaults are those of the authors for Amazon Baby."""

    n_layers: Annotated[int, Field(ge=0, le=16)] = 4
    """Number of propagation steps of the ids of users."""
    n_content_layers: Annotated[int, Field(ge=0, le=16)] = 2
    """Number of propagation steps of modalities without a number in `n_layers_of`."""
    n_layers_of: dict[str, Annotated[int, Field(ge=0, le=16)]] = {"image": 1}
    """Number of propagation steps of some modalities, by name."""
    restart: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of the start in every step, alpha in the paper; the neighbours have the rest."""
    n_samples: Annotated[int, Field(ge=0, le=1000)] = 10
    """Items that every node attends to, drawn in each step."""
    hidden_size: Annotated[int, Field(ge=1, le=8192)] = 512
    """Width of the hidden layer of the encoders of content."""
    dropout_input: Share = 0.3
    """Dropout of the features."""
    dropout_hidden: Share = 0.3
    """Dropout of the hidden layer of the encoders."""
    dropout_start: Share = 0.3
    """Dropout of ids and encoded content before propagation."""
    dropout_edges: Share = 0.2
    """Dropout of the edges, each direction by itself."""
    dropout_sum: Share = 0.2
    """Dropout of the sum of ids and content after propagation."""
    reg: Annotated[float, Field(ge=0)] = 1e-5
    """Weight of half the sum of squares of all final vectors."""
    feature_rank: Annotated[int, Field(ge=1)] | None = 384
    """Columns to which wider features are reduced; null keeps them."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.01
    """Learning rate of the optimizer."""
    learning_rate_decay: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Factor of the learning rate after every epoch."""
    batch_size: Annotated[int, Field(ge=1)] = 8000
    """Training pairs in a training step; the losses are sums over it."""


@register(
    "mig-gt",
    config=MIGGTConfig,
    toy={
        "embedding_size": 8,
        "n_layers": 2,
        "n_content_layers": 1,
        "hidden_size": 16,
        "n_samples": 3,
        "dropout_edges": 0.1,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 12,
    },
    family="multimodal",
    paper="Hu et al., AAAI 2025",
    variants={"without-samples": {"n_samples": 0}},
)
class MIGGT(SeededLoss):
    """Ids of users and each modality propagated separately, summed, and a glance at a few items.

    With A the normalised graph of interactions with self-loops, a = `restart`, encoders F_m of two
    linear layers with batch norm and PReLU, and C = `n_samples` items drawn for every node,

        prop(x, K): K times x' = (1 - a) A x' + a x, from x' = x
        Z = prop([P; 0], n_layers) + sum over m of prop([0; F_m(X_m)], K_m)
        t = the list (z_n, z_s1, ..., z_sC),  w = softmax of its (W_q t + b)(W_k t + c)' / 2
        t' = 0.1 w t + 0.9 t,   h_n = the first of t',   score(u, i) = <h_u, h_i>
        loss = sum of -log sigmoid(h_u.h_i - h_u.h_j) + sum of -log softmax(h_u . t'_i) at the first
               + reg / 2 (sum of squares of all h)

    Items have no id. In training there is dropout at five places; scores attend to items drawn
    once and for all, and batch norm uses the statistics of all items in training and scoring.

    Limits: sums over the batch tie the weight of `reg` to the batch size. An item is what its
    content and users say: two items with the same content and no users have the same score.

    Source: Hu et al., "Modality-independent graph neural networks with global transformers for
    multimodal recommendation", AAAI 2025, as in the authors' release.
    """

    needs = ("negatives", "modalities")
    values: Tensor
    indptr: Tensor
    indices: Tensor
    reverse: Tensor
    chosen: Tensor

    def __init__(self, config: MIGGTConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: MIGGTConfig = config
        n_nodes, size = view.n_users + view.n_items, config.embedding_size
        self.users = nn.Parameter(torch.randn(view.n_users, size) / size**0.5)
        modalities = prepared(config, view)
        self.steps = [config.n_layers_of.get(name, config.n_content_layers) for name in modalities]
        self.encoders = nn.ModuleList(
            _Encoder(ModalityInput(one, config.missing, view), config)
            for one in modalities.values()
        )
        edges = BipartiteGraph(view.users, view.items, view.n_users, view.n_items).scipy()
        edges.data = np.ones_like(edges.data)
        graph = normalise(sp.csr_array(edges + sp.eye_array(n_nodes, format="csr")), "symmetric")
        graph.sort_indices()
        # The position of the edge in the other direction: the transpose of the edges' numbers.
        numbers = sp.csr_array((np.arange(graph.nnz), graph.indices, graph.indptr), graph.shape)
        back = sp.csr_array(numbers.T)
        back.sort_indices()
        drawn = torch.randint(
            view.n_items, (n_nodes, config.n_samples), generator=seeds.fixed_generator(0)
        )
        named = {
            "values": torch.from_numpy(graph.data.astype(np.float32)),
            "indptr": torch.from_numpy(graph.indptr.astype(np.int32)),
            "indices": torch.from_numpy(graph.indices.astype(np.int32)),
            "reverse": torch.from_numpy(back.data.astype(np.int64)),
            "chosen": drawn,
        }
        for name, values in named.items():
            self.register_buffer(name, values, persistent=False)
        if config.n_samples:
            self.query, self.key = nn.Linear(size, CHANNELS), nn.Linear(size, CHANNELS)
            for layer in (self.query, self.key):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def phases(self) -> list[Phase]:
        """One phase whose learning rate decays."""
        settings = OptimizerSettings.of(self.config)
        settings = OptimizerSettings(
            settings.learning_rate,
            settings.weight_decay,
            settings.kind,
            decay=self.config.learning_rate_decay,
        )
        return [Phase("main", list(self.parameters()), settings)]

    def _propagated(self, start: Tensor, n_layers: int, rng: torch.Generator | None) -> Tensor:
        values = _dropped(self.values, self.config.dropout_edges, rng)
        forth = CSR(self.indptr, self.indices, values, len(start))
        back = CSR(self.indptr, self.indices, values[self.reverse], len(start))
        result: Tensor = _Restarted.apply(start, forth, back, n_layers, self.config.restart)  # type: ignore[no-untyped-call]
        return result

    def _encoded(self, rng: torch.Generator | None) -> list[Tensor]:
        """F_m of all items."""
        return [encoder(rng) for encoder in self.encoders]

    def _summed(self, rng: torch.Generator | None) -> Tensor:
        """Z of all users and items."""
        rate = self.config.dropout_start
        users = _dropped(self.users, rate, rng)
        start = functional.pad(users, (0, 0, 0, self.n_items))
        total = self._propagated(start, self.config.n_layers, rng)
        for content, steps in zip(self._encoded(rng), self.steps, strict=True):
            start = functional.pad(_dropped(content, rate, rng), (0, 0, self.n_users, 0))
            total = total + self._propagated(start, steps, rng)
        return _dropped(total, self.config.dropout_sum, rng)

    def _glance(self, z: Tensor, chosen: Tensor, rows: Tensor, whole: bool) -> Tensor:
        """The first tokens t' of some nodes, (b, 1, d), or all of them, (b, C + 1, d)."""
        if not self.config.n_samples:
            return z[rows, None]
        nodes = torch.cat([rows[:, None], self.n_users + chosen[rows]], dim=1)  # (b, C + 1)
        keys = self.key(z)
        asking = nodes if whole else nodes[:, :1]
        queries = self.query(z)
        logits = functional.embedding(asking, queries) @ functional.embedding(nodes, keys).mT
        shares = (logits / CHANNELS**0.5).softmax(-1)
        mixed: Tensor = shares @ functional.embedding(nodes, z)
        return MIXED * mixed + (1 - MIXED) * functional.embedding(asking, z)

    def _final(self, z: Tensor, chosen: Tensor) -> Tensor:
        """H of all users and items, in blocks of nodes."""
        rows = torch.arange(len(z), device=z.device)
        return torch.cat([self._glance(z, chosen, one, False)[:, 0] for one in rows.split(4096)])

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, `own` (an item is found among what it attends to) and `reg`."""
        rng = self._rng(phase) if self.training else None
        chosen = self.chosen
        if rng is not None:
            chosen = torch.randint(self.n_items, chosen.shape, generator=rng, device=chosen.device)
        z = self._summed(rng)
        final = self._final(z, chosen)
        users, items = final[batch.users], final[batch.items() + self.n_users]
        scores = torch.linalg.vecdot(users, items.view(2, *users.shape))
        parts = {"bpr": functional.softplus(scores[1] - scores[0]).sum()}
        if self.config.n_samples:
            wanted, places = cast(Tensor, batch.positives).unique(return_inverse=True)
            tokens = self._glance(z, chosen, wanted + self.n_users, True)
            logits = (tokens[places] @ users[:, :, None])[:, :, 0]
            parts["own"] = (logits.logsumexp(1) - logits[:, 0]).sum()
        if self.config.reg:
            parts["reg"] = 0.5 * self.config.reg * final.square().sum()
        return parts

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final vectors, with the items that were drawn for scoring."""
        users, items = self._final(self._summed(None), self.chosen).split(
            [self.n_users, self.n_items]
        )
        return users, items


class _Encoder(nn.Module):
    """Two linear layers with batch norm and PReLU, over all items at once."""

    def __init__(self, source: ModalityInput, config: MIGGTConfig) -> None:
        super().__init__()
        self.input, self.config = source, config
        widths = [source.dim, config.hidden_size, config.embedding_size]
        # The bias of a linear layer before batch norm has no effect.
        layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)]
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width, track_running_stats=False) for width in widths[1:]
        )
        self.slopes = nn.ModuleList(nn.PReLU() for _ in widths[1:])

    def forward(self, rng: torch.Generator | None) -> Tensor:
        x: Tensor = self.input()
        rates = self.config.dropout_input, self.config.dropout_hidden
        each = zip(rates, self.layers, self.norms, self.slopes, strict=True)
        for rate, layer, norm, slope in each:
            x = slope(norm(layer(_dropped(x, rate, rng))))
        return x


class _Restarted(torch.autograd.Function):
    """`n` steps of `x' = (1 - a) A x' + a x`; the gradient is the same with the transpose of A."""

    @staticmethod
    def forward(ctx, x, matrix, transpose, n, restart):  # type: ignore[no-untyped-def]
        ctx.transpose, ctx.n, ctx.restart = transpose, n, restart
        return _steps(matrix, plain(x), n, restart)

    @staticmethod
    def backward(ctx, *gradients):  # type: ignore[no-untyped-def]
        gradient = _steps(ctx.transpose, plain(gradients[0]), ctx.n, ctx.restart)
        return gradient, None, None, None, None


def _steps(matrix: CSR, x: Tensor, n: int, restart: float) -> Tensor:
    result = x
    for _ in range(n):
        result = multiply(matrix, result).mul_(1 - restart).add_(x, alpha=restart)
    return result


def _dropped(x: Tensor, rate: float, rng: torch.Generator | None) -> Tensor:
    if rng is None or not rate:
        return x
    return x * kept(x.shape, rate, rng).to(x.dtype)
