"""Metrics of ranked lists, all users and all K in one vectorised pass.

For a user with the set of relevant items R and the list l_1, l_2, ... let h_i = 1 where l_i is
in R, and H_K = h_1 + ... + h_K. Then

    recall@K     H_K / |R|
    precision@K  H_K / K                       (K also where the list is shorter)
    hit@K        1 where H_K > 0
    mrr@K        1 / (place of the first hit), 0 where it lies beyond K
    ndcg@K       sum_{i<=K} h_i / log2(i + 1), over the same sum of an ideal list, which has
                 min(K, |R|) hits at its top
    map@K        sum_{i<=K} h_i H_i / i, over min(K, |R|), so that an ideal list has 1; trec_eval
                 and ranx divide by |R|, where no list can have 1 for |R| > K

and, beyond accuracy, with c_j the training interactions of item j and n the users with any,

    novelty@K     mean over the list of -log2(max(c_j, 1) / n), bits
    popularity@K  mean over the list of c_j
    coverage@K    share of the catalogue that is in at least one list

An empty list has novelty and popularity 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from modalign.core.sparse import place_in_row, row_of_entries
from modalign.errors import ConfigError, UnknownName

PAIRS_AT_ONCE = 4_000_000


def hit_matrix(items: np.ndarray, relevant: sp.csr_array) -> np.ndarray:
    """The hits of lists: `out[u, i]` is whether `items[u, i]` is relevant to user u.

    Every relevant pair is compared with its user's list, in blocks of pairs.

    Args:
        items: rows of items, shape (n, k), -1 for none; no item twice in a row.
        relevant: users x items, shape (n, n_items), users in the order of `items`.

    Returns:
        Booleans of shape (n, k).

    Example:
        >>> relevant = sp.csr_array(np.array([[0, 1, 1], [1, 0, 0]]))
        >>> hit_matrix(np.array([[2, 0], [1, -1]]), relevant).tolist()
        [[True, False], [False, False]]
    """
    hits = np.zeros(items.shape, bool)
    users = row_of_entries(relevant)
    wanted = relevant.indices.astype(items.dtype)
    step = max(1, PAIRS_AT_ONCE // items.shape[1])
    for start in range(0, len(users), step):
        block = users[start : start + step]
        pair, place = np.nonzero(items[block] == wanted[start : start + step, None])
        hits[block[pair], place] = True
    return hits


@dataclass(frozen=True)
class JudgedLists:
    """Ranked lists with their hits, the input of every metric.

    The last three attributes are read only by metrics beyond accuracy.

    Attributes:
        hits: whether each listed item is relevant, bool, (n, k).
        n_relevant: number of relevant items of each user, at least 1, int64, (n,).
        items: rows of items, (n, k), -1 for none.
        item_counts: number of training interactions of each item, (n_items,).
        n_train_users: number of users with a training interaction.
    """

    hits: np.ndarray
    n_relevant: np.ndarray
    items: np.ndarray | None = None
    item_counts: np.ndarray | None = None
    n_train_users: int = 0

    def __len__(self) -> int:
        return len(self.hits)

    @cached_property
    def _where(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User, position from 0, and number among the user's hits, for every hit; hits are few."""
        user, place = np.nonzero(self.hits)
        counts = np.bincount(user, minlength=len(self))
        return user, place, place_in_row(counts)

    def total(self, k: int, weight: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Sum of `weight(place, number)` over a user's hits in the first k positions, float64."""
        user, place, number = self._where
        early = place < k
        weights = weight(place[early], number[early]).astype(np.float64)
        sums: np.ndarray = np.bincount(user[early], weights, len(self))
        return sums

    def mean(self, k: int, value: np.ndarray) -> np.ndarray:
        """Mean of `value[item]` over a user's first k items, float64."""
        items = self._listed(k)
        there = items >= 0
        summed = np.where(there, value[items], 0.0).sum(1)
        means: np.ndarray = summed / np.maximum(there.sum(1), 1)
        return means

    def _listed(self, k: int) -> np.ndarray:
        assert self.items is not None
        first: np.ndarray = self.items[:, :k]
        return first

    def counts(self) -> np.ndarray:
        """Training interactions of each item."""
        assert self.item_counts is not None
        return self.item_counts


def _one(place: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.ones(len(place))


def _ndcg(lists: JudgedLists, k: int) -> np.ndarray:
    gained = lists.total(k, lambda place, number: 1 / np.log2(place + 2.0))
    ideal = np.cumsum(1 / np.log2(np.arange(k) + 2.0))
    values: np.ndarray = gained / ideal[np.minimum(lists.n_relevant, k) - 1]
    return values


def _map(lists: JudgedLists, k: int) -> np.ndarray:
    gained = lists.total(k, lambda place, number: (number + 1.0) / (place + 1.0))
    values: np.ndarray = gained / np.minimum(lists.n_relevant, k)
    return values


def _novelty(lists: JudgedLists, k: int) -> np.ndarray:
    return lists.mean(k, -np.log2(np.maximum(lists.counts(), 1) / max(lists.n_train_users, 1)))


def _coverage(lists: JudgedLists, k: int) -> float:
    listed = lists._listed(k)
    n_items = len(lists.counts())
    return float((np.bincount(listed[listed >= 0], minlength=n_items) > 0).sum() / n_items)


@dataclass(frozen=True)
class Metric:
    """A metric of each user, or (coverage) of all lists together.

    Attributes:
        name: such as `recall`.
        per_user: computes the values of the users at K; None for an overall metric.
        overall: computes one value at K; None for a metric per user, whose mean is reported.
        accuracy: whether it compares with relevant items; then higher is better.
    """

    name: str
    per_user: Callable[[JudgedLists, int], np.ndarray] | None = None
    overall: Callable[[JudgedLists, int], float] | None = None
    accuracy: bool = True


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("recall", lambda lists, k: lists.total(k, _one) / lists.n_relevant),
        Metric("precision", lambda lists, k: lists.total(k, _one) / k),
        Metric("ndcg", _ndcg),
        Metric("map", _map),
        Metric("mrr", lambda lists, k: lists.total(k, lambda place, n: (n == 0) / (place + 1.0))),
        Metric("hit", lambda lists, k: (lists.total(k, _one) > 0).astype(np.float64)),
        Metric("coverage", overall=_coverage, accuracy=False),
        Metric("novelty", _novelty, accuracy=False),
        Metric("popularity", lambda lists, k: lists.mean(k, lists.counts()), accuracy=False),
    )
}


def chosen_metrics(names: Iterable[str] | None) -> list[Metric]:
    """Metrics by name, in their order; all of them for None.

    Raises:
        UnknownName: there is no such metric.
    """
    names = list(METRICS) if names is None else list(names)
    for name in names:
        if name not in METRICS:
            raise UnknownName("metric", name, METRICS)
    return [METRICS[name] for name in names]


def checked_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Lengths of lists, sorted, each once.

    Raises:
        ConfigError: there is none, or one is below 1.
    """
    if not ks or min(ks) < 1:
        got = ", ".join(map(str, ks)) or "none"
        raise ConfigError("at least one K, each 1 or more", got, "write K as 10,20,50")
    return tuple(sorted(set(ks)))


def compute(
    lists: JudgedLists, ks: Sequence[int], names: Iterable[str] | None = None
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Means and per-user values of metrics at every K.

    Args:
        lists: ranked lists with their hits.
        ks: lengths, at most the lists' width unless the lists contain all items.
        names: names in `METRICS`; None for all.

    Returns:
        `{"recall@20": mean, ...}` and `{"recall@20": values of shape (n,), ...}`; the second
        without coverage. The mean over no users is 0.

    Raises:
        ConfigError: there is no K, or one is below 1.
        UnknownName: there is no such metric.

    Example:
        >>> lists = JudgedLists(np.array([[True, False, True]]), np.array([4]))
        >>> compute(lists, [3], ["recall", "map"])[0]
        {'recall@3': 0.5, 'map@3': 0.5555555555555555}
    """
    means: dict[str, float] = {}
    values: dict[str, np.ndarray] = {}
    for metric in chosen_metrics(names):
        for k in checked_ks(ks):
            key = f"{metric.name}@{k}"
            if metric.per_user is not None:
                values[key] = metric.per_user(lists, k)
                means[key] = float(values[key].mean()) if len(lists) else 0.0
            elif metric.overall is not None:
                means[key] = metric.overall(lists, k)
    return means, values
