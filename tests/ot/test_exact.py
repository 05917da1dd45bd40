"""Exact plans against POT."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import ot as pot
from modalign import ot


def numbers(seed: int, *shape: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=rng, dtype=torch.float64)


def test_assignments_are_pots():
    cost = numbers(1, 2, 7, 7)
    plan = ot.exact_plan(cost)
    for one, found in zip(cost, plan, strict=True):
        np.testing.assert_allclose(found, pot.emd([], [], one.numpy()))


@pytest.mark.parametrize("mass", [1.0, 3.0])
def test_programs_are_pots(mass):
    cost = numbers(2, 5, 6)
    a, b = numbers(3, 5) + 0.1, numbers(4, 6) + 0.1
    a, b = mass * a / a.sum(), mass * b / b.sum()
    plan = ot.exact_plan(cost, a, b)
    theirs = pot.emd2(a.numpy(), b.numpy(), cost.numpy())
    assert float((plan * cost).sum()) == pytest.approx(float(theirs))
    assert_close(plan.sum(-1), a)
    assert_close(plan.sum(-2), b)


def test_float32_stays_float32_and_costs_must_be_finite():
    assert ot.exact_plan(numbers(5, 3, 3).float()).dtype == torch.float32
    with pytest.raises(ValueError, match="finite numbers in cost"):
        ot.exact_plan(torch.full((2, 2), float("nan")))
