"""Barycentric maps: identities, hulls, new points."""

import pytest
import torch
from torch.testing import assert_close

from modalign import ot

WIDE = torch.float64


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


def test_permutations_and_products():
    y = numbers(1, 4, 3)
    order = torch.tensor([2, 0, 3, 1])
    assert_close(ot.barycentric_projection(torch.eye(4, dtype=WIDE)[order] / 4, y), y[order])
    product = torch.full((5, 4), 1 / 20, dtype=WIDE)
    assert_close(ot.barycentric_projection(product, y), y.mean(0).expand(5, 3))


def test_images_lie_in_the_hull_and_batches_are_single_problems():
    x, y = numbers(2, 3, 6, 2), numbers(3, 3, 5, 2)
    plan = ot.sinkhorn(ot.power_cost(x, y), reg=0.3).plan
    images = ot.barycentric_projection(plan, y)
    assert bool((images.amax(-2) <= y.amax(-2)).all())
    assert bool((images.amin(-2) >= y.amin(-2)).all())
    for i in range(3):
        assert_close(images[i], ot.barycentric_projection(plan[i], y[i]))


def test_the_mean_of_images_is_the_mean_of_the_target():
    x, y = numbers(4, 6, 2), numbers(5, 5, 2)
    plan = ot.sinkhorn(ot.power_cost(x, y), reg=0.3, tolerance=1e-11, max_iterations=9999).plan
    assert_close(ot.barycentric_projection(plan, y).mean(0), y.mean(0))


def test_rows_without_mass_have_no_image():
    plan = torch.tensor([[0.0, 0.0], [0.5, 0.5]], dtype=WIDE, requires_grad=True)
    images = ot.barycentric_projection(plan, numbers(6, 2, 3))
    assert_close(images[0], torch.zeros(3, dtype=WIDE))
    (gradient,) = torch.autograd.grad(images.sum(), plan)
    assert bool(gradient.isfinite().all())


def test_gradients_reach_the_points_and_through_the_plan_the_cost():
    x, y = numbers(7, 3, 2).requires_grad_(), numbers(8, 4, 2).requires_grad_()

    def images(x, y):
        options = {"reg": 0.7, "tolerance": 1e-13, "gradient": "implicit"}
        return ot.barycentric_projection(ot.sinkhorn(ot.power_cost(x, y), **options).plan, y)

    assert torch.autograd.gradcheck(images, (x, y), eps=1e-5, atol=1e-6, rtol=1e-5)


def test_the_entropic_map_extends_the_projection():
    x, y = numbers(9, 6, 2), numbers(10, 5, 2)
    b = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0], dtype=WIDE)
    solved = ot.sinkhorn(ot.power_cost(x, y), None, b, reg=0.3, tolerance=1e-12)
    there = ot.entropic_map(x, y, solved.g, solved.b, solved.reg)
    assert_close(there, ot.barycentric_projection(solved.plan, y), rtol=1e-6, atol=1e-9)


def test_the_entropic_map_of_a_translation_is_near_it():
    x = torch.linspace(-3, 3, 200, dtype=WIDE).unsqueeze(-1)
    solved = ot.sinkhorn(ot.power_cost(x, x + 2.0), reg=0.02, tolerance=1e-6)
    new = torch.tensor([[-1.234], [0.0], [0.777]], dtype=WIDE)
    image = ot.entropic_map(new, x + 2.0, solved.g, solved.b, solved.reg)
    assert_close(image, new + 2.0, rtol=0, atol=0.01)


def test_refusals():
    with pytest.raises(ValueError, match=r"Expected 3 points.*got 2\. To fix: transpose"):
        ot.barycentric_projection(torch.ones(2, 3), torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"Expected y of torch\.float32"):
        ot.barycentric_projection(torch.ones(2, 3), torch.ones(3, 1).double())
