"""Recommendations for a few users with pictures, and a user's items as lists with titles."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.pictures import UnreadablePicture, decoded
from modalign.evaluate.protocol import Evaluation
from modalign.experiments.fitted import FittedModel

LIST = 10
WIDTH, HEIGHT = 96, 120
WELL, MIDDLE, BADLY = "served well", "in the middle", "served badly"


class Pictures:
    """Small pictures of a data set's items as `data:` addresses, each made once."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._known: dict[int, str | None] = {}

    def of(self, item: int) -> str | None:
        """The picture of an item's row; None if it has none that can be read."""
        if item not in self._known:
            path = self.dataset.image_path(item)
            self._known[item] = None if path is None else thumbnail(path)
        return self._known[item]


def thumbnail(path: Path) -> str | None:
    """A picture of at most 96 x 120 pixels as a `data:` address; None if it cannot be read.

    It is rotated as its EXIF data say; transparent parts become white.
    """
    try:
        small = decoded(path, near=(2 * WIDTH, 2 * HEIGHT))
    except UnreadablePicture:
        return None
    small.thumbnail((WIDTH, HEIGHT))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def chosen_users(evaluations: Sequence[Evaluation], n: int, k: int) -> pl.DataFrame:
    """Up to `n` users by how well all runs together serve them; always the same ones.

    Ordered by mean NDCG@k over runs (then by more hidden items, then by id): a third each from the
    top, from the middle of the users with any hit, and from the bottom.

    Args:
        evaluations: one for each run, with NDCG@k by user.
        n: maximum number of users.
        k: cut-off of the NDCG.

    Returns:
        Columns user_id and why.
    """
    key = f"ndcg@{k}"
    frames = [e.per_user.select("user_id", "n_relevant", key) for e in evaluations]
    ranked = (
        pl.concat(frames)
        .group_by("user_id")
        .agg(pl.col(key).mean(), pl.col("n_relevant").first(), pl.len())
        .filter(pl.col("len") == len(frames))
        .sort(key, "n_relevant", "user_id", descending=[True, True, False])
        .with_row_index("place")
    )
    found = ranked.filter(pl.col(key) > 0)
    middle = found.slice(max(0, (len(found) - _part(n, 1)) // 2), _part(n, 1))
    # At the bottom: worst first, and among equals those with the most hidden items.
    bottom = ranked.sort(key, "n_relevant", "user_id", descending=[False, True, False])
    order = pl.concat(
        [
            found.head(_part(n, 0)).with_columns(why=pl.lit(WELL)),
            middle.with_columns(why=pl.lit(MIDDLE)),
            bottom.head(_part(n, 2)).with_columns(why=pl.lit(BADLY)),
        ]
    )
    return order.unique("user_id", keep="first", maintain_order=True).select("user_id", "why")


def _part(n: int, which: int) -> int:
    """Thirds of `n`; a remainder goes to the first, then to the last."""
    return n // 3 + (n % 3 > (0, 2, 1)[which])


def gallery(
    runs: Mapping[str, FittedModel], users: pl.DataFrame, pictures: Pictures
) -> list[dict[str, Any]]:
    """For each user the liked items, the hidden items, and the first ten items of each run.

    Args:
        runs: fitted models on the same data by name.
        users: columns user_id and why, from `chosen_users`.
        pictures: pictures of that data's items.
    """
    ids = users["user_id"].to_list()
    if not ids:
        return []
    lists = {
        name: fitted.recommend(ids, LIST).partition_by("user_id", as_dict=True)
        for name, fitted in runs.items()
    }
    return [
        _person(user_id, why, {n: frames.get((user_id,)) for n, frames in lists.items()}, pictures)
        for user_id, why in users.select("user_id", "why").iter_rows()
    ]


def _person(
    user_id: str, why: str, lists: Mapping[str, pl.DataFrame | None], pictures: Pictures
) -> dict[str, Any]:
    dataset = pictures.dataset
    hidden = hidden_items(dataset, user_id)
    before = liked(dataset, user_id)
    titles = dataset.titles()
    rows = sorted(int(row) for row in dataset.items.rows(sorted(hidden)))
    shown = []
    for name, frame in lists.items():
        items = [] if frame is None else frame["item_id"].to_list()
        tiles = [
            _tile(pictures, int(row), titles[int(row)], item_id in hidden)
            for row, item_id in zip(dataset.items.rows(items), items, strict=True)
        ]
        shown.append({"name": name, "tiles": tiles, "found": sum(t["hit"] for t in tiles)})
    return {
        "user": user_id,
        "why": why,
        "n_liked": len(before),
        "liked": [_tile(pictures, one["item"], one["title"]) for one in before[:LIST]],
        "n_hidden": len(hidden),
        "hidden": [_tile(pictures, row, titles[row]) for row in rows[:LIST]],
        "lists": shown,
    }


def _tile(pictures: Pictures, item: int, title: str, hit: bool = False) -> dict[str, Any]:
    return {"title": title, "hit": hit, "picture": pictures.of(item)}


def liked(dataset: Dataset, user_id: str | int) -> list[dict[str, Any]]:
    """The user's training items, or the known part of a user without any: newest first if times
    are known, otherwise by decreasing weight, otherwise in row order.
    """
    user = int(dataset.users.rows([user_id])[0])
    return named(dataset, _ordered(dataset.history.of(user)))


def hidden_items(dataset: Dataset, user_id: str | int) -> set[str]:
    """Ids of the user's items in the test part."""
    user = int(dataset.users.rows([user_id])[0])
    return set(dataset.items.ids(dataset.test.items[dataset.test.users == user]))


def _ordered(part: Interactions) -> np.ndarray:
    items: np.ndarray = part.items
    for key in (part.time, part.weight):
        if key is not None:
            items = items[np.argsort(-key, kind="stable")]
            break
    first = np.unique(items, return_index=True)[1]
    return items[np.sort(first)]


def named(dataset: Dataset, rows: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """Id, title and row of each item; an item without a title has its id as title.

    Args:
        dataset: with the items.
        rows: rows of items.
    """
    titles, rows = dataset.titles(), np.asarray(rows, np.int64)
    return [
        {"item_id": one, "title": titles[row], "item": row}
        for one, row in zip(dataset.items.ids(rows), rows.tolist(), strict=True)
    ]
