"""A small shop with pictures and finished runs on it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from reading import EVIL

import modalign
from modalign.data.dataset import Dataset
from modalign.data.vocabulary import Vocabulary
from modalign.testing.toy import toy_dataset


def picture_shop(folder: Path) -> Dataset:
    """The toy with titles, ids and titles that are HTML, and pictures, some of them unusable."""
    data = toy_dataset(seed=1)
    (folder / "images").mkdir(parents=True)
    names: list[str | None] = []
    for row in range(data.n_items):
        file = folder / "images" / f"i{row}.png"
        mode = ("RGB", "RGBA", "L", "P")[row % 4]
        Image.new(mode, (30 + 10 * row, 200), row).save(file)
        names.append(f"images/i{row}.png")
        if row % 5 == 1:
            file.write_bytes(file.read_bytes()[:60] if row % 2 else b"no picture at all")
        if row % 5 == 2:
            names[-1] = None
        if row % 5 == 3 and row % 2:
            file.unlink()
    ids = [f"<i>{one}&" for one in data.items]
    table = pl.DataFrame(
        {"item_id": ids, "title": [f"{EVIL} {row}" for row in range(len(ids))], "image": names}
    )
    users = Vocabulary([f"<u>{one}</u>" for one in data.users], "user")
    data = replace(
        data,
        name="a <b>shop</b>",
        users=users,
        items=Vocabulary(ids, "item"),
        item_table=table,
        user_table=pl.DataFrame(),
    )
    return data.save(folder)


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    return picture_shop(tmp_path_factory.mktemp("shop") / "data")


@pytest.fixture(scope="session")
def runs(shop, tmp_path_factory):
    """Folders of finished runs by name."""
    home = tmp_path_factory.mktemp("runs")
    wanted = {
        "popularity": ("popularity", {}),
        "ease": ("ease", {}),
        "bpr": ("bpr", {"epochs": 3, "batch_size": 64}),
        "bpr-again": ("bpr", {"epochs": 3, "batch_size": 64, "seed": 2}),
        "other-ks": ("itemknn", {"ks": (3, 20)}),
        "only-7": ("ease", {"ks": (7,)}),
    }
    for name, (model, options) in wanted.items():
        modalign.fit(shop, model, out=home / name, **options)
    return SimpleNamespace(**{name.replace("-", "_"): home / name for name in wanted}, home=home)
