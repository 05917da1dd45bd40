import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary

TITLES = [
    "A red leather shoe for running",
    "A crimson running shoe made of leather",
    "Quantum field theory for physicists",
    None,
    "Blue woollen hat for winter",
    "  ",
    "Green rain jacket for running in winter",
    "A lecture on physics and quantum theory",
]


@pytest.fixture
def shop(tmp_path):
    """Eight items with titles (two missing) and pictures (one missing, one broken)."""
    folder = tmp_path / "shop"
    ids = [f"i{n}" for n in range(8)]
    images = [f"images/{one}.png" for one in ids]
    images[2] = None
    items = pl.DataFrame({"item_id": ids, "title": TITLES, "image": images})
    train = Interactions(np.arange(8) % 3, np.arange(8))
    Dataset(
        "shop", Vocabulary(["u0", "u1", "u2"], "user"), Vocabulary(ids), train,
        Interactions.empty(), Interactions.empty(), item_table=items,
    ).save(folder)  # fmt: skip
    (folder / "images").mkdir()
    for n, path in enumerate(images):
        if path is not None:
            picture = Image.new("RGB", (60 + n, 40), (30 * n, 200 - 20 * n, 90))
            ImageDraw.Draw(picture).ellipse((5 + n, 5, 30, 35), fill="white")
            picture.save(folder / path)
    (folder / images[4]).write_bytes(b"this is no picture")
    return Dataset.load(folder)
