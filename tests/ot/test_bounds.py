"""What theory promises of W_p and total variation, on random measures and at equality."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign import ot

WIDE = torch.float64
EXPONENTS = [1.0, 1.5, 2.0, 3.0]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 8), p=st.sampled_from(EXPONENTS))
def test_variation_bounds_transport_on_a_shared_support(seed, n, p):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, generator=rng, dtype=WIDE)
    a, b = torch.rand(2, n, generator=rng, dtype=WIDE) ** 3
    a, b = a / a.sum(), b / b.sum()
    power = p * float(ot.sorted_transport(x, x, a, b, p=p))  # W_p^p
    middle = 0.5 * (x.min() + x.max())
    bound = float(ot.variation_bound((x - middle).abs(), a, b, p=p))
    assert power <= bound + 1e-12
    norm = float((a - b).abs().sum())
    radius = float(x.max() - middle)
    assert power ** (1 / p) <= 2 ** (1 - 1 / p) * radius * norm ** (1 / p) + 1e-12
    assert power <= float(x.max() - x.min()) ** p * norm / 2 + 1e-12


@pytest.mark.parametrize("p", EXPONENTS)
def test_two_masses_at_the_ends_attain_the_bound(p):
    x = torch.tensor([-1.0, 2.0], dtype=WIDE)
    a, b = torch.eye(2, dtype=WIDE)
    power = p * float(ot.sorted_transport(x, x, a, b, p=p))
    bound = float(ot.variation_bound((x - 0.5).abs(), a, b, p=p))
    assert power == pytest.approx(bound, abs=1e-12)
    assert power == pytest.approx(3.0**p, abs=1e-12)


def test_relative_entropy_has_no_such_bound():
    x, a = torch.tensor([0.0, 1.0], dtype=WIDE), torch.tensor([0.5, 0.5], dtype=WIDE)
    divergences, distances = [], []
    for delta in (1e-2, 1e-6, 1e-12):
        b = torch.tensor([1 - delta, delta], dtype=WIDE)
        divergences.append(float((a * (a / b).log()).sum()))
        distances.append(float(ot.sorted_transport(x, x, a, b, p=1)))
    assert divergences == sorted(divergences)
    assert divergences[-1] > 10
    assert max(distances) <= 0.5


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), p=st.sampled_from(EXPONENTS))
def test_pairing_points_bounds_transport(seed, p):
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 9, generator=rng, dtype=WIDE)
    paired = float((x - y).abs().pow(p).mean()) / p
    assert float(ot.sorted_transport(x, y, p=p)) <= paired + 1e-12


def test_the_exponent_and_the_masses_are_checked():
    with pytest.raises(ValueError, match="p >= 1"):
        ot.variation_bound(torch.ones(2), torch.ones(2), torch.ones(2), p=0.5)
    with pytest.raises(ValueError, match="same total mass"):
        ot.variation_bound(torch.ones(2), torch.ones(2), 2 * torch.ones(2))
    assert math.isclose(float(ot.variation_bound(torch.ones(2), torch.ones(2), torch.ones(2))), 0)
