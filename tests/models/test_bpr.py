"""BPR-MF against its formula triple by triple."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Batch, Queries
from modalign.models.bpr import BPR, BPRConfig
from modalign.testing.toy import tiny_view

BATCH = Batch(torch.tensor([0, 1, 0]), torch.tensor([0, 2, 1]), torch.tensor([3, 0, 0]))


def made(**options) -> BPR:
    with seeds.torch_seed(1):
        return BPR(BPRConfig(embedding_size=3, **options), tiny_view())


def test_loss_equals_the_formula_triple_by_triple():
    model = made(reg=0.3)
    p, q = model.users.tolist(), model.items.tolist()

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    bpr = reg = 0.0
    for u, i, j in [(0, 0, 3), (1, 2, 0), (0, 1, 0)]:
        bpr += math.log1p(math.exp(dot(p[u], q[j]) - dot(p[u], q[i]))) / 3
        reg += 0.3 / 6 * (dot(p[u], p[u]) + dot(q[i], q[i]) + dot(q[j], q[j]))
    parts = model.loss(BATCH)
    assert parts.keys() == {"bpr", "reg"}
    assert_close(parts["bpr"].item(), bpr, rtol=1e-6, atol=1e-6)
    assert_close(parts["reg"].item(), reg, rtol=1e-6, atol=1e-6)


def test_without_weight_there_is_no_penalty():
    assert made(reg=0.0).loss(BATCH).keys() == {"bpr"}


def test_only_rows_of_the_batch_get_a_gradient():
    model = made()
    sum(model.loss(BATCH).values()).backward()
    assert model.users.grad.abs().sum(1).gt(0).tolist() == [True, True, False]
    assert model.items.grad.abs().sum(1).gt(0).tolist() == [True, True, True, True]


def test_scores_are_inner_products():
    model = made()
    scores = model.score(Queries(torch.tensor([2, 0])))
    assert_close(scores, torch.stack([model.items @ model.users[u] for u in (2, 0)]))


def test_a_batch_without_negatives_is_refused():
    with pytest.raises(ValueError, match="negatives"):
        made().loss(Batch(BATCH.users, BATCH.positives))
