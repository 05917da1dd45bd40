"""NCL against numbers computed by hand, and its limit, LightGCN."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.ncl import NCL, NCLConfig, k_means
from modalign.testing.toy import toy_dataset
from oracles import SMALL, SMALL_TRIPLES, SMALL_VECTORS

WEIGHTS = {"structure_weight": 0.5, "prototype_weight": 0.25, "item_weight": 2.0}


def made(**options) -> NCL:
    options = {"embedding_size": 2, "n_layers": 1, "n_clusters": 2, **options}
    model = NCL(NCLConfig(**options), SMALL).double()
    model.embeddings.data = SMALL_VECTORS.clone()
    return model


def test_the_structural_contrast_computed_by_hand():
    parts = made(**WEIGHTS).loss(SMALL_TRIPLES)
    expected = 0.5 * (0.003580 + 2.0 * 3.872810)
    assert parts["structure"].item() == pytest.approx(expected, abs=5e-6)
    assert "prototypes" not in parts  # nothing is clustered before the first epoch


def test_the_contrast_with_clusters_computed_by_hand():
    model = made(**WEIGHTS)
    model.user_centres = torch.tensor([[1, 0.5], [0.5, 1]]).double()
    model.item_centres = torch.tensor([[1, 1.5], [1, -0.5]]).double()
    model.user_cluster, model.item_cluster = torch.tensor([0, 1]), torch.tensor([0, 0, 1])
    model.clustered = True
    parts = model.loss(SMALL_TRIPLES)
    assert parts["prototypes"].item() == pytest.approx(0.25 * 0.024021, abs=1e-6)


def test_a_node_that_a_batch_contains_twice_counts_twice():
    model = made(**WEIGHTS)
    once = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([2]))
    twice = Batch(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([2, 2]))
    assert_close(model.loss(twice)["structure"], 2 * model.loss(once)["structure"])


def test_without_weights_it_is_lightgcn():
    plain = LightGCN(LightGCNConfig(embedding_size=2, n_layers=1), SMALL).double()
    plain.embeddings.data = SMALL_VECTORS.clone()
    model = made(structure_weight=0.0, prototype_weight=0.0)
    model.on_epoch(30, seeds.torch_generator(1))
    parts = model.loss(SMALL_TRIPLES)
    assert parts.keys() == plain.loss(SMALL_TRIPLES).keys()
    for name, part in plain.loss(SMALL_TRIPLES).items():
        assert_close(parts[name], part)


def test_clusters_are_made_after_the_warm_up_at_most_one_for_two_nodes():
    view = toy_dataset().view()
    model = NCL(NCLConfig(embedding_size=4, warm_up=2), view)
    assert [len(model.user_centres), len(model.item_centres)] == [30, 20]
    for epoch, there in ((0, False), (1, False), (2, True)):
        model.on_epoch(epoch, seeds.torch_generator(epoch))
        assert model.clustered is there
    assert_close(model.item_centres.norm(dim=1), torch.ones(20))


def test_a_row_belongs_to_the_nearest_mean_of_rows():
    rows = torch.randn(30, 3, generator=seeds.torch_generator(1)).double()
    rows[:10] += 20
    centres, cluster = k_means(rows, 2, seeds.torch_generator(2))
    means = torch.stack([rows[cluster == c].mean(0) for c in (0, 1)])
    assert_close(centres, means / means.norm(dim=1, keepdim=True))
    assert torch.equal(torch.cdist(rows, means).argmin(1), cluster)
    assert len(cluster[:10].unique()) == 1
