from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.errors import UnknownName
from modalign_serve.ranker.foldin import fold_in_of, folded_by_map, folded_by_ridge


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_ridge_equals_the_normal_equations(n: int) -> None:
    rng = np.random.default_rng(n)
    vectors, root = rng.normal(size=(n, 4)), rng.normal(size=(9, 4))
    gram = root.T @ root
    wanted = 2.0 * np.linalg.inv(vectors.T @ vectors + gram) @ vectors.sum(axis=0)
    found = folded_by_ridge(vectors, gram, np.linalg.inv(gram), 2.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_ridge_minimises_what_it_says() -> None:
    rng = np.random.default_rng(1)
    liked, every = rng.normal(size=(3, 4)), rng.normal(size=(20, 4))
    gram = 0.1 * every.T @ every + 0.5 * np.eye(4)
    found = folded_by_ridge(liked, gram, np.linalg.inv(gram)).astype(np.float64)

    def loss(u: np.ndarray) -> float:
        misses = ((1 - liked @ u) ** 2).sum() + 0.1 * ((every @ u) ** 2).sum()
        return float(misses + 0.5 * (u @ u))

    around = [found + 1e-2 * step for step in rng.normal(size=(50, 4))]
    assert all(loss(found) < loss(one) for one in around)


def test_map_is_the_mean_times_the_matrix() -> None:
    vectors, weights = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    assert folded_by_map(vectors, weights).tolist() == [3.0, 2.0]


def test_the_default_is_the_manifests() -> None:
    artifact = small_artifact()
    rows = np.array([0, 1])
    assert artifact.items is not None
    vectors = artifact.items[rows]
    found = {name: fold_in_of(artifact, name) for name in (None, "map", "ridge")}
    given = {name: fold(rows, vectors).tolist() for name, fold in found.items() if fold}
    assert given[None] == given["map"] != given["ridge"]
    with pytest.raises(UnknownName, match="map"):
        fold_in_of(artifact, "encoder")
    without = replace(artifact, manifest=replace(artifact.manifest, fold_in={}))
    assert fold_in_of(without) is None
