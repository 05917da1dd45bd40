"""Entropic transport against POT, closed forms, golden numbers and laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import ot as pot
from modalign import ot

WIDE = torch.float64
TIGHT = {"tolerance": 1e-12, "max_iterations": 50_000}


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def weights(seed: int, *shape: int) -> torch.Tensor:
    raw = 0.2 + numbers(seed, *shape)
    return raw / raw.sum(-1, keepdim=True)


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=WIDE).unsqueeze(-1)


def kl(plan, a, b):
    """`sum p log(p / q) - p + q` against the product of weights, by hand."""
    product = a.unsqueeze(-1) * b.unsqueeze(-2)
    return (torch.xlogy(plan, plan / product) - plan + product).sum((-2, -1))


# Golden values of the specification: p, reg, sharp, dual.
EVEN = [
    (1, 0.1, 0.671128567, 0.775632516),
    (1, 1.0, 0.961732965, 1.117750017),
    (2, 0.1, 0.252505813, 0.359376800),
    (2, 1.0, 0.553705196, 0.787573884),
]
UNEVEN = [
    (1, 0.1, 0.700002275, 0.742280818),
    (1, 1.0, 0.873728206, 0.998409408),
    (2, 0.1, 0.275000023, 0.317281044),
    (2, 1.0, 0.412642697, 0.638199438),
]


@pytest.mark.parametrize(("p", "reg", "sharp", "dual"), EVEN)
def test_golden_values_of_even_weights(p, reg, sharp, dual):
    cost = ot.power_cost(points(0, 1, 3), points(0.5, 2, 2.5), p)
    for kind, expected in (("sharp", sharp), ("dual", dual)):
        solved = ot.sinkhorn(cost, reg=reg, value=kind, **TIGHT)
        assert float(solved.value) == pytest.approx(expected, abs=2e-9)


@pytest.mark.parametrize(("p", "reg", "sharp", "dual"), UNEVEN)
def test_golden_values_of_uneven_weights_and_sizes(p, reg, sharp, dual):
    cost = ot.power_cost(points(0, 1, 3), points(0.5, 2), p)
    a, b = torch.tensor([0.2, 0.5, 0.3], dtype=WIDE), torch.tensor([0.6, 0.4], dtype=WIDE)
    solved = ot.sinkhorn(cost, a, b, reg=reg, **TIGHT)
    assert float(solved.value) == pytest.approx(dual, abs=2e-9)
    assert float(solved.linear_value) == pytest.approx(sharp, abs=2e-9)


@pytest.mark.parametrize(("gap", "p", "reg"), [(2.0, 1, 0.5), (1.0, 2, 0.1), (3.0, 1, 5.0)])
def test_two_points_against_themselves_have_a_closed_form(gap, p, reg):
    cost = ot.power_cost(points(0, gap), points(0, gap), p)
    c = gap**p / p
    for solved in (
        ot.sinkhorn(cost, reg=reg, **TIGHT),
        ot.symmetric_sinkhorn(cost, reg=reg, **TIGHT),
    ):
        assert float(solved.linear_value) == pytest.approx(c / (1 + math.exp(c / reg)), abs=1e-10)
        dual = -reg * math.log((1 + math.exp(-c / reg)) / 2)
        assert float(solved.value) == pytest.approx(dual, abs=1e-10)


@pytest.mark.parametrize("reg", [1e-3, 0.1, 100.0])
def test_one_point_sends_its_mass_everywhere_at_the_mean_cost(reg):
    cost, b = numbers(1, 1, 6), weights(2, 6)
    solved = ot.sinkhorn(cost, None, b, reg=reg)
    mean = float((cost * b).sum())
    assert float(solved.value) == pytest.approx(mean)
    assert float(solved.linear_value) == pytest.approx(mean)
    assert_close(solved.plan, b.unsqueeze(0))


@pytest.mark.parametrize("reg", [0.02, 0.1, 1.0])
@pytest.mark.slow
def test_plan_and_values_are_pots(reg):
    cost, a, b = numbers(3, 6, 9), weights(4, 6), weights(5, 9)
    theirs = pot.sinkhorn(
        a.numpy(), b.numpy(), cost.numpy(), reg, "sinkhorn_log", 100_000, stopThr=1e-13
    )
    solved = ot.sinkhorn(cost, a, b, reg=reg, **TIGHT)
    np.testing.assert_allclose(solved.plan.numpy(), theirs, atol=1e-9)
    plan = torch.from_numpy(theirs)
    assert_close(solved.linear_value, (plan * cost).sum(), rtol=1e-8, atol=1e-10)
    dual = (plan * cost).sum() + reg * kl(plan, a, b)
    assert_close(solved.value, dual, rtol=1e-8, atol=1e-10)


def test_batch_values_are_pots_batch_solvers():
    cost = numbers(6, 40, 4, 4)
    theirs = pot.solve_batch(cost, reg=0.1, max_iter=20_000, tol=1e-10, method="log_sinkhorn")
    solved = ot.sinkhorn(cost, reg=0.1, value="sharp", tolerance=1e-10, max_iterations=20_000)
    assert_close(solved.value, theirs.value_linear, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("penalty", [0.05, 1.0, 50.0])
@pytest.mark.slow
def test_relaxed_plans_are_pots(penalty):
    cost, a, b = numbers(7, 6, 9), weights(8, 6), 1.7 * weights(9, 9)
    theirs = pot.unbalanced.sinkhorn_unbalanced(
        a.numpy(),
        b.numpy(),
        cost.numpy(),
        0.1,
        penalty,
        reg_type="kl",
        numItermax=100_000,
        stopThr=1e-14,
    )
    solved = ot.sinkhorn(cost, a, b, reg=0.1, penalty=penalty, **TIGHT)
    np.testing.assert_allclose(solved.plan.numpy(), theirs, atol=1e-9)


@pytest.mark.parametrize("penalty", [(0.3, 0.7), (0.3, math.inf), (math.inf, 2.0)])
def test_relaxed_value_is_the_objective_at_the_plan(penalty):
    cost, a, b = numbers(7, 6, 9), weights(8, 6), 1.7 * weights(9, 9)
    solved = ot.sinkhorn(cost, a, b, reg=0.1, penalty=penalty, **TIGHT)
    plan = solved.plan
    objective = solved.linear_value + 0.1 * kl(plan, a, b)
    for strength, sums, target in zip(penalty, (plan.sum(-1), plan.sum(-2)), (a, b), strict=True):
        if math.isinf(strength):
            assert_close(sums, target)
        else:
            objective += strength * (torch.xlogy(sums, sums / target) - sums + target).sum()
    assert_close(solved.value, objective)


def test_a_penalty_without_bound_is_balanced():
    cost = numbers(7, 6, 9)
    exact = ot.sinkhorn(cost, reg=0.1, **TIGHT)
    assert_close(ot.sinkhorn(cost, reg=0.1, penalty=math.inf, **TIGHT).plan, exact.plan)
    near = ot.sinkhorn(cost, reg=0.1, penalty=1e7, **TIGHT)
    assert_close(near.plan, exact.plan, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("mass", [0.2, 0.6, 0.95])
def test_partial_plans_are_pots(mass):
    cost = numbers(10, 6, 9)
    a, b = torch.full((6,), 1 / 6, dtype=WIDE), torch.full((9,), 1 / 9, dtype=WIDE)
    theirs = pot.partial.entropic_partial_wasserstein(
        a.numpy(), b.numpy(), cost.numpy(), 0.1, mass, numItermax=100_000, stopThr=1e-14
    )
    solved = ot.sinkhorn(cost, reg=0.1, mass=mass, **TIGHT)
    np.testing.assert_allclose(solved.plan.numpy(), theirs, atol=1e-9)


@pytest.mark.parametrize("mass", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.slow
def test_partial_plans_keep_the_mass_and_stay_below_the_marginals(mass):
    cost, a, b = numbers(11, 6, 9), weights(12, 6), 1.3 * weights(13, 9)
    solved = ot.sinkhorn(cost, a, b, reg=0.05, mass=mass, **TIGHT)
    assert float(solved.plan.sum()) == pytest.approx(mass)
    assert float((solved.plan.sum(-1) - a).max()) < 1e-10
    assert float((solved.plan.sum(-2) - b).max()) < 1e-10
    objective = solved.linear_value + 0.05 * kl(solved.plan, a, b)
    assert_close(solved.value, objective)


def test_partial_transport_of_small_reg_is_pots_exact_one():
    cost, a, b = numbers(14, 5, 6), weights(15, 5), weights(16, 6)
    theirs = pot.partial.partial_wasserstein2(a.numpy(), b.numpy(), cost.numpy(), m=0.5)
    solved = ot.sinkhorn(cost, a, b, reg=1e-3, mass=0.5, tolerance=1e-9, max_iterations=50_000)
    assert float(solved.linear_value) == pytest.approx(float(theirs), abs=2e-3)


def test_partial_transport_leaves_the_missing_behind():
    cost = torch.full((4, 4), 5.0, dtype=WIDE)
    cost[:2, :2] = numbers(17, 2, 2)
    plan = ot.sinkhorn(cost, reg=0.05, mass=0.5, **TIGHT).plan
    assert float(plan[:2, :2].sum()) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("lead", "n", "m"), [((), 5, 7), ((3,), 5, 7), ((2, 50), 3, 4), ((40,), 6, 2)]
)
@pytest.mark.parametrize("kind", [{}, {"penalty": 0.5}, {"mass": 0.4}])
def test_batches_are_single_problems_in_every_layout(lead, n, m, kind):
    cost, a, b = numbers(18, *lead, n, m), weights(19, *lead, n), weights(20, *lead, m)
    together = ot.sinkhorn(cost, a, b, reg=0.1, tolerance=1e-11, max_iterations=20_000, **kind)
    assert together.value.shape == lead
    assert together.plan.shape == (*lead, n, m)
    flat = [t.reshape(-1, *t.shape[len(lead) :]) for t in (cost, a, b, together.plan)]
    for i in range(0, len(flat[0]), 17):
        alone = ot.sinkhorn(
            *(t[i] for t in flat[:3]), reg=0.1, tolerance=1e-11, max_iterations=20_000, **kind
        )
        assert_close(flat[3][i], alone.plan, rtol=1e-6, atol=1e-9)
        assert_close(together.value.reshape(-1)[i], alone.value, rtol=1e-8, atol=1e-9)


def test_problems_that_cross_the_cache_are_all_solved():
    cost = numbers(21, 5, 600, 500).float()
    solved = ot.sinkhorn(cost, reg=0.1, tolerance=1e-5)
    assert bool(solved.converged.all())
    assert_close(solved.plan.sum(-1), torch.full((5, 600), 1 / 600), rtol=1e-3, atol=1e-7)
    assert_close(solved.plan.sum(-2), torch.full((5, 500), 1 / 500), rtol=1e-3, atol=1e-7)


finite = st.floats(0.0, 10.0, width=32)


@st.composite
def problems(draw):
    """Costs of any look, ties and zeros included, and weights with zeros among them."""
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    cost = draw(st.lists(finite, min_size=n * m, max_size=n * m))
    cost = torch.tensor(cost, dtype=WIDE).reshape(n, m)
    sides = []
    for size in (n, m):
        raw = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size).filter(any))
        sides.append(torch.tensor(raw, dtype=WIDE) / sum(raw))
    return cost, *sides


@settings(max_examples=80, deadline=None)
@given(problem=problems(), reg=st.sampled_from([1e-3, 0.03, 0.3, 30.0]))
@pytest.mark.slow
def test_plans_are_plans_and_values_obey_the_bounds(problem, reg):
    cost, a, b = problem
    solved = ot.sinkhorn(cost, a, b, reg=reg, scale="max", tolerance=1e-7, anneal=0.7)
    plan = solved.plan
    assert bool(plan.isfinite().all())
    assert bool((plan >= 0).all())
    assert bool(solved.f.isfinite().all())
    assert bool(solved.g.isfinite().all())
    if not bool(solved.converged):
        return
    assert float((plan.sum(-1) - a).abs().sum()) < 1e-6
    assert float((plan.sum(-2) - b).abs().sum()) < 1e-6
    exact = float((ot.exact_plan(cost, a, b) * cost).sum())
    # A plan of any marginals has relative entropy at most that of the smaller side.
    most = float(solved.reg) * min(math.log((a > 0).sum()), math.log((b > 0).sum()))
    slack = 1e-5 * (1 + float(cost.max()))
    assert exact - slack <= float(solved.linear_value)
    assert (
        exact - slack <= float(solved.value) <= exact + len(a) * len(b) * float(solved.reg) + slack
    )
    if float(a.max()) == float(a[a > 0].min()) and float(b.max()) == float(b[b > 0].min()):
        assert float(solved.linear_value) <= exact + most + slack


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 6), reg=st.sampled_from([0.05, 0.3, 2.0]))
def test_bias_of_the_value_is_between_zero_and_reg_times_log_n(seed, n, reg):
    cost = numbers(seed, n, n)
    solved = ot.sinkhorn(cost, reg=reg, value="sharp", tolerance=1e-9, max_iterations=20_000)
    exact = float((ot.exact_plan(cost) * cost).sum())
    assert -1e-6 <= float(solved.value) - exact <= reg * math.log(n) + 1e-6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from([{}, {"penalty": 0.4}, {"mass": 0.5}]))
@pytest.mark.slow
def test_laws_of_transport(seed, kind):
    cost, a, b = numbers(seed, 4, 5), weights(seed + 1, 4), weights(seed + 2, 5)
    opts = {"tolerance": 1e-11, "max_iterations": 20_000}
    solved = ot.sinkhorn(cost, a, b, reg=0.2, **kind, **opts)
    turned = ot.sinkhorn(cost.T, b, a, reg=0.2, **kind, **opts)
    assert_close(turned.plan.T, solved.plan, rtol=1e-6, atol=1e-9)
    assert_close(turned.value, solved.value)
    scaled_kind = {"penalty": 1.2} if "penalty" in kind else kind
    scaled = ot.sinkhorn(3.0 * cost, a, b, reg=0.6, **scaled_kind, **opts)
    assert_close(scaled.value, 3.0 * solved.value)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    shuffled = ot.sinkhorn(cost[order], a[order], b, reg=0.2, **kind, **opts)
    assert_close(shuffled.plan, solved.plan[order], rtol=1e-6, atol=1e-9)
    if not kind:
        raised = ot.sinkhorn(cost + 5.0, a, b, reg=0.2, **opts)
        assert_close(raised.value, solved.value + 5.0)


@pytest.mark.parametrize("kind", [torch.float32, WIDE])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("extra", [{}, {"penalty": 0.3}, {"mass": 0.3}, {"anneal": 0.8}])
@pytest.mark.parametrize("size", [(64, 3, 4), (2, 40, 30)])
def test_small_regs_are_never_nan(kind, scale, extra, size):
    cost = (scale * numbers(22, *size)).to(kind)
    if "penalty" in extra:
        extra = {"penalty": 0.3 * scale}
    for reg in (1e-3, 1e-4):
        solved = ot.sinkhorn(cost, reg=reg, scale="max", max_iterations=100, **extra)
        for tensor in (solved.plan, solved.value, solved.f, solved.g, solved.marginal_error):
            assert bool(tensor.isfinite().all())


def test_a_thousand_far_logits_in_float32():
    rng = torch.Generator().manual_seed(23)
    x, y = -30 * torch.rand(2, 256, 1, generator=rng)
    for p in (1, 2):
        cost = ot.power_cost(x, y, p).requires_grad_()
        solved = ot.sinkhorn(cost, reg=0.01, max_iterations=60)
        (gradient,) = torch.autograd.grad(solved.value, cost)
        assert bool(solved.value.isfinite())
        assert bool(gradient.isfinite().all())


def test_small_reg_reaches_the_exact_value():
    cost = numbers(24, 4, 12, 12)
    solved = ot.sinkhorn(cost, reg=1e-3, anneal=0.8, tolerance=1e-3, max_iterations=3000)
    exact = (ot.exact_plan(cost) * cost).sum((-2, -1))
    assert float((solved.linear_value - exact).abs().max()) < 1e-3 * math.log(12)


@pytest.mark.parametrize("cost", [torch.zeros(3, 4), torch.full((3, 4), 7.0), -torch.ones(3, 4)])
def test_costs_without_differences_give_the_product(cost):
    for scale in (None, "mean", "max"):
        solved = ot.sinkhorn(cost, reg=0.01, scale=scale)
        assert_close(solved.plan, torch.full((3, 4), 1 / 12))
        assert_close(solved.value, cost[0, 0])


def test_points_without_weight_change_nothing_and_keep_a_potential():
    cost, a, b = numbers(25, 4, 5), weights(26, 4), weights(27, 5)
    wide = torch.cat([cost, numbers(28, 2, 5) * 50])
    zero = torch.cat([a, torch.zeros(2, dtype=WIDE)])
    for kind in ({}, {"penalty": 0.5}, {"mass": 0.5}):
        narrow = ot.sinkhorn(cost, a, b, reg=0.1, **kind, **TIGHT)
        solved = ot.sinkhorn(wide, zero, b, reg=0.1, **kind, **TIGHT)
        assert_close(solved.plan[:4], narrow.plan, rtol=1e-7, atol=1e-10)
        assert float(solved.plan[4:].sum()) == 0.0
        assert bool(solved.f.isfinite().all())


def test_two_points_without_weight_do_not_overflow_together():
    cost = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=WIDE, requires_grad=True)
    a, b = torch.tensor([0.0, 1.0, 0.0], dtype=WIDE), torch.tensor([0.0, 1.0], dtype=WIDE)
    for gradient in ("envelope", "implicit", "unrolled"):
        solved = ot.sinkhorn(cost, a, b, reg=1e-3, gradient=gradient)
        expected = torch.zeros(3, 2, dtype=WIDE)
        expected[1, 1] = 1.0
        assert_close(solved.plan.detach(), expected)
        (slope,) = torch.autograd.grad(solved.value, cost)
        assert_close(slope, expected)


def test_float32_is_near_float64():
    cost = numbers(29, 20, 6, 7)
    wide = ot.sinkhorn(cost, reg=0.05, tolerance=1e-6)
    narrow = ot.sinkhorn(cost.float(), reg=0.05, tolerance=1e-5)
    assert_close(narrow.plan.double(), wide.plan, rtol=0, atol=2e-5)
    assert_close(narrow.value.double(), wide.value, rtol=0, atol=1e-5)


def test_reg_of_each_problem_and_scales():
    cost = numbers(30, 3, 4, 4)
    regs = torch.tensor([0.05, 0.1, 1.0], dtype=WIDE)
    solved = ot.sinkhorn(cost, reg=regs, **TIGHT)
    for i in range(3):
        assert_close(solved.plan[i], ot.sinkhorn(cost[i], reg=float(regs[i]), **TIGHT).plan)
    relative = ot.sinkhorn(cost, reg=0.2, scale="mean", **TIGHT)
    assert_close(relative.reg, 0.2 * cost.mean((-2, -1)))
    relative = ot.sinkhorn(10 * cost, reg=0.2, scale="max", **TIGHT)
    assert_close(relative.plan, ot.sinkhorn(cost, reg=0.2, scale="max", **TIGHT).plan)


def test_starts_and_cooling_do_not_change_the_answer_but_its_cost():
    x, y = numbers(31, 2, 40, 1).unbind()
    cost = ot.power_cost(3 * x, 3 * y + 1)
    opts = {"reg": 0.02, "tolerance": 1e-9, "max_iterations": 20_000}
    cold = ot.sinkhorn(cost, **opts)
    f, g = ot.sorted_potentials(3 * x.squeeze(-1), 3 * y.squeeze(-1) + 1)
    warm = ot.sinkhorn(cost, f=f, g=g, **opts)
    again = ot.sinkhorn(cost, f=cold.f, g=cold.g, **opts)
    cooled = ot.sinkhorn(cost, anneal=0.7, averaged=5, **opts)
    for other in (warm, again, cooled):
        assert_close(other.value, cold.value, rtol=0, atol=1e-7)
        assert_close(other.plan, cold.plan, rtol=0, atol=1e-7)
    assert int(warm.iterations) < int(cold.iterations)
    assert int(again.iterations) <= 2


def test_the_account_is_true():
    cost = numbers(32, 50, 6, 5)
    solved = ot.sinkhorn(cost, reg=0.05, tolerance=1e-5, max_iterations=40)
    error = (solved.plan.sum(-1) - 1 / 6).abs().sum(-1)
    assert bool((error[solved.converged] <= 1.01e-5).all())
    assert bool((solved.marginal_error[~solved.converged] > 1e-5).all())
    assert bool((solved.iterations[~solved.converged] == 40).all())
    assert bool((solved.iterations[solved.converged] <= 40).all())
    assert 0 < int(solved.converged.sum()) < 50


def test_a_single_sweep_is_the_printed_one():
    cost, a, b = numbers(33, 4, 5), weights(34, 4), weights(35, 5)
    f = -0.3 * torch.logsumexp(b.log() - cost / 0.3, 1)
    g = -0.3 * torch.logsumexp(a.log().unsqueeze(1) + (f.unsqueeze(1) - cost) / 0.3, 0)
    solved = ot.sinkhorn(cost, a, b, reg=0.3, max_iterations=1)
    assert_close(solved.f, f)
    assert_close(solved.g, g)


@pytest.mark.parametrize("kind", [{}, {"penalty": 0.4}])
@pytest.mark.parametrize(("lead", "n"), [((), 30), ((64,), 4)])
def test_symmetric_problems_are_solved_as_any_other(kind, lead, n):
    x = numbers(36, *lead, n, 2)
    cost, a = ot.power_cost(x, x), weights(37, *lead, n)
    quick = ot.symmetric_sinkhorn(cost, a, reg=0.05, tolerance=1e-11, **kind)
    plain = ot.sinkhorn(cost, a, a, reg=0.05, averaged=100, **TIGHT, **kind)
    assert_close(quick.plan, plain.plan, rtol=1e-6, atol=1e-8)
    assert_close(quick.value, plain.value)
    assert_close(quick.f, quick.g)
    assert_close(quick.plan, quick.plan.transpose(-1, -2))
    assert int(quick.iterations.max()) < 100


def test_symmetric_problems_of_small_reg_are_finite_in_float32():
    x = 30 * numbers(38, 3, 100, 1).float()
    solved = ot.symmetric_sinkhorn(ot.power_cost(x, x), reg=0.01)
    assert bool(solved.converged.all())
    assert bool(solved.plan.isfinite().all())


def test_no_problems_are_no_trouble():
    solved = ot.sinkhorn(torch.zeros(0, 3, 4))
    assert solved.value.shape == (0,)
    assert solved.plan.shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cost": torch.ones(3)}, "cost with at least 2 dimensions, got shape"),
        ({"cost": torch.ones(3, 3).int()}, "float32 or float64.*int32"),
        ({"cost": torch.full((2, 2), math.nan)}, "finite numbers in cost"),
        ({"cost": torch.full((2, 2), math.inf)}, "finite numbers in cost"),
        ({"cost": torch.ones(2, 0)}, "rows and columns"),
        ({"a": torch.ones(3) / 3}, "2 weights in a, got 3"),
        ({"b": torch.tensor([1.5, -0.5])}, "weights b >= 0"),
        ({"b": torch.zeros(2)}, "positive sum"),
        ({"b": torch.ones(2)}, "same total mass.*normalise both"),
        ({"reg": 0.0}, "reg > 0, got 0. To fix: raise it, or use .exact_plan"),
        ({"reg": math.nan}, "finite reg"),
        ({"scale": "median"}, "scale to be one of 'mean', 'max', got 'median'"),
        ({"value": "primal"}, "value to be one of"),
        ({"gradient": "none"}, "gradient to be one of"),
        ({"penalty": 0.0}, "penalty > 0"),
        ({"penalty": 1.0, "mass": 0.5}, "either `penalty` or `mass`"),
        ({"mass": 1.5}, "mass in .*got up to 1.5, where the smaller total is 1"),
        ({"mass": 0.0}, "mass in "),
        ({"anneal": 1.0}, "anneal in .0, 1., got 1.0"),
        ({"tolerance": -1.0}, "tolerance >= 0"),
        ({"max_iterations": 0}, "max_iterations >= 1"),
        ({"averaged": -1}, "averaged >= 0"),
        ({"f": torch.ones(3)}, "2 potentials in f, got 3"),
        ({"g": torch.full((2,), math.inf)}, "finite numbers in g"),
    ],
)
def test_refusals_say_what_was_expected_what_came_and_how_to_mend(arguments, words):
    with pytest.raises(ValueError, match=f"Expected .*{words}"):
        ot.sinkhorn(**{"cost": torch.ones(2, 2), **arguments})


def test_a_cost_that_is_not_square_is_no_self_problem():
    with pytest.raises(ValueError, match="a square cost"):
        ot.symmetric_sinkhorn(torch.ones(2, 3))
