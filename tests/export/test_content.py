from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import Ridge

from modalign import ot
from modalign.core.modality import Modality
from modalign.export import content
from modalign.export.content import Choice, fit_map, read_content, train_adapter, unreduced
from modalign_serve.ranker.adapter import ContentAdapter

N = 200


@pytest.fixture(autouse=True)
def all_steps(few_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.export.content.STEPS", 30)


def modalities(missing: float = 0.2) -> dict[str, Modality]:
    rng = np.random.default_rng(1)
    found = {}
    for name, width in (("image", 30), ("text", 10)):
        features = rng.normal(size=(N, width)).astype(np.float32)
        present = rng.random(N) >= missing
        features[~present] = 0.0
        found[name] = Modality(name, features, present)
    return found


def test_ridge_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    x, vectors = rng.normal(size=(50, 7)), rng.normal(size=(50, 3))
    strength = 0.1 * ((x - x.mean(0)) ** 2).sum() / 7
    wanted = Ridge(alpha=strength).fit(x, vectors)
    found = fit_map(x, vectors, Choice(0.1), 1)
    np.testing.assert_allclose(found.linear, wanted.coef_.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found(x), wanted.predict(x), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("choice", [Choice(0.1), Choice(0.1, 1.0, 4)])
def test_raw_features_give_what_reduced_ones_do(choice: Choice) -> None:
    given = modalities()
    read = read_content(given, np.arange(0, N, 2), seed=1)
    vectors = np.random.default_rng(2).normal(size=(N, 4)).astype(np.float32)
    found = fit_map(read.x, vectors, choice, seed=1)
    adapter = ContentAdapter(unreduced(found, read), read.names)
    some = np.flatnonzero(given["image"].present | given["text"].present)
    raw = adapter({name: one.features[some] for name, one in given.items()})
    np.testing.assert_allclose(raw, found(read.x[some]), rtol=1e-3, atol=1e-4)


def test_missing_rows_are_zeros_and_shown_rows_of_length_one() -> None:
    given = modalities()
    read = read_content(given, np.arange(N), seed=1)
    for name, one in given.items():
        part = read.x[:, read.splits[name]]
        assert not part[~one.present].any()
        assert (part[one.present, -1] == 1).all()
        lengths = np.linalg.norm(read.shown[name], axis=1)
        np.testing.assert_allclose(lengths[one.present], 1.0, rtol=1e-5)
        assert not lengths[~one.present].any()


@pytest.mark.slow
def test_transport_brings_predictions_to_where_items_lie() -> None:
    # Half of the truth is noise, so that a regression alone draws its predictions to the mean.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, 5)).astype(np.float32)
    vectors = (x @ rng.normal(size=(5, 4)) + 2 * rng.normal(size=(N, 4))).astype(np.float32)
    distances = []
    for weight in (0.0, 4.0):
        guess = fit_map(x, vectors, Choice(1.0, weight), seed=1)(x)
        pair = torch.from_numpy(guess / 3), torch.from_numpy(vectors / 3)
        distances.append(float(ot.sinkhorn_divergence(*pair, reg=0.1).value))
    assert distances[1] < 0.8 * distances[0]


def taught(noise: float) -> tuple[content.ReducedFeatures, np.ndarray, np.ndarray, sp.csr_array]:
    """Items whose vectors are linear in their features, and users who choose by them."""
    given, rng = modalities(missing=0.0), np.random.default_rng(3)
    x = np.concatenate([given["image"].features, given["text"].features], axis=1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    items = x @ rng.normal(size=(40, 6)) + noise * rng.normal(size=(N, 6))
    users = rng.normal(size=(150, 6))
    best = np.argsort(-(users @ items.T), axis=1)[:, :15]
    rows = np.repeat(np.arange(150), 15)
    history = sp.csr_array((np.ones(len(rows), np.float32), (rows, best.ravel())), shape=(150, N))
    read = read_content(given, np.unique(history.indices), seed=1)
    return read, users.astype(np.float32), items.astype(np.float32), history


@pytest.mark.slow
def test_items_whose_content_tells_are_placed() -> None:
    report = train_adapter(*taught(noise=0.0), seed=1).report
    assert report["recall@20"] > 0.8 * report["recall@20 of the trained vectors"]
    assert report["recall@20"] > 2 * report["recall@20 of random vectors"]
    assert report["recall@20"] == max(one["recall@20"] for one in report["tried"])
    assert report["modalities"] == ["image", "text"]


@pytest.mark.slow
def test_content_that_tells_nothing_is_no_better_than_chance() -> None:
    read, users, _, history = taught(noise=0.0)
    unrelated = np.random.default_rng(9).normal(size=(N, 6)).astype(np.float32)
    best = np.argsort(-(users @ unrelated.T), axis=1)[:, :15]
    rows = np.repeat(np.arange(150), 15)
    shape = history.shape
    told = sp.csr_array((np.ones(len(rows), np.float32), (rows, best.ravel())), shape=shape)
    report = train_adapter(read, users, unrelated, told, seed=1).report
    assert report["recall@20"] < 0.5 * report["recall@20 of the trained vectors"]
