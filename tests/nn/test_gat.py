"""Attention over neighbours against a dense masked softmax; the graph's laws; its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalign.core import seeds
from modalign.nn import gat
from modalign.nn.gat import GraphAttention, NeighbourGraph, attend


def random_neighbours(n: int = 12, share: float = 0.25, seed: int = 0) -> sp.csr_array:
    rng = seeds.numpy_generator(seed, "neighbours")
    dense = (rng.random((n, n)) < share) * rng.uniform(0.1, 1.0, (n, n))
    dense[-1], dense[:, -1] = 0.0, 0.0  # the last node is alone
    return sp.csr_array(dense)


def layer_of(inputs: int = 5, width: int = 6, heads: int = 3, rate: float = 0.0) -> GraphAttention:
    with seeds.torch_seed(1, "layer"):
        layer = GraphAttention(inputs, width, heads, rate)
        torch.nn.init.normal_(layer.bias)
    return layer


def features(n: int = 12, width: int = 5, seed: int = 2) -> torch.Tensor:
    return torch.randn(n, width, generator=seeds.torch_generator(seed, "h"))


def dense_attention(
    layer: GraphAttention,
    h: torch.Tensor,
    adjacency: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition: scores of all pairs, a softmax over those that are neighbours."""
    heads = layer.n_heads
    parts = []
    for r, weight in enumerate(layer.weight.chunk(heads)):
        values = h @ weight.T
        scores = (values @ layer.listening[r])[:, None] + (values @ layer.heard[r])[None, :]
        scores = torch.nn.functional.leaky_relu(scores, 0.2) + adjacency.log()
        share = scores.softmax(dim=1)
        parts.append((share if mask is None else share * mask[r]) @ values)
    return torch.cat(parts, dim=1) + layer.bias


def dense_graph(graph: NeighbourGraph) -> torch.Tensor:
    edges = graph.edges()
    dense = torch.zeros(graph.n_nodes, graph.n_nodes)
    weights = torch.ones(len(edges.sources)) if edges.weights is None else edges.weights
    dense[edges.owner, edges.sources.long()] = weights
    return dense


# ------------------------------------------------------------------ the graph


def test_a_graph_is_symmetric_with_every_node_its_own_neighbour_once():
    one_way = random_neighbours()
    graph = NeighbourGraph(one_way)
    edges = graph.edges()
    pairs = torch.stack([edges.owner, edges.sources.long()], dim=1)
    assert len(torch.unique(pairs, dim=0)) == len(pairs)
    dense = dense_graph(graph)
    torch.testing.assert_close(dense, dense.T)
    torch.testing.assert_close(dense.diagonal(), torch.ones(12))
    expected = (one_way.toarray() + one_way.toarray().T + np.eye(12)) > 0
    torch.testing.assert_close(dense, torch.from_numpy(expected.astype(np.float32)))
    assert int(edges.indptr[-1] - edges.indptr[-2]) == 1  # alone


def test_weights_are_the_larger_of_both_directions_and_one_for_the_node_itself():
    one_way = random_neighbours()
    dense = one_way.toarray()
    np.fill_diagonal(dense, 0.0)
    expected = np.maximum(dense, dense.T) + np.eye(12)
    found = dense_graph(NeighbourGraph(one_way, weighted=True))
    torch.testing.assert_close(found, torch.from_numpy(expected.astype(np.float32)))


@pytest.mark.parametrize("rows", [None, [3, 8, 0, 11], [5]])
def test_edges_sorted_by_source_are_the_same_edges(rows):
    graph = NeighbourGraph(random_neighbours())
    edges = graph.edges(None if rows is None else torch.tensor(rows))
    indptr, order = edges.by_source()
    assert sorted(order.tolist()) == list(range(len(edges.sources)))
    counts = (indptr[1:] - indptr[:-1]).long()
    expected = torch.repeat_interleave(torch.arange(12), counts)
    torch.testing.assert_close(edges.sources[order].long(), expected)


# ------------------------------------------------------------------ the layer


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_is_the_dense_masked_softmax(weighted, dtype):
    graph = NeighbourGraph(random_neighbours(), weighted=weighted)
    layer, h = layer_of().to(dtype), features().to(dtype)
    expected = dense_attention(layer, h, dense_graph(graph).to(dtype))
    torch.testing.assert_close(layer(h, graph), expected, rtol=1e-5, atol=1e-5)


def test_rows_are_those_of_the_whole_in_any_order():
    graph, layer, h = NeighbourGraph(random_neighbours()), layer_of(), features()
    rows = torch.tensor([7, 0, 11, 5])
    torch.testing.assert_close(layer(h, graph, rows), layer(h, graph)[rows])


def test_a_node_alone_passes_its_own_projection():
    graph, layer, h = NeighbourGraph(sp.csr_array((4, 4))), layer_of(), features(4)
    torch.testing.assert_close(layer(h, graph), h @ layer.weight.T + layer.bias)


def test_shares_sum_to_one_by_node_and_head():
    graph, layer, h = NeighbourGraph(random_neighbours()), layer_of(), features()
    # Values of one everywhere: the weighted sum is the sum of the shares.
    _, listening, heard = layer._scores(h)
    ones = torch.ones(12, 6)
    torch.testing.assert_close(attend(ones, listening, heard, graph.edges()), ones)


def test_renaming_the_nodes_renames_the_result():
    one_way, layer, h = random_neighbours(), layer_of(), features()
    order = seeds.numpy_generator(0, "order").permutation(12)
    moved = sp.csr_array(one_way.toarray()[order][:, order])
    expected = layer(h, NeighbourGraph(one_way))[torch.from_numpy(order)]
    torch.testing.assert_close(layer(h[torch.from_numpy(order)], NeighbourGraph(moved)), expected)


@pytest.mark.parametrize("size", [30.0, 1e4])
def test_large_scores_neither_overflow_nor_vanish(size):
    graph, layer, h = NeighbourGraph(random_neighbours()), layer_of(), features()
    with torch.no_grad():
        layer.heard.mul_(size)
        layer.listening.mul_(size)
    ones = torch.ones(12, 6)
    _, listening, heard = layer._scores(h)
    found = attend(ones, listening, heard, graph.edges())
    torch.testing.assert_close(found, ones, rtol=1e-4, atol=1e-4)


def test_moderately_large_scores_are_still_the_softmax():
    graph, layer, h = NeighbourGraph(random_neighbours()), layer_of(), features()
    with torch.no_grad():
        layer.heard.mul_(8)
        layer.listening.mul_(8)
    expected = dense_attention(layer, h, dense_graph(graph))
    torch.testing.assert_close(layer(h, graph), expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("block", [3, 8192])
@pytest.mark.parametrize("rows", [None, [3, 8, 0, 11]])
@pytest.mark.slow
def test_gradients_agree_with_finite_differences(monkeypatch, block, rows):
    monkeypatch.setattr(gat, "BLOCK", block)
    graph = NeighbourGraph(random_neighbours(), weighted=True)
    layer, h = layer_of().double(), features().double()
    at = None if rows is None else torch.tensor(rows)
    edges = graph.edges(at)
    mask = (torch.rand(len(edges.sources), 3, generator=seeds.torch_generator(5)) > 0.3) / 0.7
    values, listening, heard = (x.detach().requires_grad_() for x in layer._scores(h))

    def function(values, listening, heard):
        ends = listening if at is None else listening[at]
        return attend(values, ends, heard, edges, mask.double())

    assert torch.autograd.gradcheck(function, (values, listening, heard))


@pytest.mark.parametrize("rows", [None, [3, 8, 0, 11]])
def test_gradients_in_single_precision_are_those_of_the_definition(rows):
    graph, layer, h = NeighbourGraph(random_neighbours()), layer_of(), features()
    at = torch.arange(12) if rows is None else torch.tensor(rows)
    direction = features(len(at), 6, seed=9)
    (layer(h, graph, None if rows is None else at) * direction).sum().backward()
    found = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    (dense_attention(layer, h, dense_graph(graph))[at] * direction).sum().backward()
    for name, p in layer.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ dropout, and what is watched


def test_dropout_needs_a_generator_and_follows_it():
    graph, layer, h = NeighbourGraph(random_neighbours()), layer_of(rate=0.4), features()
    plain = layer(h, graph)
    torch.testing.assert_close(plain, layer(h, graph), rtol=0, atol=0)
    first, again, other = (
        layer(h, graph, rng=seeds.torch_generator(seed, "drop")) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain)


def test_dropout_keeps_the_mean():
    graph, h = NeighbourGraph(random_neighbours()), features()
    layer = layer_of(rate=0.2)
    _, listening, heard = layer._scores(h)
    ones, edges = torch.ones(12, 6), graph.edges()
    total = torch.zeros(12, 6)
    for seed in range(400):
        mask = gat.kept((len(edges.sources), 3), 0.2, seeds.torch_generator(seed, "mask"))
        total += attend(ones, listening, heard, edges, mask)
    torch.testing.assert_close(total / 400, ones, rtol=0, atol=0.08)


def test_entropy_is_one_for_an_even_mean_and_falls_with_attention():
    graph, layer, h = NeighbourGraph(random_neighbours()), layer_of(), features()
    rows = torch.arange(12)
    sharp = layer.entropy(h, graph, rows)
    with torch.no_grad():
        layer.heard.zero_()
        layer.listening.zero_()
    assert layer.entropy(h, graph, rows) == pytest.approx(1.0, abs=1e-5)
    assert sharp < 0.999
    assert layer.entropy(h[:3], NeighbourGraph(sp.csr_array((3, 3))), rows[:3]) == 0.0


def test_a_width_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="divisible by"):
        GraphAttention(4, 6, 4)
