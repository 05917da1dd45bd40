"""Losses between two recommenders: the specification's fixtures, slow loops, gradient routes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from modalign import ot
from modalign.nn.losses.distillation import (
    crossed_infonce,
    divergence_of_logits,
    margin_logits,
    transported_logits,
    transported_masses,
)
from modalign.nn.losses.pairwise import bpr_loss


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


SOURCE = margin_logits(numbers(2, 0, -1), numbers(0, 0, 0)).unsqueeze(0)
TARGET = margin_logits(numbers(1, 0.5, 0), numbers(0, 0, 0)).unsqueeze(0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def test_logits_are_below_zero_and_do_not_overflow():
    far = margin_logits(numbers(1e4, -1e4), numbers(0, 0))
    assert_close(far, numbers(0, -1e4))
    assert (margin_logits(drawn(50), drawn(50, seed=1)) < 0).all()


def test_a_constant_added_to_a_users_scores_changes_no_logit():
    positive, negative = drawn(6, 1), drawn(6, 4, seed=1)
    assert_close(margin_logits(positive + 3, negative + 3), margin_logits(positive, negative))


@pytest.mark.parametrize(
    ("kind", "value"), [("kl", 0.048465465), ("bernoulli", 0.069668210), ("raw", -0.478937459)]
)
def test_pairwise_divergences_have_the_fixtures_values(kind, value):
    assert_close(divergence_of_logits(SOURCE, TARGET, kind).item(), value, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("p", "value"), [(1.0, 0.341839460), (2.0, 0.077875665)])
def test_sorting_has_the_fixtures_values(p, value):
    assert_close(transported_logits(SOURCE, TARGET, "sort", p=p).item(), value, rtol=0, atol=1e-9)


def test_ranking_loss_has_the_fixtures_value():
    assert_close(
        bpr_loss(numbers(1, 0.5, 0), numbers(0, 0, 0)).item(), 0.493495284, rtol=0, atol=1e-9
    )


def test_paired_is_half_the_mean_square():
    expected = 0.5 * sum(
        (a - b) ** 2 for a, b in zip(SOURCE[0].tolist(), TARGET[0].tolist(), strict=True)
    )
    assert_close(divergence_of_logits(SOURCE, TARGET, "paired").item(), expected / 3)


def test_kl_follows_its_formula_at_another_temperature():
    t, total = 3.0, 0.0
    source, target = SOURCE[0].tolist(), TARGET[0].tolist()
    z = [sum(math.exp(x / t) for x in side) for side in (source, target)]
    for a, b in zip(source, target, strict=True):
        q, k = math.exp(a / t) / z[0], math.exp(b / t) / z[1]
        total += t * t * q * math.log(q / k)
    assert_close(divergence_of_logits(SOURCE, TARGET, "kl", temperature=t).item(), total)


@pytest.mark.parametrize("kind", ["kl", "bernoulli", "paired"])
def test_divergences_vanish_at_equality_and_there_alone(kind):
    logits = margin_logits(drawn(3, 7), drawn(3, 7, seed=1))
    other = margin_logits(drawn(3, 7, seed=2), drawn(3, 7, seed=3)).requires_grad_()
    assert abs(divergence_of_logits(logits, logits, kind).item()) < 1e-12
    assert divergence_of_logits(logits, other, kind).item() > 1e-3
    same = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(divergence_of_logits(logits, same, kind), same)
    assert slope.abs().max() < 1e-12


def test_bernoulli_stays_finite_at_logits_near_zero_in_float32():
    # log sigmoid of a margin above 100 is exactly zero.
    target = torch.tensor([[-1e-30, -80.0, 0.0]], requires_grad=True)
    value = divergence_of_logits(torch.tensor([[-80.0, -1e-30, 0.0]]), target, "bernoulli")
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(target.grad).all()


@pytest.mark.parametrize("method", ["sort", "sinkhorn"])
def test_transport_does_not_see_the_order_of_logits_and_kl_does(method):
    source = margin_logits(drawn(2, 9), drawn(2, 9, seed=1))
    target = margin_logits(drawn(2, 9, seed=2), drawn(2, 9, seed=3))
    shuffled = target[:, torch.tensor([3, 1, 8, 0, 2, 4, 7, 6, 5])]
    settings = {"tolerance": 1e-9, "max_iterations": 5000}
    first, second = (transported_logits(source, t, method, **settings) for t in (target, shuffled))
    assert_close(first, second, rtol=1e-6, atol=1e-9)
    kl = [divergence_of_logits(source, t).item() for t in (target, shuffled)]
    assert abs(kl[0] - kl[1]) > 1e-3


def test_groups_are_averaged():
    zeros = torch.zeros(4, 6, dtype=torch.float64)
    source, target = margin_logits(drawn(4, 6, seed=5), zeros), margin_logits(drawn(4, 6), zeros)
    whole = transported_logits(source, target, "sort")
    single = [transported_logits(source[g : g + 1], target[g : g + 1], "sort") for g in range(4)]
    assert_close(whole, torch.stack(single).mean())
    whole = divergence_of_logits(source, target, "kl")
    single = [divergence_of_logits(source[g : g + 1], target[g : g + 1], "kl") for g in range(4)]
    assert_close(whole, torch.stack(single).mean())


def test_masses_are_softmaxes_at_the_temperature_and_the_cost_is_one_minus_the_cosine():
    source, target, points = 3 * drawn(2, 4), 3 * drawn(2, 4, seed=1), drawn(2, 4, 3, seed=2)
    total = 0.0
    for scores, other, vectors in zip(source, target, points, strict=True):
        p, q = (torch.tensor([math.exp(x / 0.5) for x in s]).double() for s in (scores, other))
        p, q = p / p.sum(), q / q.sum()
        directions = vectors / vectors.norm(dim=1, keepdim=True)
        cost = 1 - directions @ directions.T
        exact = {"reg": 0.3, "tolerance": 1e-11, "max_iterations": 20_000}
        values = [ot.sinkhorn(cost, a, b, **exact).value for a, b in ((p, q), (p, p), (q, q))]
        total += float(values[0] - (values[1] + values[2]) / 2) / 2
    exact = {"eps": 0.3, "tolerance": 1e-11, "max_iterations": 20_000}
    found = transported_masses(source, target, points, temperature=0.5, **exact)
    assert_close(found.item(), total, rtol=1e-6, atol=1e-9)


def test_sinkhorn_nears_the_exact_cost_as_eps_falls():
    source = margin_logits(drawn(1, 40), drawn(1, 40, seed=1))
    target = margin_logits(2 * drawn(1, 40, seed=2), drawn(1, 40, seed=3))
    exact = transported_logits(source, target, "sort").item()
    for eps in (0.3, 0.03, 0.003):
        found = transported_logits(source, target, eps=eps, tolerance=1e-6, max_iterations=20000)
        assert abs(found.item() - exact) <= eps * math.log(40)


def test_the_root_is_finite_at_equality_and_a_distance_elsewhere():
    logits = margin_logits(drawn(1, 8), drawn(1, 8, seed=1))
    same = logits.clone().requires_grad_()
    value = transported_logits(logits, same, "sort", root=True)
    value.backward()
    assert value < 1e-5
    assert torch.isfinite(same.grad).all()
    moved = transported_logits(logits, logits - 3.0, "sort", root=True)
    assert_close(moved.item(), 3.0)
    # In float32 the divergence of equal sets may come out a little below zero.
    many = -drawn(200, 8).abs().float()
    assert torch.isfinite(transported_logits(many, many.flip(-1), root=True))


def test_sorted_gradient_is_bounded_by_the_mass_of_a_point():
    source = margin_logits(drawn(1, 12), drawn(1, 12, seed=1))
    target = (100 * source.flip(-1) - 5).requires_grad_()
    transported_logits(source, target, "sort", p=1.0).backward()
    assert target.grad.abs().max() <= 1 / 12 + 1e-12


# --- contrast

USERS, ITEMS, OTHERS = numbers(1, 0).unsqueeze(0), numbers(1, 0).unsqueeze(0), numbers(0, 1, -1, 0)


def test_contrast_has_the_fixtures_value_in_each_direction():
    others = OTHERS.view(2, 2)
    zero = torch.zeros_like(USERS)
    both = crossed_infonce(USERS, zero, zero, ITEMS, torch.zeros_like(others), others)
    # The second direction compares zeros: log(1 + number of candidates).
    assert_close(both.item(), 0.407605964 + math.log(3), rtol=0, atol=1e-9)


def places(mask: Tensor) -> tuple[Tensor, Tensor]:
    users, items = torch.nonzero(mask, as_tuple=True)
    return users, items


def tensors(n: int = 5, m: int = 7, d: int = 3) -> list[Tensor]:
    shapes = [(n, d)] * 4 + [(m, d)] * 2
    return [drawn(*shape, seed=i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("normalize", [False, True])
def test_contrast_equals_a_slow_loop(normalize):
    given = tensors()
    forbidden = drawn(5, 7, seed=9) > 0.4
    found = crossed_infonce(*given, places(forbidden), normalize=normalize, temperature=0.5)
    su, si, tu, ti, sc, tc = (
        [row / row.norm() if normalize else row for row in one] for one in given
    )
    total = 0.0
    for users, items, others in ((su, ti, tc), (tu, si, sc)):
        for b in range(5):
            s = [math.exp(float(users[b] @ j) / 0.5) for j in others]
            p = math.exp(float(users[b] @ items[b]) / 0.5)
            rest = sum(x for x, no in zip(s, forbidden[b].tolist(), strict=True) if not no)
            total -= math.log(p / (p + rest)) / 5
    assert_close(found.item(), total)


def test_one_term_moves_items_of_the_target_the_other_its_users():
    su, si, tu, ti, sc, tc = tensors()
    zero, none = torch.zeros_like(si), torch.zeros_like(sc)
    for one in (ti, tc, tu):
        one.requires_grad_()
    by_items = crossed_infonce(su, zero, tu, ti, none, tc)  # the second term compares zeros
    slopes = torch.autograd.grad(by_items, [ti, tc, tu])
    assert [bool(slope.abs().max() > 1e-3) for slope in slopes] == [True, True, False]
    by_users = crossed_infonce(torch.zeros_like(su), si, tu, ti, sc, tc)
    slopes = torch.autograd.grad(by_users, [ti, tc, tu])
    assert [bool(slope.abs().max() > 1e-3) for slope in slopes] == [False, False, True]


def test_a_forbidden_item_does_not_count_and_an_allowed_one_does():
    su, si, tu, ti, sc, tc = tensors()
    forbidden = torch.zeros(5, 7, dtype=torch.bool)
    forbidden[:, 2] = True
    before = crossed_infonce(su, si, tu, ti, sc, tc, places(forbidden))
    near = tc.clone()
    near[2] = 10 * ti[0]
    assert_close(crossed_infonce(su, si, tu, ti, sc, near, places(forbidden)), before)
    near = tc.clone()
    near[3] = 10 * su[0]
    assert crossed_infonce(su, si, tu, ti, sc, near, places(forbidden)) > before + 0.1


def test_a_pair_without_candidates_costs_nothing():
    given = tensors()
    forbidden = torch.ones(5, 7, dtype=torch.bool)
    given[3].requires_grad_()
    loss = crossed_infonce(*given, places(forbidden))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(given[3].grad).all()
