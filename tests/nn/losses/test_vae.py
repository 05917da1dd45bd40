"""Variational losses against torch.distributions and loops."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torch.testing import assert_close

from modalign.nn.losses.vae import annealed, multinomial_loss, normal_kl, scale_kl
from oracles import bags_of

RNG = torch.Generator().manual_seed(0)
MEAN, WIDTH = torch.randn(4, 3, generator=RNG), torch.randn(4, 3, generator=RNG)


def test_kl_equals_that_of_torch_distributions():
    mine = Independent(Normal(MEAN, (0.5 * WIDTH).exp()), 1)
    prior = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    assert_close(normal_kl(MEAN, WIDTH), kl_divergence(mine, prior))


@pytest.mark.parametrize("std", [0.05, 0.1])
def test_scale_kl_is_the_kl_without_its_constant(std: float):
    unit = torch.nn.functional.normalize(MEAN, dim=1)
    mine = Independent(Normal(unit, std * (-0.5 * WIDTH).exp()), 1)
    prior = Independent(Normal(torch.zeros(3), torch.full((3,), std)), 1)
    whole = scale_kl(WIDTH) + 1 / (2 * std**2)
    assert_close(whole, kl_divergence(mine, prior))
    assert bool((scale_kl(WIDTH) > 0).all())
    assert_close(scale_kl(torch.zeros(2, 3)), torch.zeros(2))


def test_multinomial_loss_item_by_item():
    history = torch.tensor([[1.0, 0, 2], [0, 0, 0], [0, 3, 0]])
    scores = torch.randn(3, 3, generator=RNG, requires_grad=True)
    logs = scores.log_softmax(1)
    expected = torch.stack([-sum(history[u, i] * logs[u, i] for i in range(3)) for u in range(3)])
    got = multinomial_loss(scores, bags_of(history))
    assert_close(got, expected)
    (mine,) = torch.autograd.grad(got.sum(), scores, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected.sum(), scores)
    assert_close(mine, theirs)


def test_annealing_rises_in_a_line_and_stops_at_its_cap():
    weights = [float(annealed(torch.tensor(n), 10, 0.25)) for n in (0, 1, 2, 3, 100)]
    assert weights == pytest.approx([0.0, 0.1, 0.2, 0.25, 0.25])
