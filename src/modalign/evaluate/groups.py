"""Metrics by the activity of users, and recall by the popularity of items."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from modalign.errors import ConfigError

ACTIVITY = (0, 4, 6, 9, 13)


def by_activity(per_user: pl.DataFrame, edges: Sequence[int] = ACTIVITY) -> pl.DataFrame:
    """Means of every metric by the users' number of training interactions.

    Group g contains the users with `edges[g] <= n_train < edges[g + 1]`; the last has no upper end.
    The default edges are those of MMSSL (Wei et al., WWW 2023, Table 4) for Amazon Baby, where
    adjacent intervals share their ends; here each user is in one group.

    Returns:
        group ("4-5", "13+"), n_users, and one column per metric; empty groups are omitted.

    Raises:
        ConfigError: the edges do not increase, or a user is below the first.

    Example:
        >>> users = pl.DataFrame({"n_train": [1, 4, 5], "recall@20": [0.0, 0.5, 1.0]})
        >>> by_activity(users).rows()
        [('0-3', 1, 0.0), ('4-5', 2, 0.75)]
    """
    edges = list(edges)
    counts = per_user["n_train"].to_numpy()
    if not edges or any(b <= a for a, b in pairwise(edges)):
        raise ConfigError("increasing edges of groups", str(edges), "write them as 0,4,6,9,13")
    if len(counts) and counts.min() < edges[0]:
        raise ConfigError(
            f"a first edge of at most {counts.min()}", str(edges[0]), "start the edges at 0"
        )
    group = np.searchsorted(edges, counts, side="right") - 1
    names = [f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in pairwise(edges)]
    metrics = [column for column in per_user.columns if "@" in column]
    every = pl.Series([*names, f"{edges[-1]}+"])
    return (
        per_user.with_columns(_group=pl.Series(group), group=every.gather(group))
        .group_by("_group", "group")
        .agg(pl.len().alias("n_users"), *(pl.col(one).mean() for one in metrics))
        .sort("_group")
        .select("group", "n_users", *metrics)
    )


def by_popularity(
    items: np.ndarray,
    hits: np.ndarray,
    relevant: np.ndarray,
    item_counts: np.ndarray,
    k: int = 20,
    head: float = 0.2,
) -> pl.DataFrame:
    """Share of relevant pairs found in the first k positions, for popular and for other items.

    Args:
        items: ranked items, (n, width).
        hits: whether they are relevant, bool, of the same shape.
        relevant: items of all relevant pairs, (n_pairs,).
        item_counts: number of training interactions of each item.
        k: length of the lists.
        head: share of the catalogue, by popularity (ties by row), in the group "head".

    Returns:
        group ("head", "tail"), n_pairs, `recall@k` over pairs (0 without any pair).

    Raises:
        ConfigError: `head` is not in [0, 1].

    Example:
        >>> listed, hits = np.array([[0, 1]]), np.array([[True, False]])
        >>> by_popularity(listed, hits, np.array([0, 2]), np.array([5, 1, 1]), 2, 0.3).rows()
        [('head', 1, 1.0), ('tail', 1, 0.0)]
    """
    if not 0 <= head <= 1:
        raise ConfigError("a share of the head between 0 and 1", str(head), "use 0.2 for a fifth")
    order = np.argsort(-item_counts, kind="stable")
    is_head = np.zeros(len(item_counts), bool)
    is_head[order[: round(head * len(order))]] = True
    found = items[:, :k][hits[:, :k]]
    pairs = np.array([is_head[relevant].sum(), (~is_head[relevant]).sum()])
    got = np.array([is_head[found].sum(), (~is_head[found]).sum()])
    recall = got / np.maximum(pairs, 1)
    return pl.DataFrame({"group": ["head", "tail"], "n_pairs": pairs, f"recall@{k}": recall})
