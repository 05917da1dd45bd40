"""LightGCN against its equations on dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.models.bpr import BPR, BPRConfig
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.testing.toy import tiny_view

BATCH = Batch(torch.tensor([0, 1, 0]), torch.tensor([0, 2, 1]), torch.tensor([3, 0, 2]))


def made(**options) -> LightGCN:
    with seeds.torch_seed(1):
        return LightGCN(LightGCNConfig(embedding_size=3, **options), tiny_view())


def dense_layers(embeddings: torch.Tensor, n_layers: int) -> torch.Tensor:
    """The mean of the layers by the definition, with the tiny view's edges written out."""
    a = torch.zeros(7, 7)
    for user, item in [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0)]:
        a[user, 3 + item] = a[3 + item, user] = 1.0
    root = torch.diag(a.sum(1).clamp(min=1) ** -0.5)
    layers = [embeddings]
    for _ in range(n_layers):
        layers.append(root @ a @ root @ layers[-1])
    return torch.stack(layers).mean(0)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_loss_and_gradient_equal_the_dense_equations(n_layers):
    model = made(n_layers=n_layers, reg=0.3)
    leaf = model.embeddings.detach().clone().requires_grad_()
    final = dense_layers(leaf, n_layers)
    u, i, j = BATCH.users, BATCH.positives + 3, BATCH.negatives + 3
    bpr = -logsigmoid((final[u] * final[i]).sum(1) - (final[u] * final[j]).sum(1)).mean()
    reg = 0.3 / 2 * sum(leaf[rows].square().sum() for rows in (u, i, j)) / 3
    (bpr + reg).backward()
    parts = model.loss(BATCH)
    sum(parts.values()).backward()
    assert_close(parts["bpr"], bpr)
    assert_close(parts["reg"], reg)
    assert_close(model.embeddings.grad, leaf.grad)


def test_tables_are_the_mean_of_the_layers():
    model = made(n_layers=2)
    users, items = model.tables()
    assert_close(torch.cat([users, items]), dense_layers(model.embeddings, 2))


def test_an_item_nobody_chose_keeps_a_share_of_its_own_vector():
    model = made(n_layers=2)
    assert_close(model.tables()[1][3], model.embeddings[6] / 3)


def test_without_layers_it_is_matrix_factorisation():
    model = made(n_layers=0, reg=0.1)
    plain = BPR(BPRConfig(embedding_size=3, reg=0.1), tiny_view())
    with torch.no_grad():
        plain.users.copy_(model.embeddings[:3])
        plain.items.copy_(model.embeddings[3:])
    for name, part in plain.loss(BATCH).items():
        assert_close(model.loss(BATCH)[name], part)


def test_without_weight_there_is_no_penalty():
    assert made(reg=0.0).loss(BATCH).keys() == {"bpr"}


def test_the_graph_is_not_part_of_the_weights():
    assert made().state_dict().keys() == {"embeddings"}


def test_a_batch_without_negatives_is_refused():
    with pytest.raises(ValueError, match="negatives"):
        made().loss(Batch(BATCH.users, BATCH.positives))
