"""Planted worlds: small data sets on which a mechanism must beat its own control.

Each world is drawn from a seed, and what makes the mechanism pay is stated in its docstring.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary

PARTS = (6, 2, 5)
"""Training, validation and test items of each user."""


def calibration_world(seed: int, n_users: int = 400) -> Dataset:
    """A world for calibrated uniformity: similar items are liked together, rarely seen together.

    150 items are of five groups, which both modalities show, and users like the items of one
    group, each with a taste of the user's own. 50 further items are of no group: their picture
    shows one group and their text another, so that the two modalities disagree on them. Plain
    uniformity pushes the items of a group apart, since most pairs of them have no user in common;
    calibrated uniformity spares those whose contents agree.

    Args:
        seed: the data set is a function of it.
        n_users: number of users.

    Example:
        >>> data = calibration_world(1)
        >>> data.view().n_items, sorted(data.modalities), len(data.train)
        (200, ['image', 'text'], 2400)
    """
    rng = seeds.numpy_generator(seed, "calibration world")
    groups, odd = 5, 50
    group = np.concatenate([np.repeat(np.arange(groups), 30), np.full(odd, -1)])
    shown = rng.integers(groups, size=odd)
    kinds = {"image": shown, "text": (shown + rng.integers(1, groups, size=odd)) % groups}
    features = {}
    for name, width in (("image", 48), ("text", 32)):
        kind = np.where(group < 0, np.concatenate([np.zeros(150, int), kinds[name]]), group)
        centres = rng.normal(size=(groups, width))
        features[name] = centres[kind] + 0.7 * rng.normal(size=(len(group), width))
    liked = np.arange(n_users)[:, None] % groups == group
    tastes = rng.normal(size=(n_users, 4)) @ rng.normal(size=(4, len(group)))
    return _drawn("calibration", seed, rng, 3.0 * liked + 0.75 * tastes, features)


def _drawn(
    name: str,
    seed: int,
    rng: np.random.Generator,
    utility: np.ndarray,
    features: Mapping[str, np.ndarray],
    parts: Sequence[int] = PARTS,
) -> Dataset:
    """Different items of each user, drawn with probabilities of exp(utility), in random parts."""
    n_users, n_items = utility.shape
    # Sampling without replacement, all users at once: the largest utilities plus Gumbel noise.
    best = np.argsort(-(utility + rng.gumbel(size=utility.shape)), axis=1)[:, : sum(parts)]
    chosen = rng.permuted(best, axis=1)
    users = np.repeat(np.arange(n_users), chosen.shape[1]).reshape(chosen.shape)
    train, valid, test = (
        Interactions(users[:, a:b].ravel(), chosen[:, a:b].ravel())
        for a, b in itertools.pairwise(np.cumsum([0, *parts]))
    )
    user_ids = Vocabulary([f"u{row}" for row in range(n_users)], "user")
    item_ids = Vocabulary([f"i{row}" for row in range(n_items)], "item")
    present = np.ones(n_items, bool)
    return Dataset(
        name=name,
        users=user_ids,
        items=item_ids,
        train=train,
        valid=valid,
        test=test,
        modalities={
            key: Modality(key, value.astype(np.float32), present, provenance={"synthetic": True})
            for key, value in features.items()
        },
        user_table=pl.DataFrame({"user_id": user_ids.series}),
        item_table=pl.DataFrame({"item_id": item_ids.series}),
        info={"synthetic": True, "seed": seed},
    )
