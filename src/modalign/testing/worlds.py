"""Planted worlds: small data sets on which a mechanism must beat its own control.

Each world is drawn from a seed, and what makes the mechanism pay is stated in its docstring.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.data.dataset import Dataset
from modalign.testing.toy import choices, planted

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
        rows = centres[kind] + 0.7 * rng.normal(size=(len(group), width))
        present = np.ones(len(group), bool)
        features[name] = Modality(name, rows.astype(np.float32), present)
    kind_of_user = np.arange(n_users) % groups
    liked = kind_of_user[:, None] == group
    tastes = rng.normal(size=(n_users, 4)) @ rng.normal(size=(4, len(group)))
    chosen = choices(rng, 3.0 * liked + 0.75 * tastes, sum(PARTS))
    tables = {"group": kind_of_user}, {"group": group}
    return planted("calibration", seed, chosen, PARTS, features, *tables)


def teacher_world(seed: int, n_users: int = 360) -> tuple[Dataset, tuple[Tensor, Tensor]]:
    """A world for distillation: a teacher that knows more than a narrow student can start from.

    216 items are of 18 groups; a user likes the items of one group, among them by a taste of the
    user's own. Three in ten training interactions are with any item: accidents, which teach a
    student of interactions the wrong thing. The teacher's vectors are the truth, 22 wide. A student
    of half that width starts from the best factorisation of its scores, which keeps half of the
    groups and drops the others; only the teacher's scores tell it which of its interactions count.

    Args:
        seed: the data set is a function of it.
        n_users: number of users.

    Returns:
        The data set, without modalities, and the teacher's vectors of users and of items.

    Example:
        >>> data, (users, items) = teacher_world(1)
        >>> tuple(users.shape), tuple(items.shape), len(data.train)
        ((360, 22), (216, 22), 2160)
    """
    rng = seeds.numpy_generator(seed, "teacher world")
    groups, each, accidents = 18, 12, 0.3
    group, kind_of_user = np.repeat(np.arange(groups), each), np.arange(n_users) % groups
    of_users = np.eye(groups)[kind_of_user], rng.normal(size=(n_users, 4))
    of_items = np.eye(groups)[group], rng.normal(size=(len(group), 4))
    users = np.concatenate([5.0 * of_users[0], 0.5 * of_users[1]], axis=1)
    items = np.concatenate(of_items, axis=1)
    chosen = choices(rng, users @ items.T, sum(PARTS))
    drawn = rng.random((n_users, len(group)))
    np.put_along_axis(drawn, chosen, np.inf, axis=1)
    any_item = drawn.argsort(axis=1)[:, : PARTS[0]]
    accident = rng.random(any_item.shape) < accidents
    chosen[:, : PARTS[0]] = np.where(accident, any_item, chosen[:, : PARTS[0]])
    tables = {"group": kind_of_user}, {"group": group}
    data = planted("teacher", seed, chosen, PARTS, {}, *tables)
    return data, (torch.from_numpy(users).float(), torch.from_numpy(items).float())
