"""SMORE against numbers computed by hand, a convolution, and LightGCN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_mgcn import BATCH, ITEMS, T, V
from torch.testing import assert_close
from toys import OPTIONS, USERS, put, toy_view

from modalign.core import seeds
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.smore import SMORE, SMOREConfig


def made(view=None, **options) -> SMORE:
    given = {"k": 2, "n_layers": 2, "dropout": 0.0}
    with seeds.torch_seed(0):
        model = SMORE(
            SMOREConfig(**{**OPTIONS, **given, **options}),
            toy_view(V, T) if view is None else view,
        )
    for value in model.parameters():
        if value.ndim == 2:
            value.data = torch.eye(*value.shape)
        else:
            value.data.zero_()
    model.filters.data[:, :, 0] = torch.tensor([1.0, 0.5])
    return put(model, users=USERS, items=ITEMS)


def test_vectors_and_loss_of_the_toy():
    model = made()
    filtered = model._filtered()
    expected = [[0.75, 0.25], [1.75, 1.25], [0.25, 0.75]]
    assert_close(filtered[0], torch.tensor(expected), atol=1e-6, rtol=0)
    expected = [[0.883883, 1.237437], [4.242641, 4.242641], [0.530330, 0.176777]]
    assert_close(filtered[2], torch.tensor(expected), atol=1e-6, rtol=0)
    union = [[0.527864, 0.486833, 0], [0.486833, 0.527864, 0], [0.465517, 0.270091, 0.690983]]
    assert model.item_graphs[2].scipy().toarray() == pytest.approx(np.array(union), abs=1e-6)
    users, items = model.tables()
    expected = [[0.124432, 0.261617], [0.314569, 0.058210]]
    assert_close(users, torch.tensor(expected), atol=1e-6, rtol=0)
    expected = [[0.122033, 0.195242], [0.094252, 0.245866], [0.330907, 0.039423]]
    assert_close(items, torch.tensor(expected), atol=1e-6, rtol=0)
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    expected = {"bpr": 0.675509, "reg": 1e-4 * 0.128600, "contrast": 0.01 * 0.973346}
    assert parts == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size", [4, 5])
def test_the_fused_view_is_a_circular_convolution(size):
    with seeds.torch_seed(0):
        config = SMOREConfig(**{**OPTIONS, "embedding_size": size, "k": 2})
        model = SMORE(config, toy_view(V, T))
    model.filters.data = torch.tensor([1.0, 0.0]).expand_as(model.filters).clone()
    one, other = (content.detach().numpy() for content in model.content())
    found = model._filtered()[2].detach().numpy()
    for row in range(3):
        sums = [
            sum(one[row, c] * other[row, (at - c) % size] for c in range(size))
            for at in range(size)
        ]
        np.testing.assert_allclose(found[row], np.array(sums) / np.sqrt(size), rtol=0, atol=1e-5)


def test_with_shut_gates_it_is_lightgcn():
    model = made()
    for gate in model.gates:
        gate.bias.data.fill_(-50)
    light = LightGCN(LightGCNConfig(embedding_size=2, n_layers=2), toy_view())
    light.embeddings.data = torch.tensor(USERS + ITEMS)
    for ours, theirs in zip(model.tables(), light.tables(), strict=True):
        assert_close(ours, theirs)


def test_an_item_with_one_modality_keeps_its_edges_in_the_union():
    graphs = made(toy_view(V, T, missing=(1, 0))).item_graphs
    v, t, union = (one.scipy().toarray() for one in graphs)
    assert (t[0] == 0).all()
    assert (union[0] == v[0]).all()
    assert (union == np.maximum(v, t)).all()
