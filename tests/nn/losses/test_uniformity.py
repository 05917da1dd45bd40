"""Blocked Gram losses against explicit pairs, closed forms and bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from modalign.nn.losses.uniformity import (
    alignment,
    calibrated_uniformity,
    uniformity,
)

CORNERS = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]], dtype=torch.float64)


def unit_rows(n, d, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, d, generator=rng, dtype=dtype), dim=-1)


def by_pairs(x, s=None, t=2.0):
    """C16 and C18 from all pairwise distances."""
    n = len(x)
    a, b = torch.triu_indices(n, n, 1)
    squares = (x[a] - x[b]).square().sum(-1)
    exponent = -t * squares if s is None else -t * (squares - 2 + 2 * s[a, b])
    return exponent.exp().mean().log()


@pytest.mark.parametrize("n", [2, 3, 7, 64, 65])
@pytest.mark.parametrize("block", [1, 2, 16, 64, 512])
def test_equal_to_explicit_pairs_with_gradients(n, block):
    x, c = unit_rows(n, 5).requires_grad_(True), unit_rows(n, 4, 1).requires_grad_(True)
    s = (c @ c.T).clamp(0.1, 0.8)
    for ours, oracle in (
        (uniformity(x, 1.5, block), by_pairs(functional.normalize(x, dim=-1), t=1.5)),
        (
            calibrated_uniformity(x, c, 1.5, 0.1, 0.8, block),
            by_pairs(functional.normalize(x, dim=-1), s, 1.5),
        ),
    ):
        torch.testing.assert_close(ours, oracle, rtol=1e-10, atol=1e-10)
        mine = torch.autograd.grad(ours, (x, c), allow_unused=True)
        theirs = torch.autograd.grad(oracle, (x, c), allow_unused=True, retain_graph=True)
        torch.testing.assert_close(mine[0], theirs[0], rtol=1e-9, atol=1e-11)
        if theirs[1] is not None:
            torch.testing.assert_close(mine[1], theirs[1], rtol=1e-9, atol=1e-11)


def test_gradcheck():
    x, c = torch.randn(6, 3, dtype=torch.float64), torch.rand(6, 3, dtype=torch.float64) * 0.5
    x.requires_grad_(True)
    c.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x, c: calibrated_uniformity(x, c, 1.0, 0.0, 1.0, block=4), (x, c)
    )


def test_float32_is_accurate():
    x, c = unit_rows(500, 32), unit_rows(500, 16, 1)
    single = calibrated_uniformity(x.float(), c.float())
    torch.testing.assert_close(single.double(), calibrated_uniformity(x, c), rtol=0, atol=1e-6)
    torch.testing.assert_close(uniformity(x.float()).double(), by_pairs(x), rtol=0, atol=1e-6)


def test_content_as_a_matrix_of_ones_and_constants():
    """T3: a constant similarity shifts the value and leaves the gradient alone."""
    x = unit_rows(40, 6).requires_grad_(True)
    plain = uniformity(x)
    (expected,) = torch.autograd.grad(plain, x)
    for c in (1.0, 0.5, 0.0):
        content = torch.full((40, 1), math.sqrt(c), dtype=torch.float64)
        shifted = calibrated_uniformity(x, content)
        torch.testing.assert_close(shifted - plain, plain.new_tensor(4 * (1 - c)))
        torch.testing.assert_close(torch.autograd.grad(shifted, x)[0], expected, rtol=0, atol=1e-12)


def test_three_vectors_at_120_degrees():
    torch.testing.assert_close(uniformity(CORNERS), CORNERS.new_tensor(-6.0))
    zero = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(calibrated_uniformity(CORNERS, zero), zero.new_tensor(-2.0))
    half = torch.full((3, 1), 0.5**0.5, dtype=torch.float64)
    torch.testing.assert_close(calibrated_uniformity(CORNERS, half), zero.new_tensor(-4.0))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.floats(0.1, 10), st.integers(0, 10_000))
def test_bounds(n, d, t, seed):
    """T4."""
    x, c = unit_rows(n, d, seed), unit_rows(n, 5, seed + 1)
    value = uniformity(x, t).item()
    assert -2 * t * n / (n - 1) - 1e-9 <= value <= 1e-9
    s = (c @ c.T).clamp(0, 1)[~torch.eye(n, dtype=torch.bool)]
    value = calibrated_uniformity(x, c, t).item()
    assert 2 * t * (-1 / (n - 1) - s.mean().item()) - 1e-9 <= value
    assert value <= 2 * t * (1 - s.min().item()) + 1e-9


def test_one_point_has_uniformity_zero():
    same = torch.ones(9, 4, dtype=torch.float64)
    torch.testing.assert_close(uniformity(same), same.new_tensor(0.0), rtol=0, atol=1e-12)


def test_order_length_and_rotation_do_not_matter():
    x, c = unit_rows(50, 6), unit_rows(50, 4, 1)
    base = calibrated_uniformity(x, c, block=16)
    order = torch.randperm(50)
    torch.testing.assert_close(calibrated_uniformity(x[order], c[order], block=16), base)
    lengths = torch.rand(50, 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(calibrated_uniformity(7 * x * lengths, c), base)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    torch.testing.assert_close(calibrated_uniformity(x @ rotation, c), base)


def test_less_alike_means_a_greater_share_of_the_push():
    """T2: lowering one pair's similarity raises its share and lowers every other one's."""
    x = unit_rows(6, 5)
    s = torch.full((6, 6), 0.6, dtype=torch.float64).fill_diagonal_(1)

    def shares(s):
        """Share of each pair: -1 / (2t) of the derivative by its similarity, t = 2."""

        def value(change):
            return calibrated_uniformity(x, torch.linalg.cholesky(s + change)).item()

        steps = torch.zeros(15, 6, 6, dtype=torch.float64)
        a, b = torch.triu_indices(6, 6, 1)
        steps[torch.arange(15), a, b] = steps[torch.arange(15), b, a] = 1e-6
        return torch.tensor([-(value(step) - value(-step)) / 2e-6 / 4 for step in steps])

    before = shares(s)
    lowered = s.clone()
    lowered[0, 1] = lowered[1, 0] = 0.3
    after = shares(lowered)
    torch.testing.assert_close(before.sum(), torch.tensor(1.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(after.sum(), torch.tensor(1.0), rtol=0, atol=1e-5)
    assert after[0] > before[0]
    assert (after[1:] < before[1:]).all()


def test_kernel_ratio():
    """T1 on a single pair, where the logarithm of the mean is the exponent itself."""
    x = unit_rows(2, 4)
    for s in (0.0, 0.3, 1.0):
        content = torch.linalg.cholesky(
            torch.tensor([[1.0, s], [s, 1.0 + 1e-12]], dtype=torch.float64)
        )
        ratio = (calibrated_uniformity(x, content) - uniformity(x)).exp()
        torch.testing.assert_close(ratio, ratio.new_tensor(math.exp(4 * (1 - s))))
    clamped = calibrated_uniformity(x, torch.ones(2, 1, dtype=torch.float64), s_max=0.8)
    torch.testing.assert_close((clamped - uniformity(x)).exp(), x.new_tensor(2.2255409))


def test_clamped_pairs_send_no_gradient_to_the_content():
    x, c = unit_rows(30, 5), unit_rows(30, 4, 1).requires_grad_(True)
    (free,) = torch.autograd.grad(calibrated_uniformity(x, c), c)
    assert free.norm() > 0
    tight = calibrated_uniformity(x, c, s_min=1.0, s_max=1.0)
    (none,) = torch.autograd.grad(tight, c)
    assert none.norm() == 0


def test_alignment_is_two_minus_two_cosines():
    a, b = unit_rows(20, 6), unit_rows(20, 6, 1)
    torch.testing.assert_close(alignment(3 * a, 5 * b), (2 - 2 * (a * b).sum(-1)).mean())
    assert alignment(a, a).item() == 0
    torch.testing.assert_close(alignment(a, -a), a.new_tensor(4.0))
    assert alignment(a, b).item() > 0


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_rows_have_no_pairs(n):
    """E49: 0 with a gradient of 0, never the logarithm of nothing."""
    x = torch.ones(n, 3, requires_grad=True)
    for value in (uniformity(x), calibrated_uniformity(x, torch.ones(n, 2))):
        assert value.item() == 0
        (grad,) = torch.autograd.grad(value, x)
        assert (grad == 0).all()
    assert alignment(x[:0], x[:0]).item() == 0


def test_autocast_and_half_precision_are_widened():
    x, c = unit_rows(40, 8, dtype=torch.float32), unit_rows(40, 8, 1, torch.float32)
    expected = calibrated_uniformity(x, c)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(calibrated_uniformity(x, c), expected)
    assert calibrated_uniformity(x.bfloat16(), c.bfloat16()).dtype == torch.float32


def test_a_large_t_does_not_overflow():
    x, c = unit_rows(50, 8, dtype=torch.float32), unit_rows(50, 8, 1, torch.float32)
    value = calibrated_uniformity(x.requires_grad_(True), c, t=200.0)
    assert value.isfinite()
    (grad,) = torch.autograd.grad(value, x)
    assert grad.isfinite().all()
