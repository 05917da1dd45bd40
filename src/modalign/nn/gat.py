"""Attention over the neighbours in a graph, at some of its nodes, without messages in memory.

A graph holds for every node its sources (itself among them), sorted by the node. Scores of edges
are (n_edges, n_heads); vectors of edges (n_edges, d) exist only in blocks that fit in the cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from modalign.graph.propagate import CSR, cut
from modalign.nn.dropout import kept

SLOPE = 0.2
"""Negative slope of the leaky ReLU on the scores of edges."""

FLOOR = -60.0
"""Scores are clipped at this distance below the highest possible one of their node: a node whose
neighbours are all below it then gives them equal shares instead of none."""

BLOCK = 8192
"""Number of edges whose vectors are in memory at a time."""


class Edges(NamedTuple):
    """Edges that end in b nodes, sorted by them.

    Attributes:
        graph: the graph of the edges.
        rows: the b nodes; None for all nodes.
        indptr: first edge of each node, and the number of edges, int32, (b + 1,).
        sources: the nodes where the edges start, int32, (n_edges,).
        owner: which of the b nodes each edge ends in, int64, (n_edges,).
        weights: weights of the edges, float32, (n_edges,); None if all are 1.
    """

    graph: NeighbourGraph
    rows: Tensor | None
    indptr: Tensor
    sources: Tensor
    owner: Tensor
    weights: Tensor | None

    def by_source(self) -> tuple[Tensor, Tensor]:
        """The same edges sorted by source: first edge of each source, int32, (n + 1,), and the
        positions of the edges, int64, (n_edges,).

        The graph is symmetric: the sources of a node are also the nodes that it is a source of,
        so that all edges are read once in order, and nothing is sorted.
        """
        graph = self.graph
        if self.rows is None:
            return graph.indptr, graph.reverse.long()
        place = torch.full_like(graph.indptr[1:], -1)
        place[self.rows] = torch.arange(len(self.rows), dtype=place.dtype, device=place.device)
        listener = place.index_select(0, graph.indices)
        inside = torch.zeros(len(listener) + 1, dtype=torch.int32, device=place.device)
        torch.cumsum(listener >= 0, 0, dtype=torch.int32, out=inside[1:])
        chosen = torch.nonzero(listener >= 0).flatten()
        who = listener.index_select(0, chosen)
        shift = self.indptr[:-1] - graph.indptr.index_select(0, self.rows)
        which = graph.reverse.index_select(0, chosen) + shift.index_select(0, who)
        return inside.index_select(0, graph.indptr), which.long()


class NeighbourGraph(nn.Module):
    """The sources of each node: itself exactly once, and its neighbours in both directions.

    Args:
        neighbours: scipy sparse, (n, n). An entry joins its two nodes in both directions; entries
            on the diagonal are ignored, as every node is its own source.
        weighted: keep the entries as weights of the edges (the larger one if both directions
            have one); a node's own weight is then 1.

    Memory: 12 bytes per edge.

    Example:
        >>> chain = sp.csr_array(np.array([[0.0, 1, 0], [0, 0, 1], [0, 0, 0]]))
        >>> NeighbourGraph(chain).edges().sources.tolist()
        [0, 1, 0, 1, 2, 1, 2]
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    reverse: Tensor

    def __init__(self, neighbours: sp.csr_array, weighted: bool = False) -> None:
        super().__init__()
        one_way = sp.csr_array(neighbours).astype(np.float32)
        if not weighted:
            one_way.data[:] = 1.0
        n = one_way.shape[0]
        one_way = one_way - sp.diags_array(one_way.diagonal())
        both = sp.csr_array(one_way.maximum(one_way.T) + sp.eye_array(n, dtype=np.float32))
        both.eliminate_zeros()
        both.sort_indices()
        self.n_nodes, self.weighted = n, weighted
        self.register_buffer("indptr", torch.from_numpy(both.indptr.astype(np.int32)), False)
        self.register_buffer("indices", torch.from_numpy(both.indices.astype(np.int32)), False)
        self.register_buffer("values", torch.from_numpy(both.data.astype(np.float32)), False)
        # The position of the edge in the other direction: the transpose of the edges' numbers.
        numbers = np.arange(both.nnz)
        back = sp.csr_array(sp.csr_array((numbers, both.indices, both.indptr), both.shape).T)
        back.sort_indices()
        self.register_buffer("reverse", torch.from_numpy(back.data.astype(np.int32)), False)

    def edges(self, rows: Tensor | None = None) -> Edges:
        """Edges that end in all nodes, or in those of `rows` (no repeats) in their order."""
        matrix = CSR(self.indptr, self.indices, self.values, self.n_nodes)
        if rows is not None:
            matrix = cut(matrix, rows)
        weights = matrix.values if self.weighted else None
        return Edges(self, rows, matrix.indptr, matrix.indices, matrix.owner, weights)

    def extra_repr(self) -> str:
        """Sizes, for `repr`."""
        return f"{self.n_nodes} nodes, {len(self.indices)} edges"


class GraphAttention(nn.Module):
    """Multi-head attention of each node over its neighbours, itself included.

    For heads r and the neighbourhood N_i of node i,

        e_ij = LeakyReLU(a_r . W_r h_i + b_r . W_r h_j),  share = softmax of e_ij over j in N_i,
        h'_i = [ sum_j share_ij W_r h_j ] over all r side by side, + bias.

    With weights of edges, shares are proportional to weight times exp(e).

    Args:
        input_size: width c of h.
        output_size: width d of h', divisible by `n_heads`.
        n_heads: number of heads R.
        rate: dropout rate of the inputs and of the shares; both need a generator.

    Raises:
        ValueError: `output_size` is not divisible by `n_heads`.

    Shapes:
        h (n, c) to (n, d), or (len(rows), d).

    Source: Velickovic et al., "Graph attention networks", ICLR 2018, equations 1 to 5.

    Limits: where scores of neighbours differ by more than 60 the lower ones have no influence.

    Example:
        >>> alone = NeighbourGraph(sp.csr_array((2, 2)))
        >>> layer = GraphAttention(4, 6, n_heads=2)
        >>> h = torch.randn(2, 4)
        >>> torch.testing.assert_close(layer(h, alone), layer.project(h) + layer.bias)
    """

    def __init__(self, input_size: int, output_size: int, n_heads: int, rate: float = 0.0) -> None:
        super().__init__()
        if output_size % n_heads:
            raise ValueError(f"expected a width divisible by {n_heads} heads, got {output_size}")
        self.n_heads, self.rate = n_heads, rate
        self.weight = nn.Parameter(torch.empty(output_size, input_size))
        self.listening = nn.Parameter(torch.empty(n_heads, output_size // n_heads))
        self.heard = nn.Parameter(torch.empty(n_heads, output_size // n_heads))
        self.bias = nn.Parameter(torch.zeros(output_size))
        for matrix in (self.weight, self.listening, self.heard):
            nn.init.xavier_uniform_(matrix)

    def project(self, h: Tensor) -> Tensor:
        """`W h` of all heads side by side, (n, d)."""
        return functional.linear(h, self.weight)

    def forward(
        self,
        h: Tensor,
        graph: NeighbourGraph,
        rows: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Vectors of all nodes, or of some in a given order.

        Args:
            h: vectors of all nodes, (n, c).
            graph: the sources of each node.
            rows: nodes to compute, int64, no repeats; None for all.
            rng: draws the dropout; None for no dropout.

        Returns:
            (n, d) or (len(rows), d), in the type of the parameters.
        """
        # Shares must sum to one: single precision for any type of h.
        with torch.autocast(h.device.type, enabled=False):
            return self._attend(h.to(self.weight.dtype), graph, rows, rng) + self.bias

    def _attend(
        self,
        h: Tensor,
        graph: NeighbourGraph,
        rows: Tensor | None,
        rng: torch.Generator | None,
    ) -> Tensor:
        edges = graph.edges(rows)
        if rng is not None and self.rate:
            h = h * kept(h.shape, self.rate, rng)
        values, listening, heard = self._scores(h)
        if rows is not None:
            listening = listening.index_select(0, rows)
        mask = None
        if rng is not None and self.rate:
            mask = kept((len(edges.sources), self.n_heads), self.rate, rng)
        return attend(values, listening, heard, edges, mask)

    def _scores(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`W h`, (n, d), and both halves of the scores, (n, n_heads)."""
        values = self.project(h)
        # One product with zeros between the heads is much faster than a sum for each head.
        member = _members(values, self.n_heads)
        columns = [side.reshape(-1, 1) * member for side in (self.listening, self.heard)]
        listening, heard = (values @ torch.cat(columns, dim=1)).split(self.n_heads, dim=1)
        return values, listening, heard

    @torch.no_grad()
    def entropy(self, h: Tensor, graph: NeighbourGraph, rows: Tensor) -> float:
        """Mean entropy of the shares at `rows`, each divided by the log of its number of sources.

        Args:
            h: vectors of all nodes, (n, c).
            graph: the sources of each node.
            rows: nodes to average over, int64, no repeats.

        Returns:
            1 for equal shares. Nodes that are their own only source are left out; 0 if all are.
        """
        edges = graph.edges(rows)
        _, listening, heard = self._scores(h)
        share, _ = _shares(listening.index_select(0, rows), heard, edges)
        entropy = listening.new_zeros(len(rows), self.n_heads)
        entropy.index_add_(0, edges.owner, -torch.xlogy(share, share))
        counts = (edges.indptr[1:] - edges.indptr[:-1]).float()
        some = counts > 1
        if not bool(some.any()):
            return 0.0
        return float((entropy[some] / counts[some].log()[:, None]).mean())


def attend(
    values: Tensor, listening: Tensor, heard: Tensor, edges: Edges, mask: Tensor | None = None
) -> Tensor:
    """Means of neighbours' values by softmax shares of edges, (b, d); see `GraphAttention`.

    Args:
        values: (n, d), R heads of d / R columns side by side.
        listening: part of the scores that depends on the b nodes, (b, R).
        heard: part of the scores that depends on the sources, for all nodes, (n, R).
        edges: edges that end in the b nodes.
        mask: factors of the shares, (n_edges, R), or None.
    """
    result: Tensor = _Attention.apply(values, listening, heard, edges, mask)  # type: ignore[no-untyped-call]
    return result


def _members(values: Tensor, heads: int) -> Tensor:
    """Which of the d columns belong to which head, ones and zeros, (d, R)."""
    each = torch.eye(heads, dtype=values.dtype, device=values.device)
    return each.repeat_interleave(values.shape[1] // heads, dim=0)


def _shares(listening: Tensor, heard: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """Shares of edges, (n_edges, R), and where the score is above zero."""
    # The leaky ReLU is monotone: no score of a node exceeds the one for the largest `heard`
    # of all nodes, which is subtracted without a maximum over neighbours.
    highest = functional.leaky_relu(listening + heard.amax(0), SLOPE)
    score = heard.index_select(0, edges.sources)
    score += listening.index_select(0, edges.owner)
    positive = score > 0
    functional.leaky_relu_(score, SLOPE)
    score -= highest.index_select(0, edges.owner)
    share = score.clamp_(min=FLOOR).exp_()
    if edges.weights is not None:
        share *= edges.weights[:, None].to(share.dtype)
    total = _sums(share, edges.indptr)
    share *= total.reciprocal_().index_select(0, edges.owner)
    return share, positive


class _Attention(torch.autograd.Function):
    """The backward pass goes over the edges in blocks: the vectors at both ends of a block of edges
    give the gradient of its shares, and nothing of the size of edges times columns is held. The
    gradient of the sources is again a weighted sum, over the edges sorted by source.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        listening: Tensor,
        heard: Tensor,
        edges: Edges,
        mask: Tensor | None,
    ) -> Tensor:
        values, listening, heard = (x.detach().contiguous() for x in (values, listening, heard))
        share, positive = _shares(listening, heard, edges)
        dropped = share if mask is None else share * mask
        result = _weighted_sums(values, dropped, edges.indptr, edges.sources)
        ctx.edges = edges
        ctx.save_for_backward(values, share, positive, mask, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, share, positive, mask, result = ctx.saved_tensors
        edges: Edges = ctx.edges
        gradient = gradients[0].contiguous()
        heads = share.shape[1]
        dropped = share if mask is None else share * mask
        of_share = torch.empty_like(share)
        member = _members(values, heads)
        for start in range(0, len(share), BLOCK):
            at = slice(start, start + BLOCK)
            products = gradient.index_select(0, edges.owner[at])
            products *= values.index_select(0, edges.sources[at])
            torch.mm(products, member, out=of_share[at])
        indptr, order = edges.by_source()
        listeners = edges.owner.index_select(0, order)
        of_values = _weighted_sums(gradient, dropped.index_select(0, order), indptr, listeners)
        # The sum over a node's edges of share times gradient follows from the result.
        mean = torch.linalg.vecdot(
            gradient.view(len(gradient), heads, -1), result.view(len(result), heads, -1)
        )
        if mask is not None:
            of_share *= mask
        of_share -= mean.index_select(0, edges.owner)
        of_share *= share
        of_score = torch.where(positive, of_share, SLOPE * of_share)
        of_listening = _sums(of_score, edges.indptr)
        of_heard = _sums(of_score, indptr, order)
        return of_values, of_listening, of_heard, None, None


def _sums(x: Tensor, indptr: Tensor, order: Tensor | None = None) -> Tensor:
    """Sums of the rows of x, or of `x[order]`, by `indptr`."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and len(x):
        index = torch.arange(len(x)) if order is None else order
        return functional.embedding_bag(
            index.to(indptr.dtype), x, indptr, mode="sum", include_last_offset=True
        )
    counts = (indptr[1:] - indptr[:-1]).long()
    owner = torch.repeat_interleave(counts, output_size=len(x))
    result = x.new_zeros(len(counts), x.shape[1])
    return result.index_add_(0, owner, x if order is None else x.index_select(0, order))


def _weighted_sums(values: Tensor, share: Tensor, indptr: Tensor, columns: Tensor) -> Tensor:
    """`sum_j share_ij values_j` by head, rows i by `indptr` and j in `columns`, (b, d)."""
    b, heads = len(indptr) - 1, share.shape[1]
    if values.device.type == "cpu" and values.dtype == torch.float32 and len(columns):
        columns = columns.to(indptr.dtype)
        parts = zip(values.chunk(heads, dim=1), share.T.contiguous(), strict=True)
        sums = [
            functional.embedding_bag(
                columns,
                part.contiguous(),
                indptr,
                mode="sum",
                per_sample_weights=weights,
                include_last_offset=True,
            )
            for part, weights in parts
        ]
        return torch.cat(sums, dim=1)
    counts = (indptr[1:] - indptr[:-1]).long()
    owner = torch.repeat_interleave(counts, output_size=len(columns))
    result = values.new_zeros(b, values.shape[1])
    for start in range(0, len(share), BLOCK):
        at = slice(start, start + BLOCK)
        message = values.index_select(0, columns[at]).view(len(share[at]), heads, -1)
        message = message * share[at].unsqueeze(-1)
        result.index_add_(0, owner[at], message.flatten(1))
    return result


__all__ = ["Edges", "GraphAttention", "NeighbourGraph", "attend"]
