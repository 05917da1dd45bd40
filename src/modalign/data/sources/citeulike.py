"""CiteULike-a and CiteULike-t: users' article collections with the articles' words and tags.

    users.dat        one line per user: how many articles, then their numbers from 0
    mult.dat         one line per article: how many distinct words, then word:count
    vocabulary.dat   one word per line, the first is word 0
    tags.dat         one tag per line, the first is tag 0                         (optional)
    tag-item.dat     one line per tag: how many articles, then their numbers      (-t, optional)
    item-tag.dat     one line per article: how many tags, then their numbers      (-a, optional)
    raw-data.csv     doc.id (from 1), raw.title, raw.abstract                     (-a, optional)

Source of the data: H. Wang, B. Chen, W.-J. Li, "Collaborative Topic Regression with Social
Regularization for Tag Recommendation", IJCAI 2013.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from modalign.data.official import CITEULIKE_TERMS
from modalign.data.raw import RawData
from modalign.data.sources._lines import read_lines
from modalign.data.sources._text_table import open_table
from modalign.errors import ConfigError, DataError


def read(path: str | Path, min_documents: int = 1) -> RawData:
    r"""Read a CiteULike folder.

    An article's `description` repeats each of its words as often as `mult.dat` counts it,
    separated by single spaces, so that counting words by white space gives the published bag
    of words back. Articles without words have no description, articles without tags no tags.

    Args:
        path: the folder.
        min_documents: words that stand in fewer articles are left out, at least 1.

    Returns:
        RawData; users and items carry their numbers from 0 as ids.

    Raises:
        DataError: a file is missing, a count disagrees with its line, or a number is too large for
            the articles, words or tags that exist; the message names file and line.
        ConfigError: `min_documents` is below 1.

    Limits: the order of words is lost in the published files, so an encoder that reads
    sentences gets less from them than tf-idf does.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "users.dat").write_text("1 0\n2 0 1\n")
        >>> _ = (folder / "mult.dat").write_text("2 1:2 0:1\n0\n")
        >>> _ = (folder / "vocabulary.dat").write_text("graph\noptimal\n")
        >>> raw = read(folder)
        >>> raw.interactions.collect().rows(), raw.items["description"].to_list()
        ([('0', '0'), ('1', '0'), ('1', '1')], ['optimal optimal graph', None])
    """
    if min_documents < 1:
        raise ConfigError("min_documents of at least 1", str(min_documents), "use 1 to keep all")
    folder = Path(path)
    for name in ("users.dat", "mult.dat", "vocabulary.dat"):
        if not (folder / name).is_file():
            expected = "users.dat, mult.dat and vocabulary.dat in a CiteULike folder"
            fix = "give the folder with the original files of the data set"
            raise DataError(expected, f"{folder} without {name}", fix)
    counts, n_items = _words(folder / "mult.dat")
    words = _names(folder / "vocabulary.dat")
    _within(folder / "mult.dat", counts, "word", len(words), "words in vocabulary.dat")
    pairs, n_users = _numbers(folder / "users.dat", "item")
    _within(folder / "users.dat", pairs, "item", n_items, "articles in mult.dat")
    items = pl.DataFrame({"row": pl.int_range(n_items, eager=True)})
    columns = [_descriptions(counts, words, min_documents), _tags(folder, n_items), _raw(folder)]
    for column in columns:
        if column is not None:
            items = items.join(column, on="row", how="left", maintain_order="left")
    without = items["description"].null_count()
    files = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".dat", ".csv")]
    return RawData(
        name=folder.resolve().name,
        interactions=pairs.lazy().select(
            user_id=pl.col("line").cast(pl.Utf8), item_id=pl.col("item").cast(pl.Utf8)
        ),
        items=items.rename({"row": "item_id"}).with_columns(pl.col("item_id").cast(pl.Utf8)),
        users=pl.DataFrame({"user_id": pl.int_range(n_users, eager=True).cast(pl.Utf8)}),
        info={
            "kind": "citeulike",
            "licence": CITEULIKE_TERMS,
            "files": files,
            "remarks": [f"{without} of {n_items} articles have no words"] if without else [],
        },
    )


def _tokens(path: Path) -> tuple[pl.DataFrame, int]:
    """Entries of every line as (line from 0, token text), and the number of lines."""
    frame = pl.DataFrame({"text": read_lines(path)}, schema={"text": pl.Utf8})
    split = frame.select(
        line=pl.int_range(pl.len()), token=pl.col("text").str.extract_all(r"\S+")
    ).with_columns(
        count=pl.col("token").list.first().cast(pl.Int64, strict=False),
        length=pl.col("token").list.len().cast(pl.Int64) - 1,
    )
    wrong = split.filter(pl.col("count").ne_missing(pl.col("length")))
    if len(wrong):
        line, tokens, count, length = wrong.row(0)
        got = f"{tokens[0]!r} first" if tokens and count is None else f"count {count}"
        place = f"{got} and {length} entries in" if tokens else "an empty"
        raise DataError(
            f"a count, then that number of entries, separated by spaces, in each line of {path}",
            f"{place} line {line + 1}",
            "correct that line; a line without entries is a single 0",
        )
    entries = split.select("line", pl.col("token").list.slice(1)).explode("token")
    return entries.drop_nulls(), len(frame)


def _numbers(path: Path, name: str) -> tuple[pl.DataFrame, int]:
    """Lines of numbers as (line, `name`), int64."""
    tokens, n_lines = _tokens(path)
    parsed = tokens.with_columns(pl.col("token").cast(pl.Int64, strict=False).alias(name))
    _whole(path, parsed, name)
    return parsed.select("line", name), n_lines


def _words(path: Path) -> tuple[pl.DataFrame, int]:
    """Lines of word:count as (line, word, count), int64."""
    tokens, n_lines = _tokens(path)
    halves = pl.col("token").str.split_exact(":", 1).struct
    parsed = tokens.with_columns(
        word=halves.field("field_0").cast(pl.Int64, strict=False),
        count=halves.field("field_1").cast(pl.Int64, strict=False),
    )
    _whole(path, parsed, "word")
    _whole(path, parsed.with_columns(count=pl.when(pl.col("count") > 0).then("count")), "count")
    return parsed.select("line", "word", "count"), n_lines


def _whole(path: Path, parsed: pl.DataFrame, name: str) -> None:
    wrong = parsed.filter(pl.col(name).is_null())
    if len(wrong):
        line, token = wrong.select("line", "token").row(0)
        expected = f"{'word:count' if 'word' in parsed.columns else 'whole'} numbers in {path}"
        raise DataError(expected, f"{token!r} in line {line + 1}", "correct that entry")


def _within(path: Path, entries: pl.DataFrame, name: str, n: int, what: str) -> None:
    wrong = entries.filter(~pl.col(name).is_between(0, n - 1))
    if len(wrong):
        line, value = wrong.select("line", name).row(0)
        expected = f"{name} numbers from 0 to {n - 1}, as there are {n} {what}, in {path}"
        raise DataError(expected, f"{value} in line {line + 1}", "use files of the same data set")


def _names(path: Path) -> pl.Series:
    """One name per line, as one word: white space becomes `_`, and so does a line without a name.

    CiteULike-t's vocabulary has a word that is a no-break space; its number must stay taken.
    """
    names = pl.Series("name", read_lines(path), pl.Utf8)
    return names.str.replace_all(r"[\s\x1c-\x1f]+|^$", "_")


def _joined(entries: pl.DataFrame, column: str) -> pl.DataFrame:
    """(line, token) to (row, text): the tokens of each line in order, joined by spaces."""
    return entries.group_by(pl.col("line").alias("row"), maintain_order=True).agg(
        pl.col("token").str.join(" ").alias(column)
    )


def _descriptions(counts: pl.DataFrame, words: pl.Series, min_documents: int) -> pl.DataFrame:
    if min_documents > 1:
        counts = counts.filter(pl.len().over("word") >= min_documents)
    repeated = counts.select(
        "line", token=pl.lit(words).gather(pl.col("word")).repeat_by(pl.col("count"))
    )
    return _joined(repeated.explode("token"), "description")


def _tags(folder: Path, n_items: int) -> pl.DataFrame | None:
    """(row, tags), or None if the folder has no tags."""
    if not (folder / "tags.dat").is_file():
        return None
    by_tag, by_item = folder / "tag-item.dat", folder / "item-tag.dat"
    names = _names(folder / "tags.dat")
    if by_tag.is_file():
        pairs, n_lines = _numbers(by_tag, "item")
        _within(by_tag, pairs, "item", n_items, "articles in mult.dat")
        path, right, what = by_tag, len(names), "tag in tags.dat"
        entries = pairs.select(pl.col("item").alias("line"), pl.col("line").alias("tag"))
    elif by_item.is_file():
        entries, n_lines = _numbers(by_item, "tag")
        _within(by_item, entries, "tag", len(names), "tags in tags.dat")
        path, right, what = by_item, n_items, "article in mult.dat"
    else:
        return None
    if n_lines != right:
        fix = "use files of the same data set"
        raise DataError(f"{right} lines, one per {what}, in {path}", f"{n_lines} lines", fix)
    tokens = entries.select("line", token=pl.lit(names).gather(pl.col("tag")))
    return _joined(tokens, "tags")


def _raw(folder: Path) -> pl.DataFrame | None:
    """(row, title, abstract) of citeulike-a's `raw-data.csv`, or None if it does not exist."""
    path = folder / "raw-data.csv"
    if not path.is_file():
        return None
    table = open_table(path, ",", latin=True)
    table.need(("doc.id", "raw.title"))
    rows = table.collect()
    row = rows["doc.id"].cast(pl.Int64, strict=False)
    if row.null_count() or row.n_unique() != len(row):
        got = "an empty or repeated number"
        fix = "use the original file of the data set"
        raise DataError(f"each article number once in column 'doc.id' of {path}", got, fix)
    abstract = [pl.col("raw.abstract").alias("abstract")] if "raw.abstract" in rows.columns else []
    return rows.select((row - 1).alias("row"), pl.col("raw.title").alias("title"), *abstract)
