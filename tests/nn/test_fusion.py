"""Fusion on the sphere against closed forms, float64 and the laws of great circles."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from modalign.nn.fusion import OPPOSITE, angle, beta_positions, casteljau, fold, lerp, slerp


def unit_rows(n, d, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, d, generator=rng, dtype=dtype), dim=-1)


def at_angle(theta, n=500, d=16, dtype=torch.float32, seed=0):
    """Pairs of unit vectors with a given angle between them, made in float64."""
    a, q = unit_rows(n, d, seed, torch.float64), unit_rows(n, d, seed + 1, torch.float64)
    q = functional.normalize(q - (q * a).sum(-1, keepdim=True) * a, dim=-1)
    return a.to(dtype), (math.cos(theta) * a + math.sin(theta) * q).to(dtype)


def arccos_slerp(a, b, p):
    theta = torch.acos((a * b).sum(-1))
    wa, wb = torch.sin(p * theta) / torch.sin(theta), torch.sin((1 - p) * theta) / torch.sin(theta)
    return wa[..., None] * a + wb[..., None] * b


def test_ends_are_exact_and_a_third_of_a_right_angle_is_known():
    a, b = unit_rows(1000, 8), unit_rows(1000, 8, 1)
    torch.testing.assert_close(slerp(a, b, torch.ones(1000)), a, rtol=0, atol=0)
    torch.testing.assert_close(slerp(a, b, torch.zeros(1000)), b, rtol=0, atol=0)
    x, y = torch.eye(2, dtype=torch.float64)
    third = slerp(x, y, torch.tensor(1 / 3, dtype=torch.float64))
    torch.testing.assert_close(third, torch.tensor([0.5, 3**0.5 / 2], dtype=torch.float64))


@pytest.mark.parametrize("theta", [None, 3.0, 1e-1, 1e-3, 1e-4, 1e-5, 0.0])
def test_unit_length_and_finite_gradients_at_every_angle(theta):
    a, b = (unit_rows(10_000, 16), unit_rows(10_000, 16, 1)) if theta is None else at_angle(theta)
    a.requires_grad_(True)
    b.requires_grad_(True)
    out = slerp(a, b, torch.rand(len(a), generator=torch.Generator().manual_seed(0)))
    # Inputs in float32 are themselves unit only to 1e-7 or so.
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(len(a)), rtol=0, atol=1e-6)
    (out * unit_rows(len(a), 16, 9)).sum().backward()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()
    assert a.grad.abs().max() < 5 + (theta is not None and theta > 2) * 100


def test_the_arc_cosine_form_that_this_avoids_does_fail():
    """The control: what is tested above is worth testing."""
    a, b = at_angle(1e-5)
    assert not arccos_slerp(a, b, torch.full((len(a),), 0.3)).isfinite().all()


def test_small_angles_agree_with_float64():
    for theta in (2.5, 1.0, 0.3, 0.24, 1e-2, 1e-4):
        a, b = at_angle(theta)
        p = torch.rand(len(a), generator=torch.Generator().manual_seed(0))
        exact = slerp(a.double(), b.double(), p.double())
        torch.testing.assert_close(slerp(a, b, p).double(), exact, rtol=0, atol=3e-7 + 1e-6 * theta)


def test_gradients_of_float32_agree_with_float64_near_zero():
    """A derivative of sinc that cancels would be off by eps / angle here."""
    a, b = at_angle(1e-4, n=50)
    p = torch.full((50,), 0.3)
    grads = []
    for dtype in (torch.float32, torch.float64):
        x, y = a.to(dtype).clone().requires_grad_(True), b.to(dtype)
        (slerp(x, y, p.to(dtype)) * unit_rows(50, 16, 5).to(dtype)).sum().backward()
        grads.append(x.grad.double())
    torch.testing.assert_close(*grads, rtol=0, atol=1e-5)


def test_gradcheck():
    a, b = at_angle(1.1, n=3, d=4, dtype=torch.float64)
    p = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    a.requires_grad_(True)
    b.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a, b: slerp(a, b, p), (a, b))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.floats(0, 1), st.integers(0, 10_000))
def test_geodesic(d, position, seed):
    """P2: the arc is walked at constant speed, and inside the plane of its ends."""
    a, b = unit_rows(20, d, seed, torch.float64), unit_rows(20, d, seed + 1, torch.float64)
    theta = angle(a, b)
    out = slerp(a, b, torch.full((20,), position, dtype=torch.float64))
    torch.testing.assert_close(angle(out, b), position * theta, rtol=0, atol=1e-6)
    torch.testing.assert_close(angle(a, out), (1 - position) * theta, rtol=0, atol=1e-6)
    plane = torch.stack([a, b], dim=-1)
    weights = torch.linalg.pinv(plane) @ out[..., None]
    residual = out[..., None] - plane @ weights
    assert residual.abs().max() < 1e-6


def test_reversal_and_rotation():
    a, b = unit_rows(200, 12, 0, torch.float64), unit_rows(200, 12, 1, torch.float64)
    p = torch.rand(200, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(slerp(a, b, p), slerp(b, a, 1 - p))
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))[0]
    torch.testing.assert_close(slerp(a @ rotation, b @ rotation, p), slerp(a, b, p) @ rotation)


@pytest.mark.parametrize("d", [2, 3, 64])
def test_antiparallel_pairs_give_finite_unit_vectors(d):
    a = torch.cat([torch.eye(d), -torch.eye(d), unit_rows(100, d)]).requires_grad_(True)
    for p in (0.0, 0.3, 0.5, 1.0):
        out = slerp(a, -a.detach(), torch.full((len(a),), p))
        torch.testing.assert_close(out.norm(dim=-1), torch.ones(len(a)), rtol=0, atol=1e-6)
        (grad,) = torch.autograd.grad(out.sum(), a)
        assert grad.isfinite().all()
    torch.testing.assert_close(slerp(a, -a, torch.ones(len(a))), a, rtol=0, atol=1e-5)


def test_only_antiparallel_rows_are_nudged():
    a = unit_rows(10, 8)
    b = unit_rows(10, 8, 1)
    p = torch.full((10,), 0.4)
    expected = slerp(a, b, p)
    b[3] = -a[3]
    assert int((angle(a, b) > OPPOSITE).sum()) == 1
    others = torch.arange(10) != 3
    torch.testing.assert_close(slerp(a, b, p)[others], expected[others], rtol=0, atol=0)


def test_a_line_has_no_arc():
    with pytest.raises(ValueError, match="two or more columns"):
        slerp(torch.ones(1, 1), -torch.ones(1, 1), torch.tensor([0.5]))


def test_half_precision_is_widened():
    a, b = unit_rows(50, 16), unit_rows(50, 16, 1)
    p = torch.full((50,), 0.3)
    out = slerp(a.bfloat16(), b.bfloat16(), p)
    assert out.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(slerp(a, b, p), slerp(a, b, p))
        assert angle(a, b).dtype == torch.float32


def test_angle_against_arccos_in_float64():
    a, b = unit_rows(500, 16, 0, torch.float64), unit_rows(500, 16, 1, torch.float64)
    torch.testing.assert_close(angle(a, b), torch.acos((a * b).sum(-1)), rtol=1e-10, atol=1e-10)
    for theta in (1e-6, 1e-3, 3.1):
        a, b = at_angle(theta)
        torch.testing.assert_close(angle(a, b), torch.full((len(a),), theta), rtol=0, atol=1e-6)


def test_fold_order_matters_and_casteljau_agrees_for_two():
    vectors = [unit_rows(100, 16, seed) for seed in range(3)]
    p = torch.rand(100, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold(vectors[:2], p[None]), casteljau(vectors[:2], p))
    torch.testing.assert_close(fold(vectors[:2], p[None]), slerp(vectors[1], vectors[0], p))
    half = torch.full((2, 100), 0.5)
    between = angle(fold(vectors, half), casteljau(vectors, half[0])).rad2deg().mean()
    assert 20 < between < 32  # the description gives 26 degrees for random vectors in R^16
    assert (fold(vectors, half) - fold(vectors[::-1], half)).abs().max() > 0.1


def test_fold_against_its_nested_formula():
    a, b, c = (unit_rows(30, 6, seed) for seed in range(3))
    p = torch.rand(2, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold([a, b, c], p), slerp(c, slerp(b, a, p[0]), p[1]))
    torch.testing.assert_close(fold([a, b, c], p[:1]), slerp(c, slerp(b, a, p[0]), p[0]))
    torch.testing.assert_close(fold([a], p[:0]), a)
    nested = slerp(slerp(c, b, p[0]), slerp(b, a, p[0]), p[0])
    torch.testing.assert_close(casteljau([a, b, c], p[0]), nested)


@pytest.mark.parametrize("m", [3, 4, 5])
def test_many_modalities_stay_on_the_sphere(m):
    vectors = [unit_rows(500, 16, seed) for seed in range(m)]
    p = torch.rand(m - 1, 500, generator=torch.Generator().manual_seed(0))
    for out in (fold(vectors, p), casteljau(vectors, p[0])):
        torch.testing.assert_close(out.norm(dim=-1), torch.ones(500), rtol=0, atol=2e-6)
    same = casteljau([vectors[0]] * m, p[0])
    torch.testing.assert_close(same, vectors[0], rtol=0, atol=1e-6)


def test_linear_blend_is_slerp_at_another_pace():
    a, b = unit_rows(500, 16, 0, torch.float64), unit_rows(500, 16, 1, torch.float64)
    w = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = angle(a, b)
    warped = torch.atan2(w * theta.sin(), 1 - w + w * theta.cos()) / theta
    blended = functional.normalize(lerp(a, b, w), dim=-1)
    torch.testing.assert_close(blended, slerp(a, b, warped), rtol=0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_expected_fusion_points_to_the_middle(alpha):
    a, b = unit_rows(1, 16), unit_rows(1, 16, 1)
    p = beta_positions(alpha, (20_000,), torch.Generator().manual_seed(0))
    mean = slerp(a.expand(20_000, -1), b.expand(20_000, -1), p).mean(0, keepdim=True)
    middle = slerp(a, b, torch.tensor([0.5]))
    assert functional.cosine_similarity(mean, middle).item() > 0.999


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_beta_draws_have_the_right_distribution(alpha):
    """Against scipy's distribution function; 0.01 would underflow without logarithms."""
    from scipy import stats

    draws = beta_positions(alpha, (100, 200), torch.Generator().manual_seed(1)).double()
    assert draws.shape == (100, 200)
    assert draws.isfinite().all()
    assert 0 <= draws.min() <= draws.max() <= 1
    assert draws.mean().item() == pytest.approx(0.5, abs=0.015)
    assert draws.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)
    # float32 lumps the mass next to 1, so the left half alone is compared.
    for x in (1e-6, 1e-3, 0.1, 0.3, 0.5):
        expected = stats.beta(alpha, alpha).cdf(x)
        assert (draws <= x).double().mean().item() == pytest.approx(expected, abs=0.015)


def test_beta_draws_come_from_the_generator_alone():
    state = torch.random.get_rng_state()
    first, second, other = (
        beta_positions(0.5, (50,), torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert beta_positions(0.5, (0, 7)).shape == (0, 7)


@pytest.mark.parametrize("alpha", [0.0, -1.0, 1.5, float("nan")])
def test_beta_refuses_an_alpha_out_of_bounds(alpha):
    with pytest.raises(ValueError, match="alpha must lie in"):
        beta_positions(alpha, (3,))
