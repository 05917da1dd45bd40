"""From a user's files to a prepared data set: read, filter, split, join, write.

Ids become small integers early, so that 20 million interactions pass through here in well
under 4 GB; items' texts, pictures and feature matrices are joined by item id, never by place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalign.data import filters, pictures, splits
from modalign.data.dataset import SPLITS, Dataset
from modalign.data.interactions import Interactions
from modalign.data.modality import Modality
from modalign.data.raw import RawData, RawFeatures
from modalign.data.vocabulary import Vocabulary
from modalign.errors import ConfigError, DataError, UnknownName

Progress = Callable[[str, int, int], None]
"""Called before each stage with what it does, its number (from 1) and how many there are."""

STAGES = (
    "reading interactions",
    "filtering",
    "splitting",
    "joining items and users",
    "writing",
)


@dataclass
class Log:
    """Interactions on their way: codes instead of ids, and what the filters did.

    Attributes:
        user_ids, item_ids: ids in natural order; a code is a place in them.
        users, items: codes, int32, sorted by user, then item.
        weight, time, part: parallel arrays, or None.
        steps: what each filter left, for people.
    """

    user_ids: pl.Series
    item_ids: pl.Series
    users: np.ndarray
    items: np.ndarray
    weight: np.ndarray | None = None
    time: np.ndarray | None = None
    part: np.ndarray | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, mask: np.ndarray) -> None:
        """Leave only the interactions of a mask."""
        if mask.all():
            return
        for name in ("users", "items", "weight", "time", "part"):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, values[mask])

    def note(self, step: str) -> None:
        """Remember the counts after a step."""
        self.steps.append(
            {
                "step": step,
                "users": int(np.count_nonzero(np.bincount(self.users))),
                "items": int(np.count_nonzero(np.bincount(self.items))),
                "interactions": len(self.users),
            }
        )


def prepare(
    raw: RawData,
    out: str | Path | None = None,
    *,
    min_rating: float | None = None,
    k_core: int | tuple[int, int] = 0,
    duplicates: filters.Keep = "last",
    split: str | None = None,
    split_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    name: str | None = None,
    images: pictures.Placing = "copy",
    all_items: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Filter, split and join what a source has read, and write the prepared folder.

    Filters go in this order: minimum rating, duplicates, k-core. Users and items then stand in
    natural order (numbers by value, else texts by code point).

    Args:
        raw: what a source returned.
        out: folder to write, replaced as a whole once the new one is complete; None makes a
            data set in memory.
        min_rating: least weight of an interaction that counts.
        k_core: least number of interactions of every user and every item, repeated until
            nothing changes; a pair sets users and items apart; 0 leaves all.
        duplicates: which of several interactions of a pair stays, see
            `modalign.data.filters.without_duplicates`.
        split: one of `modalign.data.splits.KINDS`; left out it is "given" where the source
            brings a split, else "ratio".
        split_options: options of that split.
        seed: of the split.
        name: short name for people; the source's where it is left out.
        images: "copy" puts the pictures into the folder (as hard links where that works),
            "link" keeps their absolute paths.
        all_items: keep items of the item table that have no interaction; they have no training
            signal but can be recommended by their content.
        progress: called before each stage.

    Returns:
        The data set, read back from `out` where that is given.

    Raises:
        DataError: too little is left, or the source's parts do not fit together.
        ConfigError, UnknownName: an option is not what it should be.

    Example:
        >>> import polars as pl
        >>> from modalign.data.sources.table import read
        >>> pairs = [(u, i) for u in range(6) for i in range(5)]
        >>> data = prepare(read(pl.DataFrame(pairs, schema=["user", "item"], orient="row")))
        >>> data.n_users, data.n_items, len(data.train), len(data.valid), len(data.test)
        (6, 5, 18, 6, 6)
    """
    tell = progress or (lambda stage, step, steps: None)
    kind = _check_options(raw, split, k_core, images)
    target = _check_target(out)
    tell(STAGES[0], 1, len(STAGES))
    log = read_log(raw, with_split=kind == "given")
    tell(STAGES[1], 2, len(STAGES))
    remarks = [*raw.info.get("remarks", [])]
    remarks += apply_filters(log, min_rating, duplicates, k_core)
    tell(STAGES[2], 3, len(STAGES))
    labels = (
        _given(log, split_options)
        if kind == "given"
        else splits.split(kind, log.users, log.items, log.time, seed, split_options)
    )
    tell(STAGES[3], 4, len(STAGES))
    users, user_rows = _vocabulary(log.user_ids, log.users, "user", None)
    extra = raw.items["item_id"] if all_items and raw.items is not None else None
    items, item_rows = _vocabulary(log.item_ids, log.items, "item", extra)
    item_table, missing = pictures.existing(_join(items, raw.items, remarks))
    if missing:
        remarks.append(f"{missing} pictures are named by the item table but are not there")
    parts = _parts(labels, user_rows[log.users], item_rows[log.items], log.weight, log.time)
    modalities = {k: join_features(k, f, items, remarks) for k, f in raw.features.items()}
    source = {k: v for k, v in raw.info.items() if k not in ("remarks", "licence")}
    info: dict[str, Any] = {
        "source": source.pop("source", raw.name),
        "source_details": source,
        "licence": raw.info.get("licence"),
        "filters": log.steps,
        "split": {
            "kind": kind,
            "seed": None if kind in ("given", "time") else seed,
            "options": _split_options(kind, split_options),
            "counts": splits.counts(labels),
        },
        "remarks": remarks,
    }
    del log, labels, user_rows, item_rows
    dataset = Dataset(
        name=name or raw.name,
        users=users,
        items=items,
        **parts,
        modalities=modalities,
        user_table=_join(users, raw.users, remarks),
        item_table=item_table,
        info=info,
    )
    tell(STAGES[4], 5, len(STAGES))
    return dataset if target is None else _write(dataset, target, images)


# ------------------------------------------------------------------ checks


def _check_options(
    raw: RawData, split: str | None, k_core: int | tuple[int, int], images: str
) -> str:
    has_split = "split" in raw.interactions.collect_schema().names()
    kind = split or ("given" if has_split else "ratio")
    if kind not in splits.KINDS:
        raise UnknownName("split", kind, splits.KINDS)
    if kind == "given" and not has_split:
        raise DataError(
            "interactions that come with their split",
            f"{raw.name} without one",
            f"choose one of {', '.join(splits.SPLITTERS)}",
        )
    if min(_pair(k_core)) < 0:
        raise ConfigError("a k-core of 0 or more", repr(k_core), "give 0 to leave it out")
    if images not in ("copy", "link"):
        raise ConfigError("images as 'copy' or 'link'", repr(images), "choose one of those")
    return kind


def _pair(k_core: int | tuple[int, int]) -> tuple[int, int]:
    return (k_core, k_core) if isinstance(k_core, int) else (k_core[0], k_core[1])


def _check_target(out: str | Path | None) -> Path | None:
    """The folder to write; refused where it holds things that are no prepared data."""
    if out is None:
        return None
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise DataError("a folder to write to", f"{path}, which is a file", "choose another name")
    if path.is_dir() and any(path.iterdir()) and not (path / "dataset.json").is_file():
        some = ", ".join(sorted(p.name for p in path.iterdir())[:4])
        raise DataError(
            "a new folder, an empty one, or a data folder to replace",
            f"{path} with other things in it: {some}",
            "choose another folder",
        )
    return path


# ------------------------------------------------------------------ reading and filtering


def natural_order(ids: pl.Series) -> pl.Series:
    """Ids sorted: by value where all are whole numbers, else as texts by code point.

    Example:
        >>> natural_order(pl.Series(["10", "9", "1"])).to_list()
        ['1', '9', '10']
    """
    if len(ids) and bool(ids.str.contains(r"^\d{1,18}$").all()):
        by = pl.DataFrame({"id": ids, "value": ids.cast(pl.Int64)})
        return by.sort("value", "id")["id"]
    return ids.sort()


def read_log(raw: RawData, *, with_split: bool) -> Log:
    """Stream the interactions in, as codes of naturally ordered ids, sorted by user and item.

    Raises:
        DataError: there are none, or a part of the given split has an unknown name.
    """
    frame = raw.interactions
    names = frame.collect_schema().names()
    ids = {c: _unique(frame, c) for c in ("user_id", "item_id")}
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
    # One column after the other: the frame and the arrays never stand twice side by side.
    table = frame.select(**columns).collect(engine="streaming")
    arrays: dict[str, np.ndarray] = {}
    for column in columns:
        series = table.drop_in_place(column)
        if series.null_count():
            continue
        arrays[column] = series.to_numpy()
    order = filters.sorting(filters.pair_keys(arrays["users"], arrays["items"]))
    if order is not None:
        order = order.astype(np.int32) if len(order) < 2**31 else order
        for column in list(arrays):
            arrays[column] = arrays[column][order]
    log = Log(ids["user_id"], ids["item_id"], **arrays)
    log.note("as read")
    return log


def _unique(frame: pl.LazyFrame, column: str) -> pl.Series:
    found = frame.select(pl.col(column).cast(pl.String).unique()).collect(engine="streaming")
    return natural_order(found[column].drop_nulls())


def _check_parts(frame: pl.LazyFrame) -> None:
    found = frame.select(pl.col("split").cast(pl.String).unique()).collect(engine="streaming")
    unknown = [str(one) for one in found["split"] if one not in SPLITS]
    if unknown:
        raise DataError(
            f"parts of a split called {', '.join(SPLITS[:3])}",
            ", ".join(map(repr, sorted(unknown)[:5])),
            "rename them",
        )


def apply_filters(
    log: Log,
    min_rating: float | None,
    duplicates: filters.Keep,
    k_core: int | tuple[int, int],
) -> list[str]:
    """Minimum rating, duplicates, k-core; counts after each go into the log's steps.

    Returns:
        Remarks worth telling.

    Raises:
        DataError: nothing is left; the message tells what each step left.
    """
    remarks = []
    if min_rating is not None:
        log.keep(filters.minimum_rating(log.weight, min_rating))
        log.note(f"rating at least {min_rating:g}")
        _need_some(log)
    before = len(log.users)
    if log.part is None:
        mask = filters.without_duplicates(log.users, log.items, log.weight, log.time, duplicates)
        log.keep(mask)
    else:
        remarks += _given_duplicates(log, duplicates)
    if len(log.users) < before:
        log.note(f"one interaction of each pair ({duplicates})")
    k_users, k_items = _pair(k_core)
    if max(k_users, k_items) > 1:
        log.keep(filters.k_core(log.users, log.items, k_users, k_items))
        both = f"{k_users}-core" if k_users == k_items else f"core of {k_users} and {k_items}"
        log.note(both)
        _need_some(log)
    return remarks


def _given_duplicates(log: Log, duplicates: filters.Keep) -> list[str]:
    """Duplicates within each part; a pair in two parts stays, for the split is the giver's."""
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
        return [f"{several} pairs of user and item stand in more than one part of the given split"]
    return []


def _need_some(log: Log) -> None:
    if len(log.users):
        return
    told = "; ".join(
        f"{s['step']}: {s['users']:,} users, {s['items']:,} items, "
        f"{s['interactions']:,} interactions"
        for s in log.steps
    )
    raise DataError(
        "interactions left after the filters", told, "ask for less: a lower rating, a smaller k"
    )


def _given(log: Log, options: Mapping[str, Any] | None) -> np.ndarray:
    if options:
        raise ConfigError(
            "no options for a given split", ", ".join(options), "leave the split's options out"
        )
    assert log.part is not None
    found = splits.counts(log.part)
    empty = [name for name in ("train", "valid", "test") if name not in found]
    if empty:
        raise DataError(
            "a given split with train, valid and test",
            f"nothing for {' and '.join(empty)}, {found}",
            "complete the split, or let modalign split: split='ratio'",
        )
    return log.part


def _split_options(kind: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    defaults = {} if kind == "given" else splits.SPLITTERS[kind].options()
    return {**defaults, **(options or {})}


# ------------------------------------------------------------------ rows, tables, features


def _vocabulary(
    ids: pl.Series, codes: np.ndarray, kind: str, extra: pl.Series | None
) -> tuple[Vocabulary, np.ndarray]:
    """The ids still in use, in order, and the row of each code (-1 for those not in use)."""
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
    """Row of each id, int64, -1 where the vocabulary does not have it."""
    rows = pl.DataFrame({"id": vocabulary.series}).with_row_index("row")
    wanted = pl.DataFrame({"id": ids.cast(pl.String)})
    joined = wanted.join(rows, on="id", how="left", maintain_order="left")
    return joined["row"].cast(pl.Int64).fill_null(-1).to_numpy()


def _parts(
    labels: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    weight: np.ndarray | None,
    time: np.ndarray | None,
) -> dict[str, Interactions]:
    parts = {}
    for code, name in enumerate(SPLITS):
        rows = np.flatnonzero(labels == code)
        parts[name] = Interactions(
            users[rows].astype(np.int64),
            items[rows].astype(np.int64),
            None if weight is None or not len(rows) else weight[rows],
            None if time is None or not len(rows) else time[rows],
        )
    return parts


def _join(vocabulary: Vocabulary, table: pl.DataFrame | None, remarks: list[str]) -> pl.DataFrame:
    """The table's rows in vocabulary order; ids it does not know get nulls."""
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
            f"{len(table) - known} {vocabulary.kind}s of the table have no interaction left "
            "and are not in the data set"
        )
    return joined


def join_features(name: str, raw: RawFeatures, items: Vocabulary, remarks: list[str]) -> Modality:
    """A source's feature matrix as a modality of this data set: joined by item id.

    Items without a row are missing; rows of other items are left out and remarked.

    Raises:
        DataError: ids and rows differ in number, an id stands twice, a value is not finite, or
            no id is one of this data set's items.
    """
    if raw.features.ndim != 2 or len(raw.ids) != len(raw.features):
        raise DataError(
            f"one row of numbers per item id in modality {name!r}",
            f"{len(raw.ids)} ids and an array of shape {raw.features.shape}",
            "give a matrix with a row for each id",
        )
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
        raise DataError(
            f"finite numbers in modality {name!r}",
            f"NaN or infinite values of {len(bad)} items, the first is {ids[int(source[bad[0]])]!r}",
            "mend those rows, or leave those items out of the features",
        )
    features = np.zeros((len(items), values.shape[1]), np.float32)
    features[rows[source]] = values
    present = np.zeros(len(items), bool)
    present[rows[source]] = True
    return Modality(name, features, present, "item", raw.provenance)


# ------------------------------------------------------------------ writing


def _write(dataset: Dataset, out: Path, images: pictures.Placing) -> Dataset:
    with replace_folder(out) as aside:
        if images == "copy":
            placed = pictures.place(dataset.item_table, aside)
            dataset = replace(dataset, item_table=placed)
        dataset.save(aside)
        del dataset
    return Dataset.load(out)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; on success it takes the place of all of `folder`.

    Where the block raises, `folder` is as it was. Between the two renames at the end lies one
    moment in which the old folder stands under another name beside it; what a killed process
    left there is put back by the next import.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.import")
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(aside, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
