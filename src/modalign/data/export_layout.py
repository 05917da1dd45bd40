"""A prepared data set in the layouts of other libraries: RecBole's atomic files, and MMRec's.

Both keep the original ids, the split, every item modality, and pictures, sounds and videos, so that
reading the folder with `modalign.data.sources` gives the same data again. Neither can express
the unseen-users protocol, whose histories are outside train, valid and test; such data sets are
refused.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl

from modalign.core.files import write_folder_aside
from modalign.core.modality import Modality
from modalign.data import item_files
from modalign.data.dataset import Dataset
from modalign.errors import DataError

PARTS = ("train", "valid", "test")
KEPT = tuple(item_files.STORED.values())
"""Sub-folders for files of items, where those of another export may lie."""
NEEDS_QUOTES = r'[\t\r\n"]'
"""What a field without quotes cannot hold."""


def export_recbole(dataset: Dataset, folder: str | Path) -> Path:
    r"""Write `<name>.{train,valid,test}.inter`, `<name>.item` and `<name>.user`.

    Give RecBole the split with `benchmark_filename: [train, valid, test]`. Numbers become
    `float`, texts `token` if no cell has white space and `token_seq` otherwise, a modality the
    `float_seq` column `<modality>_emb`, empty if the item has none. Tabs and line breaks inside a
    text become spaces, as the format cannot express them. Pictures are copied to `images/`, sounds
    to `audio/` and videos to `video/`; the columns of that name have their paths.

    Args:
        dataset: a prepared data set.
        folder: where to write; its name becomes the name of the files, as RecBole requires.

    Returns:
        The folder.

    Raises:
        DataError: the data set has the unseen-users split, or an id contains a tab, a line break
            or a character of code zero.

    Limits: features are written as text with all digits of float32: about ten bytes per number.

    Example:
        >>> import tempfile
        >>> from modalign.data.interactions import Interactions
        >>> from modalign.data.vocabulary import Vocabulary
        >>> one, none = Interactions(np.array([0]), np.array([0])), Interactions.empty()
        >>> data = Dataset("d", Vocabulary(["u"], "user"), Vocabulary(["i"]), one, none, none)
        >>> folder = export_recbole(data, Path(tempfile.mkdtemp()) / "toy")
        >>> (folder / "toy.train.inter").read_text()
        'user_id:token\titem_id:token\nu\ti\n'
    """
    _refuse_unseen_users(dataset, "RecBole's atomic files")
    folder = Path(folder)
    name = folder.resolve().name
    _refuse_ids(dataset, "\t\r\n\0", "tabs, line breaks and zeros")
    with write_folder_aside(folder, keep=KEPT) as aside:
        for part in PARTS:
            _write(_interactions(dataset, part), aside / f"{name}.{part}.inter")
        items = _atomic(_with_files(dataset, aside), dataset.items.series.alias("item_id"))
        for modality in _item_modalities(dataset):
            rows = pl.Series(modality.features).arr.to_list().cast(pl.List(pl.Utf8)).list.join(" ")
            kept = pl.select(pl.when(pl.Series(modality.present)).then(rows)).to_series()
            items = items.with_columns(kept.alias(f"{modality.name}_emb:float_seq"))
        _write(items, aside / f"{name}.item")
        users = _atomic(dataset.user_table, dataset.users.series.alias("user_id"))
        _write(users, aside / f"{name}.user")
    return folder


def export_mmrec(dataset: Dataset, folder: str | Path) -> Path:
    r"""Write `<name>.inter`, `<modality>_feat.npy`, the two id mappings and `items.csv`.

    Pictures are copied to `images/`, sounds to `audio/` and videos to `video/`; their paths are in
    `items.csv`. The mappings are separated by tabs, as MMRec's own, unless an id needs quotes: then
    by commas.

    Feature rows of items without features are zero, the only way to express this in the layout. An
    item whose features are present and all zero is therefore read as missing.

    Args:
        dataset: a prepared data set.
        folder: where to write; its name becomes the name of the file.

    Returns:
        The folder.

    Raises:
        DataError: the data set has the unseen-users split, or an id contains a character of code
            zero.
    """
    _refuse_unseen_users(dataset, "the MMRec layout")
    _refuse_ids(dataset, "\0", "zeros")
    folder = Path(folder)
    rows = []
    for label, part in enumerate(PARTS):
        one = dataset.part(part)
        if len(one):
            numbers = pl.DataFrame({"userID": one.users, "itemID": one.items})
            rows.append(
                numbers.with_columns(_extras(dataset, part, "rating", "timestamp")).with_columns(
                    x_label=pl.lit(label)
                )
            )
    with write_folder_aside(folder, keep=KEPT) as aside:
        pl.concat(rows).write_csv(aside / f"{folder.resolve().name}.inter", separator="\t")
        for modality in _item_modalities(dataset):
            features = np.where(modality.present[:, None], modality.features, np.float32(0))
            np.save(aside / f"{modality.name}_feat.npy", features)
        for kind, ids, number in (
            ("i", dataset.items.series.alias("item_id"), "itemID"),
            ("u", dataset.users.series.alias("user_id"), "userID"),
        ):
            mapping = pl.DataFrame([ids, pl.int_range(len(ids), eager=True).alias(number)])
            path = aside / f"{kind}_id_mapping.csv"
            if ids.str.contains(NEEDS_QUOTES).any():
                mapping.write_csv(path, quote_style="non_numeric")
            else:
                mapping.write_csv(path, separator="\t", quote_style="never")
        if len(dataset.item_table.columns) > 1:
            lists = pl.selectors.list().cast(pl.List(pl.Utf8)).list.join(" ")
            table = _with_files(dataset, aside).with_columns(lists).rename(_in_a_line)
            table.write_csv(aside / "items.csv", quote_style="non_numeric")
    return folder


def _with_files(dataset: Dataset, folder: Path) -> pl.DataFrame:
    """The table of items with copies of their files in a folder; their paths are relative to it."""
    table = dataset.item_table
    for kind in item_files.KINDS:
        if kind in table.columns:
            paths = (item_files.stored(dataset.folder or Path(), one) for one in table[kind])
            there = [None if one is None or not one.is_file() else str(one) for one in paths]
            table = table.with_columns(pl.Series(kind, there, pl.String))
    return item_files.place(table, folder)


def _refuse_ids(dataset: Dataset, characters: str, called: str) -> None:
    """Refuse ids with characters that a layout cannot express."""
    for ids in (dataset.items.series.alias("item_id"), dataset.users.series.alias("user_id")):
        broken = ids.filter(ids.str.contains_any(list(characters)))
        if len(broken):
            expected = f"ids without {called}, which the layout cannot express"
            raise DataError(
                expected, f"{ids.name} {broken[0]!r}", "rename that id and import again"
            )


def _refuse_unseen_users(dataset: Dataset, layout: str) -> None:
    if len(dataset.valid_history) or len(dataset.test_history):
        expected = f"a split into train, valid and test, the only one that {layout} can express"
        got = f"{dataset.name!r} with the unseen-users split, which also has histories"
        raise DataError(expected, got, "prepare the data with another split")


def _item_modalities(dataset: Dataset) -> list[Modality]:
    return [one for one in dataset.modalities.values() if one.entity == "item"]


def _in_a_line(name: str) -> str:
    return " ".join(re.split(r"[\t\r\n]+", name))


def _known(dataset: Dataset, column: str) -> bool:
    """Whether all parts that are not empty have weights (or times)."""
    parts = [dataset.part(part) for part in PARTS]
    return all(getattr(one, column) is not None for one in parts if len(one))


def _extras(dataset: Dataset, part: str, weight: str, time: str) -> list[pl.Series]:
    """Weights and times under these names, if all parts have them."""
    names = {"weight": weight, "time": time}
    one = dataset.part(part)
    return [
        pl.Series(name, getattr(one, column))
        for column, name in names.items()
        if len(one) and _known(dataset, column)
    ]


def _interactions(dataset: Dataset, part: str) -> pl.DataFrame:
    one = dataset.part(part)
    columns = [
        dataset.users.series.gather(one.users).alias("user_id:token"),
        dataset.items.series.gather(one.items).alias("item_id:token"),
    ]
    return pl.DataFrame([*columns, *_extras(dataset, part, "rating:float", "timestamp:float")])


def _atomic(table: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """A table with the type of every column in its name, and texts that the format can hold."""
    columns = [ids.alias(f"{ids.name}:token")]
    for column in table.iter_columns():
        if column.name == ids.name:
            continue
        name = _in_a_line(column.name)
        if column.dtype.is_numeric() or column.dtype == pl.Boolean:
            columns.append(column.cast(pl.Float64).alias(f"{name}:float"))
        else:
            words = (
                column.cast(pl.List(pl.Utf8)).list.join(" ") if column.dtype == pl.List else column
            )
            text = words.cast(pl.Utf8).str.replace_all(r"[\t\r\n]+", " ").str.strip_chars()
            spaced = text.str.contains(r"\s").any()
            columns.append(text.alias(f"{name}:{'token_seq' if spaced else 'token'}"))
    return pl.DataFrame(columns)


def _write(table: pl.DataFrame, path: Path) -> None:
    table.write_csv(path, separator="\t", quote_style="never")
