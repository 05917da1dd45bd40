"""The item graph of several modalities against loops, and the weights of its modalities."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import oracles
from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.errors import ConfigError, UnknownName
from modalign.models._shared.item_graph import cosine_graph, item_graph, modality_weights
from modalign.testing.toy import toy_dataset

VIEW = toy_dataset().view()


@pytest.mark.parametrize("weights", [{"image": 0.1, "text": 0.9}, {"image": 3, "text": 1}])
def test_item_graph_against_loops(weights: dict[str, float]) -> None:
    # An item without any modality is its own only neighbour.
    spoilt = {}
    for name, m in VIEW.modalities.items():
        present = m.present.copy()
        present[7] = False
        spoilt[name] = Modality(name, m.features, present)
    view = dataclasses.replace(VIEW, modalities=spoilt)
    names = sorted(weights)
    got = (
        item_graph(view, names, modality_weights(weights, names, view.modalities), k=4)
        .scipy()
        .toarray()
    )
    np.testing.assert_allclose(got, oracles.item_graph(view, weights, 4), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-6)
    assert got[7, 7] == 1


def test_a_modality_of_weight_zero_is_left_out() -> None:
    weights = modality_weights({"image": 0, "text": 2}, ["image", "text"], VIEW.modalities)
    got = item_graph(VIEW, ["image", "text"], weights, k=4).scipy().toarray()
    alone = item_graph(VIEW, ["text"], [1.0], k=4).scipy().toarray()
    np.testing.assert_allclose(got, alone)


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        (None, ["image", "text"], [0.1, 0.9]),
        (None, ["text", "visual"], [0.9, 0.1]),
        (None, ["tags", "text"], [0.5, 0.5]),
        (None, ["text"], [1.0]),
        ({"image": 1.0, "text": 3.0}, ["image", "text"], [0.25, 0.75]),
        ({"image": 1.0, "text": 3.0}, ["text"], [1.0]),
    ],
)
def test_weights_sum_to_one(
    given: dict[str, float] | None, names: list[str], expected: list[float]
) -> None:
    known = {"image", "visual", "text", "tags", "audio"}
    assert modality_weights(given, names, known) == expected


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"imag": 1.0, "text": 1.0}, UnknownName, "did you mean 'image'"),
        ({"text": 1.0}, ConfigError, "a weight for each of image, text"),
        ({"image": 0.0, "text": 0.0}, ConfigError, "not all zero"),
    ],
)
def test_wrong_weights_are_refused(
    given: dict[str, float], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        modality_weights(given, ["image", "text"], VIEW.modalities)


def test_weights_of_the_cosine_graph_are_cosines_by_the_sums_of_rows() -> None:
    rng = seeds.numpy_generator(0, "cosines")
    features, present = rng.normal(size=(20, 5)).astype(np.float32), np.arange(20) % 7 != 3
    unit = features / np.linalg.norm(features, axis=1, keepdims=True) * present[:, None]
    cosines = unit.astype(float) @ unit.T.astype(float)
    kept = np.zeros_like(cosines)
    for i in np.flatnonzero(present):
        near = [j for j in np.argsort(-cosines[i]) if present[j]][:15]
        kept[i, near] = np.maximum(cosines[i, near], 0)
    sums = np.where(present, kept.sum(1), 1)
    graph = cosine_graph(Modality("x", features, present), 15, block=6).toarray()
    np.testing.assert_allclose(graph, kept / np.sqrt(np.outer(sums, sums)), rtol=1e-4, atol=1e-6)
