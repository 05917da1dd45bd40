"""Measures of a mechanism against closed forms, slow loops and scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from modalign.nn import vital_signs

RNG = torch.Generator().manual_seed(0)


def test_the_spread_counts_different_items_only() -> None:
    alike = torch.rand(5, 5, generator=RNG)
    pairs = [float(alike[i, j]) for i in range(5) for j in range(5) if i != j]
    mean = sum(pairs) / 20
    wanted = math.sqrt(sum((one - mean) ** 2 for one in pairs) / 20)
    assert vital_signs.spread(alike) == pytest.approx(wanted, rel=1e-6)
    assert vital_signs.spread(alike.fill_diagonal_(9.0)) == pytest.approx(wanted, rel=1e-6)
    assert vital_signs.spread(torch.ones(1, 1)) == 0.0


def test_focus_goes_from_a_mean_to_a_choice() -> None:
    assert vital_signs.focus(torch.full((3, 4), 0.25)) == pytest.approx(0.0, abs=1e-6)
    assert vital_signs.focus(torch.eye(4)) == pytest.approx(1.0)
    two_of_four = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert vital_signs.focus(two_of_four) == pytest.approx(0.5)
    assert vital_signs.focus(7 * two_of_four) == vital_signs.focus(two_of_four)


def test_images_that_coincide_have_no_spread() -> None:
    points = torch.randn(6, 4, 3, generator=RNG)
    plan = torch.full((4, 4), 1 / 4)
    assert vital_signs.relative_spread(plan @ points, points) == pytest.approx(0.0, abs=1e-5)
    assert vital_signs.relative_spread(points[:, torch.randperm(4)], points) == pytest.approx(1.0)
    assert vital_signs.relative_spread(0.5 * points + 3, points) == pytest.approx(0.5, rel=1e-5)


def test_shares_sum_to_one() -> None:
    parts = {"a": torch.randn(4, 3, generator=RNG), "b": torch.randn(4, 3, generator=RNG)}
    shares = vital_signs.norm_shares(parts)
    assert sum(shares.values()) == pytest.approx(1.0)
    parts["a"] = parts["a"] * 3
    more = vital_signs.norm_shares(parts)
    assert more["a"] / more["b"] == pytest.approx(3 * shares["a"] / shares["b"], rel=1e-5)
    assert vital_signs.norm_shares({"a": torch.zeros(2, 2)}) == {"a": 0.0}


def test_the_order_of_a_space_is_its_auc() -> None:
    items = torch.randn(50, 4, generator=RNG)
    user = torch.randn(1, 4, generator=RNG)
    belongs, others = torch.arange(20), torch.arange(20, 50)
    pairs, rest = (one.flatten() for one in torch.meshgrid(belongs, others, indexing="ij"))
    found = vital_signs.order(user, items, (torch.zeros_like(pairs), pairs), rest)
    labels = [1] * 20 + [0] * 30
    assert found == pytest.approx(roc_auc_score(labels, (items @ user[0]).tolist()))
    flat = vital_signs.order(user, torch.ones(50, 4), (torch.zeros_like(pairs), pairs), rest)
    assert flat == 0.5
