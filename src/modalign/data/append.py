"""Adding recorded feedback or new orders to a prepared folder, for the next training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

from modalign.core.files import replace_folder
from modalign.core.modality import Modality
from modalign.core.settings import DEFAULT_SEED
from modalign.data import item_files, joining, splits
from modalign.data.dataset import SPLITS, Dataset
from modalign.data.frames import to_frame
from modalign.data.prepare import BAD_ROWS, check_target, prepare
from modalign.data.raw import RawData, RawFeatures
from modalign.data.sources._columns import ROLES, RowRules, TypedRows, find_columns, typed
from modalign.data.sources._text_table import Role, TextFormat, WrongWidth, table_of
from modalign.errors import ConfigError, DataError

KINDS = ("click", "like", "cart", "buy")
"""Kinds of events that show that a user wanted an item."""
AS_IT_IS = RowRules()
"""Times of any known form, no bad row, no returns."""
KIND = "kind"
"""The column that says what an event is."""
_KEYS = ("user_id", "item_id")


def append(
    folder: str | Path,
    feedback: str | Path,
    out: str | Path,
    *,
    kinds: Sequence[str] = KINDS,
    items: pl.DataFrame | None = None,
    columns: Mapping[Role, str | None] = MappingProxyType({}),
    rules: RowRules = AS_IT_IS,
    split: str | None = None,
    seed: int = DEFAULT_SEED,
    overwrite: bool = False,
) -> Dataset:
    """A prepared folder with the rows of another file as further interactions.

    If the split is kept, valid and test do not change and every new pair of user and item goes to
    train, so that a new model is measured on the test part of the old one. Events that would
    invalidate that test are dropped and noted: those of held-out users (unseen-users split) and of
    held-out items (cold-items split). A split by time cannot be kept, as the new events are later
    than its test part.

    Args:
        folder: prepared folder.
        feedback: a table like that of the import (CSV, JSON lines, Parquet, ...), or the Parquet
            file with user_id, item_id, kind and time that the service exports.
        out: folder to write; `folder` itself is replaced once the new one is complete.
        kinds: kinds of events that become interactions, where the file has a column `kind`; a pair
            counts once, at its latest time.
        items: table of new items (item_id, title, ...); rows of known items are ignored.
        columns: names of the columns of the file by role (user, item, weight, time); those that the
            import has used come next, and then common names.
        rules: how the rows are read: times, bad rows, returns.
        split: name of the split for splitting all interactions again; None keeps the split.
        seed: seed of a new split.
        overwrite: replace another prepared folder at `out`.

    Returns:
        The new data set; the old one with a remark if the file has nothing new. New items lack all
        features until they are encoded. If the data have weights and the file has none, new
        interactions get the median of the old weights.

    Raises:
        DataError: no such folder or file, a row that cannot be read, no times where the data have
            times, or `out` holds something else.
        ConfigError: the folder's split cannot be kept.
        UnknownName: there is no such split.
    """
    split = None if split is None else splits.canonical(split, given=False)
    old = Dataset.load(folder)
    kind = splits.canonical(str(dict(old.info.get("split", {})).get("kind", splits.GIVEN)))
    if split is None and kind == "time":
        got = f"{folder} with a split by time, and events that are later than its test part"
        raise ConfigError("a new split, as the old one is by time", got, "add --split time")
    known = to_frame(old)
    events, bad, remarks = _events(Path(feedback), kinds, old, columns, rules)
    if bad is not None:
        remarks.append(f"the rows that were left out are in {Path(out) / BAD_ROWS}")
    total = len(events)
    if split is None:
        events, left_out = _without_held_out(events, old, known, kind)
        remarks += left_out
    fresh = events.join(known.select(_KEYS).unique(), on=_KEYS, how="anti")
    if fresh.is_empty():
        remarks.append(
            f"{Path(feedback).name} has nothing new: {total} pairs, all of them known or held out"
        )
    if fresh.is_empty() and split is None and items is None:
        notes = [*old.info.get("remarks", []), *remarks]
        table = item_files.under(old.item_table, Path(folder))
        made = replace(old, info={**old.info, "remarks": notes}, item_table=table)
        return _write(made, old, Path(out), overwrite, bad)
    raw = _raw(old, known, fresh, items, split, remarks)
    texts = old.info.get("text_columns") or None
    made = prepare(
        raw, split=split, seed=seed, all_items=True, allow_unmatched=True, text_columns=texts
    )
    return _write(_told(made, old, kind, split, fresh), old, Path(out), overwrite, bad)


def _events(
    path: Path,
    kinds: Sequence[str],
    old: Dataset,
    given: Mapping[Role, str | None],
    rules: RowRules,
) -> tuple[pl.DataFrame, pl.DataFrame | None, list[str]]:
    """Distinct pairs of the wanted kinds, each with its latest time; bad rows; remarks."""
    try:
        rows, more = _rows(path, old, given, rules, TextFormat())
    except WrongWidth:
        if not rules.skip_bad:
            raise
        rows, more = _rows(path, old, given, rules, TextFormat(skip_odd=True))
    remarks = rows.remarks
    frame = rows.frame.collect()
    if more:
        wanted = frame.filter(pl.col(KIND).cast(pl.String).is_in(list(kinds))).drop(KIND)
        if len(wanted) < len(frame):
            remarks.append(f"{len(frame) - len(wanted)} events of other kinds were dropped")
        frame = wanted
    if "time" in frame.columns:
        frame = frame.sort("time", maintain_order=True)
    pairs = frame.unique(_KEYS, keep="last", maintain_order=True)
    return pairs, rows.bad, remarks


def _rows(
    path: Path,
    old: Dataset,
    given: Mapping[Role, str | None],
    rules: RowRules,
    text: TextFormat,
) -> tuple[TypedRows, Sequence[str]]:
    """The rows of the file, and the column of kinds, if it has one."""
    table = table_of(path, text)
    used = dict(old.info.get("columns", {}))
    asked = {
        role: given.get(role) or (used.get(role) if used.get(role) in table.names else None)
        for role in ROLES
    }
    columns = find_columns(table, asked)
    timed = "time" in to_frame(old).columns
    if timed and columns.time is None:
        raise DataError(
            f"a column of times in {path}, as the data have times",
            table.shown(),
            "name it with --time NAME",
        )
    more = (KIND,) if KIND in table.names and KIND not in columns.used().values() else ()
    return typed(table, columns, rules, also=more, may_be_empty=True), more


def _without_held_out(
    events: pl.DataFrame, old: Dataset, known: pl.DataFrame, kind: str
) -> tuple[pl.DataFrame, list[str]]:
    """The events without those of held-out users or held-out items."""
    if kind == "unseen-users":
        held = pl.DataFrame({"user_id": old.users.series.filter(pl.Series(old.history.held_out))})
    elif kind == "cold-items":
        held = known.filter(pl.col("split") != "train").select("item_id").unique()
    else:
        return events, []
    column = held.columns[0]
    kept = events.join(held, on=column, how="anti")
    lost = len(events) - len(kept)
    who = "users" if column == "user_id" else "items"
    return kept, [f"{lost} pairs of held-out {who} were dropped"] if lost else []


def _raw(
    old: Dataset,
    known: pl.DataFrame,
    fresh: pl.DataFrame,
    items: pl.DataFrame | None,
    split: str | None,
    remarks: list[str],
) -> RawData:
    new = fresh.with_columns(split=pl.lit("train"))
    new = new.drop(one for one in ("time", "weight") if one in new and one not in known)
    if "weight" in known.columns and "weight" not in new.columns:
        middle = float(np.median(known["weight"].drop_nulls().to_numpy()))
        new = new.with_columns(weight=pl.lit(middle, pl.Float32))
        remarks = [*remarks, f"new interactions have weight {middle:g}, the median of the old ones"]
    both = pl.concat([known, new], how="diagonal_relaxed")
    return RawData(
        name=old.name,
        interactions=(both if split is None else both.drop("split")).lazy(),
        items=_items(old, items),
        users=old.user_table if "user_id" in old.user_table.columns else None,
        features={
            name: RawFeatures(old.items.series, one.features, one.present, one.provenance)
            for name, one in old.modalities.items()
            if one.entity == "item"
        },
        info={**old.info, "remarks": [*old.info.get("remarks", []), *remarks]},
    )


def _items(old: Dataset, items: pl.DataFrame | None) -> pl.DataFrame:
    table = old.item_table
    if old.folder is not None:
        table = item_files.under(table, old.folder)
    if "item_id" not in table.columns:
        table = pl.DataFrame({"item_id": old.items.series})
    if items is None:
        return table
    new = _as_before(items.join(table, on="item_id", how="anti"), table)
    return pl.concat([table, new], how="diagonal_relaxed")


def _as_before(new: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """New items with the types that the columns of the known ones have."""
    changed = []
    for name, kind in new.schema.items():
        before = table.schema.get(name, kind)
        if before == kind or (before.is_numeric() and kind.is_numeric()):
            continue
        try:
            cast = new[name].cast(before, strict=False)
        except pl.exceptions.PolarsError:
            cast = pl.repeat(None, len(new), dtype=before, eager=True)
        lost = (cast.is_null() & new[name].is_not_null()).arg_true()
        if len(lost):
            row = int(lost[0])
            raise DataError(
                f"values of type {before} in column {name!r} of the new items, as in the data "
                "folder",
                f"{new[name][row]!r} of item {new['item_id'][row]!r}",
                "correct that value, or import all data again",
            )
        changed.append(cast.alias(name))
    return new.with_columns(changed)


def _told(
    made: Dataset, old: Dataset, kind: str, split: str | None, fresh: pl.DataFrame
) -> Dataset:
    """Provenance: the kind of the kept split, and what was appended and when."""
    info = dict(made.info)
    if split is None:
        parts = np.concatenate([np.full(len(made.part(n)), c) for c, n in enumerate(SPLITS)])
        kept = {**dict(old.info.get("split", {})), "kind": kind}
        info["split"] = {**kept, "counts": splits.counts(parts)}
    info["filters"] = [*old.info.get("filters", []), *info.get("filters", [])]
    info["appended"] = [
        *old.info.get("appended", []),
        {
            "interactions": len(fresh),
            "users": sum(one not in old.users for one in fresh["user_id"].unique()),
            "items": sum(one not in old.items for one in fresh["item_id"].unique()),
            "latest": int(fresh["time"].max() or 0) if "time" in fresh else 0,  # type: ignore[arg-type]
        },
    ]
    return replace(made, info=info, modalities={**made.modalities, **_of_users(made, old)})


def _of_users(made: Dataset, old: Dataset) -> dict[str, Modality]:
    """Modalities of users by their new rows; new users lack them."""
    found = {}
    for name, one in old.modalities.items():
        if one.entity == "user":
            raw = RawFeatures(old.users.series, one.features, one.present, one.provenance)
            found[name] = replace(joining.join_features(name, raw, made.users, []), entity="user")
    return found


def _write(
    dataset: Dataset, old: Dataset, out: Path, overwrite: bool, bad: pl.DataFrame | None
) -> Dataset:
    own = old.folder is not None and out.resolve() == old.folder.resolve()
    if not own:
        check_target(out, overwrite)
    with replace_folder(out) as aside:
        placed = item_files.place(dataset.item_table, aside)
        saved = replace(dataset, item_table=placed).save(aside)
        if bad is not None:
            bad.write_csv(aside / BAD_ROWS)
    return replace(saved, folder=out)
