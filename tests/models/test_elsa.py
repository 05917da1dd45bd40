"""ELSA against dense matrices and numbers computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Batch, Queries
from modalign.core.sparse import csr_tensor
from modalign.models.elsa import ELSA, ELSAConfig
from modalign.testing.toy import toy_dataset
from oracles import SMALL

VIEW = toy_dataset().view()


def history(view, users) -> torch.Tensor:
    rows = view.rows().history(users)
    return csr_tensor(
        rows.crow_indices(), rows.col_indices(), rows.values().double(), tuple(rows.shape)
    )


def test_loss_computed_by_hand():
    model = ELSA(ELSAConfig(embedding_size=2), SMALL).double()
    model.items.data = torch.tensor([[3, 4], [1, 0], [1, 1]]).double()
    users = torch.tensor([0, 1])
    batch = Batch(users, history=history(SMALL, users))
    assert model.loss(batch)["distance"].item() == pytest.approx(0.510192, abs=2e-6)
    scores = model.score(Queries(users, batch.history))
    seen = batch.history.to_dense()
    expected = torch.tensor([[0.6, 0.6, 1.697056], [1.589949, 0.707107, 0.707107]]).double()
    assert_close(scores - seen, expected, rtol=0, atol=2e-6)


def test_loss_and_gradient_equal_the_dense_product():
    with seeds.torch_seed(1):
        model = ELSA(ELSAConfig(embedding_size=5), VIEW).double()
    users = torch.arange(0, 59, 3)
    batch = Batch(users, history=history(VIEW, users))
    leaf = model.items.detach().clone().requires_grad_()
    rows = leaf / leaf.norm(dim=1, keepdim=True)
    x = batch.history.to_dense()
    y = x @ (rows @ rows.T) - x
    expected = (1 - torch.cosine_similarity(x, y)).mean()
    expected.backward()
    found = model.loss(batch)["distance"]
    found.backward()
    assert_close(found, expected)
    assert_close(model.items.grad, leaf.grad)
    assert_close(torch.linalg.vecdot(leaf.grad, leaf), torch.zeros(40).double(), rtol=0, atol=1e-12)


def test_a_user_with_one_item_gives_no_gradient():
    model = ELSA(ELSAConfig(embedding_size=3), SMALL).double()
    one = csr_tensor(torch.tensor([0, 1]), torch.tensor([2]), torch.ones(1).double(), (1, 3))
    loss = model.loss(Batch(torch.tensor([0]), history=one))["distance"]
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert_close(model.items.grad, torch.zeros_like(model.items), rtol=0, atol=1e-6)


def test_the_encoder_gives_the_scores():
    model = ELSA(ELSAConfig(embedding_size=4), VIEW)
    asked = Queries(torch.tensor([-1]), VIEW.rows().history(torch.tensor([7])))
    vector = model.history_encoder()(asked.history.col_indices())
    assert_close(vector @ model.history_items().T, model.score(asked)[0])
