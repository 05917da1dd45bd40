"""Newton steps of tiny problems: dense algebra, the dual's rise, convergence of all problems."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from modalign import ot
from modalign.ot._newton import _solve_laplacian, newton_step

WIDE = torch.float64


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def weights(seed: int, *shape: int) -> torch.Tensor:
    raw = 0.2 + numbers(seed, *shape)
    return raw / raw.sum(0)


def dual(f, cost, a, b):
    """The dual with the best column potentials for f, by hand; costs divided by reg."""
    soft = torch.logsumexp(a.log().unsqueeze(1) + f.unsqueeze(1) - cost, 0)
    return (a * f).sum(0) - (b * soft).sum(0)


def density(f, cost, a):
    exponent = f.unsqueeze(1) - cost
    soft = torch.logsumexp(a.log().unsqueeze(1) + exponent, 0)
    return (exponent - soft).exp()


@pytest.mark.parametrize("ridge", [1e-9, 0.1])
def test_the_direction_solves_the_newton_equations(ridge):
    n, m, problems = 5, 7, 3
    cost, a, b = numbers(1, n, m, problems), weights(2, n, problems), weights(3, m, problems)
    f = 0.1 * numbers(4, n, problems)
    step = newton_step(density(f, cost, a), a, b, ridge)
    for i in range(problems):
        here = f[:, i].clone().requires_grad_()
        number = lambda f, i=i: dual(f, cost[..., i], a[:, i], b[:, i])  # noqa: E731
        (slope,) = torch.autograd.grad(number(here), here)
        bend = -torch.autograd.functional.hessian(number, here.detach())
        direction = torch.linalg.solve(bend + ridge * torch.diag(a[:, i]), slope)
        reach = direction.max() - direction.min()
        expected = direction * torch.log1p(reach) / reach
        # The ridge alone holds the constant, which is free: rounding over 1e-9.
        centred = [one - (a[:, i] * one).sum() for one in (step[:, i], expected)]
        assert_close(*centred, rtol=1e-6, atol=1e-9)
        assert_close(step[:, i], expected, rtol=0, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([1.0, 20.0, 200.0]))
def test_a_step_never_lowers_the_dual(seed, sharpness):
    cost = sharpness * numbers(seed, 4, 3, 8)
    a, b = weights(seed + 1, 4, 8), weights(seed + 2, 3, 8)
    f = sharpness * numbers(seed + 3, 4, 8)
    before = dual(f, cost, a, b)
    after = dual(f + newton_step(density(f, cost, a), a, b, 1e-9), cost, a, b)
    assert bool((after >= before - 1e-9 * (1.0 + before.abs())).all())


def test_weak_links_keep_their_digits_in_float32():
    # Two pairs of points joined by 1e-6: dense float32 algebra would lose the link.
    links = torch.zeros(5, 5, 1)
    links[1, 2] = links[2, 1] = links[3, 4] = links[4, 3] = 0.3
    links[1, 3] = links[3, 1] = 1e-6
    links[1:, 0] = links[0, 1:] = 1e-8
    inflow = torch.tensor([0.75, 0.25, -0.5, -0.5]).unsqueeze(-1)
    whole = links[..., 0].double()
    dense = torch.diag(whole.sum(1)) - whole
    expected = torch.linalg.solve(dense[1:, 1:], inflow.double())
    found = _solve_laplacian(links.clone(), inflow)
    assert_close(found.double(), expected, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("reg", [0.05, 0.01, 0.002])
@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 6), (6, 3), (1, 5)])
def test_every_tiny_problem_of_float32_meets_the_tolerance(reg, n, m):
    cost = numbers(5, 512, n, m).float()
    solved = ot.sinkhorn(cost, reg=reg, max_iterations=400)
    assert bool(solved.converged.all())
    off = (solved.plan.sum(-1) - 1 / n).abs().sum(-1), (solved.plan.sum(-2) - 1 / m).abs().sum(-1)
    assert float(torch.maximum(*off).max()) <= 2e-4
    wide = ot.sinkhorn(cost.double(), reg=reg, tolerance=1e-12, max_iterations=800)
    assert bool(wide.converged.all())
    assert_close(solved.value.double(), wide.value, rtol=0, atol=1e-4)


def test_the_costs_that_take_sweeps_thousands_take_some_dozens():
    # Two assignments of almost equal cost; the exact one is known at this reg.
    cost = torch.tensor([[0.0, 0.5], [0.501, 1.0]])
    solved = ot.sinkhorn(cost, torch.tensor([0.3, 0.7]), torch.tensor([0.699, 0.301]), reg=0.02)
    assert int(solved.iterations) < 80
    assert bool(solved.converged)


def test_alone_and_in_a_batch_of_other_layout_are_one():
    cost = numbers(6, 64, 4, 5)
    together = ot.sinkhorn(cost, reg=0.02, tolerance=1e-10)
    for i in range(0, 64, 16):
        alone = ot.sinkhorn(cost[i], reg=0.02, tolerance=1e-10)
        assert_close(together.plan[i], alone.plan, rtol=0, atol=1e-8)


def test_points_without_weight_stay_out_of_the_step():
    cost = numbers(7, 40, 4, 4)
    a = torch.tensor([0.5, 0.0, 0.2, 0.3], dtype=WIDE).expand(40, 4)
    solved = ot.sinkhorn(cost, a, reg=0.01, tolerance=1e-9)
    kept = [0, 2, 3]
    fewer = ot.sinkhorn(cost[:, kept], a[:, kept], reg=0.01, tolerance=1e-9)
    assert bool(solved.converged.all())
    assert_close(solved.value, fewer.value, rtol=0, atol=1e-8)
    assert bool(solved.f.isfinite().all())
