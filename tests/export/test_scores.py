from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modalign.core import seeds
from modalign.core.interfaces import Config, Queries, Recommender
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError
from modalign.export.scores import onnx_bytes, scored
from modalign.models import _registry as registry
from modalign.testing.toy import toy_dataset
from modalign_serve.ranker.foldin import session

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("multivae", {}),
    ("multivae", {"variational": False}),
    ("bandvae", {}),
    ("bandvae", {"plan": "norm"}),
    ("bandvae", {"plan": "diag"}),
    ("bandvae", {"fusion": "mean"}),
    ("bandvae", {"fusion": "sum", "plan": "norm"}),
    ("bandvae", {"transfer": "none"}),
    ("bandvae", {"rounds": 1}),
    ("bandvae", {"rounds": 3, "content_rounds": 2, "raw_updates": True, "cost_scale": "user_std"}),
    ("macridvae", {}),
    ("recvae", {}),
    ("elsa", {}),
    ("ials", {}),
]


def built(name: str, options: dict[str, Any]) -> Recommender:
    spec = registry.get(name)
    with seeds.torch_seed(1, "init"):
        model: Recommender = spec.cls(spec.config(**{**spec.toy, **options}), toy_dataset().view())
    if not model.phases():
        model.solve(toy_dataset().view())
    return model.eval()


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.slow
def test_an_encoder_scores_as_its_model(name: str, options: dict[str, Any]) -> None:
    model, view = built(name, options), toy_dataset().view()
    history = view.rows().history(torch.arange(20))
    with torch.inference_mode():
        true = model.score(Queries(torch.full((20,), -1), history))
        encoder, items = model.history_encoder(), model.history_items()  # type: ignore[operator]
        edges = history.crow_indices().tolist()
        for row in range(20):
            found = encoder(history.col_indices()[edges[row] : edges[row + 1]])
            if items is None:
                found, cells = found
                total = cells.sum(1).log()
                torch.testing.assert_close(total - total.mean(), found - found.mean())
            else:
                found = items @ found
            torch.testing.assert_close(found, true[row], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [VARIANTS[0], VARIANTS[3], *VARIANTS[-4:]])
def test_onnx_computes_what_torch_does(name: str, options: dict[str, Any]) -> None:
    encoder = built(name, options).history_encoder()  # type: ignore[operator]
    runner = session(onnx_bytes(encoder, "encoder"))
    for items in ([3], [0, 5, 9], list(range(17))):
        found = [torch.from_numpy(one) for one in runner.run(None, {"items": np.array(items)})]
        with torch.inference_mode():
            true = encoder(torch.tensor(items))
        torch.testing.assert_close(found, list(true) if len(found) > 1 else [true])


class Bent(Recommender):
    """Reads histories, but not as a sum."""

    unseen_users = True
    factorised = False

    def score(self, queries: Queries) -> Tensor:
        assert queries.history is not None
        return queries.history.to_dense().sum(1, keepdim=True) ** torch.arange(1.0, 41.0)


def test_what_cannot_be_served_is_told(data: Dataset) -> None:
    history = data.train.csr(data.n_users, data.n_items)
    model = Bent(Config(), data.view())
    with pytest.raises(ConfigError, match=r"Bent.*distil"):
        scored(model, history, 1)
    model.unseen_users = False  # type: ignore[misc]
    with pytest.raises(ConfigError, match=r"Bent.*distil"):
        scored(model, history, 1)


def test_a_wide_matrix_is_cut_where_that_costs_little(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modalign.export.scores.KEPT", (2, 8, 40))
    model = built("ease", {})
    model.solve(data.view())
    history = data.train.csr(data.n_users, data.n_items)
    found = scored(model, history, 1)
    assert found.kind == "neighbours"
    assert found.loss is not None
    assert found.loss["overlap@20"] >= 0.99
    assert found.neighbours is not None
    assert np.diff(found.neighbours.indptr).max() == found.loss["entries_per_item"] or (
        found.loss["entries_per_item"] == 40
    )
    monkeypatch.setattr("modalign.export.scores.ENOUGH", 0.0)
    narrow = scored(model, history, 1)
    assert narrow.loss is not None
    assert narrow.loss["entries_per_item"] == 2
    assert narrow.loss["overlap@20"] < found.loss["overlap@20"]


@pytest.mark.slow
def test_exporting_leaves_warnings_as_they_are() -> None:
    before = list(warnings.filters)
    onnx_bytes(built("multivae", {}).history_encoder(), "factors")  # type: ignore[operator]
    assert list(warnings.filters) == before
