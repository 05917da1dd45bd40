"""HCCF against numbers computed by hand, and its limit, LightGCN's layers."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from modalign.core.interfaces import Batch
from modalign.models.hccf import HCCF, HCCFConfig
from oracles import SMALL, SMALL_TRIPLES, SMALL_VECTORS


def made(**options) -> HCCF:
    options = {"embedding_size": 2, "n_hyperedges": 2, "n_layers": 1, "temperature": 0.5, **options}
    model = HCCF(HCCFConfig(**options), SMALL).double()
    model.users.data, model.items.data = SMALL_VECTORS[:2].clone(), SMALL_VECTORS[2:].clone()
    model.user_edges.data = torch.tensor([[1, 0.5], [0, 1]]).double()
    model.item_edges.data = torch.tensor([[0.5, 0], [0.5, -0.5]]).double()
    return model


def test_vectors_computed_by_hand():
    final, [(_, fellows)] = made().eval().propagated()
    expected = [[1.25, 0.5], [0.5, 1], [1.75, 4], [1.5, 5.5], [1.25, -0.25]]
    assert_close(fellows, torch.tensor(expected).double())
    expected = [
        [2.957107, 2.207107], [1.914214, 2.292893], [3.457107, 5], [2, 8], [3.25, -0.542893],
    ]  # fmt: skip
    assert_close(final, torch.tensor(expected).double(), rtol=0, atol=2e-6)


def test_loss_computed_by_hand():
    parts = made(contrast_weight=0.3, reg=0.01).eval().loss(SMALL_TRIPLES)
    squares = SMALL_VECTORS.square().sum() + 2.25 + 0.75
    expected = [0.008306, 0.3 * 1.741438, 0.01 * float(squares)]
    assert [part.item() for part in parts.values()] == pytest.approx(expected, abs=2e-6)


def test_repeats_of_a_batch_do_not_change_the_contrast():
    twice = Batch(*(one.repeat(2) for one in (
        SMALL_TRIPLES.users, SMALL_TRIPLES.positives, SMALL_TRIPLES.negatives
    )))  # fmt: skip
    model = made().eval()
    assert_close(model.loss(twice)["contrast"], model.loss(SMALL_TRIPLES)["contrast"])


def test_without_hyperedges_it_is_the_sum_of_lightgcns_layers():
    model = made(n_layers=2).eval()
    for edges in (model.user_edges, model.item_edges):
        edges.data.zero_()
    assert_close(torch.cat(model.tables()), model.graph.propagate(SMALL_VECTORS, 2, "sum"))


def test_hyperedges_have_no_order():
    model, other = made().eval(), made().eval()
    for edges in (other.user_edges, other.item_edges):
        edges.data = edges.data[:, [1, 0]]
    assert_close(torch.cat(other.tables()), torch.cat(model.tables()))


def test_the_contrast_moves_vectors_through_the_hyperedges_only():
    model = made(contrast_weight=1.0).eval()
    (found,) = torch.autograd.grad(model.loss(SMALL_TRIPLES)["contrast"], model.users)
    users = model.users.detach().clone().requires_grad_()
    shares = users @ model.user_edges.detach()
    fellows = shares @ shares.T @ users
    local = model.graph.matmul(torch.cat([model.users, model.items]).detach())[:2]
    cosine = torch.cosine_similarity(local[:, None], fellows[None], dim=2) / 0.5
    (cosine.logsumexp(1) - cosine.diagonal()).mean().backward()
    assert_close(found, users.grad)


def test_dropout_acts_in_training_and_differs_between_steps():
    model = made(dropout=0.5)
    found = set()
    for seed in range(4):
        model._seed = seed
        found.add(model.train().loss(SMALL_TRIPLES)["bpr"].item())
    assert len(found) > 1
    assert model.eval().loss(SMALL_TRIPLES)["bpr"].item() == pytest.approx(0.008306, abs=2e-6)
