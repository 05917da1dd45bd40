"""Rows of unit length: values and the hand-derived gradient against autograd's."""

import pytest
import torch
from torch.nn import functional

from modalign.models._shared.unit import unit


@pytest.mark.parametrize("again", [False, True])
def test_unit_rows_and_their_gradient(again):
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(unit(x, again), functional.normalize(x))
    assert torch.autograd.gradcheck(lambda x: unit(x, again), x)


@pytest.mark.parametrize("again", [False, True])
def test_a_row_of_zeros_has_the_gradient_of_normalize(again):
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-13, 0.0]], requires_grad=True)
    g = torch.tensor([[1.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    (mine,) = torch.autograd.grad(unit(x, again), x, g)
    (theirs,) = torch.autograd.grad(functional.normalize(x), x, g)
    torch.testing.assert_close(mine, theirs)
