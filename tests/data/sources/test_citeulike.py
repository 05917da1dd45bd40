"""CiteULike folders: words, counts and tags by hand, and against a slow loop on real files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from modalign.data.sources import citeulike
from modalign.errors import ConfigError, DataError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "citeulike-t"
FILES = {
    "users.dat": "2 0 2\n1 1\n0\n",
    "mult.dat": "2 0:1 3:2\n0\n1 1:3\n",
    "vocabulary.dat": "graph\nm-estimator\n\u00a0\nnaïve\n",
    "tags.dat": "deep\nold\n",
    "tag-item.dat": "2 0 2\n1 2\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_interactions_words_and_tags(folder: Path) -> None:
    raw = citeulike.read(folder)
    assert raw.interactions.collect().rows() == [("0", "0"), ("0", "2"), ("1", "1")]
    assert raw.users is not None
    assert raw.users["user_id"].to_list() == ["0", "1", "2"]
    assert raw.items is not None
    assert raw.items.rows() == [
        ("0", "graph naïve naïve", "deep"),
        ("1", None, None),
        ("2", "m-estimator m-estimator m-estimator", "deep old"),
    ]
    assert raw.info["remarks"] == ["1 of 3 articles have no words"]


def test_counting_by_white_space_gives_the_counts_back(folder: Path) -> None:
    (folder / "mult.dat").write_text("3 2:4 0:1 3:2\n0\n1 1:3\n")
    items = citeulike.read(folder).items
    assert items is not None
    # The word that is a no-break space must stay one word, so it is written as `_`.
    assert Counter(items["description"][0].split()) == {"_": 4, "graph": 1, "naïve": 2}


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
def test_line_endings(folder: Path, ending: str) -> None:
    expected = citeulike.read(folder).items
    for name, text in FILES.items():
        lines = text.rstrip("\n").split("\n")
        line_end = "\r\n" if ending == "\r\n" else "\n"
        (folder / name).write_bytes((line_end.join(lines) + ending).encode())
    items = citeulike.read(folder).items
    assert items is not None
    assert expected is not None
    assert items.equals(expected)


def test_latin_1_names(folder: Path) -> None:
    (folder / "tags.dat").write_bytes("müde\nalt\x85neu\n".encode("latin-1"))
    items = citeulike.read(folder).items
    assert items is not None
    assert items["tags"].to_list() == ["müde", None, "müde alt_neu"]


def test_citeulike_a_has_tags_by_item_and_titles(folder: Path) -> None:
    (folder / "tag-item.dat").unlink()
    (folder / "item-tag.dat").write_text("2 1 0\n0\n1 0\n")
    (folder / "raw-data.csv").write_bytes(
        '"doc.id","title","raw.title","raw.abstract"\n'
        '2,"b","Naïve, and two\nlines","About"\n1,"a","First","Of \'it\'"\n'.encode("latin-1")
    )
    items = citeulike.read(folder).items
    assert items is not None
    assert items["tags"].to_list() == ["old deep", None, "deep"]
    assert items["title"].to_list() == ["First", "Naïve, and two\nlines", None]
    assert items["abstract"].to_list() == ["Of 'it'", "About", None]


def test_rare_words_are_left_out(folder: Path) -> None:
    (folder / "mult.dat").write_text("2 0:1 3:2\n1 0:9\n1 1:3\n")
    items = citeulike.read(folder, min_documents=2).items
    assert items is not None
    assert items["description"].to_list() == ["graph", " ".join(["graph"] * 9), None]
    with pytest.raises(ConfigError, match="min_documents"):
        citeulike.read(folder, min_documents=0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("users.dat", "2 0\n1 1\n0\n", r"users\.dat, got count 2 and 1 entries in line 1"),
        ("users.dat", "1 0\n1 1 2\n0\n", r"users\.dat, got count 1 and 2 entries in line 2"),
        ("users.dat", "1 0\n\n0\n", r"users\.dat, got an empty line 2"),
        ("users.dat", "1,0\n1,1\n", r"users\.dat, got '1,0' first and 0 entries in line 1"),
        ("users.dat", "1 0\n1 x\n", r"whole numbers in .*users\.dat, got 'x' in line 2"),
        ("users.dat", "1 0\n1 3\n", r"item numbers from 0 to 2.*users\.dat, got 3 in line 2"),
        ("users.dat", "1 0\n1 -1\n", r"item numbers from 0 to 2.*got -1 in line 2"),
        ("users.dat", "", r"users\.dat, got an empty line 1"),
        ("mult.dat", "1 0:1\n1 4:1\n0\n", r"word numbers from 0 to 3.*mult\.dat, got 4 in line 2"),
        ("mult.dat", "1 0:1\n1 2\n0\n", r"word:count numbers.*mult\.dat, got '2' in line 2"),
        ("mult.dat", "1 0:1\n1 2:0\n0\n", r"word:count numbers.*got '2:0' in line 2"),
        ("mult.dat", "1 0:1\n1 2:1.5\n0\n", r"word:count numbers.*got '2:1.5' in line 2"),
        ("mult.dat", "2 0:1\n0\n0\n", r"mult\.dat, got count 2 and 1 entries in line 1"),
        ("tag-item.dat", "1 0\n", r"2 lines, one per tag in tags\.dat.*got 1 lines"),
        ("tag-item.dat", "1 0\n1 3\n", r"item numbers from 0 to 2.*tag-item\.dat, got 3 in line 2"),
        ("raw-data.csv", "id,title\n1,a\n", r"columns doc\.id, raw\.title.*raw-data\.csv"),
        ("raw-data.csv", "doc.id,raw.title\n1,a\n1,b\n", r"once in column 'doc\.id'"),
    ],
)
def test_bad_files_are_named(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        citeulike.read(folder)


def test_item_tags_beyond_the_tags(folder: Path) -> None:
    (folder / "tag-item.dat").unlink()
    (folder / "item-tag.dat").write_text("1 2\n0\n0\n")
    with pytest.raises(DataError, match=r"tag numbers from 0 to 1.*item-tag\.dat, got 2 in line 1"):
        citeulike.read(folder)


@pytest.mark.parametrize("name", ["users.dat", "mult.dat", "vocabulary.dat"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"without {name}"):
        citeulike.read(folder)


@pytest.mark.slow
@pytest.mark.realdata
def test_real_folder_against_a_slow_loop() -> None:
    if not REAL.is_dir():
        pytest.skip("the development data citeulike-t are not beside the checkout")
    raw = citeulike.read(REAL)
    assert raw.items is not None
    assert raw.users is not None
    pairs = raw.interactions.collect()
    assert (len(raw.users), len(raw.items), len(pairs)) == (7947, 25975, 134860)
    users = [line.split()[1:] for line in (REAL / "users.dat").read_text().splitlines()]
    assert pairs.rows() == [(str(u), item) for u, line in enumerate(users) for item in line]
    words = (REAL / "vocabulary.dat").read_text(encoding="utf-8").rstrip("\n").split("\n")
    lines = (REAL / "mult.dat").read_text().splitlines()
    for row in range(0, len(lines), 97):
        pairs_of = (pair.split(":") for pair in lines[row].split()[1:])
        counts = {re.sub(r"\s+", "_", words[int(w)]): int(c) for w, c in pairs_of}
        assert Counter((raw.items["description"][row] or "").split()) == counts
