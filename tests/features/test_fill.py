from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from modalign.core.interfaces import MissingPolicy
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.errors import ConfigError, UnknownName
from modalign.features import fill as module
from modalign.features.fill import fill


def made(name, n, d, missing, seed):
    present = np.ones(n, bool)
    present[missing] = False
    features = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    features[~present] = 0
    return Modality(name, features, present)


def seen(modality, others, users=(), items=()):
    pairs = torch.tensor(np.array([users, items], np.int64).reshape(2, -1))
    return TrainView(9, len(modality), *pairs, {"m": modality, **others})


def oracle(modality, others, pairs, k):
    """One missing row at a time, one candidate at a time."""
    out = modality.features.copy()
    candidates = np.flatnonzero(modality.present)
    for item in np.flatnonzero(~modality.present):
        scored = []
        for one in candidates:
            values = [
                o.features[item] @ o.features[one]
                / np.linalg.norm(o.features[item]) / np.linalg.norm(o.features[one])
                for o in others if o.present[item] and o.present[one]
            ]  # fmt: skip
            if values:
                scored.append((-np.mean(values), one))
        if not scored:
            mine = {u for u, i in pairs if i == item}
            common = {one: len(mine & {u for u, i in pairs if i == one}) for one in candidates}
            scored = [(-count, one) for one, count in common.items() if count]
        best = [one for _, one in sorted(scored)[:k]]
        out[item] = modality.features[best or candidates].mean(axis=0)
    return out


@pytest.mark.parametrize("k", [1, 3, 100])
def test_neighbours_equal_the_slow_loop(k, monkeypatch):
    monkeypatch.setattr(module, "SCORES", 90)
    modality = made("m", 40, 5, [0, 7, 8, 20, 39], 0)
    others = {"a": made("a", 40, 3, [1, 8, 20, 39], 1), "b": made("b", 40, 4, [2, 20, 39], 2)}
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 9, 120), rng.integers(0, 39, 120)
    items[items == 39] = 0
    view = seen(modality, others, users, items)
    got = fill(modality, "neighbours", view, k)
    pairs = set(zip(users.tolist(), items.tolist(), strict=True))
    expected = oracle(modality, list(others.values()), pairs, k)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_zero_and_mean():
    modality = made("m", 6, 3, [1, 4], 0)
    there = modality.features[modality.present]
    np.testing.assert_array_equal(fill(modality, "zero")[[1, 4]], 0)
    np.testing.assert_array_equal(fill(modality, "learned")[[1, 4]], 0)
    np.testing.assert_allclose(fill(modality, "mean")[1], there.mean(axis=0), atol=1e-6)
    for policy in get_args(MissingPolicy):
        np.testing.assert_array_equal(fill(modality, policy)[modality.present], there)


def test_nothing_missing_copies_nothing_and_all_missing_is_zero():
    whole = made("m", 4, 2, [], 0)
    assert fill(whole, "mean") is whole.features
    assert not fill(made("m", 4, 2, [0, 1, 2, 3], 0), "neighbours").any()


def test_mistakes():
    modality = made("m", 6, 3, [1], 0)
    with pytest.raises(UnknownName, match="did you mean 'mean'"):
        fill(modality, "meen")
    with pytest.raises(ConfigError, match="positive k"):
        fill(modality, "neighbours", k=0)
    with pytest.raises(ConfigError, match="of 5 items"):
        fill(made("m", 5, 3, [1], 0), "neighbours", seen(modality, {}))
    users = replace(modality, entity="user")
    with pytest.raises(ConfigError, match="of 6 users"):
        fill(users, "neighbours", seen(modality, {}))
