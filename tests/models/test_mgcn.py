"""MGCN against numbers computed by hand and against LightGCN."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from toys import OPTIONS, USERS, put, toy_view

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.models._shared.presence import present_softmax
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.mgcn import MGCN, MGCNConfig

V, T = [[1, 0], [2, 1], [0, 1]], [[1, 2], [2, 2], [0, 1]]
ITEMS = [[0.2, 0.1], [-0.1, 0.3], [0.4, 0.0]]
BATCH = Batch(torch.tensor([0, 1]), torch.tensor([0, 2]), torch.tensor([2, 0]))


def made(view=None, **options) -> MGCN:
    config = MGCNConfig(**{**OPTIONS, "k": 2, **options})
    with seeds.torch_seed(0):
        model = MGCN(config, toy_view(V, T) if view is None else view)
    for _name, value in model.named_parameters():  # identities without bias, ones
        if value.ndim == 2:
            value.data = torch.eye(*value.shape) if len(value) > 1 else torch.ones(value.shape)
        else:
            value.data.zero_()
    return put(model, users=USERS, items=ITEMS)


def test_vectors_and_loss_of_the_toy():
    model = made()
    users, items = model.tables()
    assert_close(
        users, torch.tensor([[0.125834, 0.244174], [0.298914, 0.046634]]), atol=1e-6, rtol=0
    )
    expected = [[0.123077, 0.183116], [0.095463, 0.231416], [0.306908, 0.028492]]
    assert_close(items, torch.tensor(expected), atol=1e-6, rtol=0)
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    expected = {"bpr": 0.677713, "reg": 1e-4 * 0.113587, "contrast": 0.01 * 1.023792}
    assert parts == pytest.approx(expected, abs=1e-6)


def test_with_shut_gates_it_is_lightgcn():
    model = made()
    for gate in model.gates:
        gate.bias.data.fill_(-50)
    light = LightGCN(LightGCNConfig(embedding_size=2, n_layers=2), toy_view())
    light.embeddings.data = torch.tensor(USERS + ITEMS)
    for ours, theirs in zip(model.tables(), light.tables(), strict=True):
        assert_close(ours, theirs)


def test_a_missing_modality_has_no_weight():
    model = made(toy_view(V, T, missing=(1, 2)))
    assert model.there.int().tolist() == [[1] * 5, [1, 1, 1, 1, 0]]
    scores = torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(0))
    weights = present_softmax(scores, model.there)[:, :, 0]
    assert weights[:, 4].tolist() == [1.0, 0.0]
    assert_close(weights.sum(0), torch.ones(5))
    assert (weights[:, :4] > 0).all()


def test_one_modality_needs_no_attention():
    model = made(toy_view(V), modalities=("v",))
    assert model.attention is None
    _ids, content = model._vectors(None, None)
    smooth = model.item_graphs[0].matmul(model.items * model.content()[0].sigmoid())
    assert_close(content[2:], smooth / 2)
