"""What columns are for, recognised by the names that other people's files give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

Role = Literal["user", "item", "weight", "time"]

# Compared in lower case without separators.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "customer", "visitorid"),
    "item": (
        "itemid", "item", "iid", "asin", "parentasin", "movieid", "productid", "product",
        "articleid", "bookid", "trackid", "artistid", "businessid", "songid", "gameid", "sku",
    ),
    "weight": ("weight", "rating", "score", "stars", "overall", "playcount", "count", "ratings"),
    "time": (
        "time", "timestamp", "ts", "date", "datetime", "unixreviewtime", "unixtime", "createdat",
    ),
    "title": ("title", "name", "itemname", "productname", "movietitle"),
    "description": ("description", "text", "plot", "summary", "abstract", "overview"),
    "image": ("image", "imagepath", "picture", "photo", "poster", "imagefile", "img"),
}  # fmt: skip


def plain(name: str) -> str:
    """A column name as it is compared: lower case, letters and digits only.

    Example:
        >>> plain("User_ID:token")
        'userid'
    """
    base = name.split(":", maxsplit=1)[0]  # RecBole's "user_id:token"
    return "".join(c for c in base.lower() if c.isalnum())


def recognise(names: Iterable[str], role: str) -> str | None:
    """The column of a role, by its name; of several, the name that comes first in `KNOWN`.

    Example:
        >>> recognise(["count", "stars"], "weight")
        'stars'
    """
    by_plain = {plain(name): name for name in reversed(list(names))}
    return next((by_plain[known] for known in KNOWN[role] if known in by_plain), None)
