"""CLCRec against numbers computed by hand, and its limits."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from test_slmrec import unit_rows
from torch.testing import assert_close
from toys import BATCH, ITEMS, OPTIONS, USERS, W_T, W_V, T, V, linear, put, toy_view

from modalign.core.interfaces import Batch
from modalign.models.clcrec import CLCRec, CLCRecConfig


def made(view=None, **options) -> CLCRec:
    given = {"hidden_size": 2, "temperature": 0.5, "replaced": 0.0}
    model = CLCRec(
        CLCRecConfig(**{**OPTIONS, **given, **options}),
        toy_view(unit_rows(V), unit_rows(T)) if view is None else view,
    )
    return put(
        model,
        users=USERS,
        items=ITEMS,
        first__layers__0__weight=linear(W_V),
        first__layers__1__weight=linear(W_T),
        first__layers__0__bias=[0, 0],
        second__weight=linear([[1, -1], [0.5, 1]]),
        second__bias=[0, 0],
    )


def parts_of(model: CLCRec) -> dict[str, float]:
    return {name: part.item() for name, part in model.loss(BATCH).items()}


def test_content_and_loss_of_the_toy():
    model = made()
    expected = [[0.580789, -0.457511], [0.560537, 0.025989], [0.447214, 0.523607]]
    assert_close(model._content(), torch.tensor(expected), atol=1e-6, rtol=0)
    expected = {"agreement": 0.5 * 0.810997, "ranking": 0.5 * 0.689172, "reg": 0.1 * 0.302664}
    assert parts_of(model) == pytest.approx(expected, abs=1e-6)
    assert parts_of(made(replaced=1.0))["ranking"] == pytest.approx(0.5 * 0.866745, abs=1e-6)


def test_agreement_with_several_negatives_against_a_loop():
    model = made(agreement_weight=1.0, reg=0.0)
    listed = [[1, 0, 2], [0, 2, 1]]
    batch = Batch(BATCH.users, torch.tensor([1, 0]), torch.tensor([row[1:] for row in listed]))
    found = model.loss(batch)["agreement"].item()
    ids, contents = (
        torch.nn.functional.normalize(one.detach()) for one in (model.items, model._content())
    )
    total = 0.0
    for row in listed:
        scores = [float(ids[row[0]] @ contents[i]) / 0.5 for i in row]
        total += math.log(sum(math.exp(x) for x in scores)) - scores[0]
    assert found == pytest.approx(total / 2, abs=1e-6)


def test_a_cold_item_is_ranked_by_its_content():
    view = toy_view(unit_rows(V), unit_rows(T))
    view = dataclasses.replace(view, users=view.users[:3], items=view.items[:3])
    users, items = made(view).tables()
    expected = [[0.04, 0.05, 0.149443], [0.05, -0.06, 0.081803]]
    assert_close(users @ items.T, torch.tensor(expected), atol=1e-6, rtol=0)


def test_what_the_weights_and_the_replacement_train():
    model = made(agreement_weight=0.0, reg=0.0)
    sum(model.loss(BATCH).values()).backward()
    assert model.second.weight.grad is None
    model = made(agreement_weight=1.0, reg=0.0)
    sum(model.loss(BATCH).values()).backward()
    assert model.users.grad is None
    model = made(agreement_weight=0.0, reg=0.0, replaced=1.0)
    sum(model.loss(BATCH).values()).backward()
    assert (model.items.grad == 0).all()


def test_places_are_replaced_with_their_probability():
    model = made(agreement_weight=0.0, reg=0.0, replaced=0.5)
    ids, contents = (
        made(agreement_weight=0.0, reg=0.0),
        made(agreement_weight=0.0, reg=0.0, replaced=1.0),
    )
    same = {round(parts_of(one)["ranking"], 6) for one in (ids, contents)}
    seen = []
    for step in range(80):
        model.after_step(step, BATCH, torch.Generator().manual_seed(step))
        seen.append(round(parts_of(model)["ranking"], 6))
    assert same <= set(seen)
    assert len(set(seen)) > 6


def test_an_item_without_any_modality_is_left_out_and_never_replaced():
    view = toy_view(unit_rows(V), missing=(0, 0))
    model = CLCRec(CLCRecConfig(**{**OPTIONS, "modalities": ("v",), "replaced": 1.0}), view)
    batch = dataclasses.replace(BATCH, positives=torch.tensor([0, 0]))
    assert model.loss(batch)["agreement"].item() == 0.0
    model.loss(batch)["ranking"].backward()
    assert (model.items.grad[0] != 0).any()
