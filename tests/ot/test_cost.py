"""Costs against scipy's distances, at coinciding points, and the refusals."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from modalign import ot

WIDE = torch.float64


def cloud(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


@pytest.mark.parametrize("width", [1, 3, 40])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize(("norm", "metric"), [(1, "cityblock"), (2, "euclidean"), (3, None)])
def test_power_cost_is_scipys_distance(width, p, norm, metric):
    x, y = cloud(1, 7, width), cloud(2, 5, width)
    if metric is None:
        expected = cdist(x.numpy(), y.numpy(), "minkowski", p=norm)
    else:
        expected = cdist(x.numpy(), y.numpy(), metric)
    ours = ot.power_cost(x, y, p, norm)
    np.testing.assert_allclose(ours.numpy(), expected**p / p, rtol=1e-11)


def test_the_largest_coordinate_is_the_infinite_norm():
    x, y = cloud(1, 4, 6), cloud(2, 3, 6)
    expected = cdist(x.numpy(), y.numpy(), "chebyshev")
    np.testing.assert_allclose(ot.power_cost(x, y, 1, float("inf")).numpy(), expected)


def test_cosine_cost_is_scipys():
    x, y = cloud(1, 4, 6), cloud(2, 3, 6)
    expected = cdist(x.numpy(), y.numpy(), "cosine")
    np.testing.assert_allclose(ot.cosine_cost(x, y).numpy(), expected)


def test_cosine_of_a_vector_of_zeros_counts_as_zero():
    cost = ot.cosine_cost(torch.zeros(1, 3), torch.ones(2, 3))
    assert_close(cost, torch.ones(1, 2))


@pytest.mark.parametrize("width", [2, 40])
def test_batches_are_single_problems(width):
    x, y = cloud(1, 3, 4, width), cloud(2, 3, 5, width)
    for cost in (ot.power_cost, ot.squared_distance, ot.cosine_cost):
        alone = torch.stack([cost(one, two) for one, two in zip(x, y, strict=True)])
        assert_close(cost(x, y), alone)


def test_leading_dimensions_broadcast():
    x, y = cloud(1, 3, 1, 4, 2), cloud(2, 6, 5, 2)
    assert ot.power_cost(x, y).shape == (3, 6, 4, 5)


@pytest.mark.parametrize("width", [1, 3, 10])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
def test_gradients_match_finite_differences(width, p):
    x, y = cloud(1, 3, width).requires_grad_(), cloud(2, 2, width).requires_grad_()
    assert torch.autograd.gradcheck(lambda u, v: ot.power_cost(u, v, p), (x, y))
    assert torch.autograd.gradcheck(ot.cosine_cost, (x, y))


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("width", [1, 3, 40])
def test_coinciding_points_have_a_gradient_of_zero(norm, p, width):
    x = cloud(1, 1, width).requires_grad_()
    (gradient,) = torch.autograd.grad(ot.power_cost(x, x.detach(), p, norm).sum(), x)
    assert_close(gradient, torch.zeros_like(x))


def test_inner_products_keep_far_clouds_apart_in_float32():
    # Points near 1000 apart by about 1: without the middle taken out, all digits are lost.
    x, y = cloud(1, 20, 32) + 1000.0, cloud(2, 20, 32) + 1000.0
    assert_close(
        ot.squared_distance(x.float(), y.float()).double(),
        ot.squared_distance(x, y),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ot.power_cost(torch.ones(2, 3), torch.ones(2, 4)), "one width.*got 3 and 4"),
        (lambda: ot.power_cost(torch.ones(2), torch.ones(2)), "2 dimensions.*unsqueeze"),
        (lambda: ot.power_cost(torch.ones(2, 1).int(), torch.ones(2, 1)), "float32.*int32"),
        (lambda: ot.power_cost(torch.ones(2, 1), torch.ones(2, 1).double()), "float32.*float64"),
        (lambda: ot.power_cost(torch.ones(2, 1), torch.ones(2, 1), p=0.5), "p >= 1, got 0.5"),
        (lambda: ot.power_cost(torch.ones(2, 1), torch.ones(2, 1), norm=0.0), "norm >= 1"),
    ],
)
def test_refusals_say_what_was_expected_what_came_and_how_to_mend(call, words):
    with pytest.raises(ValueError, match=f"Expected .*{words}"):
        call()
