"""A small shop with pictures and finished runs on it, and a reader of pages."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from PIL import Image

import modalign
from modalign.data.dataset import Dataset
from modalign.data.vocabulary import Vocabulary
from modalign.testing.toy import toy_dataset

EVIL = '<script>alert("1")</script> & Söhne $x^2$'


class Page(HTMLParser):
    """What a test asks of a page."""

    VOID = {"meta", "link", "img", "br", "hr", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[tuple[list[str], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append((list(self.open), data))

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]

    def values(self, attribute):
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]

    @property
    def shown(self):
        """The words between the tags, style sheets left out."""
        return " ".join(" ".join(w for where, w in self.words if "style" not in where).split())


class Tables(HTMLParser):
    """Tables as lists of rows of (class, text)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[list[str]]]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append([dict(attrs).get("class", ""), ""])
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1][1] += data


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
