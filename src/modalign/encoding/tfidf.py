"""Tf-idf of the catalogue's own words, whole (sparse) or reduced by a truncated SVD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from modalign.core.interfaces import Config
from modalign.core.settings import build
from modalign.encoding.encoders.encoder import InputKind, UnreadableInput, versions
from modalign.errors import ConfigError, DataError

DEFAULT_DIM = 256


class TfidfOptions(Config):
    """Options of tf-idf; a document is the text of one item."""

    stop_words: Literal["english", "none"] = "english"
    """Words to ignore: the common words of English, or none."""
    min_df: Annotated[int, Field(ge=1)] = 2
    """Minimum number of documents with a word."""
    max_df: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Maximum share of the documents with a word."""
    vocabulary_size: Annotated[int, Field(ge=1)] = 20_000
    """Maximum number of words; the most frequent ones are kept."""
    sublinear_tf: bool = False
    """Count a word with n occurrences in a document as 1 + ln(n)."""
    ngrams: Annotated[int, Field(ge=1, le=4)] = 1
    """Maximum length of a run of words that counts as a word."""


class TfidfSvdOptions(TfidfOptions):
    """Options of the encoder `tfidf`."""

    dim: Annotated[int, Field(ge=1)] | None = None
    """Dimension after the truncated SVD; None takes 256, or less for a small catalogue."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the randomised SVD."""


def tfidf_matrix(texts: Sequence[str | None], **options: Any) -> tuple[sp.csr_array, list[str]]:
    """Tf-idf of texts: a sparse matrix and the word of each of its columns.

    Entry = (count of the word in the document) x (ln((1 + N) / (1 + df)) + 1), where N is the
    number of present texts and df the number of those with the word; rows are scaled to norm 1.
    A missing or empty text, and one without a word of the vocabulary, is a row of zeros.

    Args:
        texts: one per row; None if missing.
        options: see `TfidfOptions`.

    Returns:
        float32 CSR of shape (len(texts), n_words), and the n_words words in alphabetical order.

    Raises:
        ConfigError: an option is unknown or out of its bounds.
        DataError: no word is left.

    Example:
        >>> matrix, words = tfidf_matrix(["red shoe", "red hat", None], min_df=1, max_df=1.0)
        >>> matrix.shape, words, matrix.nnz
        ((3, 3), ['hat', 'red', 'shoe'], 4)
    """
    chosen = build(TfidfOptions, options, "encoder tfidf")
    there = np.array([row for row, text in enumerate(texts) if text and text.strip()], np.int64)
    matrix, vectorizer = _fit([texts[row] or "" for row in there], chosen)
    rows = np.zeros(len(texts) + 1, np.int64)
    rows[there + 1] = np.diff(matrix.indptr)
    full = sp.csr_array(
        (matrix.data, matrix.indices, np.cumsum(rows)), shape=(len(texts), matrix.shape[1])
    )
    return full, vectorizer.get_feature_names_out().tolist()


class WordsOptions(Config):
    """Options of the encoder `words`."""

    stop_words: Literal["english", "none"] = "english"
    """Words to ignore: the common words of English, or none."""
    min_count: Annotated[int, Field(ge=1)] = 4
    """Minimum number of occurrences of a word in all texts together."""
    max_df: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Maximum share of the documents with a word."""
    vocabulary_size: Annotated[int, Field(ge=1)] = 8_000
    """Maximum number of words; the most frequent ones are kept."""


class _OfWords:
    """What both encoders share: a vocabulary learnt from all texts, and counts of its words."""

    kind: InputKind = "text"
    batch_size = 4096
    options: Config

    def __init__(self, name: str, device: str) -> None:
        self.name, self.device = name, device
        self._vectorizer: TfidfVectorizer | None = None

    def provenance(self) -> dict[str, Any]:
        """Encoder, options, version."""
        return {
            "encoder": self.name,
            "options": self.options.model_dump(),
            "versions": versions("scikit-learn"),
        }

    def read(self, raw: Any) -> str:
        """The text; raises `UnreadableInput` if it has no word of the vocabulary."""
        text = str(raw)
        if self._vectorizer is not None and not self._vectorizer.transform([text]).nnz:
            raise UnreadableInput("no word of the vocabulary")
        return text

    def _rows(self, batch: Sequence[Any]) -> sp.csr_matrix:
        if self._vectorizer is None:
            raise ValueError(f"fit the encoder {self.name} on all texts before it encodes any")
        rows: sp.csr_matrix = self._vectorizer.transform(list(map(str, batch)))
        return rows


class WordsEncoder(_OfWords):
    """Tf-idf with a column for each word, as BANDVAE reads a modality of words.

    Entries and scaling are those of `tfidf_matrix`; the words are stored in the provenance, in
    the order of the columns.

    Limits: rows are as wide as the vocabulary and stored with their zeros, `4 n_items

    vocabulary_size` bytes; for models that project features, use the encoder `tfidf` instead.

    Args:
        name: as on the command line.
        device: not used; it runs on the CPU.
        options: see `WordsOptions`.
    """

    def __init__(self, name: str = "words", device: str = "cpu", **options: Any) -> None:
        super().__init__(name, device)
        self.options: WordsOptions = build(WordsOptions, options, f"encoder {name}")

    bag = True

    @property
    def words(self) -> list[str]:
        """The word of each column, in alphabetical order; known after `fit`."""
        if self._vectorizer is None:
            return []
        found: list[str] = self._vectorizer.get_feature_names_out().tolist()
        return found

    @property
    def dim(self) -> int:
        """Number of words; known after `fit`."""
        return len(self.words)

    def fit(self, inputs: Sequence[Any]) -> None:
        """Learn the vocabulary and the document frequencies.

        Raises:
            DataError: no word is left.
        """
        texts = [str(text) for text in inputs]
        options = self.options
        base = TfidfOptions(
            stop_words=options.stop_words,
            min_df=1,
            max_df=options.max_df,
            vocabulary_size=2**31 - 1,
        )
        counts, counter = _fit(texts, base, CountVectorizer)
        often = np.asarray(counts.sum(axis=0)).ravel()
        # Stable, so that equally frequent words are in alphabetical order.
        kept = np.argsort(-often, kind="stable")[: options.vocabulary_size]
        kept = np.sort(kept[often[kept] >= options.min_count])
        if not len(kept):
            expected = f"texts with a word of at least min_count={options.min_count} occurrences"
            raise DataError(expected, f"{len(texts)} texts without such a word", "lower min_count")
        words = counter.get_feature_names_out()[kept].tolist()
        self._vectorizer = TfidfVectorizer(vocabulary=words, dtype=np.float32).fit(texts)

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Rows of texts, float32, shape (len(batch), n_words)."""
        return np.asarray(self._rows(batch).toarray(), np.float32)


class TfidfEncoder(_OfWords):
    """Tf-idf reduced by a truncated SVD (latent semantic analysis).

    `X ~ U S V'` with the `dim` largest singular values; a row is `x V`. V comes from a seeded
    randomised SVD with fixed signs, so that equal texts give equal numbers.

    Source: Deerwester et al., Indexing by latent semantic analysis, 1990.

    Limits: it knows only the words of this catalogue and needs all texts first.

    Args:
        name: as on the command line.
        device: not used; it runs on the CPU.
        options: see `TfidfSvdOptions`.
    """

    def __init__(self, name: str = "tfidf", device: str = "cpu", **options: Any) -> None:
        super().__init__(name, device)
        self.options: TfidfSvdOptions = build(TfidfSvdOptions, options, f"encoder {name}")
        self._components = np.empty((0, 0), np.float32)  # (dim, n_words)

    @property
    def dim(self) -> int:
        """Width of a row; known after `fit`."""
        return len(self._components)

    def fit(self, inputs: Sequence[Any]) -> None:
        """Learn the vocabulary, the document frequencies and V.

        Raises:
            DataError: no word is left.
            ConfigError: `dim` is larger than the rank of the texts allows.
        """
        base = TfidfOptions(**self.options.model_dump(exclude={"dim", "seed"}))
        matrix, self._vectorizer = _fit([str(text) for text in inputs], base)
        most = min(matrix.shape) - 1
        dim = min(DEFAULT_DIM, max(1, most)) if self.options.dim is None else self.options.dim
        if dim > max(1, most):
            got = f"dim={dim} for {matrix.shape[0]} texts with {matrix.shape[1]} words"
            fix = "give a smaller dim, or a smaller min_df to keep more words"
            raise ConfigError(f"dim of at most {max(1, most)}", got, fix)
        svd = TruncatedSVD(dim, algorithm="randomized", n_iter=7, random_state=self.options.seed)
        svd.fit(matrix)
        self._components = svd.components_.astype(np.float32)

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Rows `x V` of texts, float32, shape (len(batch), dim)."""
        return np.asarray(self._rows(batch) @ self._components.T, np.float32)


def _fit(
    texts: list[str], options: TfidfOptions, kind: type[CountVectorizer] = TfidfVectorizer
) -> tuple[sp.csr_matrix, CountVectorizer]:
    scaling = {"sublinear_tf": options.sublinear_tf} if kind is TfidfVectorizer else {}
    vectorizer = kind(
        stop_words=None if options.stop_words == "none" else options.stop_words,
        # A share of the documents below min_df would contradict it on a tiny catalogue.
        min_df=options.min_df,
        max_df=max(options.max_df, min(1.0, options.min_df / max(1, len(texts)))),
        max_features=options.vocabulary_size,
        ngram_range=(1, options.ngrams),
        dtype=np.float32,
        **scaling,
    )
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError as error:
        got = f"{len(texts)} texts without such words"
        fix = "lower min_df, raise max_df, or set stop_words=none"
        raise DataError("texts with words within min_df and max_df", got, fix) from error
    return matrix, vectorizer
