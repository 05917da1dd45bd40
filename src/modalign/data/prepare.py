"""From a user's files to a prepared data set: read, filter, split, join, write.

Ids become small integers early, so that 20 million interactions pass through here in well
under 4 GB; items' texts, pictures and feature matrices are joined by item id, never by place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modalign.data import filters, joining, pictures, splits
from modalign.data.dataset import SPLITS, Dataset
from modalign.data.interactions import Interactions
from modalign.data.log import Log, apply_filters, core_of, read_log
from modalign.data.raw import RawData
from modalign.errors import ConfigError, DataError, UnknownName

Progress = Callable[[str], None]
"""Called before each stage with its name and number, such as "filtering (2 of 5)"."""

STAGES = (
    "reading interactions",
    "filtering",
    "splitting",
    "joining items and users",
    "writing",
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

    def tell(stage: int) -> None:
        if progress is not None:
            progress(f"{STAGES[stage]} ({stage + 1} of {len(STAGES)})")

    kind = _check_options(raw, split, k_core, images)
    target = _check_target(out)
    tell(0)
    log = read_log(raw, with_split=kind == "given")
    tell(1)
    told = raw.info.get("remarks", [])
    remarks = [told] if isinstance(told, str) else [*told]
    apply_filters(log, min_rating, duplicates, k_core)
    remarks += log.remarks
    tell(2)
    labels = (
        _given(log, split_options)
        if kind == "given"
        else splits.split(kind, log.users, log.items, log.time, seed, split_options)
    )
    tell(3)
    users, user_rows = joining.used_ids(log.user_ids, log.users, "user", None)
    extra = raw.items["item_id"] if all_items and raw.items is not None else None
    items, item_rows = joining.used_ids(log.item_ids, log.items, "item", extra)
    item_table, missing = pictures.existing(joining.join_table(items, raw.items, remarks))
    if missing:
        remarks.append(f"{missing} pictures are named by the item table but are not there")
    parts = _parts(labels, user_rows[log.users], item_rows[log.items], log.weight, log.time)
    modalities = {k: joining.join_features(k, f, items, remarks) for k, f in raw.features.items()}
    info: dict[str, Any] = {
        **raw.info,
        "source": raw.info.get("source", raw.info.get("kind", raw.name)),
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
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        valid_history=parts["valid_history"],
        test_history=parts["test_history"],
        modalities=modalities,
        user_table=joining.join_table(users, raw.users, remarks),
        item_table=item_table,
        info=info,
    )
    tell(4)
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
    if min(core_of(k_core)) < 0:
        raise ConfigError("a k-core of 0 or more", repr(k_core), "give 0 to leave it out")
    if images not in ("copy", "link"):
        raise ConfigError("images as 'copy' or 'link'", repr(images), "choose one of those")
    return kind


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


# ------------------------------------------------------------------ writing


def _write(dataset: Dataset, out: Path, images: pictures.Placing) -> Dataset:
    with replace_folder(out) as aside:
        if images == "copy":
            placed = pictures.place(dataset.item_table, aside)
            dataset = replace(dataset, item_table=placed)
        saved = dataset.save(aside)
        del dataset
    return replace(saved, folder=out)


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
