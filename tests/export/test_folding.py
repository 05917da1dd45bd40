from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from modalign.export.folding import KnownUsers, fit_fold_ins


def known(linear: bool, n: int = 300) -> KnownUsers:
    """Users who are a rotation of the mean of their items, or of something else altogether."""
    rng = np.random.default_rng(1)
    items = rng.normal(size=(80, 5)).astype(np.float32)
    had = rng.random((n, 80)) < 0.1
    had[0] = False
    history = sp.csr_array(had.astype(np.float32))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    means = (history @ items) / np.maximum(had.sum(axis=1), 1)[:, None]
    users = means @ rotation if linear else rng.normal(size=(n, 5))
    nothing = sp.csr_array((n, 80), dtype=np.float32)
    return KnownUsers(users.astype(np.float32), items, history, nothing)


def test_a_linear_truth_is_found_by_the_map() -> None:
    found = fit_fold_ins(known(linear=True), np.random.default_rng(1))
    assert found.report["default"] == "map"
    assert found.report["chosen_by"] == "overlap@20"
    assert found.report["map"]["overlap@20"] > 0.95
    assert found.report["map"]["cosine"] > 0.99
    assert "recall@20" not in found.report["map"]


def test_no_relation_is_told_as_none() -> None:
    found = fit_fold_ins(known(linear=False), np.random.default_rng(1))
    assert abs(found.report["map"]["cosine"]) < 0.4
    assert found.report["map"]["overlap@20"] < 0.6


def test_the_default_has_the_best_validation_recall() -> None:
    given = known(linear=True)
    relevant = sp.csr_array((np.random.default_rng(2).random((300, 80)) < 0.02).astype(np.float32))
    judged = KnownUsers(given.users, given.items, given.history, relevant)
    truth = {tuple(given.history.indices[a:b]): row for row, (a, b) in enumerate(
        zip(given.history.indptr[:-1], given.history.indptr[1:], strict=True))}  # fmt: skip

    def encoder(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        # Knows what will be chosen: no other way can find as much.
        row = truth[tuple(rows.tolist())]
        wanted: np.ndarray = given.items[relevant[[row]].indices].sum(axis=0)
        return wanted

    found = fit_fold_ins(judged, np.random.default_rng(1), encoder).report
    assert found["chosen_by"] == "recall@20"
    assert found["default"] == "encoder"
    assert found["encoder"]["recall@20"] == max(
        found[way]["recall@20"] for way in ("map", "ridge", "encoder")
    )
    assert found["trained"]["recall@20"] == pytest.approx(found["map"]["recall@20"], abs=0.05)


def test_the_ridge_has_the_length_of_trained_vectors() -> None:
    given = known(linear=True)
    given = KnownUsers(given.means(), given.items, given.history, given.relevant)
    long = KnownUsers(100 * given.users, given.items, given.history, given.relevant)
    scales = [
        float(fit_fold_ins(one, np.random.default_rng(1)).matrices["scale"][0])
        for one in (given, long)
    ]
    assert scales[1] == pytest.approx(100 * scales[0], rel=1e-3)


def test_the_same_generator_gives_the_same() -> None:
    first, second = (fit_fold_ins(known(True), np.random.default_rng(3)) for _ in range(2))
    assert first.report == second.report
    np.testing.assert_array_equal(first.matrices["gram"], second.matrices["gram"])
