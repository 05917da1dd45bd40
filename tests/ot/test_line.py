"""Banded kernels of points on the line, and the divergence made with them, against dense ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from modalign import ot
from modalign.ot import divergence
from modalign.ot._line import Line, room_of, soft_minimum

WIDE = torch.float64


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def line_of(x: torch.Tensor, y: torch.Tensor) -> Line:
    return Line(x, y, room_of(len(x) * len(y), x))


def dense(line: Line, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    exponent = f.T + g - 0.5 * (line.x.unsqueeze(1) - line.y).square()
    return exponent.clamp_max(60.0).exp()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 300),
    m=st.integers(1, 300),
    spread=st.sampled_from([0.1, 3.0, 60.0]),
    bump=st.sampled_from([0.0, 5.0, 60.0]),
    kind=st.sampled_from([torch.float32, WIDE]),
)
def test_a_band_drops_nothing_that_matters_at_any_potentials(seed, n, m, spread, bump, kind):
    x = (spread * numbers(seed, n)).sort().values.to(kind)
    y = (spread * numbers(seed + 1, m)).sort().values.to(kind)
    f, g = (bump * numbers(seed + 2, 1, n)).to(kind), (bump * numbers(seed + 3, 1, m)).to(kind)
    line = line_of(x, y)
    band, whole = line.kernel(f, g), dense(line, f, g)
    u, v = numbers(seed + 4, 1, n).abs().to(kind), numbers(seed + 5, 1, m).abs().to(kind)
    # Exponents are sums of numbers of up to this size: a float's digits limit the cells.
    size = float(f.abs().max() + g.abs().max() + max(x.abs().max(), y.abs().max()) ** 2)
    near = {"rtol": 20 * torch.finfo(kind).eps * (10 + size), "atol": 1e-14}
    assert_close(band.rows(v, line.buffer()), v @ whole.T, **near)
    assert_close(band.columns(u, line.buffer()), u @ whole, **near)


def test_far_cells_are_not_made():
    x = torch.linspace(-500, 500, 2000)
    band = line_of(x, x).kernel(torch.zeros(1, 2000), torch.zeros(1, 2000))
    assert sum(cells.numel() for _, _, cells in band.parts) < 0.25 * 2000 * 2000


def test_soft_minima_are_logs_of_sums():
    x, y, weight = numbers(1, 7), numbers(2, 5), numbers(3, 5)
    weight[1] = -float("inf")
    for heat in (1.0, 3.0):
        exponent = (weight - 0.5 * (x.unsqueeze(1) - y).square()) / heat
        assert_close(soft_minimum(x, y, weight, heat), -heat * torch.logsumexp(exponent, 1))


def both_ways(monkeypatch, call):
    """The same from the banded and from the dense solver."""
    monkeypatch.setattr(divergence, "_LINE_POINTS", 2)
    banded = call()
    monkeypatch.setattr(divergence, "_LINE_POINTS", 10**9)
    return banded, call()


SETS = {
    "logits": lambda: (-numbers(1, 90).exp(), -0.5 * numbers(2, 70).exp()),
    "far apart": lambda: (numbers(3, 80), 30.0 + numbers(4, 80)),
    "outliers": lambda: (torch.cat([numbers(5, 60), torch.tensor([9.0, 40.0])]), numbers(6, 64)),
    "equal points": lambda: (numbers(7, 80).round(), numbers(8, 80).round()),
    "one place": lambda: (torch.zeros(40, dtype=WIDE), numbers(9, 40)),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("start", ["zero", "sorted"])
@pytest.mark.parametrize("reg", [0.02, 1.0])
def test_values_slopes_and_potentials_are_those_of_the_dense_solver(monkeypatch, name, start, reg):
    x, y = SETS[name]()

    def solve():
        points = x.clone().requires_grad_(), y.clone().requires_grad_()
        solved = ot.sinkhorn_divergence(
            points[0].unsqueeze(-1),
            points[1].unsqueeze(-1),
            reg=reg,
            start=start,
            tolerance=1e-6,
            max_iterations=5_000,
        )
        assert bool(solved.cross.converged)
        slopes = torch.autograd.grad(2.0 * solved.value, points)
        f = solved.cross.f - solved.cross.f.mean()
        return solved.value.detach(), *slopes, f, solved.cross.plan, solved.self_y.f

    for one, other in zip(*both_ways(monkeypatch, solve), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_weights_batches_and_regs_of_their_own(monkeypatch):
    x, y = numbers(10, 3, 80, 1), numbers(11, 3, 64, 1) + 0.5
    y.requires_grad_()
    a = numbers(12, 3, 80).abs()
    a[:, :5] = 0.0
    a = a / a.sum(-1, keepdim=True)
    reg = torch.tensor([0.05, 0.3, 1.0], dtype=WIDE)

    def solve():
        solved = ot.sinkhorn_divergence(x, y, a, reg=reg, tolerance=1e-9, max_iterations=20_000)
        (slope,) = torch.autograd.grad(solved.value @ torch.tensor([1.0, -2.0, 3.0]).to(WIDE), y)
        return solved.value.detach(), slope, solved.cross.plan, solved.self_x.value.detach()

    for one, other in zip(*both_ways(monkeypatch, solve), strict=True):
        assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_slopes_match_finite_differences(monkeypatch):
    monkeypatch.setattr(divergence, "_LINE_POINTS", 2)
    x, y = numbers(13, 7, 1).requires_grad_(), numbers(14, 6, 1).requires_grad_()

    def number(x, y):
        return ot.sinkhorn_divergence(x, y, reg=0.5, tolerance=1e-12).value

    assert torch.autograd.gradcheck(number, (x, y), eps=1e-5, atol=1e-6, rtol=1e-4)


def test_equal_sets_of_float32_have_value_and_slope_zero():
    x = numbers(15, 512, 1).float()
    y = x.flip(0).requires_grad_()
    solved = ot.sinkhorn_divergence(x, y, reg=0.01, start="sorted", tolerance=1e-3)
    (slope,) = torch.autograd.grad(solved.value, y)
    assert abs(float(solved.value.detach())) < 1e-6
    assert 512 * float(slope.abs().max()) < 1e-3


def test_many_logits_of_float32_settle_in_a_few_sweeps():
    x = torch.nn.functional.logsigmoid(2.0 * numbers(16, 300, 1) + 1.0).float()
    y = torch.nn.functional.logsigmoid(numbers(17, 300, 1)).float()
    solved = ot.sinkhorn_divergence(x, y, reg=0.01, start="sorted", tolerance=1e-3)
    tight = ot.sinkhorn_divergence(
        x.double(), y.double(), reg=0.01, tolerance=1e-5, max_iterations=5000
    )
    assert int(solved.cross.iterations) <= 10
    assert_close(solved.value.double(), tight.value, rtol=0, atol=2e-5)


def test_far_sets_at_a_tiny_reg_stay_finite():
    x, y = -30.0 * numbers(18, 2, 300, 1).abs().float()
    y.requires_grad_()
    solved = ot.sinkhorn_divergence(x, y, reg=1e-4, max_iterations=30)
    (slope,) = torch.autograd.grad(solved.value, y)
    assert bool(slope.isfinite().all())
    assert bool(solved.value.isfinite())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reg": 0.0}, "reg > 0"),
        ({"start": "warm"}, "start to be one of"),
        ({"tolerance": -1.0}, "tolerance >= 0"),
        ({"b": torch.full((256,), 2.0)}, "the same total mass"),
    ],
)
def test_refusals(change, words):
    x = torch.zeros(256, 1)
    with pytest.raises(ValueError, match=words):
        ot.sinkhorn_divergence(x, x, **change)


def test_missing_numbers_are_refused():
    x = torch.zeros(256, 1)
    with pytest.raises(ValueError, match="finite numbers in y"):
        ot.sinkhorn_divergence(x, x / 0.0)
