import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from modalign.errors import DataError, UnknownName
from modalign.preferences.embed import EncoderEmbedder, centred, need_present
from modalign.preferences.side import training_side


def test_tfidf_with_svd_is_that_of_scikit_learn(library):
    texts = [text for text in training_side(library).texts if text]
    said = ["red shoe", None, "an old book", "nothing known", ""]
    embedder = EncoderEmbedder("tfidf", dim=3, min_df=1, max_df=1.0, stop_words="none")
    embedder.fit(texts)
    features, present = embedder.encode(said)
    # Oracle: the two steps by hand.
    vectorizer = TfidfVectorizer(dtype=np.float32)
    svd = TruncatedSVD(3, n_iter=7, random_state=0).fit(vectorizer.fit_transform(texts))
    wanted = svd.transform(vectorizer.transform(["red shoe", "an old book"]))
    np.testing.assert_allclose(features[[0, 2]], wanted, atol=1e-5)
    assert present.tolist() == [True, False, True, False, False]
    assert not features[~present].any()


def test_a_fingerprint_follows_the_options():
    prints = {EncoderEmbedder("tfidf", dim=d).fingerprint for d in (3, 3, 4)}
    assert len(prints) == 2


def test_the_common_part_is_taken_out():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 4)).astype(np.float32)
    rows[:, 0] += 100
    present = np.ones(9, bool)
    present[[2, 5]] = False
    rows[~present] = 0
    got, kept = centred(rows, present)
    less = rows[present].astype(np.float64) - rows[present].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(
        got[present], less / np.linalg.norm(less, axis=1, keepdims=True), atol=1e-5
    )
    np.testing.assert_array_equal(kept, present)
    assert not got[~present].any()
    moved, _ = centred(np.where(present[:, None], rows + 7, 0).astype(np.float32), present)
    np.testing.assert_allclose(moved, got, atol=1e-4)


def test_users_who_are_all_alike_have_no_direction():
    got, kept = centred(np.ones((3, 2), np.float32), np.array([True, True, False]))
    assert not got.any()
    assert not kept.any()
    none = centred(np.zeros((2, 2), np.float32), np.zeros(2, bool))
    assert not none[1].any()
    with pytest.raises(DataError, match="none for 2 users"):
        need_present(none[1], "tfidf")


def test_an_encoder_that_is_none_is_told():
    with pytest.raises(UnknownName, match="'tfdif'"):
        EncoderEmbedder("tfdif")
