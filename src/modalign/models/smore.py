"""SMORE: content filtered in the frequency domain of its channels, and a fused view made there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor, nn

from modalign.core.interfaces import Batch, Phase
from modalign.core.view import TrainView
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.one_sided import TwoWayGraph
from modalign.graph.propagate import SparseGraph
from modalign.models._registry import register
from modalign.models._shared.content import Projections, prepared
from modalign.models._shared.item_graph import cosine_graph
from modalign.models._shared.schedule import decaying
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.models.mgcn import Fused, fused_losses, linears
from modalign.nn.dropout import kept
from modalign.nn.rows import wide


class SMOREConfig(Fused):
    """Options of SMORE; the defaults are those of the authors for Amazon Baby."""

    n_layers: Annotated[int, Field(ge=0, le=8)] = 4
    """Number of propagation steps between users and items."""
    n_item_layers: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of steps over the item graphs."""
    k: Annotated[int, Field(ge=1, le=1000)] = 40
    """Neighbours of an item, the item itself included, in modalities without a number in `k_of`."""
    k_of: dict[str, Annotated[int, Field(ge=1, le=1000)]] = {"text": 15}
    """Neighbours of an item in some modalities, by name."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-3
    """Learning rate of the optimizer; the release has 1e-3, which starts slowly."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout of the gates that the LightGCN gives to each view."""


@register(
    "smore",
    config=SMOREConfig,
    toy={
        "embedding_size": 8,
        "n_layers": 2,
        "k": 5,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 20,
    },
    family="multimodal",
    paper="Ong & Khong, WSDM 2025",
    variants={"without-contrast": {"contrast_weight": 0.0}},
)
class SMORE(SeededLoss):
    """Item ids gated by content that is filtered, and fused, in the frequency domain.

    With F_m = X_m W_m + b_m, T the real Fourier transform along the d channels of a row
    (orthonormal), learnt complex filters w, (x) the elementwise product, s the logistic
    function, C the LightGCN, and views r = the modalities and one fused view f,

        T_m = T^-1(w_m (x) T F_m),   T_f = T^-1(w_f (x) product over m of T F_m)
        Y_r = S_r^n (Q (x) s(T_r A_r + a_r)),   Z_r = [R Y_r; Y_r],   g_r = dropout(s(C B_r + b'_r))
        p_m = softmax over channels of tanh(Z_f Q_m + q_m) V_m
        K = (sum_m g_m (x) p_m (x) Z_m + g_f (x) Z_f) / (M + 1),      H = C + K

    and score(u, i) = <H_u, H_i>. S_m is the graph of the k most similar items in m; S_f has the
    edges of all, each with its largest weight. The loss is that of MGCN. An item that lacks m has
    no vector T_m and no T_f, and is reached over the edges of its other modalities.

    Limits: random filters amplify the content at the start, so that the first epochs are slow.
    With one modality the fused view is a second filter of it.

    Source: Ong and Khong, "Spectrum-based modality representation fusion graph convolutional
    network for multimodal recommendation", WSDM 2025, as in the authors' release.
    """

    needs = ("negatives", "modalities")
    there: Tensor

    def __init__(self, config: SMOREConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: SMOREConfig = config
        size = config.embedding_size
        self.resamples = config.dropout > 0  # type: ignore[misc]
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_users, size)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(view.n_items, size)))
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        pairs = (view.users, view.items, view.n_users, view.n_items)
        self.to_users = TwoWayGraph(*pairs, adjacency="symmetric").to_users
        modalities = prepared(config, view)
        smooth = [
            cosine_graph(one, config.k_of.get(name, config.k)) for name, one in modalities.items()
        ]
        graphs = [SparseGraph(one) for one in (*smooth, _union(smooth))]
        self.item_graphs = cast("Sequence[SparseGraph]", nn.ModuleList(graphs))
        self.content = Projections(modalities, config, view, size)
        views = len(graphs)
        # Real and imaginary parts, of each modality and of the fused view.
        self.filters = nn.Parameter(torch.randn(views, size // 2 + 1, 2))
        self.gates = cast("Sequence[nn.Linear]", linears(views, size))
        self.shares = cast("Sequence[nn.Linear]", linears(views, size))
        self.attention = nn.ModuleList(
            nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, size, bias=False))
            for _ in modalities
        )
        present = self.content.present
        there = torch.cat([present, present.all(0, keepdim=True)])[..., None]
        self.register_buffer("there", there, persistent=False)  # (M + 1, n_items, 1)

    def phases(self) -> Sequence[Phase]:
        """One phase whose learning rate decays."""
        return decaying(self, self.config, self.config.learning_rate_decay)

    def _filtered(self) -> list[Tensor]:
        """T_m of each modality and T_f, each (n_items, d)."""
        size = self.config.embedding_size
        spectra = [torch.fft.rfft(wide(content), norm="ortho") for content in self.content()]
        fused = spectra[0]
        for spectrum in spectra[1:]:
            fused = fused * spectrum
        filters = torch.view_as_complex(self.filters)
        pairs = zip(filters, [*spectra, fused], strict=True)
        return [torch.fft.irfft(w * spectrum, n=size, norm="ortho") for w, spectrum in pairs]

    def _vectors(
        self, users: Tensor | None, items: Tensor | None, rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """C and K at some users and items (None: all), users first."""
        rows = None
        if users is not None and items is not None:
            rows = torch.cat([users, items + self.n_users])
        free = torch.cat([self.users, self.items])
        ids = self.graph.propagate(free, self.config.n_layers, rows=rows)
        views = []
        each = zip(self._filtered(), self.gates, self.item_graphs, self.there, strict=True)
        for content, gate, graph, there in each:
            table = self.items * gate(content).sigmoid() * there
            for _ in range(self.config.n_item_layers):
                table = graph.matmul(table)
            of_items = table if items is None else table[items]
            views.append(torch.cat([self.to_users.matmul(table, rows=users), of_items]))
        gates = [self._gate(share(ids).sigmoid(), rng) for share in self.shares]
        total = gates[-1] * views[-1]
        for weight, attend, z in zip(gates, self.attention, views, strict=False):
            total = total + weight * attend(views[-1]).softmax(1) * z
        return ids, total / len(views)

    def _gate(self, gate: Tensor, rng: torch.Generator | None) -> Tensor:
        rate = self.config.dropout
        return gate if rng is None or not rate else gate * kept(gate.shape, rate, rng)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`bpr`, `reg` and `contrast`, the last two where they have a weight."""
        rng = self._rng(phase) if self.training else None
        ids, content = self._vectors(batch.users, batch.items(), rng)
        return fused_losses(ids, content, self.config)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Final vectors of all users and items."""
        ids, content = self._vectors(None, None)
        users, items = (ids + content).split([self.n_users, self.n_items])
        return users, items


def _union(graphs: Sequence[sp.csr_array]) -> sp.csr_array:
    """The edges of all graphs, each with its largest weight, not normalised again."""
    union = graphs[0]
    for graph in graphs[1:]:
        union = union.maximum(graph)
    return sp.csr_array(union.astype(np.float32))
