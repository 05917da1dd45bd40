"""Metadata of Amazon products, whose fields changed their names and types over the years."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from modalign.data.sources._lines import json_records
from modalign.errors import DataError

SCHEMA = {
    "item_id": pl.Utf8,
    "title": pl.Utf8,
    "description": pl.Utf8,
    "categories": pl.Utf8,
    "brand": pl.Utf8,
    "price": pl.Float64,
    "image_url": pl.Utf8,
}
PRICE = re.compile(r"\d[\d,]*(?:\.\d+)?")


def read_metadata(path: Path, wanted: set[str]) -> pl.DataFrame:
    """What is known of the `wanted` items, in the columns of `SCHEMA`; the first of repeated ones.

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
        raise DataError(
            f"products with asin or parent_asin in {path}",
            "no line with either",
            "give the metadata file of the reviews' category",
        )
    return pl.DataFrame(list(rows.values()), schema=SCHEMA, orient="row")


def describe(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Title, description, categories, brand, price and image address of one product.

    Example:
        >>> describe({"title": "A &amp; B", "price": "$1,200.50", "category": ["X", "Y"]})
        ('A & B', None, 'X | Y', None, 1200.5, None)
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
    )


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
