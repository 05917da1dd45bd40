"""MovieLens in its official files, with posters and descriptions if they were added.

100K: u.data, u.item (Latin-1), u.user, u.genre. 1M and 10M: ratings.dat, movies.dat, users.dat
with `::` between fields. 20M and later: ratings.csv, movies.csv. Optional additions:
`posters/<movie_id>.jpg` and `descriptions.csv` (movie_id, plot, genre, director, actors).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from modalign.data import item_files
from modalign.data.raw import RawData
from modalign.data.sources._columns import Columns, find_columns, typed
from modalign.data.sources._text_table import open_table, recognise
from modalign.errors import DataError

LICENCE = (
    "GroupLens: research use, no redistribution and no commercial use without permission; "
    "cite Harper and Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015"
)
# Text columns of a descriptions.csv, and the names that modalign gives them.
DESCRIBED = {"plot": "description", "description": "description", "genre": "genre",
             "director": "director", "actors": "actors", "year": "year"}  # fmt: skip


def read(folder: str | Path, name: str | None = None) -> RawData:
    """Ratings, movies and users of a MovieLens folder.

    Movies have title, genre, year and, if `descriptions.csv` has them, description (the plot),
    director and actors; image is the path of the poster. Unknown values are null.

    Args:
        folder: the unpacked official archive.
        name: short name of the data; None takes the name of the folder.

    Raises:
        DataError: it is not a MovieLens folder, or a line is invalid.
    """
    folder = Path(folder)
    layouts = {"u.data": _read_100k, "ratings.dat": _read_dat, "ratings.csv": _read_csv}
    found = next((file for file in layouts if (folder / file).is_file()), None)
    if found is None:
        there = f"{folder}, not a folder"
        if folder.is_dir():
            names = sorted(path.name for path in folder.iterdir())[:8]
            there = f"{folder}, " + (f"with {', '.join(names)}" if names else "an empty folder")
        raise DataError(
            f"a MovieLens folder with {', '.join(layouts)}", there, "unpack the official archive"
        )
    interactions, items, users, remarks = layouts[found](folder)
    items = _describe(items, folder, remarks)
    posters = folder / "posters"
    if posters.is_dir():
        files = item_files.find(posters, remarks=remarks)
        items = items.join(files, on="item_id", how="left", maintain_order="left")
    return RawData(
        name=name or folder.resolve().name,
        interactions=interactions,
        items=items,
        users=users,
        info={
            "source": "movielens",
            "files": [str(folder / found)],
            "licence": LICENCE,
            "remarks": remarks,
        },
    )


Parts = tuple[pl.LazyFrame, pl.DataFrame, "pl.DataFrame | None", list[str]]


def _read_100k(folder: Path) -> Parts:
    ratings = _ratings(folder / "u.data", "\t")
    genres = _records(folder / "u.genre", "|", ("name", "number"))
    names = [] if genres is None else genres["name"].to_list()
    flagged = [f"genre {i}" for i in range(len(names))]
    movies = _needed(folder / "u.item", "|", ("id", "title", "released", "video", "url", *flagged))
    flags = [
        pl.when(pl.col(flag) == "1").then(pl.lit(name))
        for flag, name in zip(flagged, names, strict=True)
        if name != "unknown"
    ]
    genre = pl.concat_str(flags, separator=", ", ignore_nulls=True) if flags else pl.lit(None)
    items = movies.select(
        item_id=pl.col("id"),
        title=_some("title"),
        year=pl.col("released").str.extract(r"(\d{4})$"),
        genre=pl.when(genre != "").then(genre),
    )
    people = ("user_id", "age", "gender", "occupation", "zip")
    return ratings, items, _records(folder / "u.user", "|", people), []


def _read_dat(folder: Path) -> Parts:
    ratings = _ratings(folder / "ratings.dat", "::")
    items = _movies(_needed(folder / "movies.dat", "::", ("movieId", "title", "genres")))
    people = ("user_id", "gender", "age", "occupation", "zip")
    return ratings, items, _records(folder / "users.dat", "::", people), []


def _read_csv(folder: Path) -> Parts:
    table = open_table(folder / "ratings.csv", ",")
    ratings = typed(table, find_columns(table, {}))
    path = folder / "movies.csv"
    _refuse_missing(path)
    movies = open_table(path, ",")
    movies.need(("movieId", "title", "genres"))
    return ratings.frame, _movies(movies.collect()), None, ratings.remarks


def _movies(table: pl.DataFrame) -> pl.DataFrame:
    genres = pl.col("genres").str.replace_all("|", ", ", literal=True)
    return table.select(
        item_id=pl.col("movieId"),
        title=_some("title"),
        year=pl.col("title").str.extract(r"\((\d{4})\)\s*$"),
        genre=pl.when(genres != "(no genres listed)").then(genres),
    )


def _some(column: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars()
    return pl.when(~text.is_in(["", "unknown"])).then(text)


def _ratings(path: Path, separator: str) -> pl.LazyFrame:
    columns = Columns("user id", "item id", "rating", "timestamp")
    table = open_table(path, separator, columns=list(columns.used().values()), quote="none")
    return typed(table, columns).frame


def _records(path: Path, separator: str, columns: Sequence[str]) -> pl.DataFrame | None:
    """The lines of a small file, UTF-8 or Latin-1; None if it does not exist."""
    if not path.is_file():
        return None
    table = open_table(path, separator, columns=columns, quote="none", latin=True)
    return table.records().select(columns)


def _needed(path: Path, separator: str, columns: Sequence[str]) -> pl.DataFrame:
    _refuse_missing(path)
    found = _records(path, separator, columns)
    assert found is not None
    return found


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        got = ", ".join(sorted(p.name for p in path.parent.iterdir())[:8])
        fix = "unpack the official archive again"
        raise DataError(f"the file {path.name} in {path.parent}", got, fix)


def _describe(items: pl.DataFrame, folder: Path, remarks: list[str]) -> pl.DataFrame:
    """Join `descriptions.csv` by movie id; its null values replace nothing."""
    path = folder / "descriptions.csv"
    if not path.is_file():
        return items
    table = open_table(path)
    key = recognise(table.names, "item")
    if key is None:
        raise DataError(
            f"a column movie_id in {path}", table.shown(), "name the column of ids movie_id"
        )
    texts: dict[str, str] = {}
    for name in table.names:
        if name in DESCRIBED:
            texts.setdefault(DESCRIBED[name], name)
    rows = table.collect().select(
        pl.col(key).str.strip_chars().alias("item_id"),
        *(
            pl.col(name).str.strip_chars().replace("", None).alias(f"new_{target}")
            for target, name in texts.items()
        ),
    )
    rows = rows.unique("item_id", keep="first", maintain_order=True)
    known = rows["item_id"].is_in(items["item_id"].implode()).sum()
    if known < len(rows):
        remarks.append(f"{len(rows) - known} rows of descriptions.csv are of unknown movies")
    joined = items.join(rows, on="item_id", how="left", maintain_order="left")
    merged = [pl.coalesce(f"new_{t}", *([t] if t in items.columns else [])).alias(t) for t in texts]
    return joined.with_columns(merged).drop([f"new_{t}" for t in texts])
