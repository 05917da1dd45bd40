"""Scaled features and their laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import T, V, toy_view

from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.models._shared.content import ContentConfig, Projections, prepared, scaled

RNG = seeds.numpy_generator(0, "content")
X = RNG.normal(size=(9, 4)) + 3
PRESENT = np.arange(9) != 4


def modality(features: np.ndarray, present: np.ndarray = PRESENT) -> Modality:
    return Modality("x", np.float32(features * present[:, None]), present)


@pytest.mark.parametrize("how", ["unit", "width"])
def test_shift_and_scale_change_nothing_and_a_rotation_only_rotates(how):
    plain = scaled(modality(X), how).features
    moved = scaled(modality(7 * X + np.arange(4)), how).features
    np.testing.assert_allclose(moved, plain, rtol=0, atol=2e-5)
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    turned = scaled(modality(X @ turn), how).features
    np.testing.assert_allclose(turned, plain @ turn, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["unit", "width"])
def test_size_and_mean_of_what_comes_out(how):
    features = scaled(modality(X), how).features
    assert (features[4] == 0).all()
    squares = np.square(features[PRESENT]).sum(1)
    if how == "unit":
        np.testing.assert_allclose(squares, 1, rtol=1e-5, atol=0)
    else:
        assert squares.mean() == pytest.approx(4, rel=1e-5)
        np.testing.assert_allclose(features[PRESENT].mean(0), 0, rtol=0, atol=1e-6)


def test_equal_rows_have_no_direction():
    assert (scaled(modality(np.full((9, 4), 0.1)), "unit").features == 0).all()
    assert scaled(modality(X), "raw").features.tolist() == modality(X).features.tolist()


def test_projections_of_some_items_are_rows_of_those_of_all():
    view = toy_view(V, T, missing=(1, 2))
    config = ContentConfig(embedding_size=2)
    with seeds.torch_seed(0):
        projections = Projections(prepared(config, view), config, view, 2)
    assert projections.present.tolist() == [[True, True, False], [True] * 3]
    index = torch.tensor([1, 1, 0])
    for rows, whole in zip(projections(index), projections(), strict=True):
        torch.testing.assert_close(rows, whole[index])
