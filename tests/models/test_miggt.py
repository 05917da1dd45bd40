"""MIG-GT against numbers computed by hand, a dense propagation, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_mgcn import BATCH, T, V
from torch.testing import assert_close
from toys import OPTIONS, USERS, put, toy_view

from modalign.core import seeds
from modalign.models.miggt import MIGGT, MIGGTConfig

SAMPLES = torch.tensor([[0], [1], [1], [2], [0]])


def made(**options) -> MIGGT:
    given = {"n_layers": 2, "n_layers_of": {"v": 0, "t": 1}, "n_samples": 1, "reg": 0.01}
    with seeds.torch_seed(0):
        model = MIGGT(MIGGTConfig(**{**OPTIONS, **given, **options}), toy_view(V, T)).eval()
    put(model, users=USERS)
    if model.config.n_samples:
        model.chosen = SAMPLES[:, : model.config.n_samples].clone()
        identity = torch.eye(4, 2)
        put(model, query__weight=identity, key__weight=identity)
    contents = [torch.tensor(one, dtype=torch.float32) for one in (V, T)]
    model._encoded = lambda rng: contents  # content as it is
    return model


def test_vectors_and_loss_of_the_toy():
    model = made()
    expected = [[1.038923, 1.414847], [0.742500, 0.940923]]
    expected += [[1.581231, 1.162462], [2.884, 1.821], [0.093693, 1.518769]]
    assert_close(model._summed(None), torch.tensor(expected), atol=2e-6, rtol=0)
    expected = [[1.067436, 1.401577], [0.907424, 1.008701]]
    expected += [[1.686000, 1.215422], [2.880260, 1.820595], [0.160624, 1.502737]]
    assert_close(torch.cat(model.tables()), torch.tensor(expected), atol=2e-6, rtol=0)
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    expected = {"bpr": 1.640524, "own": 3.478540, "reg": 0.11579532}
    assert parts == pytest.approx(expected, abs=5e-6)


def test_without_samples_a_vector_is_the_sum():
    model = made(n_samples=0)
    assert_close(torch.cat(model.tables()), model._summed(None))
    assert list(model.loss(BATCH)) == ["bpr", "reg"]


def test_the_order_of_samples_does_not_matter():
    model = made(n_samples=3)
    model.chosen = torch.tensor([[0, 1, 2]] * 5)
    before = torch.cat(model.tables())
    model.chosen = torch.tensor([[2, 0, 1]] * 5)
    assert_close(torch.cat(model.tables()), before)


def test_propagation_and_its_gradient_with_dropped_edges_against_a_dense_one():
    model = made(dropout_edges=0.5)
    rng = torch.Generator().manual_seed(3)
    start = torch.randn(5, 2, generator=rng, requires_grad=True)
    found = model._propagated(start, 3, torch.Generator().manual_seed(4))
    found.square().sum().backward()
    # The same edges, read off the propagation of unit vectors.
    matrix = torch.zeros(5, 5)
    unit = model._propagated(torch.eye(5), 1, torch.Generator().manual_seed(4))
    matrix = (unit - 0.1 * torch.eye(5)) / 0.9
    assert 0 < int((matrix != 0).sum()) < len(model.values)
    assert not torch.equal(matrix, matrix.T)
    dense = start.detach().clone().requires_grad_()
    result = dense
    for _ in range(3):
        result = 0.9 * matrix @ result + 0.1 * dense
    result.square().sum().backward()
    assert_close(found, result)
    assert_close(start.grad, dense.grad)


def test_encoders_use_the_statistics_of_all_items():
    with seeds.torch_seed(0):
        model = MIGGT(MIGGTConfig(**{**OPTIONS, "embedding_size": 3}), toy_view(V, T)).eval()
    encoder = model.encoders[0]
    x = np.array(V, float)
    for layer, slope in zip(encoder.layers, encoder.slopes, strict=True):
        x = x @ layer.weight.detach().numpy().T.astype(float)
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        x = np.where(x > 0, x, slope.weight.item() * x)
    np.testing.assert_allclose(encoder(None).detach().numpy(), x, rtol=1e-3, atol=1e-4)
