"""Splits: which part of the data each interaction belongs to.

A splitter takes rows of users and items, times (or None) and a seed, and returns one int8 per
interaction: the index of its part in `modalign.data.dataset.SPLITS`. The result depends on the
set of interactions and the seed, not on the order of the rows. All splitters are sorts and
segment ranks; nothing loops over users. Their keyword options are checked by `split`.

Another package adds a splitter with an entry point of the group `modalign.splits`, whose module
calls `SPLITTERS.register(name, Splitter(function, help))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

from modalign.core import settings
from modalign.core.registry import Registry
from modalign.core.seeds import numpy_generator
from modalign.data.dataset import SPLITS
from modalign.data.filters import pair_keys, sorting
from modalign.errors import DataError, UnknownName

TRAIN, VALID, TEST, VALID_HISTORY, TEST_HISTORY = range(5)
GIVEN = "given"
"""The name of the split that a source brings."""

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
"""A positive number; only the ratio of several counts."""
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, strict=True)]
"""A share between 0 and 1."""
Array = np.ndarray
Times = np.ndarray | None


def _ratio(
    users: Array,
    items: Array,
    time: Times,
    seed: int,
    *,
    train: Weight = 8,
    valid: Weight = 1,
    test: Weight = 1,
) -> Array:
    """Each user's interactions at random into train, valid and test, 8:1:1 by default.

    Of a user's n interactions, h = max(2, floor(n (valid + test) / (train + valid + test))) are
    held out: max(1, floor(h valid / (valid + test))) for valid, the others for test. With 8:1:1
    this is CM3's protocol: one valid and one test for n < 10; for larger n a fifth is held out,
    half of it (rounded down) for valid. Users with one or two interactions stay in train.

    Source: CM3 (Zhou et al., 2025), section on data and its released split.
    """
    rank, size = _shuffled_ranks(users, items, None, seed, "ratio")
    # The small constant keeps 10 * 0.2 from falling below 2 in floating point.
    held = np.floor(size * ((valid + test) / (train + valid + test)) + 1e-9).astype(np.int64)
    held = np.where(size >= 3, np.maximum(held, 2), 0)
    valids = np.maximum(1, np.floor(held * (valid / (valid + test)) + 1e-9).astype(np.int64))
    labels = np.where(rank < valids, VALID, TEST)
    labels = np.where(rank < held, labels, TRAIN).astype(np.int8)
    return _need_all(labels, "a user with at least three interactions", len(users))


def _leave_one_out(users: Array, items: Array, time: Times, seed: int) -> Array:
    """Each user's last interaction for test, the one before for valid, the others for train.

    Interactions are ordered by time, equal times in a seeded random order; without times the
    whole order is random. Users with one or two interactions stay in train.
    """
    rank, size = _shuffled_ranks(users, items, time, seed, "leave_one_out")
    labels = np.full(len(users), TRAIN, np.int8)
    labels[(rank == size - 1) & (size >= 3)] = TEST
    labels[(rank == size - 2) & (size >= 3)] = VALID
    return _need_all(labels, "a user with at least three interactions", len(users))


def _by_time(
    users: Array,
    items: Array,
    time: Times,
    seed: int,
    *,
    train: Weight = 8,
    valid: Weight = 1,
    test: Weight = 1,
) -> Array:
    """The earliest interactions for train, then valid, and the latest for test.

    Two points in time, the same for all users, separate the parts. They are quantiles of all
    times (8:1:1 by default); interactions of the same second stay together, in the later part.
    Users and items that first appear after the first point are in the vocabulary but have no
    training interaction.
    """
    if time is None:
        fix = "name the column of times, or choose another split"
        raise DataError("a time for each interaction", "interactions without times", fix)
    total = train + valid + test
    places = [int(len(time) * train / total), int(len(time) * (train + valid) / total)]
    places = [min(p, len(time) - 1) for p in places]
    first, second = np.partition(time, places)[places]
    labels = np.where(time < first, TRAIN, np.where(time < second, VALID, TEST)).astype(np.int8)
    return _need_all(labels, "enough different times to cut twice", len(users))


def _cold_items(users: Array, items: Array, time: Times, seed: int, *, share: Share = 0.2) -> Array:
    """A random share of the items is unknown in training: half of them valid, half test.

    All interactions of a cold item go to its part; all others are train.

    Source: CM3 (Zhou et al., 2025), cold-start protocol.
    """
    names, rows = np.unique(items, return_inverse=True)
    n_cold = min(max(2, round(share * len(names))), len(names) - 1)
    order = numpy_generator(seed, "split", "cold_items").permutation(len(names))
    label_of = np.full(len(names), TRAIN, np.int8)
    label_of[order[: n_cold // 2]] = VALID
    label_of[order[n_cold // 2 : max(n_cold, 0)]] = TEST
    return _need_all(label_of[rows], "at least three items", len(users))


def _unseen_users(
    users: Array, items: Array, time: Times, seed: int, *, share: Share = 0.2, truth: Share = 0.2
) -> Array:
    """Strong generalisation: a random share of the users is unknown in training.

    Half of them are valid, half test. Of a held-out user's n items, max(1, floor(n truth)) random
    ones are the truth; the others are the history from which the user is scored. Users with one
    interaction stay in train.

    Source: Liang et al. (2018), Variational autoencoders for collaborative filtering, section 4.
    """
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
    """A way to split: its function and one line of help."""

    function: Callable[..., np.ndarray]
    help: str

    @property
    def options(self) -> type[BaseModel]:
        """Its options by name, with defaults and bounds."""
        return settings.from_signature(self.function, skip=4)


SPLITTERS: Registry[Splitter] = Registry("split", "modalign.splits")
for _name, _splitter in {
    "ratio": Splitter(_ratio, "each user's interactions at random, 8:1:1"),
    "leave-one-out": Splitter(
        _leave_one_out, "each user's last interaction for test, the one before for validation"
    ),
    "time": Splitter(_by_time, "two points in time separate the parts, the same for all users"),
    "cold-items": Splitter(_cold_items, "20% of the items are unknown in training"),
    "unseen-users": Splitter(_unseen_users, "20% of the users are unknown in training"),
}.items():
    SPLITTERS.register(_name, _splitter)


def canonical(kind: str, *, given: bool = True) -> str:
    """The name of a split as it is stored: `leave_one_out` is `leave-one-out`.

    Args:
        kind: the name, with hyphens or underscores.
        given: whether "given", the split of the source, is allowed.

    Raises:
        UnknownName: there is no such split; the nearest is suggested.

    Example:
        >>> canonical("cold_items")
        'cold-items'
    """
    name = kind.replace("_", "-")
    known = [*SPLITTERS, GIVEN] if given else [*SPLITTERS]
    if name not in known:
        raise UnknownName("split", kind, known)
    return name


def options_of(kind: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All options of a split with their values.

    Args:
        kind: a name of `SPLITTERS`.
        options: the options that differ from their defaults.

    Raises:
        UnknownName: there is no such split.
        ConfigError: it has no such option, or a value is out of its bounds.
    """
    name = canonical(kind, given=False)
    config = SPLITTERS[name].options
    return settings.build(config, options or {}, f"the split {name!r}").model_dump()


def split(
    kind: str,
    users: np.ndarray,
    items: np.ndarray,
    time: np.ndarray | None,
    seed: int = settings.DEFAULT_SEED,
    options: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """The part of each interaction under the split called `kind`.

    Args:
        kind: a name of `SPLITTERS`.
        users: rows of users, shape (n,).
        items: rows of items, shape (n,).
        time: seconds, shape (n,), or None.
        seed: seed of the split.
        options: options of that split.

    Returns:
        int8 indices into `SPLITS`, shape (n,).

    Raises:
        UnknownName: there is no such split.
        ConfigError: it has no such option, or a value is out of its bounds.
        DataError: there are too few interactions for this split.

    Example:
        >>> users, items = np.repeat([0, 1], 10), np.tile(np.arange(10), 2)
        >>> np.bincount(split("ratio", users, items, None, seed=1)).tolist()
        [16, 2, 2]
    """
    checked = options_of(kind, options)
    return SPLITTERS[canonical(kind)].function(users, items, time, seed, **checked)


def counts(labels: np.ndarray) -> dict[str, int]:
    """Number of interactions of each part that is not empty, by the part's name."""
    found = np.bincount(labels, minlength=len(SPLITS))
    return {name: int(n) for name, n in zip(SPLITS, found, strict=True) if n}


def _shuffled_ranks(
    users: np.ndarray, items: np.ndarray, time: np.ndarray | None, seed: int, *path: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each interaction within its user, by time, then at random; and the user's size.

    The random numbers are assigned in the order of user and item, so that the order of rows
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


def _need_all(labels: np.ndarray, expected: str, n: int) -> np.ndarray:
    """The labels, if train, valid and test all have an interaction."""
    found = np.bincount(labels, minlength=3)
    if not found[:3].all():
        missing = [name for name, count in zip(SPLITS, found[:3], strict=False) if not count]
        raise DataError(
            f"{expected}, so that train, valid and test all have interactions",
            f"nothing for {' and '.join(missing)} out of {n} interactions",
            "import more data, filter less, or choose another split",
        )
    return labels
