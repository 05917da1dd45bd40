"""MovieLens in its official files, with posters and descriptions where somebody added them.

100K: u.data, u.item (Latin-1), u.user, u.genre. 1M and 10M: ratings.dat, movies.dat, users.dat
with `::` between fields. 20M and later: ratings.csv, movies.csv. Beside them, optionally,
`posters/<movie_id>.jpg` and `descriptions.csv` (movie_id, plot, genre, director, actors).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from modalign.data import pictures
from modalign.data.raw import RawData
from modalign.data.sources import _flat
from modalign.errors import DataError

LICENCE = (
    "GroupLens: research use, no redistribution and no commercial use without permission; "
    "cite Harper and Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015"
)
# Text columns a descriptions.csv may bring, under the names modalign gives them.
DESCRIBED = {"plot": "description", "description": "description", "genre": "genre",
             "director": "director", "actors": "actors", "year": "year"}  # fmt: skip


def read(folder: str | Path, name: str | None = None) -> RawData:
    """Ratings, movies and people of a MovieLens folder.

    Movies have title, genre, year and, where `descriptions.csv` has them, description (the
    plot), director and actors; image is the poster's path. Whatever is not known is null.

    Args:
        folder: as it comes out of the official archive.
        name: short name for people; the folder's name where it is left out.

    Raises:
        DataError: it is no MovieLens folder, or a line is not what it should be.
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
        items = items.join(pictures.find(posters), on="item_id", how="left", maintain_order="left")
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
        image_root=posters.resolve() if posters.is_dir() else None,
    )


Parts = tuple[pl.LazyFrame, pl.DataFrame, "pl.DataFrame | None", list[str]]


def _read_100k(folder: Path) -> Parts:
    ratings = _ratings(folder / "u.data", "\t", (0, 1, 2, 3))
    genres = _records(folder / "u.genre", "|", 2)["0"].to_list() if (
        folder / "u.genre"
    ).is_file() else []  # fmt: skip
    movies = _records(_needed(folder / "u.item"), "|", 5 + len(genres))
    flags = [
        pl.when(pl.col(str(5 + i)) == "1").then(pl.lit(genre))
        for i, genre in enumerate(genres)
        if genre != "unknown"
    ]
    genre = pl.concat_str(flags, separator=", ", ignore_nulls=True) if flags else pl.lit(None)
    items = movies.select(
        item_id=pl.col("0"),
        title=_some("1"),
        year=pl.col("2").str.extract(r"(\d{4})$"),
        genre=pl.when(genre != "").then(genre),
    )
    users = None
    if (folder / "u.user").is_file():
        users = _records(folder / "u.user", "|", 5).rename(
            dict(zip("01234", ("user_id", "age", "gender", "occupation", "zip"), strict=True))
        )
    return ratings, items, users, []


def _read_dat(folder: Path) -> Parts:
    # The scanner knows separators of one byte; between two of them stands an empty field.
    ratings = _ratings(folder / "ratings.dat", ":", (0, 2, 4, 6))
    items = _movies(_records(_needed(folder / "movies.dat"), "::", 3))
    users = None
    if (folder / "users.dat").is_file():
        users = _records(folder / "users.dat", "::", 5).rename(
            dict(zip("01234", ("user_id", "gender", "age", "occupation", "zip"), strict=True))
        )
    return ratings, items, users, []


def _read_csv(folder: Path) -> Parts:
    frame, origin = _flat.scan(folder / "ratings.csv", ",")
    columns = _flat.find_columns(_flat.names_of(frame, origin), {}, origin)
    ratings, remarks = _flat.typed(frame, columns, origin)
    movies, movie_origin = _flat.scan(_needed(folder / "movies.csv"), ",")
    names = _flat.names_of(movies, movie_origin)
    if names[:3] != ["movieId", "title", "genres"]:
        raise DataError(
            f"the columns movieId, title, genres in {folder / 'movies.csv'}",
            ", ".join(names),
            "unpack the official archive again",
        )
    table = movies.select(pl.col(n).alias(str(i)) for i, n in enumerate(names[:3])).collect()
    return ratings, _movies(table), None, list(remarks)


def _movies(table: pl.DataFrame) -> pl.DataFrame:
    genres = pl.col("2").str.replace_all("|", ", ", literal=True)
    return table.select(
        item_id=pl.col("0"),
        title=_some("1"),
        year=pl.col("1").str.extract(r"\((\d{4})\)\s*$"),
        genre=pl.when(genres != "(no genres listed)").then(genres),
    )


def _some(column: str) -> pl.Expr:
    text = pl.col(column).str.strip_chars()
    return pl.when(~text.is_in(["", "unknown"])).then(text)


def _needed(path: Path) -> Path:
    if not path.is_file():
        raise DataError(
            f"the file {path.name} in {path.parent}",
            ", ".join(sorted(p.name for p in path.parent.iterdir())[:8]),
            "unpack the official archive again",
        )
    return path


def _ratings(path: Path, separator: str, fields: tuple[int, int, int, int]) -> pl.LazyFrame:
    try:
        frame = pl.scan_csv(path, separator=separator, has_header=False, infer_schema=False)
        names = frame.collect_schema().names()
    except pl.exceptions.NoDataError as error:
        raise DataError(
            f"ratings in {path}", "an empty file", "unpack the official archive again"
        ) from error
    if len(names) != fields[-1] + 1:
        shown = "::" if separator == ":" else SHOWN_TAB
        raise DataError(
            f"user, item, rating and time in each line of {path}, separated by {shown}",
            f"{_flat.first_line(path)!r} in line 1",
            "unpack the official archive again",
        )
    # polars calls the first column column_0 from version 2 on and column_1 before.
    labels = dict(zip((names[i] for i in fields), (
        "'user id'", "'item id'", "'rating'", "'timestamp'"), strict=True))  # fmt: skip
    origin = _flat.Origin(str(path), path, separator, header=False, shown=labels)
    columns = _flat.Columns(*labels)
    return _flat.typed(frame, columns, origin)[0]


SHOWN_TAB = "a tab"


def _records(path: Path, separator: str, least: int) -> pl.DataFrame:
    """Lines of a small file as columns "0", "1", ...; UTF-8 where it is that, else Latin-1."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    lines = pl.Series("line", text.replace("\r\n", "\n").split("\n"), pl.String)
    number = pl.Series("number", range(1, len(lines) + 1), pl.Int64)
    parts = lines.str.split(separator)
    bad = ((parts.list.len() < least) & (lines.str.strip_chars() != "")).arg_true()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{least} fields separated by {separator!r} in each line of {path}",
            f"{parts[row].len()} in line {number[row]}",
            "unpack the official archive again",
        )
    kept = parts.filter(lines.str.strip_chars() != "")
    if not len(kept):
        raise DataError(f"lines in {path}", "an empty file", "unpack the official archive again")
    return pl.DataFrame({str(i): kept.list.get(i) for i in range(least)})


def _describe(items: pl.DataFrame, folder: Path, remarks: list[str]) -> pl.DataFrame:
    """Join `descriptions.csv` by movie id; what the official file says stays where it is null."""
    path = folder / "descriptions.csv"
    if not path.is_file():
        return items
    frame, origin = _flat.scan(path)
    names = _flat.names_of(frame, origin)
    key = _flat.recognise(names, "item")
    if key is None:
        raise DataError(f"a column movie_id in {path}", ", ".join(names), "name that column so")
    try:
        table = frame.collect()
    except pl.exceptions.PolarsError as error:
        raise _flat.unreadable(origin, error, len(names)) from error
    texts = {n: DESCRIBED[n] for n in names if n in DESCRIBED}
    table = table.select(
        pl.col(key).str.strip_chars().alias("item_id"),
        *(pl.when(pl.col(n).str.strip_chars() != "").then(pl.col(n).str.strip_chars())
          .alias(f"new_{texts[n]}") for n in texts),
    ).unique("item_id", keep="first", maintain_order=True)  # fmt: skip
    known = table["item_id"].is_in(items["item_id"].implode()).sum()
    if known < len(table):
        remarks.append(f"{len(table) - known} rows of descriptions.csv are of unknown movies")
    joined = items.join(table, on="item_id", how="left", maintain_order="left")
    merged = [
        pl.coalesce(f"new_{t}", *([t] if t in items.columns else [])).alias(t)
        for t in dict.fromkeys(texts.values())
    ]
    return joined.with_columns(merged).drop([f"new_{t}" for t in dict.fromkeys(texts.values())])
