import numpy as np
import pytest

from modalign.core.modality import Modality
from modalign.errors import ConfigError
from modalign.features import reduce as module
from modalign.features.reduce import reduced, thin_svd


@pytest.mark.parametrize("shape", [(50, 12), (12, 50)])
def test_inner_products_are_kept_and_the_rank_is_found(shape, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 7)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(shape[0], 5)) @ rng.normal(size=(5, shape[1]))).astype(np.float32)
    out = thin_svd(x).features
    assert out.shape == (shape[0], 5)
    np.testing.assert_allclose(out @ out.T, x @ x.T, atol=2e-5 * np.abs(x @ x.T).max())


@pytest.mark.parametrize("shape", [(50, 12), (12, 50)])
def test_truncation_equals_numpys_svd(shape):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    out = thin_svd(x, rank=4)
    left, values, _ = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(np.abs(out.features), np.abs(left * values)[:, :4], atol=1e-5)
    np.testing.assert_allclose(out.retained, (values[:4] ** 2).sum() / (values**2).sum())
    assert (out.features[np.abs(out.features).argmax(axis=0), range(4)] > 0).all()


def test_zeros_and_a_wrong_rank():
    assert thin_svd(np.zeros((3, 2), np.float32)).features.shape == (3, 1)
    with pytest.raises(ConfigError, match="rank"):
        thin_svd(np.ones((3, 2), np.float32), rank=0)


def test_reduced_keeps_presence_and_tells_of_itself():
    x = np.float32([[1, 2], [2, 4], [0, 0]])
    out = reduced(Modality("m", x, np.array([True, True, False])))
    assert out.dim == 1
    assert out.present.tolist() == [True, True, False]
    assert out.provenance["reduced"] == {"rank": 1, "retained": 1.0}
