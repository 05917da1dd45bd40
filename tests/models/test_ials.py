"""iALS against dense systems, one user at a time, and against its objective."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Queries
from modalign.models import ials
from modalign.models.ials import IALS, IALSConfig
from modalign.testing.toy import toy_dataset
from oracles import interaction_matrix

VIEW = toy_dataset().view()
SEEN = interaction_matrix(VIEW)


def made(**options) -> IALS:
    with seeds.torch_seed(1):
        model = IALS(IALSConfig(**{"embedding_size": 6, "reg": 0.05, **options}), VIEW)
    model.solve(VIEW)
    return model


def slow_user(model: IALS, seen: np.ndarray) -> np.ndarray:
    """A user's vector from the normal equations over all items."""
    c, items = model.config, model.items.double().numpy()
    weight = (seen.sum() + c.unobserved_weight * len(items)) ** c.reg_exponent
    left = c.reg * weight * np.eye(items.shape[1])
    right = np.zeros(items.shape[1])
    for row, there in zip(items, seen, strict=True):
        left += (c.unobserved_weight + there) * np.outer(row, row)
        right += there * row
    return np.linalg.solve(left, right)


def objective(users: np.ndarray, items: np.ndarray, c: IALSConfig) -> float:
    scores = users @ items.T
    fit = (SEEN * (scores - 1) ** 2).sum() + c.unobserved_weight * (scores**2).sum()
    of_users = (SEEN.sum(1) + c.unobserved_weight * SEEN.shape[1]) ** c.reg_exponent
    of_items = (SEEN.sum(0) + c.unobserved_weight * SEEN.shape[0]) ** c.reg_exponent
    penalty = (of_users @ (users**2).sum(1)) + (of_items @ (items**2).sum(1))
    return float(fit + c.reg * penalty)


# With eight items for each user, systems of 8 unknowns where the width is 24.
@pytest.mark.parametrize("size", [6, 24])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("cells", [1, ials.CELLS])
def test_scores_are_those_of_the_normal_equations(monkeypatch, exponent, cells, size):
    monkeypatch.setattr(ials, "CELLS", cells)
    model = made(reg_exponent=exponent, sweeps=2, embedding_size=size)
    users = torch.tensor([0, 5, 59])  # the last has no interaction
    scores = model.score(Queries(users, VIEW.rows().history(users)))
    expected = np.stack([slow_user(model, SEEN[u]) for u in users]) @ model.items.numpy().T
    assert_close(scores.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    assert scores[2].abs().max() == 0


def test_every_sweep_lowers_the_objective_and_the_end_is_stationary():
    found = []
    for sweeps in (1, 2, 4, 200):
        model = made(sweeps=sweeps)
        users = np.stack([slow_user(model, row) for row in SEEN])
        found.append(objective(users, model.items.double().numpy(), model.config))
    assert found == sorted(found, reverse=True)
    rng = np.random.default_rng(0)
    moved = users + 1e-2 * rng.standard_normal(users.shape)
    items = model.items.double().numpy()
    assert objective(moved, items, model.config) > found[-1]
    moved = items + 1e-2 * rng.standard_normal(items.shape)
    moved[SEEN.sum(0) == 0] = 0
    assert objective(users, moved, model.config) > found[-1]


def test_the_encoder_solves_the_same_system():
    model = made(embedding_size=12)
    row = VIEW.rows().history(torch.tensor([3]))
    vector = model.history_encoder()(row.col_indices())
    assert_close(vector, torch.from_numpy(slow_user(model, SEEN[3])).float(), rtol=1e-4, atol=1e-4)
