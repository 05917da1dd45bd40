"""Dropout's factors: their values, their mean, their independence of each other."""

from __future__ import annotations

import pytest
import torch

from modalign.core import seeds
from modalign.nn.dropout import kept


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.99])
def test_the_factors_are_zero_or_make_the_mean_one(rate):
    factors = kept((300, 7, 50), rate, seeds.torch_generator(0, "dropout"))
    assert factors.shape == (300, 7, 50)
    assert factors.dtype == torch.float32
    assert abs(float((factors == 0).float().mean()) - rate) < 0.005
    torch.testing.assert_close(float(factors.mean()), 1.0, rtol=0, atol=0.04)
    assert len(factors.unique()) == (1 if rate == 0 else 2)


def test_neighbouring_entries_are_dropped_independently():
    gone = (kept((400_000,), 0.3, seeds.torch_generator(1, "dropout")) == 0).double()
    for lag in (1, 2, 3, 4):
        together = float((gone[:-lag] * gone[lag:]).mean())
        assert abs(together - 0.09) < 0.003


def test_one_generator_gives_one_mask_and_the_next_another():
    first, again = (kept((99,), 0.5, seeds.torch_generator(2, "dropout")) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, kept((99,), 0.5, seeds.torch_generator(3, "dropout")))
