"""SGL against numbers computed by hand, and its limit, LightGCN."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.sgl import SGL, SGLConfig
from modalign.testing.toy import toy_dataset
from oracles import SMALL, SMALL_TRIPLES, SMALL_VECTORS


def made(**options) -> SGL:
    options = {"contrast_weight": 0.1, "temperature": 0.2, **options}
    model = SGL(SGLConfig(embedding_size=2, n_layers=1, **options), SMALL).double()
    model.embeddings.data = SMALL_VECTORS.clone()
    return model


def with_views(model: SGL) -> SGL:
    """View 1 without the edge of user 0 and item 1, view 2 without that of user 1 and item 1."""
    without = torch.tensor([[True, False, True, True], [True, True, False, True]])
    model.views = [nn.ModuleList([model.graph.thinned(kept)]) for kept in without]
    return model


def test_loss_of_two_triples():
    parts = with_views(made()).loss(SMALL_TRIPLES)
    contrast = 0.1 * (2.618323 + 0.727142) / 2
    expected = [1.166895 / 2, 1e-4 * 7.5 / 2, contrast]
    assert [part.item() for part in parts.values()] == pytest.approx(expected, abs=2e-6)


def test_a_node_that_a_batch_contains_twice_counts_twice():
    one = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([2]))
    two = Batch(torch.tensor([1]), torch.tensor([1]), torch.tensor([0]))
    three = Batch(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), torch.tensor([2, 2, 0]))
    model = with_views(made())
    assert_close(model.contrast(three), (2 * model.contrast(one) + model.contrast(two)) / 3)


@pytest.mark.parametrize("augmentation", ["edges", "nodes", "walk"])
def test_without_leaving_anything_out_a_view_is_the_whole_graph(augmentation):
    model = made(augmentation=augmentation, drop=0.0)
    model.on_epoch(0, seeds.torch_generator(1))
    whole = model.graph.propagate(model.embeddings, 1)
    for number in (0, 1):
        assert_close(model._view(number, None), whole)
        assert_close(model._view(number, torch.tensor([3, 0])), whole[[3, 0]])


def test_views_leave_out_the_share_asked_for():
    view = toy_dataset().view()
    model = SGL(SGLConfig(augmentation="edges", drop=0.25), view)
    model.on_epoch(0, seeds.torch_generator(1))
    edges = [graph.edges()[0] for (graph,) in model.views]
    assert [len(one) for one in edges] == [len(view.users) - round(0.25 * len(view.users))] * 2
    assert not torch.equal(*edges)
    nodes = SGL(SGLConfig(augmentation="nodes", drop=0.25), view)
    nodes.on_epoch(0, seeds.torch_generator(1))
    degrees = [torch.bincount(g.edges()[0], minlength=60) for (g,) in nodes.views]
    assert [int((one == 0).sum()) in (15, 16) for one in degrees] == [True, True]
    walk = SGL(SGLConfig(augmentation="walk"), view)
    walk.on_epoch(0, seeds.torch_generator(1))
    assert [len(graphs) for graphs in walk.views] == [3, 3]


def test_without_a_weight_it_is_lightgcn():
    plain = LightGCN(LightGCNConfig(embedding_size=2, n_layers=1), SMALL).double()
    plain.embeddings.data = SMALL_VECTORS.clone()
    parts = made(contrast_weight=0.0).loss(SMALL_TRIPLES)
    assert parts.keys() == plain.loss(SMALL_TRIPLES).keys()
    for name, part in plain.loss(SMALL_TRIPLES).items():
        assert_close(parts[name], part)


def test_batch_negatives_are_the_nodes_of_the_batch():
    few = with_views(made(contrast_negatives="batch"))
    first, second = (few._view(number, None) for number in (0, 1))
    expected = torch.zeros(()).double()
    for rows in ([0, 1], [2, 3]):  # the batch's users, and its chosen items
        cosine = torch.cosine_similarity(first[rows][:, None], second[rows][None], dim=2) / 0.2
        expected = expected + (cosine.logsumexp(1) - cosine.diagonal()).mean()
    assert_close(few.contrast(SMALL_TRIPLES), expected)
