"""RecGOAT's transport: costs, plans and maps by their definitions, distances by assignment."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from modalign import ot
from modalign.core import seeds
from modalign.errors import TrainingError
from modalign.models.recgoat import transport as _recgoat_transport
from modalign.models.recgoat.config import RecGOATConfig
from modalign.models.recgoat.transport import (
    FeatureTransport,
    SampleTransport,
    cloud_distances,
    differentiable_size,
    feature_cost,
    released_plan,
    standardised,
    unit_spread,
)


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=seeds.torch_generator(seed, "normal"), dtype=dtype)


SINGLE = normal(50, 6, dtype=torch.float32), normal(50, 6, seed=1, dtype=torch.float32)


def transport(size: int = 6, spaces: int = 1, **options) -> FeatureTransport:
    config = RecGOATConfig(embedding_size=size, n_heads=1, **options)
    with seeds.torch_seed(0, "transport"):
        return FeatureTransport(config, spaces)


# ------------------------------------------------------------------ the cost


@pytest.mark.parametrize("power", [1, 2])
def test_the_cost_by_one_product_is_the_broadcast_definition(power):
    source, target = normal(30, 5), normal(30, 5, seed=1) + 3.0
    a, b = ((z - z.mean(0)) / z.std(0, correction=0) for z in (source, target))
    expected = (a[:, :, None] - b[:, None, :]).abs().pow(power).mean(0)
    torch.testing.assert_close(feature_cost(source, target, power), expected, atol=1e-5, rtol=0)


def test_the_cost_is_two_less_twice_the_correlation():
    source, target = normal(40, 3), normal(40, 4, seed=1)[:, :3]
    both = np.corrcoef(source.T.numpy(), target.T.numpy())[:3, 3:]
    torch.testing.assert_close(feature_cost(source, target), 2 - 2 * torch.from_numpy(both))


def test_the_cost_ignores_where_and_how_large_columns_are():
    source, target = normal(40, 3), normal(40, 3, seed=1)
    scale = torch.tensor([0.01, 1.0, 300.0], dtype=torch.float64)
    moved = feature_cost(source * scale + 7.0, target)
    torch.testing.assert_close(moved, feature_cost(source, target), rtol=1e-9, atol=1e-9)


def test_the_absolute_cost_takes_the_first_anchors(monkeypatch):
    monkeypatch.setattr(_recgoat_transport, "ANCHORS_OF_ABSOLUTE_COST", 10)
    source, target = normal(30, 3), normal(30, 3, seed=1)
    a, b = standardised(source)[:10], standardised(target)[:10]
    expected = (a[:, :, None] - b[:, None, :]).abs().mean(0)
    torch.testing.assert_close(feature_cost(source, target, 1), expected)


def test_a_constant_column_is_zero_and_not_a_division_by_zero():
    z = normal(10, 2)
    z[:, 1] = 4.0
    assert bool((standardised(z)[:, 1] == 0).all())


def test_constant_columns_and_zeros_have_finite_gradients():
    z = normal(10, 2)
    z[:, 1] = 4.0
    z.requires_grad_()
    standardised(z).square().sum().backward()
    assert bool(z.grad.isfinite().all())
    zeros = torch.zeros(3, 2, requires_grad=True)
    differentiable_size(zeros).backward()
    assert bool((zeros.grad == 0).all())
    x = normal(6, 3)
    torch.testing.assert_close(float(differentiable_size(x)), float(x.square().mean() ** 0.5))


def test_unit_spread_brings_each_cost_to_mean_zero_and_deviation_one():
    found = unit_spread(normal(3, 5, 5) * 50 + 20)
    torch.testing.assert_close(found.mean((1, 2)), torch.zeros(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.std((1, 2), correction=0), torch.ones(3).double())


# ------------------------------------------------------------------ plans


@pytest.mark.parametrize("span", [1e-3, 1.0, 1e4])
def test_a_plan_has_mass_one_and_uniform_marginals_at_any_cost(span):
    cost = unit_spread(torch.rand(1, 64, 64, generator=seeds.torch_generator(1)) * span)
    plan = ot.sinkhorn(cost, reg=0.25, max_iterations=100).plan[0]
    torch.testing.assert_close(float(plan.sum()), 1.0, atol=1e-4, rtol=0)
    for side in (0, 1):
        assert float((plan.sum(side) - 1 / 64).abs().max()) < 1e-4


def test_a_permutation_of_the_ids_features_is_found_and_undone():
    ids = normal(200, 8, dtype=torch.float32)
    order = torch.from_numpy(seeds.numpy_generator(3, "order").permutation(8))
    moved = ids[:, order]  # z = z_id P
    sharp = transport(8, plan_reg=0.02, plan_iterations=2000)
    sharp.keep(sharp.renewed([(moved, ids)]))
    np.testing.assert_array_equal(sharp.plan[0].argmax(1).numpy(), order.numpy())
    rows = torch.arange(200)
    mapped = sharp(0, moved, ids, (rows, rows), None)
    torch.testing.assert_close(mapped, ids, atol=1e-3, rtol=1e-3)


def test_a_large_regularisation_gives_the_even_plan():
    even = transport(6, plan_reg=1e6)
    even.keep(even.renewed([SINGLE]))
    torch.testing.assert_close(6 * even.plan[0], torch.full((6, 6), 1 / 6), atol=1e-5, rtol=0)


def test_the_map_at_the_start_is_of_convex_combinations():
    module = transport(6)
    module.keep(module.renewed([SINGLE]))
    matrix = module.mapping(0, None)
    torch.testing.assert_close(matrix.sum(0), torch.ones(6), atol=1e-3, rtol=0)
    assert bool((matrix >= 0).all())


def test_gradients_reach_the_vectors_and_delta_but_not_through_the_plan():
    module = transport(4, scale_gradient=False)
    z = normal(20, 4, dtype=torch.float32).requires_grad_()
    ids = normal(20, 4, seed=1, dtype=torch.float32).requires_grad_()
    state = module.renewed([(z, ids)])
    assert not any(value.requires_grad for value in state.values())
    rows = torch.arange(20)
    mapped = module(0, z, ids, (rows, rows), state)
    weights = normal(20, 4, seed=2, dtype=torch.float32)
    (mapped * weights).sum().backward()
    assert ids.grad is None  # neither by the plan nor by the size
    scale = float((mapped / (z @ module.mapping(0, state))).detach()[0, 0])
    torch.testing.assert_close(z.grad, scale * weights @ module.mapping(0, state).detach().T)
    torch.testing.assert_close(module.delta.grad[0], scale * z.detach().T @ weights)


def test_the_size_of_the_result_has_a_gradient_that_stops_its_growth():
    rows = torch.arange(20)
    z, ids = normal(20, 4), normal(20, 4, seed=1)
    slopes = {}
    for through in (True, False):
        module = transport(4, scale_gradient=through).double()
        module.delta.data.copy_(normal(4, 4, seed=2))
        mapped = module(0, z, ids, (rows, rows), None)
        (mapped * normal(20, 4, seed=3)).sum().backward()
        # The slope along the whole map T + Delta, which only changes its size.
        along = (module.delta.grad[0] * module.mapping(0, None).detach()).sum()
        slopes[through] = float(along)
        if through:

            def value(delta, module=module):
                module.delta.data.copy_(delta)
                with torch.no_grad():
                    return (module(0, z, ids, (rows, rows), None) * normal(20, 4, seed=3)).sum()

            start, step = module.delta.data.clone(), 1e-6
            direction = normal(4, 4, seed=4)
            moved = (value(start + step * direction) - value(start - step * direction)) / 2 / step
            torch.testing.assert_close((module.delta.grad[0] * direction).sum(), moved)
    assert abs(slopes[True]) < 1e-9 < abs(slopes[False])


def test_aligned_vectors_have_the_size_of_the_ids():
    module = transport(4)
    z, ids = 70 * normal(20, 4), 0.01 * normal(20, 4, seed=1)
    rows = torch.arange(20)
    mapped = module.double()(0, z, ids, (rows, rows), None)
    torch.testing.assert_close(mapped.square().mean(), ids.square().mean())
    plain = transport(4, match_scale=False).double()(0, z, ids, (rows, rows), None)
    torch.testing.assert_close(plain, z.mean(1, keepdim=True).expand(20, 4))


@pytest.mark.parametrize("d", [64, 200])
def test_the_released_plan_vanishes(d):
    # E4: ids of deviation 0.1, text of length one.
    ids = 0.1 * normal(500, d, dtype=torch.float32)
    text = torch.nn.functional.normalize(normal(500, d, seed=1, dtype=torch.float32), dim=1)
    plan = released_plan(text, ids)
    assert float(plan.sum()) < 1e-6
    module = transport(d, plan="released", adapt="xavier", scale_plan=False, match_scale=False)
    state = module.renewed([(text, ids)])
    torch.testing.assert_close(module.mapping(0, state), module.delta[0].detach())


def test_the_released_plan_of_near_columns_is_that_of_its_loop():
    source, target = 0.02 * normal(30, 4), 0.02 * normal(30, 4, seed=1)
    kernel = [
        [math.exp(-1e4 * float((source[:, p] - target[:, q]).square().mean())) for q in range(4)]
        for p in range(4)
    ]
    u, v = [0.25] * 4, [0.25] * 4
    for _ in range(7):
        u = [0.25 / (sum(kernel[p][q] * v[q] for q in range(4)) + 1e-8) for p in range(4)]
        v = [0.25 / (sum(kernel[p][q] * u[p] for p in range(4)) + 1e-8) for q in range(4)]
    plan = torch.tensor([[u[p] * kernel[p][q] * v[q] for q in range(4)] for p in range(4)])
    found = released_plan(source, target, iterations=7)
    torch.testing.assert_close(found, plan.double(), rtol=1e-5, atol=1e-7)
    assert float(found.sum()) > 0.5


def test_without_delta_the_map_is_d_times_the_plan():
    module = transport(6, spaces=2, adapt="none")
    state = module.renewed([SINGLE, (SINGLE[1], SINGLE[0])])
    for space in (0, 1):
        torch.testing.assert_close(module.mapping(space, state), 6 * state["plan"][space])
    before = module.plan.clone()
    module.keep(state)
    moved = (state["plan"] - before).abs().sum((1, 2)) / 2
    torch.testing.assert_close(module.churn, moved.mean())
    plain = transport(6, adapt="none", scale_plan=False)
    torch.testing.assert_close(plain.mapping(0, state), state["plan"][0])
    identity = transport(6, plan="identity", adapt="none")
    torch.testing.assert_close(identity.mapping(0, None), torch.eye(6))


def test_a_plan_without_mass_is_an_error(monkeypatch):
    real = ot.sinkhorn

    def halved(*args, **kwargs):
        solved = real(*args, **kwargs)
        solved.__dict__["plan"] = solved.plan / 2
        return solved

    monkeypatch.setattr(_recgoat_transport.ot, "sinkhorn", halved)
    with pytest.raises(TrainingError, match="has mass"):
        transport(6).renewed([SINGLE])


def test_a_plan_starts_from_the_last_one_and_its_change_is_told():
    module = transport(6)
    pair = [SINGLE]
    first = module.renewed(pair)
    module.keep(first)
    uniform = torch.full((6, 6), 1 / 36)
    assert float(module.churn) == pytest.approx(
        float((first["plan"] - uniform).abs().sum() / 2), rel=1e-4
    )
    module.keep(module.renewed(pair))
    assert float(module.churn) < 1e-3


def test_one_sweep_a_step_arrives_where_many_sweeps_do():
    little = transport(6, plan_iterations=1)
    for _ in range(100):
        little.keep(little.renewed([SINGLE]))
    once = transport(6, plan_iterations=2000).renewed([SINGLE])["plan"]
    torch.testing.assert_close(little.plan, once, atol=1e-4, rtol=0)


def test_averaged_plans_keep_their_marginals():
    module = transport(6, plan_average=0.9)
    fresh = transport(6)
    pair = [SINGLE]
    found = module.renewed(pair)["plan"]
    expected = 0.9 * module.plan + 0.1 * fresh.renewed(pair)["plan"]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(2), torch.full((1, 6), 1 / 6), atol=1e-4, rtol=0)


def test_bits_are_the_entropy_of_the_rows():
    module = transport(8)
    assert module.diagnostics(["text"])["plan_bits/text"] == pytest.approx(3.0)
    identity = transport(8, plan="identity")
    assert identity.diagnostics(["text"])["plan_bits/text"] == pytest.approx(0.0)


# ------------------------------------------------------------------ items to items


def test_the_sample_map_is_the_barycentric_projection_of_the_plan_at_the_anchors():
    config = RecGOATConfig(
        embedding_size=3, n_heads=1, oat_map="sample", distance_reg=0.2, plan_iterations=3000
    )
    module = SampleTransport(config, [15]).double()
    z, ids = normal(15, 3), normal(15, 3, seed=1)
    rows = torch.arange(15)
    module.keep(module.renewed([(z, ids)]))
    found = module(0, z, ids, (rows, rows), None)
    length = ids.square().sum(1).mean().sqrt()
    x = z * (ids.square().mean() / z.square().mean()).sqrt() / length
    cost = torch.cdist(x, ids / length)
    plan = ot.sinkhorn(
        cost, reg=0.2 * float(cost.mean()), tolerance=1e-9, max_iterations=20000
    ).plan
    torch.testing.assert_close(found, ot.barycentric_projection(plan, ids), atol=1e-3, rtol=1e-3)


def test_the_sample_map_takes_items_that_are_no_anchors_in_blocks(monkeypatch):
    config = RecGOATConfig(embedding_size=3, n_heads=1, oat_map="sample")
    module = SampleTransport(config, [5]).double()
    z, ids, anchors = normal(12, 3), normal(12, 3, seed=1), torch.tensor([1, 3, 5, 7, 9])
    module.keep(module.renewed([(z[anchors], ids[anchors])]))
    whole = module(0, z, ids, (anchors, anchors), None)
    monkeypatch.setattr(_recgoat_transport, "MAP_BLOCK", 5)
    torch.testing.assert_close(module(0, z, ids, (anchors, anchors), None), whole)
    # In the hull of the anchors' ids.
    assert bool((whole.amax(0) <= ids[anchors].amax(0)).all())


# ------------------------------------------------------------------ distances


def assigned(x: torch.Tensor, y: torch.Tensor) -> float:
    cost = torch.cdist(x, y).numpy()
    return float(cost[linear_sum_assignment(cost)].mean())


def scaled(y: torch.Tensor) -> float:
    return float(y.square().sum(1).mean().sqrt())


def test_the_plans_distance_is_just_above_the_exact_one():
    x, y = normal(64, 8), normal(64, 8, seed=1) + 0.3
    exact = assigned(x, y) / scaled(y)
    found = float(cloud_distances(x[None], y[None], reg=0.02, iterations=1000))
    assert exact - 1e-3 <= found <= 1.02 * exact


def test_the_divergence_of_a_cloud_with_itself_is_zero_and_the_plans_distance_is_not():
    x = normal(64, 4)[None]
    assert abs(float(cloud_distances(x, x, kind="divergence"))) < 1e-3
    assert float(cloud_distances(x, x, reg=0.3)) > 0.05


@pytest.mark.parametrize("kind", ["plan", "divergence"])
def test_a_translation_is_as_far_as_it_is_long(kind):
    x = normal(50, 4)
    step = torch.tensor([3.0, 0.0, 4.0, 0.0], dtype=torch.float64)
    found = float(cloud_distances((x + step)[None], x[None], kind=kind, reg=0.01, iterations=2000))
    torch.testing.assert_close(found, 5.0 / scaled(x), rtol=0.02, atol=0)


def test_the_sliced_distance_of_a_translation_is_its_mean_shadow():
    x = normal(40, 3)
    step = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    found = cloud_distances(
        (x + step)[None].repeat(50, 1, 1),
        x[None].repeat(50, 1, 1),
        kind="sliced",
        rng=seeds.torch_generator(0),
    )
    # The mean of |cos| between a fixed and a random direction in three dimensions is one half.
    torch.testing.assert_close(float(found.mean()), 1.0 / scaled(x), rtol=0.1, atol=0)


@pytest.mark.parametrize("kind", ["plan", "divergence", "sliced"])
@pytest.mark.slow
def test_going_down_the_distance_brings_clouds_together(kind):
    moved = (normal(60, 4, dtype=torch.float32) + 2.0).requires_grad_()
    fixed = normal(60, 4, seed=1, dtype=torch.float32)
    start = float((moved.detach().mean(0) - fixed.mean(0)).norm())
    optimizer = torch.optim.Adam([moved], lr=0.05)
    for step in range(60):
        optimizer.zero_grad()
        rng = seeds.torch_generator(step, "sliced")
        cloud_distances(moved[None], fixed[None], kind=kind, rng=rng).sum().backward()
        optimizer.step()
    end = float((moved.detach().mean(0) - fixed.mean(0)).norm())
    assert end < 0.35 * start
    # The distance between the means never exceeds the one between the clouds.
    exact = assigned(moved.detach(), fixed)
    assert end <= exact + 1e-5
    if kind == "plan":
        found = float(cloud_distances(moved.detach()[None], fixed[None]))
        assert end / scaled(fixed) <= found + 1e-5


def test_the_length_that_distances_are_measured_in_is_a_constant():
    x, y = normal(1, 12, 3), (normal(1, 12, 3, seed=1) + 1.0).requires_grad_()
    found = cloud_distances(x, y).sum()
    length = scaled(y.detach()[0])
    distance = ((x[0][:, None] - y[0][None]).square().sum(2) / length**2 + 1e-12).sqrt()
    plan = ot.sinkhorn(
        distance.detach(), reg=0.05, scale="mean", tolerance=1e-3, max_iterations=100
    ).plan
    expected = (plan * distance).sum()
    slopes = [torch.autograd.grad(one, y)[0] for one in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-9)


def test_points_that_coincide_have_a_finite_gradient():
    x = normal(10, 3).requires_grad_()
    cloud_distances(x[None], x.detach()[None], reg=0.01).sum().backward()
    assert bool(x.grad.isfinite().all())


def test_several_clouds_at_once_are_each_alone():
    x, y = normal(3, 20, 4), normal(3, 20, 4, seed=1) * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    together = cloud_distances(x, y)
    alone = torch.cat([cloud_distances(a[None], b[None]) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------ fixed spaces


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_between_fixed_spaces_the_plan_alone_orders_items_and_the_identity_does_not(seed):
    users, items = (normal(300, 16, seed=10 * seed + n, dtype=torch.float32) for n in (0, 1))
    rotation = torch.linalg.qr(normal(16, 16, seed=10 * seed + 2, dtype=torch.float32))[0]
    text = items @ rotation + 0.3 * normal(300, 16, seed=10 * seed + 3, dtype=torch.float32)
    everything = torch.arange(300)

    def auc(plan: str) -> float:
        one = transport(16, adapt="none", plan=plan)
        state = one.renewed([(text, items)]) if one.learns_plan else None
        mapped = one(0, text, items, (everything, everything), state)
        best = (users @ items.T).argsort(1, descending=True)
        ordered = (users @ mapped.T).gather(1, best)
        liked, others = ordered[:, :10, None], ordered[:, None, 10:]
        return float((liked > others).float().mean())

    assert auc("sinkhorn") > 0.7
    assert 0.3 < auc("identity") < 0.6
