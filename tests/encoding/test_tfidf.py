import math

import numpy as np
import pytest

from modalign.encoding.encoders.encoder import UnreadableInput
from modalign.encoding.tfidf import TfidfEncoder, WordsEncoder, tfidf_matrix
from modalign.errors import DataError

TEXTS = ["red shoe red", "red hat", None, "blue hat and the shoe", ""]


def by_hand(texts, words):
    there = [t.split() for t in texts if t]
    idf = {w: math.log((1 + len(there)) / (1 + sum(w in t for t in there))) + 1 for w in words}
    rows = np.array([[(t or "").split().count(w) * idf[w] for w in words] for t in texts])
    return rows / np.maximum(1e-12, np.linalg.norm(rows, axis=1, keepdims=True))


def test_matrix_equals_the_formula_by_hand():
    matrix, words = tfidf_matrix(TEXTS, min_df=1, max_df=1.0)
    assert words == ["blue", "hat", "red", "shoe"]
    np.testing.assert_allclose(matrix.toarray(), by_hand(TEXTS, words), atol=1e-6)


def test_limits_and_stop_words():
    assert tfidf_matrix(TEXTS, min_df=2, max_df=1.0)[1] == ["hat", "red", "shoe"]
    assert len(tfidf_matrix(TEXTS, min_df=1, max_df=1.0, vocabulary_size=2)[1]) == 2
    assert "the" in tfidf_matrix(TEXTS, min_df=1, max_df=1.0, stop_words="none")[1]
    assert "red hat" in tfidf_matrix(TEXTS, min_df=1, max_df=1.0, ngrams=2)[1]
    with pytest.raises(DataError, match="min_df"):
        tfidf_matrix(["one", "two", "three"], min_df=3)


def test_svd_keeps_the_inner_products_of_a_low_rank():
    texts = ["red shoe", "red hat", "blue hat", "red shoe hat", "blue blue shoe", "hat"]
    encoder = TfidfEncoder(dim=3, min_df=1, max_df=1.0)
    encoder.fit(texts)
    rows = encoder.encode(texts)
    matrix = tfidf_matrix(texts, min_df=1, max_df=1.0)[0].toarray()
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    np.testing.assert_allclose(rows @ rows.T, best @ best.T, atol=1e-5)
    np.testing.assert_allclose(rows[3:4], encoder.encode(texts[3:4]), atol=1e-6)
    with pytest.raises(UnreadableInput, match="no word"):
        encoder.read("nothing known")


def test_words_have_a_column_each_and_keep_their_names():
    texts = ["red shoe red", "red hat", "blue hat and the shoe", "blue"]
    encoder = WordsEncoder(min_count=2, max_df=1.0)
    encoder.fit(texts)
    assert encoder.words == ["blue", "hat", "red", "shoe"]
    np.testing.assert_allclose(encoder.encode(texts), by_hand(texts, encoder.words), atol=1e-6)
    with pytest.raises(UnreadableInput, match="no word"):
        encoder.read("nothing known")


def test_words_are_counted_over_the_catalogue_and_the_most_frequent_stay():
    texts = ["a1 a1 a1 b2", "b2 c3", "b2 c3", "b2 d4"]
    encoder = WordsEncoder(min_count=2, max_df=0.6, stop_words="none")
    encoder.fit(texts)
    assert encoder.words == ["a1", "c3"]  # b2 is everywhere, d4 stands once
    short = WordsEncoder(min_count=2, max_df=0.6, vocabulary_size=1)
    short.fit(texts)
    assert short.words == ["a1"]
    with pytest.raises(DataError, match="min_count=9"):
        WordsEncoder(min_count=9, max_df=1.0).fit(texts)
