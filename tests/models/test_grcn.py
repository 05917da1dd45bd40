"""GRCN against numbers computed by hand, and its limits."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from toys import BATCH, ITEMS, OPTIONS, USERS, W_T, W_V, T, V, linear, put, toy_view

from modalign.models._shared.unit import unit
from modalign.models.grcn import GRCN, GRCNConfig

TRUST = [[0.5, 0.2], [-0.3, -0.1], [0.4, 0.6], [0.3, -0.2], [-0.1, 0.1]]


def made(view=None, **options) -> GRCN:
    config = GRCNConfig(**{**OPTIONS, "content_size": 2, "reg": 1.0, **options})
    model = GRCN(config, toy_view(V, T) if view is None else view)
    tastes = [[0.5, 0.5], [1, -0.5]], [[0.2, 0.4], [-0.3, 0.6]]
    model.confidence.data = torch.tensor(TRUST)[:, : len(model.content)]
    for at, layer in enumerate(model.content.layers):
        model.tastes[at].data = torch.tensor(tastes[at])
        layer.weight.data = torch.tensor(linear((W_V, W_T)[at]))
        layer.bias.data.zero_()
    return put(model, ids=USERS + ITEMS)


SCORES = {
    0: [[9.482952, 8.591865, 6.528986], [6.983006, 4.626898, 6.236477]],
    1: [[9.523091, 8.789238, 7.911114], [7.961664, 6.334570, 7.794203]],
}


@pytest.mark.parametrize(("rounds", "bpr"), [(0, 0.592667), (1, 0.481139)])
def test_scores_and_loss_of_the_toy(rounds, bpr):
    model = made(n_routing=rounds)
    users, items = model.tables()
    assert_close(users @ items.T, torch.tensor(SCORES[rounds]), atol=5e-6, rtol=0)
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    assert parts == pytest.approx({"bpr": bpr, "reg": 0.7}, abs=2e-6)


def test_hard_pruning():
    model = made(n_routing=0, pruning="hard")
    users, items = model.tables()
    assert (users[0] @ items[0]).item() == pytest.approx(9.487686, abs=5e-6)
    assert model.loss(BATCH)["bpr"].item() == pytest.approx(0.563076, abs=2e-6)


def test_without_confidence_ids_do_not_move():
    model = put(made(), confidence=torch.zeros(5, 2))
    assert_close(model._vectors()[:, :2], unit(model.ids))
    with torch.no_grad():
        model.ids *= 7
        model.tastes[0] *= 3
    assert_close(model._vectors(), put(made(), confidence=torch.zeros(5, 2))._vectors())


def test_equal_contents_give_the_mean_over_neighbours():
    model = made(toy_view(V), modalities=("v",), n_layers=1)
    put(model, confidence=torch.ones(5, 1), content__layers__0__weight=torch.zeros(2, 3))
    put(model, content__layers__0__bias=[1, 1])
    start = unit(model.ids)
    means = torch.stack([(start[2] + start[3]) / 2, (start[3] + start[4]) / 2])
    assert_close(model._vectors()[:2, :2], start[:2] + means)


def test_an_edge_is_not_weighed_by_what_its_item_lacks():
    shares = [torch.tensor([0.9, 0.9]), torch.tensor([0.1, 0.1])]
    there = torch.tensor([[False, False], [True, False]])
    assert_close(made()._weights(shares, torch.ones(2, 2), there), torch.tensor([0.1, 0.0]))
