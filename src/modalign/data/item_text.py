"""Texts of items: which columns they are, and how HTML in them becomes plain text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from modalign.data.sources._text_table import KNOWN, plain
from modalign.errors import ConfigError, UnknownName

TEXT_COLUMNS = (
    "title", "name", "subtitle", "genre", "genres", "category", "categories", "subcategory",
    "producttype", "producttypename", "productgroup", "productgroupname", "department",
    "departmentname", "brand", "brandname", "store", "manufacturer", "publisher",
    "colour", "color", "colourgroupname", "material",
    "description", "abstract", "plot", "summary", "text", "features", "details", "director",
    "authors", "author", "artist", "actors", "tags", "keywords",
)  # fmt: skip
"""Item columns that make the text if none are named, in this order, as `plain` writes them."""
PATHS = ("image", "imageurl", "url", "link", "audio", "video")
"""Columns whose cells are no prose: HTML is left in them as it is."""

_BLOCKS = (
    "address article aside blockquote body br caption center details dialog dir div dl dt fieldset "
    "figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 header hr html legend li main "
    "menu nav ol optgroup option p pre section select summary table tbody tfoot thead tr ul"
)
_CELLS = "td th dd"
_INLINE = (
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark meter nobr "
    "output progress q rp rt ruby s samp small span strike strong sub sup time tt u var wbr"
)
_OTHER = (
    "area audio base basefont button canvas col colgroup datalist embed iframe img input link map "
    "meta noframes noscript object param picture source svg textarea track video"
)
_DROPPED = ("script", "style", "head", "template")
"""Elements whose content is no text of the page."""


def _tag(names: str, start: str = "/?") -> str:
    """A pattern for tags of these names; signs in quoted attributes do not end a tag."""
    one_of = "|".join(names.split())
    attributes = r"""(?:[^<>"']|"[^"]*"|'[^']*')*"""
    return rf"<{start}(?:{one_of})(?:(?:[\s/]{attributes})?|[\s/][^<>]*)>"


_ALL = " ".join((_BLOCKS, _CELLS, _INLINE, _OTHER, *_DROPPED))
_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_CUT = rf"<(?:{'|'.join(_ALL.split())})\s[^<>=]*=[^<>]*$"
"""The start of a tag with an attribute, where a text was cut off."""
_MARKUP = rf"(?i){_tag(_ALL)}|<!--|{_ENTITY}|{_CUT}"
_RULES: tuple[tuple[str, str], ...] = (
    (r"(?s)<!--.*?(?:-->|$)", ""),
    *((rf"(?is){_tag(name, '')}.*?(?:</{name}\s*>|$)", " ") for name in _DROPPED),
    # Tags become line breaks and commas; line breaks of the source are blanks.
    (r"\s+", " "),
    (rf"(?i){_tag('th', '/')}\s*{_tag('td', '')}", ": "),
    (rf"(?i){_tag('dt', '/')}\s*{_tag('dd', '')}", ": "),
    (rf"(?i){_tag('td th', '/')}\s*{_tag('td th', '')}", ", "),
    (rf"(?i){_tag(_BLOCKS)}", "\n"),
    (rf"(?i){_tag(_INLINE)}", ""),
    (rf"(?i){_tag(_ALL)}", " "),
    (rf"(?i){_CUT}", ""),
)
_PASSES = 2
"""Feeds escape HTML once more (`&lt;p&gt;`), which a second pass finds."""


def strip_html(texts: pl.Series) -> pl.Series:
    r"""Texts without HTML: tags and comments left out, entities as their characters.

    Paragraphs, rows and entries of lists stand on lines of their own, cells are separated by
    commas. Only names of HTML elements count as tags, so `a < b` and `<unknown>` are kept. Texts
    without HTML are unchanged.

    Args:
        texts: a text series; nulls stay nulls, and what holds nothing but HTML becomes null.

    Example:
        >>> page = "<p>A &amp; B<br>5&quot; &lt; 6&quot;</p><ul><li>red</li><li>blue</li></ul>"
        >>> strip_html(pl.Series([page, "a < b"])).to_list()
        ['A & B\n5" < 6"\nred\nblue', 'a < b']
    """
    wanted = _MARKUP
    for _ in range(_PASSES):
        rows = texts.str.contains(wanted).fill_null(value=False).arg_true()
        if not len(rows):
            break
        texts = texts.clone().scatter(rows, _once(texts.gather(rows)))
        wanted = rf"(?i){_tag(_ALL)}"
    return texts


def _once(texts: pl.Series) -> pl.Series:
    for pattern, replacement in _RULES:
        texts = texts.str.replace_all(pattern, replacement)
    found = texts.str.extract_all(_ENTITY).explode().drop_nulls().unique().to_list()
    known = {one: made for one in found if (made := html.unescape(one)) != one}
    if known:
        texts = texts.str.replace_many(list(known), list(known.values()))
    # A no-break space is a blank.
    texts = texts.str.replace_all(r"[^\S\n]+", " ").str.replace_all(r" ?\n[ \n]*", "\n")
    texts = texts.str.strip_chars()
    return texts.set(texts == "", None)


def without_html(table: pl.DataFrame, remarks: list[str]) -> pl.DataFrame:
    """A table of items whose texts are plain text.

    Args:
        table: columns of items; ids and addresses are left as they are.
        remarks: gets one note for each column that was changed.
    """
    changed = []
    for name, kind in table.schema.items():
        if kind != pl.String or name == "item_id" or plain(name) in PATHS:
            continue
        old = table[name]
        new = strip_html(old)
        if name == "title":
            new = new.str.replace_all(r"\s*\n\s*", " ") if new is not old else old
        if new is not old:
            n = int(old.ne_missing(new).sum())
            remarks.append(f"HTML was removed from {n:,} of {len(old):,} cells of column {name!r}")
            changed.append(new.alias(name))
    return table.with_columns(changed)


def is_text(kind: Any) -> bool:
    """Whether a polars type holds texts or lists of them."""
    return bool(kind == pl.String or kind == pl.List(pl.String) or isinstance(kind, pl.Categorical))


def default_columns(schema: Mapping[str, Any]) -> list[str]:
    """The columns that make the text of an item if none are named.

    Example:
        >>> default_columns({"item_id": pl.String, "Brand": pl.String, "title": pl.String})
        ['title', 'Brand']
    """
    by_plain: dict[str, str] = {}
    for name, kind in schema.items():
        if is_text(kind):
            by_plain.setdefault(plain(name), name)
    return [by_plain[known] for known in TEXT_COLUMNS if known in by_plain]


def is_named_as_text(name: str) -> bool:
    """Whether a column of this name holds texts even where all its cells look like numbers.

    Example:
        >>> is_named_as_text("Title"), is_named_as_text("price")
        (True, False)
    """
    wanted = plain(name)
    return wanted in TEXT_COLUMNS or any(
        wanted in KNOWN[role] for role in ("title", "description", "image")
    )


def _as_kept(name: str, columns: Sequence[str]) -> str:
    """The column of this name; `prod_name` is meant too where it was kept as `title`."""
    kept = (role for role in ("title", "description") if plain(name) in KNOWN[role])
    return name if name in columns else next((role for role in kept if role in columns), name)


def choose(
    table: pl.DataFrame, names: Iterable[str] | None
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The columns that make the text of an item, and the table in which all of them are text.

    Args:
        table: of items.
        names: the columns in their order; None takes those with a known name.

    Raises:
        UnknownName: there is no such column.
        ConfigError: a column holds neither texts nor numbers, or stands twice.
    """
    if names is None:
        return table, tuple(default_columns(table.schema))
    chosen = tuple(_as_kept(name, table.columns) for name in names)
    if len(set(chosen)) < len(chosen) or not chosen:
        got = ", ".join(chosen) or "none"
        raise ConfigError("each column of texts once", got, "name each column once")
    texts: list[pl.Expr] = []
    for name in chosen:
        if name not in table.schema:
            raise UnknownName("column of the items", name, table.columns)
        kind = table.schema[name]
        if kind.is_nested() and not is_text(kind):
            got = f"column {name!r} of {kind}"
            raise ConfigError("item columns of texts or numbers", got, "name other columns")
        if not is_text(kind):
            texts.append(pl.col(name).cast(pl.String))
    return table.with_columns(texts), chosen


def text_columns(schema: Mapping[str, Any], stored: Sequence[str] | None) -> list[str]:
    """The item columns that make the text: those chosen at the import, else those known by name.

    Args:
        schema: type of each column of the items.
        stored: what the import chose; None if it stored nothing.
    """
    if stored is None:
        return default_columns(schema)
    return [name for name in stored if name in schema and is_text(schema[name])]
