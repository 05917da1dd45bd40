"""What must not matter to any model of content: the position, size and axes of its features, the
order of the items, and a modality of noise beside the others.

All models that declare that they read modalities are held to it, also those of other packages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from modalign.core.modality import Modality
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.experiments.fit import fit
from modalign.models._registry import specs
from modalign.testing.worlds import calibration_world

pytestmark = pytest.mark.slow

CONTENT = [name for name, spec in specs().items() if "modalities" in spec.needs]
BOUND = 0.12
"""Largest change of the test Recall@20 that counts as none: two seeds differ by up to 0.1.

Features that say nothing cost most models 0.15 to 0.3. Without centring and scaling, MMRec lost
0.13 by the shift and 0.22 by a factor of a hundred, all that features are worth.
"""
STEPS = 30
"""Approximate number of training steps, with the options of `toy`."""
WORLD = calibration_world(1, n_users=100)


def of_all(change: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    """The world with every matrix of features changed."""
    found = WORLD.modalities.items()
    changed = {
        name: replace(one, features=change(one.features).astype(np.float32)) for name, one in found
    }
    return replace(WORLD, modalities=changed)


def shifted() -> Dataset:
    """All features plus eight standard deviations."""
    return of_all(lambda x: x + np.float32(8.0 * x.std()))


def scaled(factor: float) -> Dataset:
    return of_all(lambda x: x * factor)


def rotated() -> Dataset:
    """All features in other axes."""
    rng = np.random.default_rng(2)
    return of_all(lambda x: x @ np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))[0])


def permuted() -> Dataset:
    """The same items in another order."""
    order = np.random.default_rng(3).permutation(WORLD.n_items)
    place = np.argsort(order)

    def moved(part: Interactions) -> Interactions:
        return replace(part, items=place[part.items])

    modalities = {
        name: replace(one, features=one.features[order], present=one.present[order])
        for name, one in WORLD.modalities.items()
    }
    parts = {name: moved(WORLD.part(name)) for name in ("train", "valid", "test")}
    return replace(WORLD, modalities=modalities, **parts)


def with_noise() -> Dataset:
    """One more modality, which says nothing."""
    features = np.random.default_rng(4).normal(size=(WORLD.n_items, 40)).astype(np.float32)
    return WORLD.with_modality(Modality("noise", features, np.ones(WORLD.n_items, bool)))


CHANGES = {
    "shifted": shifted,
    "a hundred times": lambda: scaled(100.0),
    "a hundredth": lambda: scaled(0.01),
    "rotated": rotated,
    "permuted": permuted,
    "with noise": with_noise,
}


def recall(name: str, data: Dataset) -> float:
    """The test Recall@20 of a model after about `STEPS` steps."""
    spec = specs()[name]
    options = dict(spec.toy)
    rows = data.n_users if "history" in spec.needs else len(data.train)
    batch = spec.config(**options).batch_size
    epochs = math.ceil(STEPS / math.ceil(rows / batch))
    options |= {"epochs": epochs, "eval_every": epochs}
    found = fit(data, name, seed=1, progress=False, ks=(20,), **options)
    return float(found.results["test"]["recall@20"])


@cache
def unchanged(name: str) -> float:
    return recall(name, WORLD)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", CONTENT)
def test_what_says_nothing_changes_nothing(name: str, change: str) -> None:
    assert abs(recall(name, CHANGES[change]()) - unchanged(name)) < BOUND
