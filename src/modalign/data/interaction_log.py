"""Interactions while they are imported: read as integer codes, then filtered.

Ids become small integers here, while they are streamed in, so that 20 million interactions never
stand in memory as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from modalign.data import filters
from modalign.data.dataset import SPLITS
from modalign.data.raw import RawData
from modalign.errors import DataError


@dataclass
class InteractionLog:
    """Interactions as codes instead of ids, and the result of each filter.

    Attributes:
        user_ids, item_ids: ids in natural order; a code is a position in them.
        users, items: codes, int32, sorted by user, then item.
        weight, time, part: parallel arrays, or None.
        remarks: notes to show to the user.
        steps: numbers of users, items and interactions after each filter.
    """

    user_ids: pl.Series
    item_ids: pl.Series
    users: np.ndarray
    items: np.ndarray
    weight: np.ndarray | None = None
    time: np.ndarray | None = None
    part: np.ndarray | None = None
    remarks: list[str] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, mask: np.ndarray) -> None:
        """Keep only the interactions of a mask."""
        if mask.all():
            return
        for name in ("users", "items", "weight", "time", "part"):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, values[mask])

    def note(self, step: str) -> None:
        """Store the counts after a step."""
        self.steps.append(
            {
                "step": step,
                "users": int(np.count_nonzero(np.bincount(self.users))),
                "items": int(np.count_nonzero(np.bincount(self.items))),
                "interactions": len(self.users),
            }
        )


def natural_order(ids: pl.Series) -> pl.Series:
    """Ids sorted: by value if all are whole numbers, otherwise as text by code point.

    Example:
        >>> natural_order(pl.Series(["10", "9", "1"])).to_list()
        ['1', '9', '10']
    """
    if len(ids) and bool(ids.str.contains(r"^\d{1,18}$").all()):
        by = pl.DataFrame({"id": ids, "value": ids.cast(pl.Int64)})
        return by.sort("value", "id")["id"]
    return ids.sort()


def read_log(raw: RawData, *, with_split: bool) -> InteractionLog:
    """Stream the interactions in, as codes of naturally ordered ids, sorted by user and item.

    Args:
        raw: what a source returned.
        with_split: also read the part of each interaction.

    Raises:
        DataError: there are none, or a part of the given split has an unknown name.
    """
    frame = raw.interactions
    names = frame.collect_schema().names()
    both = ("user_id", "item_id")
    wanted = [frame.select(pl.col(c).cast(pl.String).unique()) for c in both]  # in one pass
    found = pl.collect_all(wanted, engine="streaming")
    ids = {c: natural_order(one[c].drop_nulls()) for c, one in zip(both, found, strict=True)}
    if not len(ids["user_id"]):
        raise DataError("interactions", f"none in {raw.name}", "check the files")
    columns = {
        "users": pl.col("user_id").cast(pl.Enum(ids["user_id"])).to_physical().cast(pl.Int32),
        "items": pl.col("item_id").cast(pl.Enum(ids["item_id"])).to_physical().cast(pl.Int32),
    }
    if "weight" in names:
        columns["weight"] = pl.col("weight").cast(pl.Float32)
    if "time" in names:
        columns["time"] = pl.col("time").cast(pl.Int64)
    if with_split:
        _check_parts(frame)
        columns["part"] = pl.col("split").cast(pl.Enum(SPLITS)).to_physical().cast(pl.Int8)
    # One column at a time, so that frame and arrays are never both complete in memory.
    table = frame.select(**columns).collect(engine="streaming")
    arrays: dict[str, np.ndarray] = {}
    remarks: list[str] = []
    for column in columns:
        series = table.drop_in_place(column)
        missing = series.null_count()
        if missing and column in ("users", "items"):
            expected = f"a {column[:-1]} id in every row of {raw.name}"
            raise DataError(expected, f"{missing} rows without one", "correct or remove those rows")
        if missing:
            remarks.append(f"{column} is missing in {missing} rows and was dropped for all")
            continue
        arrays[column] = series.to_numpy()
    order = filters.sorting(filters.pair_keys(arrays["users"], arrays["items"]))
    if order is not None:
        order = order.astype(np.int32) if len(order) < 2**31 else order
        for column in list(arrays):
            arrays[column] = arrays[column][order]
    log = InteractionLog(
        ids["user_id"],
        ids["item_id"],
        arrays["users"],
        arrays["items"],
        weight=arrays.get("weight"),
        time=arrays.get("time"),
        part=arrays.get("part"),
        remarks=remarks,
    )
    log.note("as read")
    return log


def _check_parts(frame: pl.LazyFrame) -> None:
    found = frame.select(pl.col("split").cast(pl.String).unique()).collect(engine="streaming")
    unknown = [str(one) for one in found["split"] if one not in SPLITS]
    if unknown:
        got = ", ".join(map(repr, sorted(unknown)[:5]))
        raise DataError(f"parts of a split called {', '.join(SPLITS[:3])}", got, "rename them")


def apply_filters(
    log: InteractionLog, min_rating: float | None, duplicates: filters.Keep, k_core: tuple[int, int]
) -> None:
    """Apply minimum rating, duplicates and k-core; the counts after each go into `log.steps`.

    Args:
        log: the interactions, changed in place.
        min_rating: minimum weight; None keeps all.
        duplicates: which of several interactions of a pair is kept.
        k_core: minimum number of interactions per user and per item.

    Raises:
        DataError: nothing is left; the message lists what each step left.
    """
    if min_rating is not None:
        log.keep(filters.minimum_rating(log.weight, min_rating))
        log.note(f"rating at least {min_rating:g}")
        _need_some(log)
    before = len(log.users)
    if log.part is None:
        mask = filters.without_duplicates(log.users, log.items, log.weight, log.time, duplicates)
        log.keep(mask)
    else:
        _given_duplicates(log, duplicates)
    if len(log.users) < before:
        log.note(f"one interaction of each pair ({duplicates})")
    k_users, k_items = k_core
    if max(k_users, k_items) > 1:
        log.keep(filters.k_core(log.users, log.items, k_users, k_items))
        both = f"{k_users}-core" if k_users == k_items else f"core of {k_users} and {k_items}"
        log.note(both)
        _need_some(log)


def _given_duplicates(log: InteractionLog, duplicates: filters.Keep) -> None:
    """Duplicates within each part; a pair in two parts stays, as in the given split."""
    assert log.part is not None
    mask = np.ones(len(log.users), bool)
    for part in range(len(SPLITS)):
        rows = np.flatnonzero(log.part == part)
        columns = [None if c is None else c[rows] for c in (log.weight, log.time)]
        mask[rows] = filters.without_duplicates(
            log.users[rows], log.items[rows], columns[0], columns[1], duplicates
        )
    log.keep(mask)
    key = filters.pair_keys(log.users, log.items)
    several = int((key[1:] == key[:-1]).sum())
    if several:
        log.remarks.append(
            f"{several} pairs of user and item are in more than one part of the given split"
        )


def _need_some(log: InteractionLog) -> None:
    if len(log.users):
        return
    told = "; ".join(
        f"{s['step']}: {s['users']:,} users, {s['items']:,} items, "
        f"{s['interactions']:,} interactions"
        for s in log.steps
    )
    raise DataError(
        "interactions left after the filters", told, "lower the minimum rating or the k-core"
    )
