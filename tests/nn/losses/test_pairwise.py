"""Ranking losses against closed forms and plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from modalign.nn.losses.pairwise import bpr_loss, l2_penalty


def test_bpr_equals_the_logarithm_of_the_sigmoid_one_by_one():
    positive, negative = torch.randn(9).double(), torch.randn(9).double()
    loop = [
        -math.log(1 / (1 + math.exp(n - p)))
        for p, n in zip(positive.tolist(), negative.tolist(), strict=True)
    ]
    assert_close(bpr_loss(positive, negative).item(), sum(loop) / 9)


def test_bpr_of_equal_scores_is_the_logarithm_of_two():
    assert_close(bpr_loss(torch.zeros(5), torch.zeros(5)).item(), math.log(2))


def test_bpr_of_far_scores_neither_overflows_nor_loses_its_gradient():
    positive = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bpr_loss(positive, torch.zeros(2))
    loss.backward()
    assert_close(loss.item(), 5e3)
    assert_close(positive.grad, torch.tensor([-0.5, 0.0]))


def test_bpr_depends_on_differences_alone_and_broadcasts():
    positive, negative = torch.randn(4, 1).double(), torch.randn(4, 6).double()
    assert_close(bpr_loss(positive + 3, negative + 3), bpr_loss(positive, negative))
    assert_close(bpr_loss(positive, negative), bpr_loss(positive.expand(4, 6), negative))


def test_gradients():
    positive, negative = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in "pn")
    assert torch.autograd.gradcheck(bpr_loss, (positive, negative))
    assert torch.autograd.gradcheck(
        lambda a, b: l2_penalty(a, b, batch_size=3), (positive, negative)
    )


def test_penalty_is_half_the_squares_over_the_batch():
    a, b = torch.randn(3, 4).double(), torch.randn(5).double()
    squares = sum(x * x for x in [*a.flatten().tolist(), *b.tolist()])
    assert_close(l2_penalty(a, b, batch_size=3).item(), squares / 6)
    assert_close(l2_penalty(a.T, b, batch_size=3), l2_penalty(b, a, batch_size=3))


def test_a_penalty_needs_a_tensor():
    with pytest.raises(ValueError, match="at least one"):
        l2_penalty(batch_size=2)
