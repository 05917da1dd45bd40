"""Amazon reviews of 2014, 2018 and 2023: JSON lines or "ratings only" tables, with metadata.

The three collections of the McAuley Lab name the same things differently:

                  2014, 2018                        2023
    user          reviewerID                        user_id
    item          asin                              parent_asin
    rating        overall                           rating
    time          unixReviewTime (seconds)          timestamp (milliseconds)
    metadata      asin, title, description,         parent_asin, title, description (list),
                  categories or category, brand,    categories, store, price,
                  price, imUrl or imageURL          images (list of sizes)

Metadata of 2014 are Python literals, not JSON; both are read. "Ratings only" tables are
user,item,rating,time (2014), item,user,rating,time (2018), both without a header, and
user_id,parent_asin,rating,timestamp with one (2023).

Sources of the data: R. He, J. McAuley, WWW 2016; J. Ni, J. Li, J. McAuley, EMNLP 2019;
Y. Hou et al., "Bridging Language and Items for Retrieval and Recommendation", 2024.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from modalign.data.official import AMAZON_TERMS
from modalign.data.raw import RawData
from modalign.data.sources._amazon_items import read_metadata
from modalign.data.sources._chunks import chunks, first_line
from modalign.data.sources._jsonline import parse_line
from modalign.data.sources._reading import optional_images
from modalign.errors import DataError

COLUMNS = ("user_id", "item_id", "weight", "time")
ENDINGS = (".json", ".jsonl", ".csv")
ITEM_ID = r"^(B[0-9A-Z]{9}|[0-9]{9}[0-9X])$"


@dataclass(frozen=True)
class Layout:
    """What a collection calls user, item, rating and time, and how many of its ticks a second."""

    name: str
    user: str
    item: str
    rating: str
    time: str
    ticks: int

    @property
    def fields(self) -> tuple[str, str, str, str]:
        """The four names in the order of `COLUMNS`."""
        return self.user, self.item, self.rating, self.time


CLASSIC = Layout("2014 or 2018", "reviewerID", "asin", "overall", "unixReviewTime", 1)
RECENT = Layout("2023", "user_id", "parent_asin", "rating", "timestamp", 1000)


def read(
    path: str | Path, reviews: str | Path | None = None, metadata: str | Path | None = None
) -> RawData:
    """Read one category of Amazon reviews, and its metadata where they are.

    Reviews are read in pieces of some megabytes and only user, item, rating and time are kept,
    ids as numbers into a table of strings: about 20 bytes a review. Items carry `title`,
    `description`, `categories` (joined by " | "), `brand`, `price`, `image_url` and, where
    `images/<asin>.jpg` exists beside the reviews, `image`. Metadata of items that nobody
    reviewed are left out.

    Args:
        path: the review file, or the folder it is in.
        reviews: the review file's name, or its path, where the folder holds several.
        metadata: the metadata file's name or path; by default the `meta_...` file beside the
            reviews that shares their category's name.

    Returns:
        RawData without split; weight is the rating, time is in seconds.

    Raises:
        DataError: a file is missing, ambiguous or broken, a line is not what its layout says;
            file and line are named.

    Limits: Python-literal metadata are slow, about 10,000 items a second.

    Example:
        >>> import json, tempfile
        >>> file = Path(tempfile.mkdtemp()) / "Toys.jsonl"
        >>> line = {"user_id": "U", "parent_asin": "B1", "rating": 5.0, "timestamp": 2000}
        >>> _ = file.write_text(json.dumps(line))
        >>> read(file).interactions.collect().rows()
        [('U', 'B1', 5.0, 2)]
    """
    review_file, meta_file = _find(Path(path), reviews, metadata)
    table, layout = _reviews(review_file)
    ids = table["item_id"].unique(maintain_order=True).cast(pl.Utf8)
    remarks, items = [], pl.DataFrame({"item_id": ids})
    if meta_file is None:
        remarks.append("no metadata file was found: items are ids only")
    else:
        found = read_metadata(meta_file, set(ids))
        items = items.join(found, on="item_id", how="left", maintain_order="left")
        if missing := len(ids) - len(found):
            remarks.append(f"{missing} of {len(ids)} items are not in {meta_file.name}")
    pictures = review_file.parent / "images"
    images = optional_images(pictures, ids)
    if images is not None:
        items = items.with_columns(pl.Series("image", images, pl.Utf8))
    return RawData(
        name=category(review_file),
        interactions=table.lazy().with_columns(pl.col("user_id", "item_id").cast(pl.Utf8)),
        items=items,
        info={
            "kind": "amazon",
            "layout": layout,
            "licence": AMAZON_TERMS,
            "files": [f.name for f in (review_file, meta_file) if f is not None],
            "remarks": remarks,
        },
        image_root=pictures if images is not None else None,
    )


# ------------------------------------------------------------------------------------ files


def category(path: Path) -> str:
    """The category's name in a file name: "Baby" of `reviews_Baby_5.json.gz`.

    Example:
        >>> [category(Path(n)) for n in ("reviews_Baby_5.json.gz", "meta_Baby.json", "Baby.csv")]
        ['Baby', 'Baby', 'Baby']
    """
    name = path.name.removesuffix(".gz")
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    for start in ("reviews_", "ratings_", "meta_"):
        name = name.removeprefix(start)
    return name.removesuffix("_5")


def _find(
    path: Path, reviews: str | Path | None, metadata: str | Path | None
) -> tuple[Path, Path | None]:
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise DataError(
            "a file or folder of Amazon reviews", f"{path}, which does not exist", "check the path"
        )
    tables = [p for p in sorted(folder.iterdir()) if _ending(p) in ENDINGS]
    if reviews is not None:
        review_file = _existing(folder, reviews)
    elif path.is_file():
        review_file = path
    else:
        candidates = [p for p in tables if not p.name.startswith("meta_")]
        if len(candidates) != 1:
            names = ", ".join(p.name for p in candidates[:5]) or "none"
            raise DataError(
                f"one review file (.json, .jsonl or .csv, also .gz) in {folder}",
                names,
                "name it with the option reviews",
            )
        review_file = candidates[0]
    if metadata is not None:
        return review_file, _existing(folder, metadata)
    wanted = category(review_file)
    metas = [p for p in tables if p.name.startswith("meta_") and category(p) == wanted]
    return review_file, metas[0] if metas else None


def _ending(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _existing(folder: Path, name: str | Path) -> Path:
    """The file of that name in the folder, or else where the path itself says."""
    for path in (folder / name, Path(name)):
        if path.is_file():
            return path
    raise DataError(
        "the file named in the options", f"{folder / name}, not there", "check its name"
    )


# ---------------------------------------------------------------------------------- reviews


def _reviews(path: Path) -> tuple[pl.DataFrame, str]:
    """Columns `COLUMNS`, ids categorical, and the name of the layout."""
    parse: Callable[[int, bytes], pl.DataFrame]
    if _ending(path) == ".csv":
        order, header, layout = _table_layout(path)

        def parse(line: int, piece: bytes) -> pl.DataFrame:
            return _table(path, line, piece, order, header and line == 1)
    else:
        layout = _line_layout(path)

        def parse(line: int, piece: bytes) -> pl.DataFrame:
            return _lines(path, line, piece, layout)

    parts = [
        parse(line, piece).select(
            pl.col("user_id", "item_id").cast(pl.Categorical),
            pl.col("weight").cast(pl.Float32),
            pl.col("time") // layout.ticks,
        )
        for line, piece in chunks(path)
    ]
    table = pl.concat(parts, rechunk=False)
    if table.is_empty():
        raise DataError(f"reviews in {path}", "a header and nothing below", "download it again")
    return table, layout.name


def _line_layout(path: Path) -> Layout:
    line = first_line(path)
    record = parse_line(path, 1, line)
    for layout in (CLASSIC, RECENT):
        if all(name in record for name in layout.fields):
            return layout
    near = max((CLASSIC, RECENT), key=lambda one: sum(n in record for n in one.fields))
    raise DataError(
        f"reviews with {', '.join(CLASSIC.fields)} (2014, 2018) or {', '.join(RECENT.fields)} "
        f"(2023) in {path}",
        f"line 1 with {', '.join(list(record)[:8]) or 'nothing'}: "
        f"no {', '.join(n for n in near.fields if n not in record)}",
        "give the review file; metadata go to the option metadata",
    )


def _lines(path: Path, first: int, piece: bytes, layout: Layout) -> pl.DataFrame:
    """One piece of JSON lines; where the fast parser gives up, line by line with its number."""
    kinds = (pl.Utf8, pl.Utf8, pl.Float64, pl.Int64)
    if not piece.strip():
        return pl.DataFrame(schema=dict(zip(COLUMNS, kinds, strict=True)))
    try:
        schema = dict(zip(layout.fields, kinds, strict=True))
        frame = pl.read_ndjson(io.BytesIO(piece), schema=schema)
        if not sum(frame.null_count().row(0)):
            return frame.rename(dict(zip(layout.fields, COLUMNS, strict=True)))
    except pl.exceptions.PolarsError:
        pass
    rows = []
    for number, line in enumerate(piece.split(b"\n"), first):
        if not line.strip():
            continue
        record = parse_line(path, number, line)
        try:
            user, item = record[layout.user], record[layout.item]
            if user is None or item is None:
                raise TypeError("an id is null")
            rating, time = float(record[layout.rating]), int(float(record[layout.time]))
            rows.append((str(user), str(item), rating, time))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            got = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(
                f"{', '.join(layout.fields)} in each line of {path}",
                f"line {number} with {got}",
                "mend or remove that line",
            ) from error
    return pl.DataFrame(rows, schema=dict(zip(COLUMNS, kinds, strict=True)), orient="row")


# ----------------------------------------------------------------------- ratings-only tables


def _table_layout(path: Path) -> tuple[tuple[str, ...], bool, Layout]:
    """Order of the columns, whether there is a header, and the layout."""
    cells = first_line(path).decode("utf-8-sig", "replace").split(",")
    if "user_id" in cells:
        names = {RECENT.item: "item_id", RECENT.rating: "weight", RECENT.time: "time"}
        missing = [name for name in RECENT.fields if name not in cells]
        if missing:
            raise DataError(
                f"columns {', '.join(RECENT.fields)} in {path}, line 1",
                f"columns {', '.join(cells)}",
                f"name the column {missing[0]}",
            )
        return tuple(names.get(name, name) for name in cells), True, RECENT
    if len(cells) != 4:
        raise DataError(
            f"four cells separated by commas, without a header, in {path}",
            f"{len(cells)} in line 1: {','.join(cells)[:60]!r}",
            "give a ratings-only file of 2014 or 2018, or one with the header of 2023",
        )
    _, piece = next(chunks(path, 1 << 16))
    sample = pl.read_csv(
        io.BytesIO(piece),
        has_header=False,
        infer_schema=False,
        n_rows=1000,
        quote_char=None,
        truncate_ragged_lines=True,
    )
    share = [sample[:, i].str.contains(ITEM_ID).fill_null(value=False).mean() for i in (0, 1)]
    if share[0] == share[1]:
        raise DataError(
            f"product numbers (ten signs, such as B000123456) in column 1 or 2 of {path}",
            f"{','.join(cells)[:60]!r} in line 1",
            "give a table of Amazon ratings, or import it as a flat table",
        )
    item_first = float(share[0] or 0) > float(share[1] or 0)  # type: ignore[arg-type]
    ids = ("item_id", "user_id") if item_first else ("user_id", "item_id")
    return (*ids, "weight", "time"), False, CLASSIC


def _table(
    path: Path, first: int, piece: bytes, order: tuple[str, ...], header: bool
) -> pl.DataFrame:
    kinds = {"user_id": pl.Utf8, "item_id": pl.Utf8, "weight": pl.Float64, "time": pl.Int64}
    options: dict[str, Any] = {"has_header": False, "skip_rows": int(header), "quote_char": None}
    try:
        if not (piece.split(b"\n", 1)[1] if header else piece).strip():
            return pl.DataFrame(schema=kinds)
        schema = {name: kinds.get(name, pl.Utf8) for name in order}
        frame = pl.read_csv(io.BytesIO(piece), schema=schema, **options).select(COLUMNS)
        if not sum(frame.null_count().row(0)):
            return frame
        row = int(frame.select(pl.any_horizontal(pl.all().is_null())).to_series().arg_max() or 0)
        got = f"an empty cell in line {first + header + row}"
    except pl.exceptions.PolarsError:
        row, got = _first_wrong(piece, order, header)
        got = f"line {first + row}, {got!r}"
    raise DataError(f"{', '.join(order)} in each line of {path}", got, "mend or remove that line")


def _first_wrong(piece: bytes, order: tuple[str, ...], header: bool) -> tuple[int, str]:
    """Offset and text of the first line that has other cells than `order` says."""
    lines = piece.decode("utf-8", "replace").split("\n")
    for row, line in enumerate(lines):
        cells = line.rstrip("\r").split(",")
        if (row == 0 and header) or not line:
            continue
        try:
            if len(cells) != len(order):
                return row, line
            float(cells[order.index("weight")])
            int(cells[order.index("time")])
        except ValueError:
            return row, line
    return 0, lines[0]
