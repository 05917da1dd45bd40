"""From a source's files to a prepared data set: read, filter, split, join, write.

Ids become small integers early, so that importing 20 million interactions needs well under 4 GB.
Texts, pictures and feature matrices of items are joined by item id, never by position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import BeforeValidator, Field

from modalign.core import settings
from modalign.core.files import replace_folder
from modalign.core.interfaces import Config
from modalign.data import filters, item_files, item_text, joining, splits
from modalign.data.dataset import SPLITS, Dataset
from modalign.data.interaction_log import InteractionLog, apply_filters, read_log
from modalign.data.interactions import Interactions
from modalign.data.raw import RawData
from modalign.data.vocabulary import Vocabulary
from modalign.errors import ConfigError, DataError

Progress = Callable[[str], None]
"""Called before each stage with its name and number, such as "filtering (2 of 5)"."""

BAD_ROWS = "bad_rows.csv"
"""File of a prepared folder with the rows that were left out because they could not be read."""
MUCH = 100
"""An account with this number of times the median of interactions is mentioned."""
STAGES = ("reading interactions", "filtering", "splitting", "joining items and users", "writing")
_Least = Annotated[int, Field(ge=0)]


def _names(value: Any) -> Any:
    return tuple(one.strip() for one in value.split(",")) if isinstance(value, str) else value


class PrepareOptions(Config):
    """Options of `prepare`, `modalign.load` and `modalign data import`.

    Filters are applied in this order: minimum rating, duplicates, k-core.
    """

    min_rating: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Minimum weight of an interaction that is kept; None keeps all."""
    k_core: Annotated[
        tuple[_Least, _Least], BeforeValidator(lambda k: (k, k) if isinstance(k, int) else k)
    ] = (0, 0)
    """Minimum number of interactions per user and per item, applied until nothing changes: one
    number for both, or a pair; 0 keeps all."""
    duplicates: filters.Keep = "last"
    """Which of several interactions of a user with an item is kept: last, first, max."""
    split: str | None = None
    """A name of `modalign.data.splits.SPLITTERS` or "given"; None keeps the split of the source if
    it has one, and is "ratio" otherwise."""
    split_options: Mapping[str, Any] | None = None
    """Options of that split."""
    seed: Annotated[int, Field(ge=0)] = settings.DEFAULT_SEED
    """Seed of the split."""
    name: str | None = None
    """Short name of the data set; None takes that of the source."""
    images: item_files.Placing = "copy"
    """"copy" stores the pictures, sounds and videos in the folder, "link" stores their absolute
    paths."""
    text_columns: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = None
    """Columns of the item table that make the text of an item, in their order; None takes those
    with known names, such as title, category, brand and description."""
    all_items: bool = False
    """Keep items of the item table without interactions. They have no training signal but can be
    recommended by their content."""
    overwrite: bool = False
    """Replace a prepared folder at `out`."""
    allow_unmatched: bool = False
    """Accept a table of items that lacks more than half of the items."""


def prepare(
    raw: RawData, out: str | Path | None = None, *, progress: Progress | None = None, **options: Any
) -> Dataset:
    """Filter, split and join what a source has read, and write the prepared folder.

    Users and items are stored in natural order: numbers by value, otherwise text by code point.

    Args:
        raw: what a source returned.
        out: folder to write; None makes a data set in memory. With `overwrite` a prepared folder
            that is there is replaced as a whole once the new one is complete.
        progress: called before each stage.
        options: fields of `PrepareOptions`: min_rating, k_core, split, seed, ...

    Returns:
        The data set, read back from `out` if given.

    Raises:
        DataError: too little is left, or the parts of the source do not fit together.
        ConfigError: an option is unknown or out of its bounds.
        UnknownName: there is no such split.

    Example:
        >>> import polars as pl
        >>> from modalign.data.sources.flat_table import read
        >>> pairs = [(u, i) for u in range(6) for i in range(5)]
        >>> data = prepare(read(pl.DataFrame(pairs, schema=["user", "item"], orient="row")))
        >>> data.n_users, data.n_items, len(data.train), len(data.valid), len(data.test)
        (6, 5, 18, 6, 6)
    """

    def tell(stage: int) -> None:
        if progress is not None:
            progress(f"{STAGES[stage]} ({stage + 1} of {len(STAGES)})")

    chosen = settings.build(PrepareOptions, options, "data preparation")
    kind, split_options = _split(raw, chosen)
    _need_times(raw, kind)
    target = None if out is None else Path(out)
    if target is not None:
        check_target(target, chosen.overwrite)
    tell(0)
    log = read_log(raw, with_split=kind == splits.GIVEN)
    tell(1)
    told = raw.info.get("remarks", [])
    remarks = [told] if isinstance(told, str) else [*told]
    apply_filters(log, chosen.min_rating, chosen.duplicates, chosen.k_core)
    remarks += log.remarks
    remarks += _heavy_accounts(log)
    if raw.bad is not None and target is not None:
        remarks.append(f"the rows that were left out are in {target / BAD_ROWS}")
    tell(2)
    labels = (
        _given(log)
        if kind == splits.GIVEN
        else splits.split(kind, log.users, log.items, log.time, chosen.seed, split_options)
    )
    seed = None if kind in (splits.GIVEN, "time") else chosen.seed
    described = {"kind": kind, "seed": seed, "options": split_options}
    tell(3)
    dataset = _joined(raw, log, labels, chosen, remarks)
    info = {**dataset.info, "split": {**described, "counts": splits.counts(labels)}}
    dataset = replace(dataset, info=info)
    del log, labels
    tell(4)
    return dataset if target is None else _write(dataset, target, chosen.images, raw.bad)


def _joined(
    raw: RawData,
    log: InteractionLog,
    labels: np.ndarray,
    options: PrepareOptions,
    remarks: list[str],
) -> Dataset:
    """The data set in memory: ids, item and user tables and features joined to the rows."""
    users, user_rows = joining.used_ids(log.user_ids, log.users, "user", None)
    extra = raw.items["item_id"] if options.all_items and raw.items is not None else None
    items, item_rows = joining.used_ids(log.item_ids, log.items, "item", extra)
    if not options.allow_unmatched:
        joining.check_matched(items, raw.items)
    item_table, refused = item_files.existing(joining.join_table(items, raw.items, remarks))
    remarks += refused + _unused_files(raw.items, items)
    item_table = item_text.without_html(item_table, remarks)
    item_table, text_columns = item_text.choose(item_table, options.text_columns)
    parts = _parts(labels, user_rows[log.users], item_rows[log.items], log.weight, log.time)
    modalities = {k: joining.join_features(k, f, items, remarks) for k, f in raw.features.items()}
    user_table = joining.join_table(users, raw.users, remarks)
    info = {
        **raw.info,
        "source": raw.info.get("source", raw.info.get("kind", raw.name)),
        "licence": raw.info.get("licence"),
        "filters": log.steps,
        "split": {},
        "text_columns": list(text_columns),
        "remarks": remarks,
    }
    return Dataset(
        name=options.name or raw.name,
        users=users,
        items=items,
        **parts,
        modalities=modalities,
        user_table=user_table,
        item_table=item_table,
        info=info,
    )


def _unused_files(table: pl.DataFrame | None, items: Vocabulary) -> list[str]:
    """Notes on files that belong to no item of the data set."""
    remarks = []
    for kind in item_files.KINDS:
        if table is not None and kind in table.columns:
            with_file = table.filter(pl.col(kind).is_not_null())["item_id"].cast(pl.String)
            others = with_file.filter(~with_file.is_in(items.series.implode()))
            if len(others):
                remarks.append(
                    f"{len(others)} of the {item_files.WORDS[kind]} not taken: of no item with "
                    f"interactions ({', '.join(others.head(3))}{', ...' * (len(others) > 3)})"
                )
    return remarks


def _split(raw: RawData, options: PrepareOptions) -> tuple[str, dict[str, Any]]:
    """The split's name and all its options."""
    has_split = "split" in raw.interactions.collect_schema().names()
    kind = options.split or (splits.GIVEN if has_split else "ratio")
    kind = splits.canonical(kind)
    if kind != splits.GIVEN:
        return kind, splits.options_of(kind, options.split_options)
    if not has_split:
        fix = f"choose one of {', '.join(splits.SPLITTERS)}"
        raise DataError("interactions that come with their split", f"{raw.name} without one", fix)
    if options.split_options:
        got = ", ".join(options.split_options)
        raise ConfigError("no options for a given split", got, "omit the options of the split")
    return kind, {}


def _heavy_accounts(log: InteractionLog) -> list[str]:
    """A note on users with far more interactions than others, such as a robot or a test account."""
    counts = np.bincount(log.users, minlength=len(log.user_ids))
    there = counts[counts > 0]
    if not len(there):
        return []
    middle = float(np.median(there))
    heavy = np.flatnonzero(counts >= MUCH * middle)
    if not len(heavy):
        return []
    most = int(heavy[np.argmax(counts[heavy])])
    which = "1 user has" if len(heavy) == 1 else f"{len(heavy):,} users have"
    return [
        f"{which} {MUCH} times the median of {middle:g} interactions or more: "
        f"{log.user_ids[most]!r} has {int(counts[most]):,}; is it a robot or a test account?"
    ]


def _need_times(raw: RawData, kind: str) -> None:
    """Refuse to order interactions by times that are not there."""
    if kind not in ("leave-one-out", "time"):
        return
    if "time" in raw.interactions.collect_schema().names():
        return
    like, others = raw.info.get("like_times"), raw.info.get("not_used")
    got = f"{raw.name} without one"
    if like:
        got += f"; {', '.join(like)} look like times"
    elif others:
        got += f"; its other columns are {', '.join(others[:12])}"
    fix = "name the column with --time, or choose another split, such as --split ratio"
    raise DataError(f"a column of times, by which the split {kind} orders interactions", got, fix)


def check_target(out: Path, overwrite: bool) -> None:
    """Check that a data folder may be written.

    Args:
        out: the folder.
        overwrite: replace a prepared folder that is there.

    Raises:
        DataError: it holds other files, or a prepared data set that is not to be replaced.
    """
    if out.exists() and not out.is_dir():
        raise DataError("a folder to write to", f"{out}, which is a file", "choose another name")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / "dataset.json").is_file():
        some = ", ".join(sorted(p.name for p in out.iterdir())[:4])
        got = f"{out}, which holds other files: {some}"
        fix = "choose another folder"
        raise DataError("a new folder, an empty one, or a data folder to replace", got, fix)
    if not overwrite:
        got = f"{out}, which holds a prepared data set"
        fix = "choose another folder, or replace it with --overwrite"
        raise DataError("a new or an empty folder", got, fix)


def _given(log: InteractionLog) -> np.ndarray:
    assert log.part is not None
    found = splits.counts(log.part)
    empty = [name for name in ("train", "valid", "test") if name not in found]
    if empty:
        got = f"nothing for {' and '.join(empty)}, {found}"
        fix = "complete the split, or let modalign split: split='ratio'"
        raise DataError("a given split with train, valid and test", got, fix)
    return log.part


def _parts(
    labels: np.ndarray,
    users: np.ndarray,
    items: np.ndarray,
    weight: np.ndarray | None,
    time: np.ndarray | None,
) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for code, name in enumerate(SPLITS):
        rows = np.flatnonzero(labels == code)
        parts[name] = Interactions(
            users[rows].astype(np.int64),
            items[rows].astype(np.int64),
            None if weight is None or not len(rows) else weight[rows],
            None if time is None or not len(rows) else time[rows],
        )
    return parts


def _write(
    dataset: Dataset, out: Path, images: item_files.Placing, bad: pl.DataFrame | None
) -> Dataset:
    with replace_folder(out) as aside:
        if bad is not None:
            bad.write_csv(aside / BAD_ROWS)
        if images == "copy":
            placed = item_files.place(dataset.item_table, aside)
            dataset = replace(dataset, item_table=placed)
        saved = dataset.save(aside)
        del dataset
    return replace(saved, folder=out)
