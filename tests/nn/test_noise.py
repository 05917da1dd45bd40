"""Exponential and Gumbel numbers against their distributions in scipy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from modalign.core import seeds
from modalign.nn.noise import exponential_numbers, gumbel_numbers

N = 1_000_000


def test_exponential_numbers_are_exponential_from_end_to_end() -> None:
    draw = exponential_numbers((2, N // 2), 3)
    assert draw.shape == (2, N // 2)
    assert draw.dtype == torch.float32
    assert draw.min() > 0
    assert draw.max() < 16.7
    flat = draw.flatten()
    assert flat.mean().item() == pytest.approx(1, abs=0.005)
    assert flat.var().item() == pytest.approx(1, abs=0.01)
    assert stats.kstest(flat[:100_000].numpy(), stats.expon.cdf).pvalue > 0.01
    # Neighbours come from the two halves of one 64-bit number.
    for other in (flat[1:], draw[1], flat[2:]):
        pair = torch.stack([flat[: len(other)], other])
        assert abs(torch.corrcoef(pair)[0, 1].item()) < 0.005


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (0, 4), (5, 7)])
def test_any_shape_and_the_same_numbers_again(shape: tuple[int, ...]) -> None:
    draws = [exponential_numbers(shape, seed) for seed in (1, 1, 2)]
    assert draws[0].shape == shape
    assert torch.equal(draws[0], draws[1])
    assert not draws[0].numel() or not torch.equal(draws[0], draws[2])


def test_names_tell_draws_apart_and_a_generator_goes_on() -> None:
    assert not torch.equal(exponential_numbers((4,), 1, "a"), exponential_numbers((4,), 1, "b"))
    other = torch.Generator().manual_seed(1)
    assert not torch.equal(gumbel_numbers((4,), other), gumbel_numbers((4,), other))


def test_gumbel_numbers_have_their_mean_variance_and_upper_tail() -> None:
    draw = gumbel_numbers((N,), seeds.torch_generator(4))
    assert draw.mean().item() == pytest.approx(0.5772, abs=0.005)
    assert draw.var().item() == pytest.approx(math.pi**2 / 6, abs=0.01)
    assert draw.isfinite().all()
    assert stats.kstest(draw[:100_000].numpy(), stats.gumbel_r.cdf).pvalue > 0.01
    # What a softmax over many items sees.
    for height in (5.0, 8.0, 10.0):
        expected = N * stats.gumbel_r.sf(height)
        assert abs((draw > height).sum().item() - expected) < 4 * math.sqrt(expected)
