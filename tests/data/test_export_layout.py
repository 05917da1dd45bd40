"""What `data export` writes and `import` reads back: ids of any kind, and the items' pictures."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import modalign
from modalign.data import sources
from modalign.data.dataset import Dataset
from modalign.data.export_layout import export_mmrec, export_recbole
from modalign.data.prepare import prepare
from modalign.data.sources._columns import MISSING
from modalign.data.sources._times import INVISIBLE
from modalign.errors import DataError

WRITERS = {"recbole": export_recbole, "mmrec": export_mmrec}
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8"
    "cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
NASTY = [
    "a/b", "../up", ".hidden", "/root", "..", "C:\\x", '"', '"quoted"', 'in "side"', '","', "'",
    "a,b", "a;b", "a|b", "a::b", "#1", "%", "=1+1", "0012", "1e5", "42.0", "true", "nan1", "{}",
    "[1]", "\\n", "a b", "a  b", "é", "e\u0301", "日本語", "שלום", "👩‍👩‍👧",
    "\u202ex", "a\x1fb", "a\x85b", "a\u2028b", "x" * 300, "A", "a", "item_id", "user_id:token",
    "con", "nul.txt", "\x1b[31m",
]  # fmt: skip
BREAKS = ["a\tb", "a\nb", "a\r\nb", "a\rb", '"\n"', 'a"\t"b']


def prepared(ids: Sequence[str], place: Path) -> Dataset:
    """Data of these users, items and pictures; the last item has none."""
    n = len(ids)
    pairs = [(ids[i], ids[(i + j) % n]) for i in range(n) for j in range(min(n, 5))]
    pictures = [str(place / f"{row}.png") for row in range(n)]
    for row, path in enumerate(pictures[:-1]):
        Path(path).write_bytes(PIXEL + bytes([row % 256, row // 256]))
    items = pl.DataFrame({"item_id": ids, "title": ids, "image": pictures})
    frame = pl.DataFrame(pairs, ["user_id", "item_id"], orient="row")
    return modalign.load(frame, items=items, all_items=True, seed=1, out=place / "data")


def described(data: Dataset) -> tuple[Any, ...]:
    pairs = []
    for part in ("train", "valid", "test"):
        one = data.part(part)
        users, items = data.users.ids(one.users), data.items.ids(one.items)
        pairs += [(part, *pair) for pair in zip(users, items, strict=True)]
    paths = [data.image_path(row) for row in range(data.n_items)]
    files = [None if path is None else path.read_bytes() for path in paths]
    return list(data.users), list(data.items), sorted(pairs), files


def back(data: Dataset, kind: str, place: Path) -> Dataset:
    folder = WRITERS[kind](data, place / f"my {kind}.data")
    return prepare(sources.read(kind, folder), place / "again", split="given", all_items=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_any_id_comes_back_with_its_picture(kind: str, tmp_path: Path) -> None:
    data = prepared(NASTY + (BREAKS if kind == "mmrec" else []), tmp_path)
    assert described(data)[3].count(None) == 1
    again = back(data, kind, tmp_path)
    assert described(again) == described(data)
    assert again.titles().to_list() == [
        " ".join(t.split("\t")) if kind == "recbole" else t for t in data.titles()
    ]


@pytest.mark.parametrize("one", BREAKS)
def test_what_recbole_cannot_express_is_refused(one: str, tmp_path: Path) -> None:
    data = prepared(["a", "b", one, "c", "d"], tmp_path)
    with pytest.raises(DataError, match="ids without tabs, line breaks"):
        export_recbole(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", WRITERS)
def test_a_character_of_code_zero_is_refused(kind: str, tmp_path: Path) -> None:
    data = prepared(["a", "b", "c\0d", "e", "f"], tmp_path)
    with pytest.raises(DataError, match=r"zeros.*'c\\x00d'"):
        WRITERS[kind](data, tmp_path / "out")


def test_a_path_that_leads_out_of_the_data_folder_is_not_exported(tmp_path: Path) -> None:
    data = prepared(["a", "b", "c", "d", "e"], tmp_path)
    table = pl.read_parquet(tmp_path / "data" / "items.parquet")
    table = table.with_columns(image=pl.lit("../0.png"))
    table.write_parquet(tmp_path / "data" / "items.parquet")
    folder = export_mmrec(Dataset.load(tmp_path / "data"), tmp_path / "out")
    assert not list(folder.rglob("*.png"))
    assert pl.read_csv(folder / "items.csv")["image"].null_count() == data.n_items


def usable(text: str) -> str:
    """As the import leaves an id: without what is not seen around it."""
    text = unicodedata.normalize("NFC", text).strip(INVISIBLE)
    return "" if text.lower() in MISSING else text


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ids=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
        .map(usable)
        .filter(bool),
        min_size=5, max_size=12, unique=True,
    )
)  # fmt: skip
@example(ids=[*BREAKS, "\ufeffa\ufeffb", "\x1a"])
def test_random_ids_come_back(
    ids: list[str], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("x")
    if kind == "recbole":
        ids = ["".join(c for c in one if c not in "\t\r\n") for one in ids]
        ids = list(dict.fromkeys(filter(None, map(usable, ids))))
        if len(ids) < 5:
            return
    data = prepared(ids, place)
    assert described(back(data, kind, place)) == described(data)
