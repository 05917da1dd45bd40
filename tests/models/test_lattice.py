"""LATTICE against numbers computed by hand, and the two kinds of batches of an epoch."""

from __future__ import annotations

import pytest
import torch
from toys import BATCH, ITEMS, OPTIONS, USERS, W_T, W_V, T, V, linear, put, toy_view

from modalign.core import seeds
from modalign.models.lattice import LATTICE, LATTICEConfig

MIXED = [[0.602177, 0.152724, 0.235537], [0.217407, 0.578878, 0.200663]]
MIXED.append([0.235537, 0.200663, 0.566084])


def made(view=None, **options) -> LATTICE:
    given = {"content_size": 2, "k": 2, "n_layers": 1, "reg": 1.0}
    config = LATTICEConfig(**{**OPTIONS, **given, **options})
    with seeds.torch_seed(0):
        model = LATTICE(config, toy_view(V, T) if view is None else view)
    model = put(model, users=USERS, items=ITEMS)
    if model.content is not None:
        for layer, weight in zip(model.content.layers, (W_V, W_T), strict=True):
            layer.weight.data = torch.tensor(linear(weight))
            layer.bias.data.zero_()
    model.on_epoch(0, torch.Generator())
    return model


def test_graph_vectors_and_loss_of_the_toy():
    model = made()
    graph = torch.from_numpy(model.mixed.scipy().toarray())
    torch.testing.assert_close(graph, torch.tensor(MIXED), rtol=0, atol=2e-6)
    users, items = model.tables()
    expected = [[0.083333, 0.2], [0.25, 0.016667]]
    torch.testing.assert_close(users, torch.tensor(expected), rtol=0, atol=2e-6)
    expected = [[0.968057, 0.734147], [0.269283, 1.179728], [1.164620, 0.738596]]
    torch.testing.assert_close(items, torch.tensor(expected), rtol=0, atol=2e-6)
    for fresh in (True, False):  # the constant graph is that of the first batch
        model.fresh = fresh
        parts = {name: part.item() for name, part in model.loss(BATCH).items()}
        assert parts == pytest.approx({"bpr": 0.685331, "reg": 1.716416}, abs=2e-6)
    assert made(adjacency="symmetric").loss(BATCH)["bpr"].item() == pytest.approx(
        0.684629, abs=2e-6
    )


def test_only_the_first_batch_of_an_epoch_trains_the_graph():
    model = made()
    model.loss(BATCH)["bpr"].backward()
    assert model.logits.grad[0].item() == pytest.approx(-1.271587e-3, abs=1e-7)
    weight = model.content.layers[0].weight
    assert weight.grad[0, 0].item() == pytest.approx(-6.839078e-4, abs=1e-7)
    model.after_step(0, BATCH, torch.Generator())
    model.zero_grad()
    model.loss(BATCH)["bpr"].backward()
    assert weight.grad is None
    assert model.logits.grad is None
    assert model.items.grad is not None


def test_with_the_fixed_graph_alone_nothing_is_learnt_about_neighbours():
    model = made(raw_share=1.0, modalities=("t",))
    assert {name for name, _ in model.named_parameters()} == {"users", "items"}
    before = model.mixed.scipy().toarray()
    model.on_epoch(1, torch.Generator())
    assert (model.mixed.scipy().toarray() == before).all()
    assert model.mixed.scipy().toarray() == pytest.approx(model.fixed[0].scipy().toarray())


def test_an_item_without_a_modality_has_no_edge_in_it():
    model = made(toy_view(V, T, missing=(0, 1)))
    assert not ((model.learnt[0].rows == 1) | (model.learnt[0].columns == 1)).any()
    fixed = model.fixed[0].scipy().toarray()
    assert (fixed[1] == 0).all()
    assert (fixed[:, 1] == 0).all()
    assert fixed[0, 0] > 0
