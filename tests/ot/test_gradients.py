"""Three ways to differentiate transport, against each other and finite differences."""

import math

import pytest
import torch
from torch.testing import assert_close

from modalign import ot

WIDE = torch.float64
KINDS = [{}, {"penalty": (0.3, 0.7)}, {"penalty": (0.4, math.inf)}, {"mass": 0.6}, {"mass": 1.0}]
SOLVE = {"reg": 0.2, "tolerance": 1e-13, "max_iterations": 1000}


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def problem(seed: int = 1, n: int = 4, m: int = 5, heavier: float = 1.0):
    cost = numbers(seed, 2, n, m)
    a, b = numbers(seed + 1, 2, n) + 0.2, numbers(seed + 2, 2, m) + 0.2
    b = heavier * b / b.sum(-1, keepdim=True)
    return tuple(t.requires_grad_() for t in (cost, a / a.sum(-1, keepdim=True), b))


def heavier(kind) -> float:
    return 1.0 if not kind else 1.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["sharp", "dual", "plan", "f"])
@pytest.mark.slow
def test_implicit_gradients_are_the_unrolled_ones(kind, what):
    inputs = problem(heavier=heavier(kind) if math.inf not in kind.get("penalty", ()) else 1.0)
    look = numbers(9, 2, 4, 5)
    found = []
    for gradient in ("implicit", "unrolled"):
        value = what if what in ("sharp", "dual") else "dual"
        solved = ot.sinkhorn(*inputs, value=value, gradient=gradient, **SOLVE, **kind)
        if what == "plan":
            number = (solved.plan * look).sum()
        elif what == "f":  # free up to a constant, which a centred look does not see
            number = (solved.f * (look[:, :, 0] - look[:, :, 0].mean(-1, keepdim=True))).sum()
        else:
            number = solved.value.sum()
        found.append(torch.autograd.grad(number, inputs))
    for ours, theirs in zip(*found, strict=True):
        if kind == {"mass": 1.0} and ours.dim() == 2:
            # All of a is used: what a loses the mass must lose too, a direction without slope.
            ours, theirs = (slope - slope.mean(-1, keepdim=True) for slope in (ours, theirs))
        assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_envelope_gradients_of_the_dual_are_the_unrolled_ones(kind):
    inputs = problem(heavier=heavier(kind) if math.inf not in kind.get("penalty", ()) else 1.0)
    found = []
    for gradient in ("envelope", "unrolled"):
        solved = ot.sinkhorn(*inputs, gradient=gradient, **SOLVE, **kind)
        found.append(torch.autograd.grad(solved.value.sum(), inputs))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "gradient"), [("dual", "envelope"), ("dual", "implicit"), ("sharp", "implicit")]
)
@pytest.mark.slow
def test_gradients_of_the_cost_match_finite_differences(kind, value, gradient):
    cost, a, b = problem(n=3, m=4)
    a, b = a.detach(), b.detach()

    def number(cost):
        return ot.sinkhorn(cost, a, b, value=value, gradient=gradient, **SOLVE, **kind).value

    assert torch.autograd.gradcheck(number, (cost,), eps=1e-5, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [{"penalty": (0.3, 0.7)}, {"mass": 0.6}])
@pytest.mark.parametrize(("value", "gradient"), [("dual", "envelope"), ("sharp", "implicit")])
@pytest.mark.slow
def test_gradients_of_the_weights_match_finite_differences(kind, value, gradient):
    cost, a, b = problem(n=3, m=4)
    cost = cost.detach()

    def number(a, b):
        return ot.sinkhorn(cost, a, b, value=value, gradient=gradient, **SOLVE, **kind).value

    assert torch.autograd.gradcheck(number, (a, b), eps=1e-5, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("value", "gradient"), [("dual", "envelope"), ("sharp", "implicit")])
def test_gradients_of_balanced_weights_match_differences_that_keep_the_mass(value, gradient):
    cost, a, b = problem(n=3, m=4)
    cost = cost.detach()

    def number(free_a, free_b):
        weights = torch.softmax(free_a, -1), torch.softmax(free_b, -1)
        return ot.sinkhorn(cost, *weights, value=value, gradient=gradient, **SOLVE).value

    assert torch.autograd.gradcheck(number, (a, b), eps=1e-5, atol=1e-6, rtol=1e-5)


def test_implicit_gradients_of_the_plan_match_finite_differences():
    cost, a, b = problem(n=3, m=4)

    def plan(cost):
        weights = a.detach(), b.detach()
        return ot.sinkhorn(cost, *weights, gradient="implicit", **SOLVE).plan

    assert torch.autograd.gradcheck(plan, (cost,), eps=1e-5, atol=1e-6, rtol=1e-5)


def test_a_fixed_plan_misses_part_of_the_sharp_gradient():
    cost, a, b = problem()
    slopes = [
        torch.autograd.grad(
            ot.sinkhorn(
                cost, a.detach(), b.detach(), value="sharp", gradient=gradient, **SOLVE
            ).value.sum(),
            cost,
        )[0]
        for gradient in ("envelope", "implicit")
    ]
    assert float((slopes[0] - slopes[1]).abs().max()) > 0.01
    solved = ot.sinkhorn(cost, a, b, **SOLVE)
    assert_close(slopes[0], solved.plan)
    assert not solved.plan.requires_grad


@pytest.mark.parametrize("gradient", ["envelope", "implicit", "unrolled"])
@pytest.mark.parametrize("value", ["dual", "sharp"])
def test_symmetric_gradients_match_differences_of_points(gradient, value):
    x = numbers(5, 4, 2).requires_grad_()
    a = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=WIDE)

    def number(x):
        cost = ot.power_cost(x, x)
        options = {"value": value, "gradient": gradient, "tolerance": 1e-13}
        return ot.symmetric_sinkhorn(cost, a, reg=0.2, max_iterations=300, **options).value

    if (gradient, value) == ("envelope", "sharp"):
        assert not torch.autograd.gradcheck(number, (x,), raise_exception=False)
    else:
        assert torch.autograd.gradcheck(number, (x,), eps=1e-5, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", [{}, {"penalty": 0.5}, {"mass": 0.5}])
@pytest.mark.parametrize("gradient", ["envelope", "implicit", "unrolled"])
def test_points_without_weight_have_gradients_without_nan(kind, gradient):
    cost, _, b = problem()
    a = torch.tensor([0.5, 0.0, 0.5, 0.0], dtype=WIDE).expand(2, 4).clone().requires_grad_()
    solved = ot.sinkhorn(cost, a, b, gradient=gradient, reg=0.2, **kind)
    slopes = torch.autograd.grad(solved.value.sum(), (cost, a, b))
    assert all(bool(slope.isfinite().all()) for slope in slopes)
    assert_close(slopes[0][:, 1::2], torch.zeros(2, 2, 5, dtype=WIDE))


@pytest.mark.parametrize("gradient", ["envelope", "implicit"])
@pytest.mark.parametrize("kind", [torch.float32, WIDE])
def test_plans_that_fall_into_pieces_have_finite_gradients(gradient, kind):
    cost = (1.0 - torch.eye(6, dtype=kind) + 0.01 * numbers(6, 6, 6).to(kind)).requires_grad_()
    solved = ot.sinkhorn(cost, reg=1e-3, value="sharp", gradient=gradient)
    (slope,) = torch.autograd.grad(solved.value, cost)
    assert_close(slope, torch.eye(6, dtype=kind) / 6, rtol=1e-3, atol=1e-4)


def test_implicit_gradients_do_not_depend_on_the_side_that_is_larger():
    cost, a, b = problem(n=7, m=3)
    solved = ot.sinkhorn(cost, a, b, value="sharp", gradient="implicit", **SOLVE)
    turned = ot.sinkhorn(cost.mT, b, a, value="sharp", gradient="implicit", **SOLVE)
    for one, two in zip(
        torch.autograd.grad(solved.value.sum(), (cost, a, b)),
        torch.autograd.grad(turned.value.sum(), (cost, a, b)),
        strict=True,
    ):
        if one.dim() == 2:
            one, two = one - one.mean(-1, keepdim=True), two - two.mean(-1, keepdim=True)
        assert_close(one, two, rtol=1e-7, atol=1e-9)
