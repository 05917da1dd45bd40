"""Sorting against POT, linear programs, duality and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import ot as pot
from modalign import ot

WIDE = torch.float64
EXPONENTS = [1.0, 1.5, 2.0, 3.0]


def line(seed: int, n: int, m: int, *, weighted: bool, lead: tuple[int, ...] = ()):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(*lead, n, generator=rng, dtype=WIDE)
    y = torch.randn(*lead, m, generator=rng, dtype=WIDE)
    if not weighted:
        return x, y, None, None
    a = torch.rand(*lead, n, generator=rng, dtype=WIDE) + 0.01
    b = torch.rand(*lead, m, generator=rng, dtype=WIDE) + 0.01
    return x, y, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


def uniform(weights, n):
    return np.full(n, 1.0 / n) if weights is None else weights.numpy()


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "m"), [(6, 6), (5, 8), (1, 4)])
def test_value_is_pots_and_the_linear_programs(p, weighted, n, m):
    x, y, a, b = line(3, n, m, weighted=weighted)
    value = float(ot.sorted_transport(x, y, a, b, p=p))
    theirs = pot.emd2_1d(
        x.numpy(), y.numpy(), uniform(a, n), uniform(b, m), metric="minkowski", p=p
    )
    cost = ot.power_cost(x.unsqueeze(-1), y.unsqueeze(-1), p)
    program = float((ot.exact_plan(cost, a, b) * cost).sum())
    np.testing.assert_allclose(value, theirs / p if p > 1 else theirs, rtol=1e-9)
    np.testing.assert_allclose(value, program, rtol=1e-9)


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n", "m"), [(6, 6), (5, 8), (1, 4), (7, 1)])
def test_potentials_are_feasible_and_leave_no_gap(p, weighted, n, m):
    x, y, a, b = line(5, n, m, weighted=weighted, lead=(3,))
    f, g = ot.sorted_potentials(x, y, a, b, p=p)
    cost = ot.power_cost(x.unsqueeze(-1), y.unsqueeze(-1), p)
    assert float((f.unsqueeze(-1) + g.unsqueeze(-2) - cost).max()) < 1e-13
    a = torch.full_like(x, 1 / n) if a is None else a
    b = torch.full_like(y, 1 / m) if b is None else b
    dual = (a * f).sum(-1) + (b * g).sum(-1)
    assert_close(dual, ot.sorted_transport(x, y, a, b, p=p), rtol=1e-10, atol=1e-12)


def test_potentials_of_equal_sizes_follow_the_printed_increments():
    x, y, _, _ = line(7, 6, 6, weighted=False)
    f, g = ot.sorted_potentials(x, y, p=2)
    order_x, order_y = x.argsort(), y.argsort()
    xs, ys = x[order_x], y[order_y]
    half = lambda u, v: 0.5 * (u - v) ** 2  # noqa: E731
    expected = [0.0]
    for k in range(5):
        rise = half(xs[k + 1], ys[k]) - half(xs[k], ys[k])
        rise += half(xs[k + 1], ys[k + 1]) - half(xs[k], ys[k + 1])
        expected.append(expected[-1] + 0.5 * float(rise))
    assert_close(f[order_x], torch.tensor(expected, dtype=WIDE))
    assert_close(g[order_y], half(xs, ys) - f[order_x])


@pytest.mark.parametrize("weighted", [False, True])
def test_plan_has_the_marginals_and_the_value(weighted):
    x, y, a, b = line(9, 5, 8, weighted=weighted, lead=(2,))
    plan = ot.sorted_plan(x, y, a, b)
    a = torch.full_like(x, 1 / 5) if a is None else a
    b = torch.full_like(y, 1 / 8) if b is None else b
    assert_close(plan.sum(-1), a)
    assert_close(plan.sum(-2), b)
    cost = ot.power_cost(x.unsqueeze(-1), y.unsqueeze(-1), 2)
    assert_close((plan * cost).sum((-2, -1)), ot.sorted_transport(x, y, a, b))


def test_equal_sizes_and_the_general_way_agree():
    x, y, _, _ = line(11, 7, 7, weighted=False)
    even = torch.full_like(x, 1 / 7)
    assert_close(ot.sorted_transport(x, y), ot.sorted_transport(x, y, even, even))


def test_points_without_weight_change_nothing():
    x, y, a, b = line(13, 5, 6, weighted=True)
    extra = torch.tensor([-100.0, 100.0, 0.0], dtype=WIDE)
    wide_x, wide_a = torch.cat([x, extra]), torch.cat([a, torch.zeros(3, dtype=WIDE)])
    assert_close(ot.sorted_transport(wide_x, y, wide_a, b), ot.sorted_transport(x, y, a, b))
    f, g = ot.sorted_potentials(wide_x, y, wide_a, b)
    cost = ot.power_cost(wide_x.unsqueeze(-1), y.unsqueeze(-1))
    assert float((f.unsqueeze(-1) + g.unsqueeze(-2) - cost).max()) < 1e-10


@pytest.mark.parametrize("p", EXPONENTS)
def test_gradients_match_finite_differences(p):
    x, y, a, b = line(15, 5, 4, weighted=True)
    same = line(16, 5, 5, weighted=False)
    x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v: ot.sorted_transport(u, v, a, b, p=p), (x, y))
    pair = same[0].requires_grad_(), same[1].requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v: ot.sorted_transport(u, v, p=p), pair)


def test_gradient_of_the_weights_is_a_potential():
    x, y, a, b = line(17, 5, 4, weighted=True)
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(ot.sorted_transport(x, y, a, b), a)
    f, _ = ot.sorted_potentials(x, y, a.detach(), b)
    assert_close(gradient - gradient.mean(), f - f.mean(), rtol=1e-10, atol=1e-12)


def test_with_the_absolute_difference_no_gradient_exceeds_the_weight():
    x, y, _, _ = line(19, 50, 50, weighted=False)
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(ot.sorted_transport(x, y, p=1), y)
    assert float(gradient.abs().max()) <= 1 / 50 + 1e-15
    assert_close(ot.sorted_transport(y, y.detach(), p=1), torch.tensor(0.0, dtype=WIDE))


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
def test_equal_sets_have_value_and_gradient_zero(p):
    y = torch.tensor([1.0, 1.0, 2.0], dtype=WIDE, requires_grad=True)
    value = ot.sorted_transport(torch.tensor([2.0, 1.0, 1.0], dtype=WIDE), y, p=p)
    (gradient,) = torch.autograd.grad(value, y)
    assert float(value.detach()) == 0.0
    assert_close(gradient, torch.zeros_like(gradient))


values = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(left=values, right=values, p=st.sampled_from(EXPONENTS), seed=st.integers(0, 99))
@pytest.mark.slow
def test_laws_hold_with_ties(left, right, p, seed):
    x, y = torch.tensor(left, dtype=WIDE), torch.tensor(right, dtype=WIDE)
    value = ot.sorted_transport(x, y, p=p)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    assert_close(ot.sorted_transport(x[order], y, p=p), value)
    assert_close(ot.sorted_transport(y, x, p=p), value)
    assert_close(ot.sorted_transport(3.0 * x + 1.0, 3.0 * y + 1.0, p=p), 3.0**p * value)
    f, g = ot.sorted_potentials(x, y, p=p)
    cost = ot.power_cost(x.unsqueeze(-1), y.unsqueeze(-1), p)
    assert float((f.unsqueeze(-1) + g.unsqueeze(-2) - cost).max()) < 1e-10
    assert_close(f.mean() + g.mean(), value, rtol=1e-9, atol=1e-9)


def test_batches_are_single_problems():
    x, y, a, b = line(21, 5, 7, weighted=True, lead=(2, 3))
    together = ot.sorted_transport(x, y, a, b)
    for i in range(2):
        for j in range(3):
            alone = ot.sorted_transport(x[i, j], y[i, j], a[i, j], b[i, j])
            assert_close(together[i, j], alone)


def test_float32_is_near_float64():
    x, y, a, b = line(23, 200, 300, weighted=True)
    narrow = [tensor.float() for tensor in (x, y, a, b)]
    assert_close(
        ot.sorted_transport(*narrow).double(), ot.sorted_transport(x, y, a, b), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: ot.sorted_transport(x, x, p=0.9), "p >= 1, got 0.9"),
        (lambda x: ot.sorted_transport(x, x[:0]), "points on both sides, got 3 and 0"),
        (lambda x: ot.sorted_transport(x, x * float("nan")), "finite numbers in y"),
        (lambda x: ot.sorted_transport(x, x, x[:2], x), "3 weights in a, got 2"),
        (lambda x: ot.sorted_transport(x, x, -x, x), "weights a >= 0"),
        (lambda x: ot.sorted_transport(x, x, x, 2 * x), "same total mass"),
        (lambda x: ot.sorted_transport(x, x.double()), "float32"),
    ],
)
def test_refusals_say_what_was_expected_what_came_and_how_to_mend(call, words):
    with pytest.raises(ValueError, match=f"Expected .*{words}"):
        call(torch.tensor([1.0, 2.0, 3.0]))
