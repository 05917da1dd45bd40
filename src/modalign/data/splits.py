"""Splits: which part of the data each interaction belongs to.

Each splitter takes rows of users and items, times (or None) and a seed, and returns one int8
per interaction: the index of its part in `modalign.data.dataset.SPLITS`. The result depends on
the set of interactions and the seed, not on the order in which they stand. All are sorts and
segment ranks; nothing loops over users.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from modalign.core.seeds import numpy_generator
from modalign.data.dataset import SPLITS
from modalign.data.filters import pair_keys, sorting
from modalign.errors import ConfigError, DataError, UnknownName

TRAIN, VALID, TEST, VALID_HISTORY, TEST_HISTORY = range(5)


def ratio(
    users: np.ndarray,
    items: np.ndarray,
    time: np.ndarray | None,
    seed: int,
    *,
    train: float = 8,
    valid: float = 1,
    test: float = 1,
) -> np.ndarray:
    """Each user's interactions at random into train, valid and test, 8:1:1 by default.

    Of n interactions, h = max(2, floor(n (valid + test) / (train + valid + test))) are held
    out, max(1, floor(h valid / (valid + test))) of them are valid and the others test. For
    8:1:1 this is CM3's protocol: below ten, one valid and one test; from ten up a fifth held
    out, half of it (rounded down) valid. Users with one or two interactions stay in train.

    Args:
        users: rows of users, shape (n,).
        items: rows of items, shape (n,).
        time: not used.
        seed: of the shuffle.
        train: positive share; only the ratio of the three counts.
        valid: likewise.
        test: likewise.

    Raises:
        ConfigError: a share is not positive.
        DataError: no user has three interactions.

    Source: CM3 (Zhou et al., 2025), section on data and its released split.
    """
    if min(train, valid, test) <= 0:
        raise ConfigError(
            "positive shares of train, valid and test",
            f"{train}:{valid}:{test}",
            "give for example 8:1:1",
        )
    rank, size = _shuffled_ranks(users, items, None, seed, "ratio")
    # The small constant keeps 10 * 0.2 from falling below 2 in floating point.
    held = np.floor(size * ((valid + test) / (train + valid + test)) + 1e-9).astype(np.int64)
    held = np.where(size >= 3, np.maximum(held, 2), 0)
    valids = np.maximum(1, np.floor(held * (valid / (valid + test)) + 1e-9).astype(np.int64))
    labels = np.where(rank < valids, VALID, TEST)
    labels = np.where(rank < held, labels, TRAIN).astype(np.int8)
    return _need_all(labels, "a user with at least three interactions", len(users))


def leave_one_out(
    users: np.ndarray, items: np.ndarray, time: np.ndarray | None, seed: int
) -> np.ndarray:
    """Each user's last interaction for test, the one before for valid, the others for train.

    Last by time, equal times in a seeded random order; without times at random altogether.
    Users with one or two interactions stay in train.

    Args:
        users: rows of users, shape (n,).
        items: rows of items, shape (n,).
        time: seconds, shape (n,), or None.
        seed: of the order where time does not say.

    Raises:
        DataError: no user has three interactions.
    """
    rank, size = _shuffled_ranks(users, items, time, seed, "leave_one_out")
    labels = np.full(len(users), TRAIN, np.int8)
    labels[(rank == size - 1) & (size >= 3)] = TEST
    labels[(rank == size - 2) & (size >= 3)] = VALID
    return _need_all(labels, "a user with at least three interactions", len(users))


def by_time(
    users: np.ndarray,
    items: np.ndarray,
    time: np.ndarray | None,
    seed: int,
    *,
    train: float = 8,
    valid: float = 1,
    test: float = 1,
) -> np.ndarray:
    """The past for train, then valid, and the latest for test: two moments cut all users alike.

    The cuts are quantiles of all times (8:1:1 by default); interactions of one moment stay
    together, in the later part. Users and items that first appear after a cut exist in the
    vocabulary but have no training interaction.

    Args:
        users: rows of users, shape (n,).
        items: rows of items, shape (n,).
        time: seconds, shape (n,).
        seed: not used; nothing is random here.
        train: positive share; only the ratio of the three counts.
        valid: likewise.
        test: likewise.

    Raises:
        ConfigError: a share is not positive.
        DataError: there are no times, or too few different ones.
    """
    if time is None:
        raise DataError(
            "a time for each interaction", "interactions without times", "split by ratio instead"
        )
    if min(train, valid, test) <= 0:
        raise ConfigError(
            "positive shares of train, valid and test",
            f"{train}:{valid}:{test}",
            "give for example 8:1:1",
        )
    total = train + valid + test
    places = [int(len(time) * train / total), int(len(time) * (train + valid) / total)]
    places = [min(p, len(time) - 1) for p in places]
    first, second = np.partition(time, places)[places]
    labels = np.where(time < first, TRAIN, np.where(time < second, VALID, TEST)).astype(np.int8)
    return _need_all(labels, "enough different times to cut twice", len(users))


def cold_items(
    users: np.ndarray,
    items: np.ndarray,
    time: np.ndarray | None,
    seed: int,
    *,
    share: float = 0.2,
) -> np.ndarray:
    """A share of the items, drawn at random, is unknown in training: half valid, half test.

    All interactions of a cold item go to its part; the others are train.

    Args:
        users: rows of users, shape (n,).
        items: rows of items, shape (n,).
        time: not used.
        seed: of the draw.
        share: of the items, between 0 and 1.

    Raises:
        ConfigError: the share is not between 0 and 1.
        DataError: fewer than three items.

    Source: CM3 (Zhou et al., 2025), cold-start protocol.
    """
    _check_share(share)
    names, rows = np.unique(items, return_inverse=True)
    n_cold = min(max(2, round(share * len(names))), len(names) - 1)
    order = numpy_generator(seed, "split", "cold_items").permutation(len(names))
    label_of = np.full(len(names), TRAIN, np.int8)
    label_of[order[: n_cold // 2]] = VALID
    label_of[order[n_cold // 2 : max(n_cold, 0)]] = TEST
    return _need_all(label_of[rows], "at least three items", len(users))


def unseen_users(
    users: np.ndarray,
    items: np.ndarray,
    time: np.ndarray | None,
    seed: int,
    *,
    share: float = 0.2,
    truth: float = 0.2,
) -> np.ndarray:
    """Strong generalisation: a share of the users is unknown in training, half valid, half test.

    Of a held-out user's n items, max(1, floor(n truth)) at random are to be found; the others
    are the history by which the user is scored. Users with one interaction stay in train.

    Args:
        users: rows of users, shape (n,).
        items: rows of items, shape (n,).
        time: not used.
        seed: of the draws.
        share: of the users held out, between 0 and 1 (0.2 gives 80/10/10).
        truth: share of a held-out user's items to be found, between 0 and 1.

    Raises:
        ConfigError: a share is not between 0 and 1.
        DataError: fewer than three users have two interactions.

    Source: Liang et al. (2018), Variational autoencoders for collaborative filtering, section 4.
    """
    _check_share(share)
    _check_share(truth)
    names, rows, counts = np.unique(users, return_inverse=True, return_counts=True)
    able = np.flatnonzero(counts >= 2)
    n_held = min(max(2, round(share * len(names))), len(able) - 1)
    order = numpy_generator(seed, "split", "unseen_users").permutation(able)
    label_of = np.full(len(names), TRAIN, np.int8)
    label_of[order[: max(n_held, 0) // 2]] = VALID
    label_of[order[max(n_held, 0) // 2 : max(n_held, 0)]] = TEST
    labels = label_of[rows]
    rank, size = _shuffled_ranks(users, items, None, seed, "unseen_users", "truth")
    hidden = rank < np.maximum(1, np.floor(size * truth + 1e-9))
    labels[(labels == VALID) & ~hidden] = VALID_HISTORY
    labels[(labels == TEST) & ~hidden] = TEST_HISTORY
    return _need_all(labels, "three users with at least two interactions", len(users))


@dataclass(frozen=True)
class Splitter:
    """A way to split: its function and a line for people."""

    function: Callable[..., np.ndarray]
    help: str

    def options(self) -> dict[str, Any]:
        """Its options by name with their defaults."""
        found = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}


SPLITTERS: dict[str, Splitter] = {
    "ratio": Splitter(ratio, "each user's interactions at random, 8:1:1"),
    "leave_one_out": Splitter(leave_one_out, "each user's last for test, the one before for valid"),
    "time": Splitter(by_time, "two moments cut all users alike, 8:1:1 of the interactions"),
    "cold_items": Splitter(cold_items, "20% of the items are unknown in training"),
    "unseen_users": Splitter(unseen_users, "20% of the users are unknown in training"),
}
KINDS = (*SPLITTERS, "given")


def split(
    kind: str,
    users: np.ndarray,
    items: np.ndarray,
    time: np.ndarray | None,
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Labels of the split called `kind`, int8 indices into `SPLITS`, shape (n,).

    Raises:
        UnknownName: there is no such split.
        ConfigError: it has no such option.

    Example:
        >>> users, items = np.repeat([0, 1], 10), np.tile(np.arange(10), 2)
        >>> np.bincount(split("ratio", users, items, None, seed=1)).tolist()
        [16, 2, 2]
    """
    if kind not in SPLITTERS:
        raise UnknownName("split", kind, KINDS)
    splitter = SPLITTERS[kind]
    known = splitter.options()
    for name in options or {}:
        if name not in known:
            raise ConfigError(
                f"options of the split {kind!r}: {', '.join(known) or 'none'}",
                repr(name),
                "leave it out or use one of those",
            )
    for name, value in (options or {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ConfigError(
                f"a finite number as {name} of the split {kind!r}",
                repr(value),
                f"its default is {known[name]}",
            )
    return splitter.function(users, items, time, seed, **(options or {}))


def counts(labels: np.ndarray) -> dict[str, int]:
    """Interactions of each part that has any, by the part's name."""
    found = np.bincount(labels, minlength=len(SPLITS))
    return {name: int(n) for name, n in zip(SPLITS, found, strict=True) if n}


def _shuffled_ranks(
    users: np.ndarray, items: np.ndarray, time: np.ndarray | None, seed: int, *path: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each interaction within its user, by time, then at random; and the user's size.

    The random numbers are dealt out in the order of user and item, so that the order of rows
    does not matter.
    """
    n = len(users)
    order = sorting(pair_keys(users, items))
    drawn = numpy_generator(seed, "split", *path).permutation(n).astype(np.int32)
    if order is None:
        shuffle = drawn
    else:
        shuffle = np.empty(n, np.int32)
        shuffle[order] = drawn
    del order, drawn
    by = np.lexsort((shuffle, users) if time is None else (shuffle, time, users))
    size_of = np.bincount(users) if n else np.zeros(0, np.int64)
    starts = np.cumsum(size_of) - size_of
    rank = np.empty(n, np.int64)
    rank[by] = np.arange(n) - starts[users[by]]
    return rank, size_of[users]


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ConfigError("a share between 0 and 1", repr(share), "give for example 0.2")


def _need_all(labels: np.ndarray, expected: str, n: int) -> np.ndarray:
    """The labels, after a look that train, valid and test all have something."""
    found = np.bincount(labels, minlength=3)
    if not found[:3].all():
        missing = [name for name, count in zip(SPLITS, found[:3], strict=False) if not count]
        raise DataError(
            f"{expected}, so that train, valid and test all have interactions",
            f"nothing for {' and '.join(missing)} out of {n} interactions",
            "bring more data, filter less, or choose another split",
        )
    return labels
