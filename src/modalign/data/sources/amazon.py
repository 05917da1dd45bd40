"""Amazon reviews of 2014, 2018 and 2023: JSON lines or "ratings only" tables, with metadata.

The three collections of the McAuley Lab name the same things differently:

                  2014, 2018                        2023
    user          reviewerID                        user_id
    item          asin                              parent_asin
    rating        overall                           rating
    time          unixReviewTime (seconds)          timestamp (milliseconds)
    metadata      asin, title, description,         parent_asin, title, description (list),
                  categories or category, brand,    categories, store, price, features,
                  price, feature, imUrl or          details, images (list of sizes)
                  imageURL

Metadata of 2014 are Python literals, not JSON; both are read. "Ratings only" tables are
user,item,rating,time (2014), item,user,rating,time (2018), both without a header, and
user_id,parent_asin,rating,timestamp with one (2023). The official splits of 2023 are three such
tables, <category>.train.csv, <category>.valid.csv and <category>.test.csv; some have a column
history.

Sources of the data: R. He, J. McAuley, WWW 2016; J. Ni, J. Li, J. McAuley, EMNLP 2019;
Y. Hou et al., "Bridging Language and Items for Retrieval and Recommendation", 2024.
"""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from modalign.data import item_files
from modalign.data.official import AMAZON_TERMS
from modalign.data.raw import RawData
from modalign.data.sources._columns import Columns, RowRules, typed
from modalign.data.sources._lines import chunks, first_line, json_records, parse_json, parsed
from modalign.data.sources._text_table import SourceTable, open_table
from modalign.errors import DataError

COLUMNS = ("user_id", "item_id", "weight", "time")
ENDINGS = (".json", ".jsonl", ".csv")
PARTS = ("train", "valid", "test")
OF_A_SPLIT = re.compile(r"(.+)\.(train|valid|test)$")
NO_TEXT = re.compile(
    r"\b(rank|asin|upc|isbn|isbn-1[03]|ean|number|dimensions|weight|date|discontinued|shipping|"
    r"reviews?|reference|batteries)\b",
    re.IGNORECASE,
)
"""Details of a product that say nothing of what it is like."""
ITEM_SCHEMA = {
    "item_id": pl.Utf8,
    "title": pl.Utf8,
    "description": pl.Utf8,
    "categories": pl.Utf8,
    "brand": pl.Utf8,
    "price": pl.Float64,
    "image_url": pl.Utf8,
    "features": pl.Utf8,
    "details": pl.Utf8,
}
PRICE = re.compile(r"\d[\d,]*(?:\.\d+)?")
ITEM_ID = r"^(B[0-9A-Z]{9}|[0-9]{9}[0-9X])$"


@dataclass(frozen=True)
class Layout:
    """Names of user, item, rating and time in a collection, and ticks of its time per second."""

    name: str
    user: str
    item: str
    rating: str
    time: str
    ticks: int

    @property
    def fields(self) -> tuple[str, str, str, str]:
        """The four names, in the order of `COLUMNS`."""
        return self.user, self.item, self.rating, self.time


CLASSIC = Layout("2014 or 2018", "reviewerID", "asin", "overall", "unixReviewTime", 1)
RECENT = Layout("2023", "user_id", "parent_asin", "rating", "timestamp", 1000)


def read(
    path: str | Path, reviews: str | Path | None = None, metadata: str | Path | None = None
) -> RawData:
    """Read one category of Amazon reviews, and its metadata if present.

    Reviews in JSON lines are read in pieces of some megabytes; only user, item, rating and time
    are kept, with ids as numbers into a table of strings: about 20 bytes per review. Items have
    `title`, `description`, `categories` (joined by " | "), `brand`, `price`, `image_url`,
    `features` and `details` (which say most of what an item of 2023 is like, as its description is
    empty as a rule), and `image` if `images/<asin>.jpg` exists beside the reviews. Metadata of
    items without reviews are left out.

    Args:
        path: the review file, or its folder. One of the three files of an official split stands for
            all of them.
        reviews: name or path of the review file, if the folder holds several.
        metadata: name or path of the metadata file; None takes the `meta_...` file beside the
            reviews with the name of their category.

    Returns:
        RawData, with split if the reviews are files of train, valid and test; weight is the rating,
        time is in seconds.

    Raises:
        DataError: a file is missing, ambiguous or broken, or a line does not fit its layout; the
            message names file and line.

    Limits: metadata as Python literals (2014) are slow, about 10,000 items per second.

    Example:
        >>> import json, tempfile
        >>> file = Path(tempfile.mkdtemp()) / "Toys.jsonl"
        >>> line = {"user_id": "U", "parent_asin": "B1", "rating": 5.0, "timestamp": 2000}
        >>> _ = file.write_text(json.dumps(line))
        >>> read(file).interactions.collect().rows()
        [('U', 'B1', 5.0, 2)]
    """
    review_file, meta_file = _find(Path(path), reviews, metadata)
    parts = _parts(review_file)
    interactions, layout = _split_reviews(parts) if parts else _reviews(review_file)
    ids = interactions.select(pl.col("item_id").unique(maintain_order=True))
    items = ids.collect(engine="streaming").cast(pl.String)
    remarks = []
    if meta_file is None:
        remarks.append("no metadata file was found: items have ids only")
    else:
        found = read_metadata(meta_file, set(items["item_id"]))
        if missing := len(items) - len(found):
            remarks.append(f"{missing} of {len(items)} items are not in {meta_file.name}")
        items = items.join(found, on="item_id", how="left", maintain_order="left")
    folder = review_file.parent / "images"
    if folder.is_dir():
        pictures = item_files.find(folder, remarks=remarks)
        items = items.join(pictures, on="item_id", how="left", maintain_order="left")
    return RawData(
        name=category(review_file),
        interactions=interactions.with_columns(pl.col("user_id", "item_id").cast(pl.String)),
        items=items,
        info={
            "kind": "amazon",
            "layout": layout.name,
            "licence": AMAZON_TERMS,
            "files": [one.name for one in (*(parts.values() or [review_file]), meta_file) if one],
            "remarks": remarks,
        },
    )


def category(path: Path) -> str:
    """The category's name in a file name: "Baby" of `reviews_Baby_5.json.gz`.

    Example:
        >>> [category(Path(n)) for n in ("reviews_Baby_5.json.gz", "meta_Baby.json", "Baby.csv")]
        ['Baby', 'Baby', 'Baby']
        >>> category(Path("Baby.train.csv.gz"))
        'Baby'
    """
    name = _stem(path)
    if of_a_split := OF_A_SPLIT.fullmatch(name):
        name = of_a_split[1]
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
        stems = [OF_A_SPLIT.fullmatch(_stem(p)) for p in candidates]
        one_split = len({one and one[1] for one in stems}) == 1 and all(stems)
        if len(candidates) != 1 and not one_split:
            names = ", ".join(p.name for p in candidates[:5]) or "none"
            expected = f"one review file (.json, .jsonl or .csv, also .gz) in {folder}"
            raise DataError(expected, names, "name it with the option reviews: --set reviews=NAME")
        review_file = candidates[0]
    if metadata is not None:
        return review_file, _existing(folder, metadata)
    wanted = category(review_file)
    metas = [p for p in tables if p.name.startswith("meta_") and category(p) == wanted]
    return review_file, metas[0] if metas else None


def _parts(path: Path) -> dict[str, Path]:
    """The files of the split to which a review file belongs, by part; empty if it is whole.

    Raises:
        DataError: one of the three is missing.
    """
    found = OF_A_SPLIT.fullmatch(_stem(path))
    if found is None:
        return {}
    files: dict[str, Path] = {}
    for other in sorted(path.parent.iterdir()):
        one = OF_A_SPLIT.fullmatch(_stem(other))
        if one and one[1] == found[1] and _ending(other) == ".csv":
            files.setdefault(one[2], other)
    missing = [part for part in PARTS if part not in files]
    if missing:
        raise DataError(
            f"{found[1]}.train, {found[1]}.valid and {found[1]}.test in {path.parent}",
            f"no file of {', '.join(missing)}",
            "add the missing file, or import the reviews of the category and split them",
        )
    return {part: files[part] for part in PARTS}


def _stem(path: Path) -> str:
    """The file's name without its endings."""
    name = path.name.removesuffix(".gz")
    return name.removesuffix(_ending(path)) if _ending(path) in ENDINGS else name


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


def _reviews(path: Path) -> tuple[pl.LazyFrame, Layout]:
    """Columns `COLUMNS` of a review file, and its layout."""
    if _ending(path) == ".csv":
        table, layout = _ratings_only(path)
        columns = Columns(layout.user, layout.item, layout.rating, layout.time)
        unit = "ms" if layout.ticks == 1000 else "s"
        return typed(table, columns, RowRules(time_unit=unit)).frame, layout
    layout = _line_layout(path)
    parts = [
        _lines(path, line, piece, layout).select(
            pl.col("user_id", "item_id").cast(pl.Categorical),
            pl.col("weight").cast(pl.Float32),
            pl.col("time") // layout.ticks,
        )
        for line, piece in chunks(path)
    ]
    return pl.concat(parts, rechunk=False).lazy(), layout


def _split_reviews(parts: Mapping[str, Path]) -> tuple[pl.LazyFrame, Layout]:
    """Reviews of all parts of a split, and the layout of the first."""
    read_ = {part: _reviews(file) for part, file in parts.items()}
    frames = [frame.with_columns(split=pl.lit(part)) for part, (frame, _) in read_.items()]
    return pl.concat(frames), read_["train"][1]


def _line_layout(path: Path) -> Layout:
    line = first_line(path)
    if not line:
        raise DataError(f"lines of data in {path}", "an empty file", "download the file again")
    record = parse_json(path, 1, line.encode())
    for layout in (CLASSIC, RECENT):
        if all(name in record for name in layout.fields):
            return layout
    near = max((CLASSIC, RECENT), key=lambda one: sum(n in record for n in one.fields))
    raise DataError(
        f"reviews with {', '.join(CLASSIC.fields)} (2014, 2018) or {', '.join(RECENT.fields)} "
        f"(2023) in {path}",
        f"line 1 with {', '.join(list(record)[:8]) or 'nothing'}: "
        f"no {', '.join(n for n in near.fields if n not in record)}",
        "give the review file; metadata belong to the option metadata",
    )


def _lines(path: Path, first: int, piece: bytes, layout: Layout) -> pl.DataFrame:
    """One piece of JSON lines; where the fast parser fails, line by line with its number."""
    kinds = (pl.String, pl.String, pl.Float64, pl.Int64)
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
    for number, record in parsed(path, first, piece):
        try:
            user, item = record[layout.user], record[layout.item]
            if user is None or item is None:
                raise TypeError("an id is null")
            rating, time = float(record[layout.rating]), int(float(record[layout.time]))
            rows.append((str(user), str(item), rating, time))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            got = f"no {error}" if isinstance(error, KeyError) else str(error)
            expected = f"{', '.join(layout.fields)} in each line of {path}"
            fix = "correct or remove that line"
            raise DataError(expected, f"line {number} with {got}", fix) from error
    return pl.DataFrame(rows, schema=dict(zip(COLUMNS, kinds, strict=True)), orient="row")


def _ratings_only(path: Path) -> tuple[SourceTable, Layout]:
    """A "ratings only" table and its layout, found from the first line and the product numbers."""
    cells = first_line(path).split(",")
    if RECENT.user in cells:
        table = open_table(path, ",", quote="none")
        table.need(RECENT.fields)
        return table, RECENT
    if len(cells) != 4:
        got = f"{len(cells)} in line 1: {','.join(cells)[:60]!r}"
        fix = "give a ratings-only file of 2014 or 2018, or one with the header of 2023"
        raise DataError(f"four fields separated by commas, without a header, in {path}", got, fix)
    table = open_table(path, ",", columns=CLASSIC.fields, quote="none")
    sample = table.collect(table.frame.head(1000))
    share = [sample[:, i].str.contains(ITEM_ID).fill_null(value=False).sum() for i in (0, 1)]
    if share[0] == share[1]:
        expected = f"product numbers (ten signs, such as B000123456) in column 1 or 2 of {path}"
        fix = "give a table of Amazon ratings, or import it as a flat table"
        raise DataError(expected, f"{','.join(cells)[:60]!r} in line 1", fix)
    if share[0] > share[1]:
        columns = (CLASSIC.item, CLASSIC.user, CLASSIC.rating, CLASSIC.time)
        table = open_table(path, ",", columns=columns, quote="none")
    return table, CLASSIC


def read_metadata(path: Path, wanted: set[str]) -> pl.DataFrame:
    """What is known of the `wanted` items, as `ITEM_SCHEMA`; the first of repeated ones.

    Raises:
        DataError: a line is neither JSON nor a Python literal, or no line has a product number.
    """
    rows: dict[str, tuple[Any, ...]] = {}
    some = False
    for _, record in json_records(path):
        # The 2023 lines carry both; reviews there are joined by the parent.
        one = str(record.get("parent_asin") or record.get("asin") or "")
        some = some or bool(one)
        if one in wanted and one not in rows:
            rows[one] = (one, *describe(record))
    if not some:
        fix = "give the metadata file of the reviews' category"
        raise DataError(f"products with asin or parent_asin in {path}", "no line with either", fix)
    return pl.DataFrame(list(rows.values()), schema=ITEM_SCHEMA, orient="row")


def describe(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Title, description, categories, brand, price and image address of one product.

    Example:
        >>> describe({"title": "A &amp; B", "price": "$1,200.50", "category": ["X", "Y"]})
        ('A & B', None, 'X | Y', None, 1200.5, None, None, None)
    """
    title = _text([record.get("title")], " ")
    # Some titles of 2018 are a page's script that was taken for its title.
    title = None if title and "getTime()" in title else title
    categories = record.get("categories") or record.get("category")
    return (
        title,
        _text(record.get("description"), " "),
        _text(categories, " | "),
        _text([record.get("brand") or record.get("store")], " "),
        _price(record.get("price")),
        _image(record),
        _text(record.get("features") or record.get("feature"), " "),
        _details(record.get("details")),
    )


def _details(value: Any) -> str | None:
    """Names and values of a product's details, without those that say nothing of what it is like.

    Example:
        >>> _details({"Colour": "Red", "Best Sellers Rank": {"Toys": 7}, "Fit": ["slim", "long"]})
        'Colour: Red; Fit: slim, long'
    """
    if isinstance(value, str):  # some collections hold the object as a text
        try:
            value = json.loads(value)
        except ValueError:
            return _text(value, " ")
    if not isinstance(value, Mapping):
        return _text(value, "; ")
    said = {str(name).strip(" :"): _text(one, ", ") for name, one in value.items()}
    kept = (f"{name}: {one}" for name, one in said.items() if one and not NO_TEXT.search(name))
    return "; ".join(kept) or None


def _flat(value: Any) -> Iterable[str]:
    """All texts in a value that is a text, or lists of lists of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)


def _text(value: Any, separator: str) -> str | None:
    parts = (" ".join(html.unescape(part).split()) for part in _flat(value))
    return separator.join(dict.fromkeys(part for part in parts if part)) or None


def _price(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value)
    found = PRICE.search(value) if isinstance(value, str) else None
    return float(found.group().replace(",", "")) if found else None


def _image(record: Mapping[str, Any]) -> str | None:
    """The largest picture's address: a text (2014), a list (2018) or a list of sizes (2023)."""
    images = record.get("images")
    if isinstance(images, list):
        for size in ("hi_res", "large", "thumb"):
            for one in images:
                if isinstance(one, dict) and one.get(size):
                    return str(one[size])
    for name in ("imageURLHighRes", "imageURL", "imUrl"):
        for one in _flat(record.get(name)):
            if one:
                return one
    return None
