"""Planted worlds: small data sets on which a mechanism must beat its own control.

Each world is drawn from a seed, and what makes the mechanism pay is stated in its docstring.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
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


def rotation_world(seed: int, n_users: int = 600) -> Dataset:
    """A world for transport between spaces: texts are the tastes, in other coordinates.

    300 items and the users have vectors of 16 numbers, whose products say what is liked. An item's
    text vector is its own one, rotated at random, plus noise of three tenths of its size. With
    six training items for each user, interactions alone place an item badly, and its text places
    it well as soon as the two spaces are aligned.

    Args:
        seed: the data set is a function of it.
        n_users: number of users.

    Example:
        >>> data = rotation_world(1)
        >>> data.view().n_items, data.modalities["text"].dim, len(data.train)
        (300, 16, 3600)
    """
    rng = seeds.numpy_generator(seed, "rotation world")
    width, n_items = 16, 300
    users = rng.normal(size=(n_users, width))
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    items = rng.normal(size=(n_items, width))
    utility = users @ items.T
    chosen = choices(rng, 2.0 * utility / utility.std(), sum(PARTS))
    rotated = items @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    rows = rotated + 0.3 * rng.normal(size=rotated.shape)
    text = Modality("text", rows.astype(np.float32), np.ones(n_items, bool))
    tables = {"number": np.arange(n_users)}, {"number": np.arange(n_items)}
    return planted("rotation", seed, chosen, PARTS, {"text": text}, *tables)


def sparse_world(seed: int, n_users: int = 600) -> Dataset:
    """A world for contrasts with views: content tells the tastes of those with few interactions.

    240 items are of twelve groups, which pictures and texts show. A user in seven has sixteen
    training items, chosen by a taste that no content shows. All others have three, nearly all
    of one group: too few to learn a vector from, but enough to recognise the group by its content.
    A user's view, the mean of the items that look like what the user took, is then a better place
    for the user than what the interactions say.

    Args:
        seed: the data set is a function of it.
        n_users: number of users.

    Example:
        >>> data = sparse_world(1)
        >>> data.user_table["dense"].sum(), data.view().user_counts().unique().tolist()
        (90, [3, 16])
    """
    rng = seeds.numpy_generator(seed, "sparse world")
    n_items, groups, few, many, held_out = 240, 12, 3, 16, (2, 5)
    group, kind_of_user = np.arange(n_items) % groups, rng.permutation(n_users) % groups
    tastes = rng.normal(size=(n_users, 4)) @ rng.normal(size=(4, n_items))
    dense = np.arange(n_users) < 0.15 * n_users
    by_group = 3.0 * (kind_of_user[:, None] == group) + 0.3 * tastes
    chosen = choices(rng, np.where(dense[:, None], tastes, by_group), many + sum(held_out))
    features = {}
    for name, width in (("image", 24), ("text", 16)):
        centres = rng.normal(size=(groups, width))
        rows = centres[group] + 0.7 * rng.normal(size=(n_items, width))
        features[name] = Modality(name, rows.astype(np.float32), np.ones(n_items, bool))
    tables = {"group": kind_of_user, "dense": dense}, {"group": group}
    data = planted("sparse", seed, chosen, (many, *held_out), features, *tables)
    first = np.tile(np.arange(many), n_users) < few
    kept = dense[data.train.users] | first
    return replace(data, train=Interactions(data.train.users[kept], data.train.items[kept]))


def factor_world(seed: int, n_users: int = 160) -> Dataset:
    """A world for plans between factors: words that complete an interest, and words that mislead.

    240 items are of eight groups, and a user likes the items of two. An item has three words of its
    own group, which complete what few interactions say, and two of another group, drawn at random,
    which contradict it. A user's interests, of ratings and of words, belong together in pairs.

    Args:
        seed: the data set is a function of it.
        n_users: number of users.

    Example:
        >>> data = factor_world(1)
        >>> data.view().n_items, data.modalities["text"].dim, len(data.train)
        (240, 96, 960)
    """
    rng = seeds.numpy_generator(seed, "factor world")
    n_items, groups, words = 240, 8, 12
    group = np.arange(n_items) % groups
    two = rng.random((n_users, groups)).argsort(axis=1)[:, :2]
    likes = np.zeros((n_users, groups))
    np.put_along_axis(likes, two, 1.0, axis=1)
    tastes = rng.normal(size=(n_users, 4)) @ rng.normal(size=(4, n_items))
    chosen = choices(rng, 3.5 * likes[:, group] + 0.5 * tastes, sum(PARTS))
    other = (group + rng.integers(1, groups, size=n_items)) % groups
    bags = np.zeros((n_items, groups * words), np.float32)
    for kind, count in ((group, 3), (other, 2)):
        drawn = rng.random((n_items, words)).argsort(axis=1)[:, :count]
        np.put_along_axis(bags, kind[:, None] * words + drawn, 1.0, axis=1)
    bags /= np.linalg.norm(bags, axis=1, keepdims=True)
    text = Modality("text", bags, np.ones(n_items, bool))
    tables = {"groups": np.sort(two, axis=1)[:, 0]}, {"group": group}
    return planted("factors", seed, chosen, PARTS, {"text": text}, *tables)


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
