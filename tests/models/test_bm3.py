"""BM3 against numbers computed by hand, and what its gradient may not reach."""

from __future__ import annotations

import pytest
import torch
from toys import BATCH, ITEMS, OPTIONS, USERS, W_T, W_V, T, V, linear, put, toy_view

from modalign.models.bm3 import BM3, BM3Config


def made(view=None, **options) -> BM3:
    config = BM3Config(**{**OPTIONS, "dropout": 0.0, **options})
    model = BM3(config, toy_view(V, T) if view is None else view).double()
    return put(
        model,
        users=USERS,
        items=ITEMS,
        predictor__weight=linear([[1, 0.5], [-0.5, 1]]),
        predictor__bias=[0.1, 0],
        content__layers__0__weight=linear(W_V),
        content__layers__1__weight=linear(W_T),
        content__layers__0__bias=[0, 0],
        content__layers__1__bias=[0, 0],
    )


def test_loss_and_scores_of_the_toy():
    model = made()
    parts = {name: part.item() for name, part in model.loss(BATCH).items()}
    content = 0.330568 + 0.084740 + 0.877756 + 0.024462
    expected = {"rec": 0.119798 + 0.056996, "content": 2 * content, "reg": 0.0448051}
    assert parts == pytest.approx(expected, abs=5e-6)
    users, items = model.tables()
    scores = [[0.129709, 0.099220, 0.220487], [0.192444, 0.043283, 0.356031]]
    torch.testing.assert_close(users @ items.T, torch.tensor(scores).double(), rtol=0, atol=1e-6)


def test_targets_have_no_gradient():
    model = made(reg=0.0)
    parts = model.loss(BATCH)
    rec = torch.autograd.grad(parts["rec"], model.users, retain_graph=True)[0]
    assert rec[0, 0].item() == pytest.approx(-0.389672, abs=1e-6)
    tables = [model.users, model.items]
    assert torch.autograd.grad(parts["content"], tables, allow_unused=True) == (None, None)


def test_items_without_a_modality_are_left_out_of_its_mean():
    there, spoilt = made(reg=0.0), made(toy_view(V, T, missing=(0, 2)), reg=0.0)
    full, rest = there.loss(BATCH)["content"], spoilt.loss(BATCH)["content"]
    spoilt.content.present[0, 2] = True  # the row counts, as the mean row
    counted = spoilt.loss(BATCH)["content"]
    assert len({round(x.item(), 9) for x in (full, rest, counted)}) == 3
    put(spoilt, content__layers__1__weight=[[0, 0], [0, 0]])
    spoilt.content.present[:] = False
    assert spoilt.loss(BATCH)["content"].item() == 0.0


def test_a_node_has_one_mask_and_the_mask_is_drawn_again_after_a_step():
    model = made(dropout=0.5, reg=0.0, content_weight=2.0)
    twice = type(BATCH)(torch.tensor([0, 0]), torch.tensor([0, 0]))
    once = type(BATCH)(torch.tensor([0]), torch.tensor([0]))
    first = [part.item() for part in model.loss(twice).values()]
    assert first == pytest.approx([part.item() for part in model.loss(once).values()])
    seen = set()
    for step in range(8):
        model.after_step(step, twice, torch.Generator().manual_seed(step))
        seen.add(round(model.loss(twice)["rec"].item(), 6))
    assert len(seen) > 1
