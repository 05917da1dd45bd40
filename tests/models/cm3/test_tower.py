"""The hand-derived gradients of CM3's towers against autograd's."""

import pytest
import torch
from torch.nn import functional

from modalign.models.cm3 import tower as _cm3_tower
from modalign.models.cm3.tower import SLOPE


@pytest.mark.parametrize("cheap", [4, 5])  # of features with five columns
@pytest.mark.parametrize("block", [1, 3, 1024])
def test_projection_in_blocks_equals_autograd(monkeypatch, block, cheap):
    monkeypatch.setattr(_cm3_tower, "BLOCK", block)
    monkeypatch.setattr(_cm3_tower, "CHEAP", cheap)
    x = torch.randn(8, 5, dtype=torch.float64)
    shapes = ((6, 5), (6,), (2, 4))  # four hidden, two of each result
    weights = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]

    def plain(weight, bias, second):
        both = functional.linear(x, weight, bias)
        return functional.leaky_relu(both[:, :4], SLOPE) @ second.T, both[:, 4:]

    def ours(*weights):
        return _cm3_tower._Projection.apply(x, *weights)

    for mine, theirs in zip(ours(*weights), plain(*weights), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert torch.autograd.gradcheck(ours, weights)
