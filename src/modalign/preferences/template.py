"""Preferences without a language model: characteristic words and frequent categories."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from pydantic import Field

from modalign.core.interfaces import Config
from modalign.core.settings import build
from modalign.core.sparse import place_in_row, row_of_entries
from modalign.encoding.tfidf import tfidf_matrix
from modalign.errors import DataError
from modalign.preferences.provider import PROVIDERS, Descriptions, ProgressCallback, TextSource
from modalign.preferences.side import TrainingSide, need_texts

VERSION = 1
BLOCK = 8192
"""Users whose words are ranked at a time."""


class TemplateOptions(Config):
    """Options of `Template`."""

    n_words: Annotated[int, Field(ge=1)] = 20
    """Maximum number of words."""
    n_labels: Annotated[int, Field(ge=0)] = 3
    """Maximum number of categories and makers."""
    min_df: Annotated[int, Field(ge=1)] = 2
    """Minimum number of items whose text has the word."""


class Template:
    """One sentence about each user, made of words from the texts of their items.

    With x_i the tf-idf row of item i's text and c the mean of these rows, the words of user u are
    the `n_words` largest positive entries of `sum over u's training items of (x_i - c)`. The
    `n_labels` most frequent categories and makers precede them. Ties are in alphabetical order.
    Items without a text are ignored.

    Limits: it repeats the catalogue's words and knows no synonyms. Deterministic, offline.

    Args:
        options: see `TemplateOptions`.

    Raises:
        ConfigError: an option is unknown or out of its bounds.
    """

    def __init__(self, **options: Any) -> None:
        self.options = build(TemplateOptions, options, "provider template")

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """Provider, version, options."""
        return {"provider": "template", "version": VERSION, **self.options.model_dump()}

    def describe(self, side: TrainingSide, progress: ProgressCallback) -> Descriptions:
        """A sentence for each user whose items have words or labels.

        Raises:
            DataError: no item has a text.
        """
        need_texts(side, "the provider template")
        words = self._words(side)
        table = words.join(self._labels(side), on="user", how="full", coalesce=True).sort("user")
        described = table.with_columns(
            pl.concat_str(
                (pl.lit("Most often: ") + pl.col("labels") + "."),
                (pl.lit("Typical words: ") + pl.col("words") + "."),
                separator=" ",
                ignore_nulls=True,
            ).alias("text")
        )
        everyone = pl.DataFrame({"user": np.arange(side.n_users)})
        joined = everyone.join(described, on="user", how="left", maintain_order="left")
        texts: list[str | None] = joined["text"].to_list()
        sources: list[TextSource | None] = [None if text is None else "template" for text in texts]
        progress(len(side.active), len(side.active))
        return Descriptions(texts, sources)

    def _words(self, side: TrainingSide) -> pl.DataFrame:
        """User and their words with commas, for users who have some."""
        try:
            matrix, words = tfidf_matrix(side.texts, min_df=self.options.min_df)
        except DataError:  # no word in enough texts; the labels are still useful
            return pl.DataFrame(schema={"user": pl.Int64, "words": pl.Utf8})
        there = np.diff(matrix.indptr) > 0
        mean = np.asarray(matrix.sum(axis=0), np.float64).ravel() / max(1, there.sum())
        users, items = side.pairs[:, there[side.pairs[1]]]
        ones = np.ones(len(users), np.float32)
        chosen = sp.csr_array((ones, (users, items)), shape=(side.n_users, side.n_items))
        parts = []
        for start in range(0, side.n_users, BLOCK):
            block = chosen[start : start + BLOCK]
            total = sp.csr_array(block @ matrix)
            counts = np.diff(block.indptr)
            row = row_of_entries(total)
            value = total.data - counts[row] * mean[total.indices]
            kept = value > 1e-6
            # Rounded, so that values equal in exact arithmetic are in alphabetical order.
            row, value, column = row[kept], value[kept].round(5), total.indices[kept]
            order = np.lexsort((column, -value, row))
            row, column = row[order], column[order]
            first = place_in_row(np.bincount(row)) < self.options.n_words
            parts.append(pl.DataFrame({"user": row[first] + start, "word": column[first]}))
        return (
            pl.concat(parts)
            .with_columns(pl.Series("word", words).gather(pl.concat(parts)["word"]))
            .group_by("user", maintain_order=True)
            .agg(pl.col("word").str.join(", ").alias("words"))
            .cast({"user": pl.Int64})
        )

    def _labels(self, side: TrainingSide) -> pl.DataFrame:
        """User and their labels with commas, for users who have some."""
        pairs = pl.DataFrame({"user": side.pairs[0], "item": side.pairs[1]})
        return (
            pairs.join(side.labels, on="item")
            .group_by("user", "label")
            .len()
            .sort(["user", "len", "label"], descending=[False, True, False])
            .group_by("user", maintain_order=True)
            .agg(pl.col("label").head(self.options.n_labels).str.join(", ").alias("labels"))
        )


PROVIDERS.register("template", lambda context, **options: Template(**options))
