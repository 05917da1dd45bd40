"""The debiased divergence: golden numbers, identities, limits, gradients, flows."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from modalign import ot

WIDE = torch.float64
TIGHT = {"tolerance": 1e-12, "max_iterations": 20_000}


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=WIDE).unsqueeze(-1)


# Golden values of the specification: p, reg, sharp, dual.
EVEN = [
    (1, 0.1, 0.669997804, 0.665996655),
    (1, 1.0, 0.585619212, 0.416393830),
    (2, 0.1, 0.242106916, 0.258137434),
    (2, 1.0, 0.278728029, 0.192869282),
]
UNEVEN = [
    (1, 0.1, 0.699987690, 0.657149035),
    (1, 1.0, 0.554553316, 0.396382973),
    (2, 0.1, 0.273935381, 0.232360729),
    (2, 1.0, 0.135415373, 0.114813948),
]


@pytest.mark.parametrize(("p", "reg", "sharp", "dual"), EVEN)
@pytest.mark.parametrize("start", ["zero", "sorted"])
def test_golden_values_of_even_weights(p, reg, sharp, dual, start):
    x, y = points(0, 1, 3), points(0.5, 2, 2.5)
    for value, expected in (("sharp", sharp), ("dual", dual)):
        solved = ot.sinkhorn_divergence(x, y, p=p, reg=reg, value=value, start=start, **TIGHT)
        assert float(solved.value) == pytest.approx(expected, abs=5e-9)


@pytest.mark.parametrize(("p", "reg", "sharp", "dual"), UNEVEN)
def test_golden_values_of_uneven_weights_and_sizes(p, reg, sharp, dual):
    x, y = points(0, 1, 3), points(0.5, 2)
    a, b = torch.tensor([0.2, 0.5, 0.3], dtype=WIDE), torch.tensor([0.6, 0.4], dtype=WIDE)
    for value, expected in (("sharp", sharp), ("dual", dual)):
        solved = ot.sinkhorn_divergence(x, y, a, b, p=p, reg=reg, value=value, **TIGHT)
        assert float(solved.value) == pytest.approx(expected, abs=5e-9)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reg", [0.01, 0.1, 1.0])
def test_a_set_and_a_shuffled_copy_are_equal(p, reg):
    x = numbers(1, 12, 1)
    y = x[torch.randperm(12, generator=torch.Generator().manual_seed(2))].requires_grad_()
    # The averaged sweeps alone must do: alternating ones leave a visible gradient.
    solved = ot.sinkhorn_divergence(
        x, y, p=p, reg=reg, averaged=60, tolerance=1e-10, max_iterations=20_000
    )
    (gradient,) = torch.autograd.grad(solved.value, y)
    assert abs(float(solved.value.detach())) < 1e-9
    assert float(gradient.abs().max()) < 1e-6
    assert float(solved.cross.value.detach()) > 1e-3


@pytest.mark.parametrize("value", ["dual", "sharp"])
@pytest.mark.parametrize("reg", [0.01, 0.1, 1.0])
def test_a_translation_costs_half_its_square(value, reg):
    x = numbers(3, 10, 1)
    solved = ot.sinkhorn_divergence(
        x, x + 1.5, reg=reg, value=value, start="sorted", tolerance=1e-9
    )
    assert float(solved.value) == pytest.approx(1.5**2 / 2, abs=1e-7)


def test_means_and_centred_parts_add_up():
    x, y = numbers(4, 6, 2), 0.5 * numbers(5, 8, 2) + 1.0
    whole = ot.sinkhorn_divergence(x, y, reg=0.3, **TIGHT).value
    centred = ot.sinkhorn_divergence(x - x.mean(0), y - y.mean(0), reg=0.3, **TIGHT).value
    assert_close(whole, centred + 0.5 * (x.mean(0) - y.mean(0)).square().sum())


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    p=st.sampled_from([1, 2]),
    reg=st.sampled_from([0.1, 1.0]),
    value=st.sampled_from(["dual", "sharp"]),
)
@pytest.mark.slow
def test_laws_of_the_divergence(seed, p, reg, value):
    x, y = numbers(seed, 5, 2), numbers(seed + 1, 4, 2)
    options = {"p": p, "value": value, "tolerance": 1e-9, "max_iterations": 20_000}
    solved = float(ot.sinkhorn_divergence(x, y, reg=reg, **options).value)
    if value == "dual":
        assert solved >= -1e-9
    turned = float(ot.sinkhorn_divergence(y, x, reg=reg, **options).value)
    assert turned == pytest.approx(solved, abs=1e-7)
    scaled = float(ot.sinkhorn_divergence(2 * x, 2 * y, reg=reg * 2**p, **options).value)
    assert scaled == pytest.approx(2**p * solved, abs=1e-6)


@pytest.mark.parametrize("value", ["dual", "sharp"])
@pytest.mark.parametrize("p", [1, 2])
def test_small_reg_is_near_the_exact_value(value, p):
    x, y = numbers(6, 10), 1.0 + numbers(7, 10)
    exact = float(ot.sorted_transport(x, y, p=p))
    for reg in (1.0, 0.1, 0.03):
        solved = ot.sinkhorn_divergence(
            x.unsqueeze(-1), y.unsqueeze(-1), p=p, reg=reg, value=value, start="sorted"
        )
        assert abs(float(solved.value) - exact) <= reg * math.log(10)


@pytest.mark.parametrize("value", ["dual", "sharp"])
@pytest.mark.parametrize("p", [1, 2])
def test_large_reg_is_the_energy_distance(value, p):
    x, y = numbers(8, 6, 2), numbers(9, 7, 2) + 1.0
    solved = ot.sinkhorn_divergence(x, y, p=p, reg=1e5, value=value, **TIGHT)
    cost = lambda u, v: float(ot.power_cost(u, v, p).mean())  # noqa: E731
    expected = cost(x, y) - 0.5 * cost(x, x) - 0.5 * cost(y, y)
    assert float(solved.value) == pytest.approx(expected, abs=1e-3)
    if p == 2:
        means = (x.mean(0) - y.mean(0)).square().sum()
        assert expected == pytest.approx(0.5 * float(means))


def test_gaussians_have_a_closed_form():
    # Janati et al. 2020: entropic transport between N(0, s^2) and N(m, t^2), in one dimension,
    # here with cost |x - y|^2 / 2; quadrature points of a fine grid stand for the densities.
    s, t, m, reg = 0.7, 1.1, 0.6, 0.5
    grid = torch.linspace(-7, 7, 400, dtype=WIDE)
    a = torch.softmax(-0.5 * (grid / s).square(), -1)
    b = torch.softmax(-0.5 * ((grid - m) / t).square(), -1)

    def closed(s, t, m):
        d = math.sqrt(4 * s * s * t * t + reg * reg)
        bures = s * s + t * t - d + reg * (1 - math.log(2 * reg) + math.log(d + reg))
        return 0.5 * (m * m + bures)

    points = grid.unsqueeze(-1)
    solved = ot.sinkhorn_divergence(points, points, a, b, reg=reg, tolerance=1e-10)
    expected = closed(s, t, m) - 0.5 * closed(s, s, 0) - 0.5 * closed(t, t, 0)
    assert float(solved.value) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "gradient"),
    [("dual", "envelope"), ("dual", "implicit"), ("sharp", "implicit"), ("sharp", "unrolled")],
)
@pytest.mark.parametrize("p", [1.5, 2])
@pytest.mark.slow
def test_gradients_match_finite_differences(value, gradient, p):
    x, y = numbers(10, 4, 2), numbers(11, 3, 2).requires_grad_()
    options = {"tolerance": 1e-12, "max_iterations": 2000, "reg": 0.5, "averaged": 3}

    def number(y):
        return ot.sinkhorn_divergence(x, y, p=p, value=value, gradient=gradient, **options).value

    assert torch.autograd.gradcheck(number, (y,), eps=1e-5, atol=1e-6, rtol=1e-4)


def test_the_gradient_is_a_difference_of_barycentric_maps():
    x, y = numbers(12, 6, 2), numbers(13, 5, 2).requires_grad_()
    solved = ot.sinkhorn_divergence(x, y, reg=0.2, **TIGHT)
    (gradient,) = torch.autograd.grad(solved.value, y)
    to_x = ot.barycentric_projection(solved.cross.plan.mT, x)
    to_self = ot.barycentric_projection(solved.self_y.plan, y.detach())
    assert_close(gradient, (to_self - to_x) / 5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("penalty", [0.5, 5.0])
def test_relaxed_divergence_is_positive_and_zero_on_equals(penalty):
    x, y = numbers(14, 6, 2), numbers(15, 5, 2)
    a, b = torch.full((6,), 0.2, dtype=WIDE), torch.full((5,), 0.1, dtype=WIDE)
    options = {"reg": 0.3, "penalty": penalty, "tolerance": 1e-11, "max_iterations": 20_000}
    assert float(ot.sinkhorn_divergence(x, y, a, b, **options).value) > 1e-3
    assert abs(float(ot.sinkhorn_divergence(x, x, a, a, **options).value)) < 1e-8
    more = ot.sinkhorn_divergence(x, x, a, 2 * a, **options)
    assert float(more.value) > 1e-3


def test_batches_are_single_problems():
    x, y = numbers(16, 4, 6, 1), numbers(17, 4, 7, 1)
    together = ot.sinkhorn_divergence(x, y, reg=0.2, tolerance=1e-10).value
    for i in range(4):
        alone = ot.sinkhorn_divergence(x[i], y[i], reg=0.2, tolerance=1e-10).value
        assert_close(together[i], alone, rtol=1e-6, atol=1e-9)


def test_an_earlier_divergence_is_a_warm_start():
    x, y = numbers(18, 30, 2), numbers(19, 30, 2)
    cold = ot.sinkhorn_divergence(x, y, reg=0.05, averaged=0)
    moved = ot.sinkhorn_divergence(x, y + 1e-3, reg=0.05, averaged=0)
    warm = ot.sinkhorn_divergence(x, y + 1e-3, reg=0.05, averaged=0, start=cold)
    assert_close(warm.value, moved.value, rtol=0, atol=1e-4)
    assert int(warm.cross.iterations) < int(moved.cross.iterations)


def test_cosines_and_relative_regs():
    x, y = numbers(20, 6, 4), numbers(21, 5, 4)
    solved = ot.sinkhorn_divergence(x, y, cost=ot.cosine_cost, reg=0.1, scale="mean", **TIGHT)
    unit = lambda z: z / z.norm(dim=-1, keepdim=True)  # noqa: E731
    reg = 0.1 * ot.cosine_cost(x, y).mean()
    assert_close(solved.value, ot.sinkhorn_divergence(unit(x), unit(y), reg=reg, **TIGHT).value)


def test_logits_of_float32_at_the_published_reg():
    rng = torch.Generator().manual_seed(22)
    x, y = -30 * torch.rand(2, 512, 1, generator=rng)
    y.requires_grad_()
    solved = ot.sinkhorn_divergence(x, y, reg=0.01, start="sorted", max_iterations=60)
    (gradient,) = torch.autograd.grad(solved.value, y)
    assert bool(gradient.isfinite().all())
    exact = ot.sorted_transport(x.squeeze(-1), y.detach().squeeze(-1))
    assert abs(float(solved.value.detach() - exact)) <= 0.01 * math.log(512)


def bimodal(n: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(23)
    side = torch.where(torch.arange(n) % 2 == 0, -1.0, 1.0)
    return (side + 0.2 * torch.randn(n, generator=rng)).to(WIDE).unsqueeze(-1)


@pytest.mark.slow
def test_debiased_flows_reach_the_target_and_biased_ones_shrink():
    y = bimodal(32)
    x = 0.3 * numbers(24, 32, 1)
    options = {"reg": 1.0, "tolerance": 1e-4, "max_iterations": 200}
    debiased = ot.gradient_flow(
        x, lambda x: ot.sinkhorn_divergence(x, y, **options).value, steps=100, rate=0.5
    )
    biased = ot.gradient_flow(
        x, lambda x: ot.sinkhorn(ot.power_cost(x, y), **options).value, steps=40, rate=0.5
    )
    target = float(y.var())
    assert float(debiased.points[-1].var()) == pytest.approx(target, rel=0.02)
    assert float(biased.points[-1].var()) < 0.5 * target
    assert float(debiased.losses.diff().max()) < 1e-4
    assert debiased.points.shape == (101, 32, 1)
    assert debiased.gradients.shape == (100, 32, 1)


@pytest.mark.parametrize("value", ["dual", "sharp"])
def test_flows_of_clouds_lower_the_exact_distance(value):
    x, y = numbers(25, 20, 2), 0.3 * numbers(26, 20, 2) + 2.0
    gradient = "envelope" if value == "dual" else "implicit"

    def loss(x):
        return ot.sinkhorn_divergence(x, y, reg=0.05, value=value, gradient=gradient).value

    flow = ot.gradient_flow(x, loss, steps=25, rate=0.5)
    last = ot.power_cost(flow.points[-1], y)
    assert float((ot.exact_plan(last) * last).sum()) < 0.01


def test_flow_of_a_sorted_loss_ends_on_the_target():
    x, y = numbers(27, 9, 1), numbers(28, 9, 1) + 3.0
    flow = ot.gradient_flow(
        x, lambda x: ot.sorted_transport(x.squeeze(-1), y.squeeze(-1)), steps=60, rate=0.5
    )
    assert_close(flow.points[-1].sort(0).values, y.sort(0).values, rtol=0, atol=1e-9)
    assert bool((flow.losses.diff() <= 0).all())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"start": "warm"}, "start to be one of"),
        ({"start": "sorted"}, "points on the line.*got width 2.*zero"),
        ({"p": 0.5}, "p >= 1"),
        ({"reg": -1.0}, "reg > 0"),
    ],
)
def test_refusals_say_what_was_expected_what_came_and_how_to_mend(arguments, words):
    with pytest.raises(ValueError, match=f"Expected .*{words}"):
        ot.sinkhorn_divergence(torch.ones(3, 2), torch.zeros(3, 2), **arguments)


def test_a_sorted_start_knows_no_other_costs():
    with pytest.raises(ValueError, match="and another cost"):
        ot.sinkhorn_divergence(
            torch.ones(3, 1), torch.zeros(3, 1), cost=ot.cosine_cost, start="sorted"
        )
