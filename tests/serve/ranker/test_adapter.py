from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.errors import DataError, UnknownName
from modalign_serve.ranker.adapter import ContentAdapter
from modalign_serve.ranker.ranker import Ranker

WIDTHS = {"image": 3, "text": 5}


def matrices(hidden: int = 2, width: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    n = sum(WIDTHS.values()) + len(WIDTHS)
    shapes = {
        "linear": (n, width), "bias": (width,), "hidden": (n, hidden), "hidden_bias": (hidden,),
        "out": (hidden, width), "centre.image": (3,), "centre.text": (5,),
    }  # fmt: skip
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def by_hand(m: dict[str, np.ndarray], features: dict[str, np.ndarray]) -> np.ndarray:
    """One item, from the formula."""
    x: list[float] = []
    for name, width in WIDTHS.items():
        row = features.get(name, np.zeros(width))
        there = bool(row.any())
        unit = row / np.linalg.norm(row) if there else row
        x += [*(unit - m[f"centre.{name}"] if there else np.zeros(width)), float(there)]
    inner = np.tanh(x @ m["hidden"] + m["hidden_bias"])
    found: np.ndarray = x @ m["linear"] + m["bias"] + inner @ m["out"]
    return found


@pytest.mark.parametrize("hidden", [0, 2])
def test_equals_the_formula(hidden: int) -> None:
    m, rng = matrices(hidden), np.random.default_rng(2)
    image, text = rng.normal(size=(3, 3)), rng.normal(size=(3, 5))
    text[1] = 0.0
    found = ContentAdapter(m, tuple(WIDTHS))({"image": image, "text": text})
    for row in range(3):
        wanted = by_hand(m, {"image": image[row], "text": text[row]})
        np.testing.assert_allclose(found[row], wanted, rtol=1e-4, atol=1e-5)
    alone = ContentAdapter(m, tuple(WIDTHS))({"image": image[1:2]})
    np.testing.assert_allclose(alone[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("features", "error"),
    [
        ({"sound": np.ones((1, 3))}, UnknownName),
        ({}, DataError),
        ({"image": np.ones((1, 4))}, DataError),
        ({"image": np.ones(3)}, DataError),
        ({"image": np.full((1, 3), np.inf)}, DataError),
        ({"image": np.ones((1, 3)), "text": np.ones((2, 5))}, DataError),
        ({"image": np.zeros((1, 3))}, DataError),
    ],
)
def test_features_that_do_not_fit(features: dict[str, np.ndarray], error: type) -> None:
    with pytest.raises(error):
        ContentAdapter(matrices(), tuple(WIDTHS))(features)


def test_an_item_comes_by_its_features() -> None:
    given = small_artifact()
    manifest = replace(given.manifest, adapter={"modalities": list(WIDTHS)})
    basis = np.eye(5, 4, dtype=np.float32)
    ranker = Ranker(replace(given, adapter=matrices(), manifest=manifest, bases={"text": basis}))
    features = {"text": np.array([1.0, 0, 0, 0, 9.0])}
    ranker.add_item("new", features=features, record={"title": "New"})
    vector = by_hand(matrices(), features)
    found = ranker.catalogue.vectors(np.array([given.n_items]))[0]
    np.testing.assert_allclose(found, vector, rtol=1e-4)
    reduced = ranker.catalogue.features("text", np.array([given.n_items, 0]))
    np.testing.assert_allclose(reduced[0], [1.0, 0, 0, 0])  # what the basis keeps, of length 1
    np.testing.assert_array_equal(reduced[1], given.features["text"][0])
    assert ranker.explain("new", items=["i1", "i2"]).nearest["text"]
