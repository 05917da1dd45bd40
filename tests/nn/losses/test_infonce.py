"""InfoNCE: closed forms, laws, and the direction in which minimising it pulls."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from modalign.core import seeds
from modalign.nn.losses import infonce
from modalign.nn.losses.infonce import info_nce


def views(n: int = 6, d: int = 4, seed: int = 0, dtype=torch.float64):
    rng = seeds.torch_generator(seed, "views")
    return (torch.randn(n, d, generator=rng, dtype=dtype) for _ in range(2))


def test_it_is_the_definition():
    a, b = views()
    cosine = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    each = [
        -math.log(math.exp(cosine[i, i] / 0.3) / sum(math.exp(c / 0.3) for c in cosine[i]))
        for i in range(6)
    ]
    torch.testing.assert_close(float(info_nce(a, b, 0.3)), sum(each) / 6)


def test_equal_similarities_give_log_n_and_orthogonal_matches_nothing():
    a, _ = views()
    same = torch.ones(6, 4, dtype=torch.float64)
    torch.testing.assert_close(float(info_nce(a, same, 0.2)), math.log(6))
    assert float(info_nce(torch.eye(6), torch.eye(6), 0.02)) < 1e-12


def test_lengths_of_rows_do_not_matter():
    a, b = views()
    scale = torch.rand(6, 1, generator=seeds.torch_generator(1), dtype=torch.float64) + 0.1
    torch.testing.assert_close(info_nce(scale * a, b, 0.2), info_nce(a, b / scale, 0.2))


def test_both_directions_are_averaged():
    a, b = views()
    expected = 0.5 * (info_nce(a, b, 0.2) + info_nce(b, a, 0.2))
    torch.testing.assert_close(info_nce(a, b, 0.2, symmetric=True), expected)


def test_options_that_symmetric_does_not_support_are_refused():
    a, b = views()
    places = torch.tensor([0]), torch.tensor([1])
    for options in ({"targets": torch.arange(6)}, {"forbidden": places}):
        with pytest.raises(ValueError, match="symmetric=True without targets and forbidden"):
            info_nce(a, b, 0.2, symmetric=True, **options)
    with pytest.raises(ValueError, match=r"as many rows in b as in a \(6\), got 5"):
        info_nce(a, b[:5], 0.2)


def test_targets_choose_columns_that_stand_once():
    a, b = views()
    targets = torch.tensor([0, 2, 1, 2, 0, 1])
    columns = b[:3]
    logits = torch.nn.functional.cosine_similarity(a[:, None], columns[None], dim=2) / 0.2
    expected = (logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]).mean()
    torch.testing.assert_close(info_nce(a, columns, 0.2, targets=targets), expected)


@pytest.mark.parametrize("temperature", [0.2, 0.02])
def test_a_row_of_weight_two_is_a_row_that_stands_twice(temperature):
    a, b = views()
    a.requires_grad_()
    targets = torch.tensor([5, 4, 3, 2, 1, 0])
    twice = torch.tensor([0, 1, 2, 2, 3, 4, 5, 5])
    weights = torch.bincount(twice).double()
    found = info_nce(a, b, temperature, targets=targets, weights=weights)
    expected = info_nce(a[twice], b, temperature, targets=targets[twice])
    torch.testing.assert_close(found, expected)
    first, second = (torch.autograd.grad(loss, a)[0] for loss in (found, expected))
    torch.testing.assert_close(first, second)


def test_forbidden_columns_are_as_if_they_were_not_there():
    a, b = views()
    rows, columns = torch.tensor([0, 0, 3]), torch.tensor([2, 5, 1])
    found = info_nce(a, b, 0.2, forbidden=(rows, columns))
    logits = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2) / 0.2
    logits[rows, columns] = -torch.inf
    torch.testing.assert_close(found, (logits.logsumexp(1) - logits.diagonal()).mean())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_minimising_it_draws_matched_rows_together_and_maximising_apart(sign):
    a, b = (x.requires_grad_() for x in views(dtype=torch.float32))
    before = torch.nn.functional.cosine_similarity(a, b).mean().item()
    optimizer = torch.optim.Adam([a, b], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (sign * info_nce(a, b, 0.2)).backward()
        optimizer.step()
    after = torch.nn.functional.cosine_similarity(a, b).mean().item()
    assert sign * (after - before) > 0.3


@pytest.mark.parametrize("block", [4, 256])
def test_gradients_agree_with_finite_differences(monkeypatch, block):
    monkeypatch.setattr(infonce, "BLOCK", block)
    a, b = (x.requires_grad_() for x in views())
    places = (torch.tensor([1]), torch.tensor([4]))
    targets = torch.tensor([0, 2, 1, 2, 0, 1])
    for options in (
        {},
        {"forbidden": places},
        {"targets": targets},
        {"symmetric": True},
    ):
        loss = partial(info_nce, temperature=0.5, **options)
        assert torch.autograd.gradcheck(loss, (a, b))


def test_blocks_of_rows_do_not_show(monkeypatch):
    a, b = views(n=13)
    whole = info_nce(a, b, 0.2)
    monkeypatch.setattr(infonce, "BLOCK", 5)
    torch.testing.assert_close(info_nce(a, b, 0.2), whole)


@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.04])
def test_a_small_temperature_neither_overflows_nor_loses_the_gradient(temperature):
    a, b = (x.float().requires_grad_() for x in views())
    loss = info_nce(a, b, temperature)
    loss.backward()
    reference = info_nce(a.detach().double(), b.detach().double(), temperature)
    torch.testing.assert_close(loss.detach().double(), reference, rtol=1e-4, atol=1e-5)
    assert bool(a.grad.isfinite().all())
    assert bool(a.grad.any())


@pytest.mark.parametrize("temperature", [0.005, 0.05])
def test_views_that_point_away_from_each_other_still_have_a_loss(temperature):
    a = torch.ones(5, 4)
    found = info_nce(a, -a, temperature)
    torch.testing.assert_close(float(found), math.log(5), rtol=1e-4, atol=0)
