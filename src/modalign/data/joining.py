"""Tables and features of items and users, joined to rows by id, never by position."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from modalign.core.modality import Modality
from modalign.data.interaction_log import natural_order
from modalign.data.raw import RawFeatures
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError


def used_ids(
    ids: pl.Series, codes: np.ndarray, kind: str, extra: pl.Series | None
) -> tuple[Vocabulary, np.ndarray]:
    """The ids that are used, in order, and the row of each code (-1 if it is not used).

    Args:
        ids: id of each code.
        codes: codes of the interactions that are kept.
        kind: "user" or "item".
        extra: further ids to include, or None.
    """
    used = np.bincount(codes, minlength=len(ids)) > 0
    kept = ids.filter(pl.Series(used))
    if extra is not None:
        both = pl.concat([kept.rename("id"), extra.rename("id")]).unique()
        vocabulary = Vocabulary(natural_order(both), kind)
        rows = np.full(len(ids), -1, np.int32)
        rows[used] = places(kept, vocabulary)
        return vocabulary, rows
    rows = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    return Vocabulary(kept, kind), rows


def places(ids: pl.Series, vocabulary: Vocabulary) -> np.ndarray:
    """Row of each id, int64, -1 if the vocabulary does not have it."""
    rows = pl.DataFrame({"id": vocabulary.series}).with_row_index("row")
    wanted = pl.DataFrame({"id": ids.cast(pl.String)})
    joined = wanted.join(rows, on="id", how="left", maintain_order="left")
    return joined["row"].cast(pl.Int64).fill_null(-1).to_numpy()


def join_table(
    vocabulary: Vocabulary, table: pl.DataFrame | None, remarks: list[str]
) -> pl.DataFrame:
    """The rows of a table in vocabulary order; ids without a row get nulls.

    Args:
        vocabulary: ids of the rows.
        table: columns by id, or None.
        remarks: gets notes on ids without a row, and rows without an id.

    Raises:
        DataError: an id has several rows.
    """
    key = f"{vocabulary.kind}_id"
    order = pl.DataFrame({key: vocabulary.series})
    if table is None:
        return order
    table = table.with_columns(pl.col(key).cast(pl.String))
    if table[key].n_unique() < len(table):
        twice = table[key].filter(table[key].is_duplicated())[0]
        raise DataError(
            f"each {vocabulary.kind} once in its table", f"{twice!r} twice", "keep one row for each"
        )
    joined = order.join(table, on=key, how="left", maintain_order="left")
    known = order.join(table.select(key), on=key, how="semi").height
    if known < len(order):
        remarks.append(
            f"{len(order) - known} of {len(order)} {vocabulary.kind}s are not in their table"
        )
    if len(table) > known:
        remarks.append(
            f"{len(table) - known} {vocabulary.kind}s of the table have no interactions and were "
            "dropped"
        )
    return joined


def check_matched(vocabulary: Vocabulary, table: pl.DataFrame | None) -> None:
    """Refuse a table of items that lacks more than half of the items.

    A table of files alone may lack many; it must have one.

    Args:
        vocabulary: ids of the interactions.
        table: the table, or None.

    Raises:
        DataError: examples of the ids of both, and how many more would match if they were written
            in the same way.
    """
    if table is None or not len(vocabulary):
        return
    key = f"{vocabulary.kind}_id"
    mine = pl.DataFrame({key: vocabulary.series.cast(pl.String)})
    theirs = table.select(pl.col(key).cast(pl.String)).drop_nulls()
    known = mine.join(theirs, on=key, how="semi").height
    files_alone = set(table.columns) <= {key, "image", "audio", "video"}
    if (known and files_alone) or 2 * known >= len(mine):
        return
    lone = mine.join(theirs, on=key, how="anti")
    better = []
    for what, same in AS_WRITTEN.items():
        made = lone.with_columns(same(pl.col(key)))
        more = made.join(theirs.with_columns(same(pl.col(key))), on=key, how="semi").height
        if more:
            better.append(f"{more:,} more would match if {what}")
    some = [", ".join(repr(one) for one in side[key].head(3)) for side in (lone, theirs)]
    got = f"{known:,}; the interactions have {some[0]}, the table has {some[1]}"
    raise DataError(
        f"a row in the items' table for at least half of the {len(mine):,} {vocabulary.kind}s",
        "; ".join([got, *better]),
        "write the ids in the same way in both, or accept this with --allow-unmatched",
    )


AS_WRITTEN: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "case were ignored": lambda one: one.str.to_lowercase(),
    "zeros were padded": lambda one: one.str.strip_chars_start("0"),
    "'.0' were dropped": lambda one: one.str.replace(r"\.0+$", ""),
    "blanks and signs were ignored": lambda one: one.str.replace_all(r"[\s_./-]", ""),
}
"""Ways in which two programs write one id differently, each with what makes them equal."""


def join_features(name: str, raw: RawFeatures, items: Vocabulary, remarks: list[str]) -> Modality:
    """The feature matrix of a source as a modality of this data set, joined by item id.

    Items without a row are missing; rows of other items are dropped and noted.

    Args:
        name: name of the modality.
        raw: the matrix with its ids.
        items: ids of the rows of the data set.
        remarks: gets notes on dropped rows.

    Raises:
        DataError: ids and rows differ in number, an id has several rows, a value is not finite, or
            no id is an item of this data set.
    """
    if raw.features.ndim != 2 or len(raw.ids) != len(raw.features):
        got = f"{len(raw.ids)} ids and an array of shape {raw.features.shape}"
        fix = "give a matrix with a row for each id"
        raise DataError(f"one row of numbers per item id in modality {name!r}", got, fix)
    ids = raw.ids.cast(pl.String)
    if ids.n_unique() < len(ids):
        twice = ids.filter(ids.is_duplicated())[0]
        raise DataError(
            f"each item once in modality {name!r}", f"{twice!r} twice", "keep one row per item"
        )
    rows = places(ids, items)
    source = np.flatnonzero(rows >= 0)
    if not len(source):
        raise DataError(
            f"features of this data set's {len(items)} items in modality {name!r}",
            f"features of {len(ids)} other items, such as {ids[0]!r}" if len(ids) else "no rows",
            "give the features of these items, with the ids of the interactions",
        )
    if len(source) < len(ids):
        remarks.append(f"{len(ids) - len(source)} rows of modality {name} are of other items")
    if raw.present is not None:
        source = source[raw.present[source]]
    values = np.asarray(raw.features[source], np.float32)
    bad = np.flatnonzero(~np.isfinite(values.sum(axis=1, dtype=np.float64)))
    if len(bad):
        got = f"NaN or infinite values of {len(bad)} items, the first {ids[int(source[bad[0]])]!r}"
        fix = "correct those rows, or remove those items from the features"
        raise DataError(f"finite numbers in modality {name!r}", got, fix)
    features = np.zeros((len(items), values.shape[1]), np.float32)
    features[rows[source]] = values
    present = np.zeros(len(items), bool)
    present[rows[source]] = True
    return Modality(name, features, present, "item", raw.provenance)
