"""Small data sets with a known answer: two tastes that a model must find in a few seconds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import polars as pl
import torch

from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary

TRAIN_ITEMS, HELD_OUT_ITEMS = 8, 2
FAITH = 0.97  # weight of an item of the user's taste, against 0.03 of the other taste
MISSING = {"text": 0.1, "image": 0.2}
WIDTH = {"text": 8, "image": 12}


def toy_dataset(seed: int = 0, n_users: int = 60, n_items: int = 40) -> Dataset:
    """Users and items of two tastes, with popular and rare items and two modalities.

    Every user has 8 training items, 2 for validation and 2 for test, nearly all of the user's
    taste, and popular items more often. The features of `text` (8 columns) and `image` (12) are a
    direction of the taste plus noise; a tenth of the texts and a fifth of the images are
    missing. The last user and the last item have no interaction. The tastes are the column
    `taste` of both tables.

    Args:
        seed: the data set is a function of it.
        n_users: number of users, at least 2.
        n_items: number of items, at least 24, so that each taste has enough of them.

    Raises:
        ValueError: the sizes are too small.

    Example:
        >>> data = toy_dataset()
        >>> len(data.train), len(data.test), sorted(data.modalities)
        (472, 118, ['image', 'text'])
    """
    if n_users < 2 or n_items < 24:
        raise ValueError(f"a toy needs 2 users and 24 items, not {n_users} and {n_items}")
    rng = seeds.numpy_generator(seed, "toy")
    user_taste = rng.permutation(np.arange(n_users) % 2)
    item_taste = rng.permutation(np.arange(n_items) % 2)
    popularity = rng.permutation(1.0 / np.sqrt(1.0 + np.arange(n_items - 1)))
    own = user_taste[:-1, None] == item_taste[:-1]
    utility = np.log(popularity * np.where(own, FAITH, 1.0 - FAITH))
    chosen = choices(rng, utility, TRAIN_ITEMS + 2 * HELD_OUT_ITEMS)
    return planted(
        "toy",
        seed,
        chosen,
        (TRAIN_ITEMS, HELD_OUT_ITEMS, HELD_OUT_ITEMS),
        {name: _modality(rng, name, item_taste) for name in WIDTH},
        {"taste": user_taste},
        {"taste": item_taste},
    )


def choices(rng: np.random.Generator, utility: np.ndarray, count: int) -> np.ndarray:
    """Different items of each user, drawn with probabilities of exp(utility), in random order.

    Args:
        rng: of the draw.
        utility: of each user and item, (n_users, n_items).
        count: number of items of each user.

    Returns:
        Rows of items, (n_users, count).
    """
    # Sampling without replacement, all users at once: the largest utilities plus Gumbel noise.
    keys = utility + rng.gumbel(size=utility.shape)
    return rng.permuted(np.argsort(-keys, axis=1)[:, :count], axis=1)


def planted(
    name: str,
    seed: int,
    chosen: np.ndarray,
    parts: tuple[int, int, int],
    modalities: Mapping[str, Modality],
    of_users: Mapping[str, np.ndarray],
    of_items: Mapping[str, np.ndarray],
) -> Dataset:
    """A data set of given choices.

    Args:
        name: of the data set.
        seed: for its description.
        chosen: rows of items, (n, sum of parts); users from n on have no interaction.
        parts: number of training, validation and test items of each user, in this order.
        modalities: of the items.
        of_users: columns of the table of users.
        of_items: columns of the table of items.
    """
    users = np.repeat(np.arange(len(chosen)), chosen.shape[1]).reshape(chosen.shape)
    train, valid, test = (
        Interactions(users[:, a:b].ravel(), chosen[:, a:b].ravel())
        for a, b in itertools.pairwise(np.cumsum([0, *parts]))
    )
    n_users, n_items = (len(next(iter(one.values()))) for one in (of_users, of_items))
    user_ids = Vocabulary([f"u{row}" for row in range(n_users)], "user")
    item_ids = Vocabulary([f"i{row}" for row in range(n_items)], "item")
    return Dataset(
        name=name,
        users=user_ids,
        items=item_ids,
        train=train,
        valid=valid,
        test=test,
        modalities=modalities,
        user_table=pl.DataFrame({"user_id": user_ids.series, **of_users}),
        item_table=pl.DataFrame({"item_id": item_ids.series, **of_items}),
        info={"synthetic": True, "seed": seed},
    )


def _modality(rng: np.random.Generator, name: str, taste: np.ndarray) -> Modality:
    """A direction of the taste, noise of the same length as it, and missing rows of zeros."""
    direction = rng.normal(size=WIDTH[name])
    features = np.where(taste[:, None] == 0, direction, -direction)
    features = features + rng.normal(size=features.shape)
    present = rng.random(len(taste)) >= MISSING[name]
    features[~present] = 0.0
    return Modality(name, features.astype(np.float32), present, provenance={"synthetic": True})


def tiny_view() -> TrainView:
    """Three users, four items (the last one never chosen) and two modalities, to compute by hand.

    Users 0, 1 and 2 chose items {0, 1}, {1, 2} and {0}; `text` is the identity of the first three
    rows with the last row missing, `image` is (item, 1).

    Example:
        >>> view = tiny_view()
        >>> list(zip(view.users.tolist(), view.items.tolist()))
        [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0)]
    """
    text = np.eye(4, 3, dtype=np.float32)
    image = np.stack([np.arange(4), np.ones(4)], axis=1).astype(np.float32)
    return TrainView(
        n_users=3,
        n_items=4,
        users=torch.tensor([0, 0, 1, 1, 2]),
        items=torch.tensor([0, 1, 1, 2, 0]),
        modalities={
            "text": Modality("text", text, np.array([True, True, True, False])),
            "image": Modality("image", image, np.ones(4, bool)),
        },
        fingerprint="tiny",
    )


def relabelled(view: TrainView, order: np.ndarray) -> TrainView:
    """The same data with its items in another order: new row r is old row `order[r]`."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return TrainView(
        n_users=view.n_users,
        n_items=view.n_items,
        users=view.users,
        items=torch.from_numpy(place)[view.items],
        modalities={
            name: Modality(name, m.features[order], m.present[order], m.entity, m.provenance)
            for name, m in view.modalities.items()
        },
        fingerprint=view.fingerprint + "-relabelled",
        user_ids=view.user_ids,
        item_ids=view.item_ids,
    )
