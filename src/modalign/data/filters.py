"""Filters over interactions: minimum rating, duplicates, iterative k-core.

All work on parallel integer arrays and return a boolean mask of what is kept; nothing loops over
users, items or interactions.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from modalign.errors import ConfigError, DataError

Keep = Literal["last", "first", "max"]


def minimum_rating(weight: np.ndarray | None, minimum: float) -> np.ndarray:
    """Interactions of weight at least `minimum`.

    Args:
        weight: ratings, shape (n,).
        minimum: smallest rating that is kept.

    Returns:
        Mask, bool, shape (n,).

    Raises:
        DataError: there are no ratings.

    Example:
        >>> minimum_rating(np.array([5.0, 3.0, 4.0]), 4).tolist()
        [True, False, True]
    """
    if weight is None:
        got = "interactions without ratings"
        fix = "omit the minimum rating, or name the column of ratings"
        raise DataError("a rating for each interaction, for the minimum rating", got, fix)
    return weight >= minimum


def without_duplicates(
    users: np.ndarray,
    items: np.ndarray,
    weight: np.ndarray | None = None,
    time: np.ndarray | None = None,
    keep: Keep = "last",
) -> np.ndarray:
    """One interaction of each pair of user and item, independently of the order of rows.

    "last" keeps the latest by time (of equal or missing times, the one of highest weight), "first"
    the earliest, and "max" the one of highest weight (of equal weights, the latest).

    Args:
        users: rows of users, shape (n,).
        items: rows of items, shape (n,).
        weight: ratings, shape (n,), or None.
        time: seconds, shape (n,), or None.
        keep: which of several interactions is kept.

    Returns:
        Mask, bool, shape (n,). Of fully equal interactions exactly one is kept.

    Raises:
        ConfigError: `keep` is unknown.

    Example:
        >>> pair = np.array([0, 0]), np.array([7, 7])
        >>> without_duplicates(*pair, time=np.array([30, 20])).tolist()
        [True, False]
    """
    if keep not in get_args(Keep):
        raise ConfigError(
            f"one of {', '.join(get_args(Keep))} for duplicates", repr(keep), "choose one of those"
        )
    key = pair_keys(users, items)
    order = sorting(key)
    ordered = key if order is None else key[order]
    same = np.zeros(len(key) + 1, bool)  # same[i]: entry i is of the pair of entry i - 1
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    mask = np.ones(len(key), bool)
    inside = np.flatnonzero(same[1:] | same[:-1])
    if not len(inside):
        return mask
    rows = inside if order is None else order[inside]
    # Only pairs with several interactions are sorted by time and weight; the best comes last.
    nothing = np.zeros(len(rows))
    when = nothing if time is None else time[rows].astype(np.float64)
    how_much = nothing if weight is None else weight[rows]
    by = {"last": (how_much, when), "first": (how_much, -when), "max": (when, how_much)}[keep]
    rows = rows[np.lexsort((*by, key[rows]))]
    last = np.append(key[rows][1:] != key[rows][:-1], True)
    mask[rows[~last]] = False
    return mask


def k_core(users: np.ndarray, items: np.ndarray, k_users: int, k_items: int) -> np.ndarray:
    """The largest set in which every user has `k_users` and every item `k_items` interactions.

    Users and items with too few interactions are removed alternately until nothing changes. The
    result does not depend on the order of removal.

    Args:
        users: rows of users (small non-negative integers), shape (n,).
        items: rows of items, shape (n,); each pair once.
        k_users: minimum number of interactions of a user; 0 and 1 remove nothing.
        k_items: minimum number of interactions of an item.

    Returns:
        Mask, bool, shape (n,); it may be all False.

    Example:
        >>> k_core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), 2, 2).tolist()
        [True, True, True, True, False]
    """
    alive = np.arange(len(users), dtype=np.int32 if len(users) < 2**31 else np.int64)
    while len(alive):
        before = len(alive)
        for rows, k in ((users, k_users), (items, k_items)):
            kept = rows[alive]
            alive = alive[(np.bincount(kept) >= k)[kept]] if len(kept) else alive
        if len(alive) == before:
            break
    mask = np.zeros(len(users), bool)
    mask[alive] = True
    return mask


def pair_keys(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """One int64 for each pair of user and item, ordered by user, then item."""
    if not len(users):
        return np.empty(0, np.int64)
    key = users.astype(np.int64)
    key *= int(items.max()) + 1
    key += items
    return key


def sorting(key: np.ndarray) -> np.ndarray | None:
    """The stable order that sorts `key`, or None if it is sorted already."""
    if bool((key[1:] >= key[:-1]).all()):
        return None
    return np.argsort(key, kind="stable")
