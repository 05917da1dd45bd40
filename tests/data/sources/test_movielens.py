"""MovieLens folders of all ages, made small here, and the real one where it is."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from modalign.data.prepare import prepare
from modalign.data.sources import movielens
from modalign.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "ml-100k"


def latin(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))


@pytest.fixture
def old(tmp_path):
    """The layout of 1998: three films, one without a name."""
    latin(tmp_path / "u.data", "1\t10\t5\t100\n2\t10\t3\t200\n2\t9\t4\t300\n1\t11\t1\t400\n")
    latin(tmp_path / "u.genre", "unknown|0\nAction|1\nDrama|2\n\n")
    latin(
        tmp_path / "u.item",
        "9|Été (1995)|01-Jan-1995||http://x|0|1|1\n10|Night|05-Mar-1996||http://y|0|0|1\n"
        "11|unknown||||1|0|0\n",
    )
    latin(tmp_path / "u.user", "1|24|M|technician|85711\n2|53|F|other|94043\n")
    return tmp_path


def test_100k_layout(old):
    raw = movielens.read(old)
    assert raw.interactions.collect().rows()[0] == ("1", "10", 5.0, 100)
    assert raw.items.rows() == [
        ("9", "Été (1995)", "1995", "Action, Drama"),
        ("10", "Night", "1996", "Drama"),
        ("11", None, None, None),
    ]
    assert raw.users.rows()[1] == ("2", "53", "F", "other", "94043")
    assert "GroupLens" in raw.info["licence"]


def test_descriptions_and_posters_are_joined_by_movie_id(old):
    (old / "descriptions.csv").write_text(
        "movie_id,title,plot,genre,director,actors\n"
        '10,Night,"Dark, and long.",,Ann,Bo\n9,Été,,Comedy,,\n99,Nobody,knows,,,\n'
    )
    (old / "posters").mkdir()
    (old / "posters" / "10.jpg").write_text("picture")
    raw = movielens.read(old)
    assert raw.items.columns == ["item_id", "title", "year", "genre", "description", "director",
                                 "actors", "image"]  # fmt: skip
    night = raw.items.filter(pl.col("item_id") == "10").row(0)
    assert night == ("10", "Night", "1996", "Drama", "Dark, and long.", "Ann", "Bo",
                     str(old / "posters" / "10.jpg"))  # fmt: skip
    summer = raw.items.filter(pl.col("item_id") == "9").row(0, named=True)
    assert (summer["genre"], summer["description"], summer["image"]) == ("Comedy", None, None)
    assert raw.info["remarks"] == ["1 rows of descriptions.csv are of unknown movies"]


def test_1m_layout(tmp_path):
    latin(tmp_path / "ratings.dat", "1::1193::5::978300760\n2::661::3.5::978302109\n")
    latin(tmp_path / "movies.dat", "1193::Léon: The Film (1994)::Action|Drama\n661::X::Drama\n")
    latin(tmp_path / "users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    raw = movielens.read(tmp_path)
    assert raw.interactions.collect().rows() == [
        ("1", "1193", 5.0, 978300760),
        ("2", "661", 3.5, 978302109),
    ]
    assert raw.items.rows()[0] == ("1193", "Léon: The Film (1994)", "1994", "Action, Drama")
    assert raw.users.columns == ["user_id", "gender", "age", "occupation", "zip"]


def test_20m_layout(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n")
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n2,"Léon, The (1994)",Action|Drama\n3,Odd,(no genres listed)\n'
    )
    raw = movielens.read(tmp_path, name="ml")
    assert raw.interactions.collect().rows() == [("1", "2", 3.5, 1112486027)]
    assert raw.items.rows() == [("2", "Léon, The (1994)", "1994", "Action, Drama"),
                                ("3", "Odd", None, None)]  # fmt: skip
    assert raw.name == "ml"


def broken(folder: Path, name: str, text: str) -> Path:
    latin(folder / name, text)
    return folder


def test_bad_folders_are_told(old, tmp_path):
    with pytest.raises(DataError, match="MovieLens folder"):
        movielens.read(tmp_path / "none")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="an empty folder"):
        movielens.read(tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("u.data", "", "an empty file"),
        ("u.data", "1,10,5,100\n", "separated by a tab"),
        ("u.data", "1\t10\t5\t100\n2\t10\tgood\t200\n", "'rating', got 'good' in line 2"),
        ("u.data", "1\t10\t5\t100\n2\t\t5\t200\n", "'item id', got nothing in line 2"),
        ("u.data", "1\t10\t5\t100\n2\t10\t5\tnoon\n", "'timestamp', got 'noon' in line 2"),
        ("u.item", "9|X|01-Jan-1995||u|0|1|1\n10|Y\n", "8 fields .* 2 fields in line 2"),
        ("u.item", "", "an empty file"),
        ("u.user", "1|24\n", "2 in line 1"),
        ("descriptions.csv", "film,plot\n1,x\n", "movie_id"),
    ],
)
def test_bad_files_are_told_with_their_line(old, name, text, match):
    latin(old / name, text)
    with pytest.raises(DataError, match=match) as caught:
        movielens.read(old)
    assert name in str(caught.value)


def test_a_missing_file_is_told(old):
    (old / "u.item").unlink()
    with pytest.raises(DataError, match=r"the file u\.item"):
        movielens.read(old)


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason="the development data are not beside the checkout")
def test_the_real_100k_has_its_known_counts(tmp_path):
    raw = movielens.read(REAL)
    everything = prepare(raw)
    ratings = sum(len(everything.part(p)) for p in ("train", "valid", "test"))
    assert (everything.n_users, everything.n_items, ratings) == (943, 1_682, 100_000)
    assert everything.item_table["image"].null_count() == 30
    assert everything.item_table["description"].null_count() == 11
    core = prepare(raw, tmp_path / "ml", min_rating=4, k_core=5, split="ratio", seed=1)
    kept = sum(len(core.part(p)) for p in ("train", "valid", "test"))
    assert (core.n_users, core.n_items, kept) == (938, 1_008, 54_413)
    for item in (0, 500, 1007):
        path = core.image_path(item)
        one = core.items.ids([item])[0]
        original = REAL / "posters" / f"{one}.jpg"
        assert (path is None) == (not original.is_file())
        assert path is None or path.read_bytes() == original.read_bytes()
        title = raw.items.filter(pl.col("item_id") == one)["title"][0]
        assert core.titles()[item] == title
