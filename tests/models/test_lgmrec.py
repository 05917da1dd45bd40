"""LGMRec against numbers computed by hand and against LightGCN."""

from __future__ import annotations

import pytest
import torch
from test_mgcn import BATCH, ITEMS, T, V
from torch.testing import assert_close
from toys import OPTIONS, USERS, put, toy_view

from modalign.core.interfaces import Batch
from modalign.models.lgmrec import LGMRec, LGMRecConfig
from modalign.models.lightgcn import LightGCN, LightGCNConfig

FINAL = [[1.892171, 1.457696], [1.650459, 1.812817]]
FINAL += [[1.904054, 1.423841], [1.768766, 1.683082], [1.769347, 1.718843]]


def made(view=None, **options) -> LGMRec:
    given = {"n_content_layers": 1, "n_hyperedges": 2, "contrast_weight": 0.01, "reg": 0.001}
    config = LGMRecConfig(**{**OPTIONS, **given, **options})
    model = LGMRec(config, toy_view(V, T) if view is None else view)
    for layer in model.content.layers:
        layer.weight.data = torch.cat([torch.eye(2), 0.1 * torch.eye(2)])
    return put(model, users=USERS, items=ITEMS).eval()


def test_vectors_and_loss_of_the_toy_without_noise():
    model = made()
    assert_close(torch.cat(model.tables()), torch.tensor(FINAL), atol=2e-6, rtol=0)
    vectors = model._vectors(None, None)
    expected = [[0.225662, 0.178296], [0.229044, 0.161366]]
    assert_close(vectors.users[0], torch.tensor(expected), atol=1e-6, rtol=0)
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    expected = {"bpr": 0.666809, "contrast": 0.03583667, "reg": 0.005137437}
    assert parts == pytest.approx(expected, abs=2e-6)


def test_the_contrast_is_a_sum_over_the_batch():
    model = made()
    twice = Batch(*(side.repeat(2) for side in (BATCH.users, BATCH.positives, BATCH.negatives)))
    once, both = model.loss(BATCH), model.loss(twice)
    assert both["contrast"].item() == pytest.approx(2 * once["contrast"].item(), rel=1e-5)
    assert both["bpr"].item() == pytest.approx(once["bpr"].item(), rel=1e-5)


def test_without_content_and_hypergraph_it_is_lightgcn():
    model = made(global_weight=0.0)
    for layer in model.content.layers:
        layer.weight.data.zero_()
    light = LightGCN(LightGCNConfig(embedding_size=2, n_layers=2), toy_view())
    light.embeddings.data = torch.tensor(USERS + ITEMS)
    for ours, theirs in zip(model.tables(), light.tables(), strict=True):
        assert_close(ours, theirs)


def test_noise_only_in_training_and_no_contrast_for_an_item_that_lacks_a_modality():
    model = made(toy_view(V, T, missing=(1, 2)))
    only = Batch(torch.tensor([1, 1]), torch.tensor([2, 2]), torch.tensor([0, 0]))
    users = model._contrast(model._vectors(None, None), 0, 1, only.users, only.positives[:0])
    assert model.loss(only)["contrast"].item() == pytest.approx(0.01 * users.item(), rel=1e-5)
    still = model.loss(BATCH)["bpr"]
    assert model.train().loss(BATCH)["bpr"] != still


def test_with_one_modality_there_is_no_contrast():
    assert list(made(toy_view(V), modalities=("v",)).loss(BATCH)) == ["bpr", "reg"]
