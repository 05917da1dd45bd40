"""VBPR against its formula term by term, and its laws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import oracles
from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.core.modality import Modality
from modalign.errors import DataError, UnknownName
from modalign.models._registry import get
from modalign.models._shared import batch_items as _batch_items
from modalign.models.vbpr import VBPR, VBPRConfig, normalised
from modalign.testing.harness import build, score_all, train
from modalign.testing.toy import toy_dataset

DATASET = toy_dataset()
VIEW = DATASET.view()
SMALL = {"embedding_size": 3, "content_size": 4}


def made(view=VIEW, **options) -> VBPR:
    with seeds.torch_seed(3):
        model = VBPR(VBPRConfig(**{**SMALL, **options}), view)
        for p in model.parameters():  # so that every term is felt
            torch.nn.init.normal_(p, std=0.5)
    return model


def batch_of(size: int) -> Batch:
    rng = seeds.torch_generator(1)
    users = torch.randint(VIEW.n_users, (size,), generator=rng)
    positives, negatives = torch.randint(VIEW.n_items, (2, size), generator=rng)
    return Batch(users, positives, negatives)


def by_the_formula(model: VBPR, view) -> np.ndarray:
    """Scores (n_users, n_items), one term after the other."""
    p = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    size, width = model.config.embedding_size, model.config.content_size
    scores = p["users"][:, :size] @ p["items"].T
    if model.config.item_bias:
        scores = scores + p["bias"]
    for place, name in enumerate(sorted(view.modalities)):
        modality = view.modalities[name]
        x = modality.features.astype(np.float64)
        if model.config.feature_norm == "centred":
            x[modality.present] -= x[modality.present].mean(axis=0)
        x[modality.present] /= np.linalg.norm(x[modality.present], axis=1, keepdims=True)
        x[~modality.present] = x[modality.present].mean(axis=0)
        projection = p[f"projections.{place}"]
        taste = p["users"][:, size + place * width : size + (place + 1) * width]
        scores = scores + taste @ (x @ projection[:, :width]).T
        if model.config.content_bias:
            scores = scores + x @ projection[:, width]
    return scores


@pytest.mark.parametrize(
    ("item_bias", "content_bias", "norm"),
    [
        (True, True, "centred"),
        (True, False, "centred"),
        (False, True, "l2"),
        (False, False, "centred"),
    ],
)
def test_scores_are_those_of_the_formula(item_bias: bool, content_bias: bool, norm: str) -> None:
    model = made(item_bias=item_bias, content_bias=content_bias, feature_norm=norm)
    expected = torch.from_numpy(by_the_formula(model, VIEW))
    torch.testing.assert_close(
        score_all(get("vbpr"), model, VIEW).double(), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("size", [5, 50])  # some of the items, and nearly all
def test_loss_is_bpr_of_the_scores_and_the_squares_of_what_was_looked_up(size: int) -> None:
    model, batch = made(reg=0.1, reg_projection=0.01), batch_of(size)
    scores = by_the_formula(model, VIEW)
    users = batch.users.tolist()
    chosen = [scores[u, i] for u, i in zip(users, batch.positives.tolist(), strict=True)]
    other = [scores[u, i] for u, i in zip(users, batch.negatives.tolist(), strict=True)]
    squares = 0.0
    own, item_own, bias = model.users.detach(), model.items.detach(), model.bias.detach()
    for u, i, j in zip(users, batch.positives.tolist(), batch.negatives.tolist(), strict=True):
        squares += float(own[u].square().sum())
        for item in (i, j):
            squares += float(item_own[item].square().sum() + bias[item].square())
    projections = sum(float(p.detach().square().sum()) for p in model.projections)
    parts = {name: float(value.detach()) for name, value in model.loss(batch).items()}
    assert parts == pytest.approx(
        {
            "bpr": oracles.bpr(chosen, other),
            "reg": 0.1 * squares / (2 * size),
            "reg_projection": 0.01 * projections / 2,
        },
        rel=1e-4,
    )


def test_terms_of_weight_zero_are_not_there() -> None:
    assert list(made(reg=0.0).loss(batch_of(5))) == ["bpr"]


@pytest.mark.parametrize("missing", ["mean", "learned"])
def test_projecting_the_batch_or_all_items_gives_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    gradients = []
    for nearly_all in (2.0, 0.0):  # project the batch's items, whatever they are; all of them
        monkeypatch.setattr(_batch_items, "NEARLY_ALL", nearly_all)
        model = made(missing=missing, reg=0.1)
        sum(model.loss(batch_of(20)).values()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_with_unit_rows_the_scale_of_a_feature_row_says_nothing() -> None:
    scaled = {
        name: Modality(name, m.features * np.float32([[10.0]]), m.present)
        for name, m in VIEW.modalities.items()
    }
    other = made(dataclasses.replace(VIEW, modalities=scaled))
    for a, b in zip(made().tables(), other.tables(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_normalised_rows_and_columns() -> None:
    image = VIEW.modalities["image"]
    unit = normalised(image, "l2").features
    np.testing.assert_allclose(np.linalg.norm(unit[image.present], axis=1), 1, rtol=1e-5)
    standard = normalised(image, "standard").features
    np.testing.assert_allclose(standard[image.present].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(standard[image.present].std(0), 1, rtol=1e-5)
    assert not unit[~image.present].any()
    assert not standard[~image.present].any()
    assert normalised(image, "none") is image
    nothing = Modality("x", np.zeros((2, 3), np.float32), np.zeros(2, bool))
    assert normalised(nothing, "l2") is nothing


def test_a_new_item_is_ranked_by_its_content() -> None:
    # The last item of the toy has no interaction; its own vector has learnt nothing. Those
    # whose taste it is must still score it higher than the others do, relative to their mean.
    item, spec = VIEW.n_items - 1, get("vbpr")
    assert all(m.present[item] for m in VIEW.modalities.values())
    scores = score_all(spec, train(spec, build(spec, VIEW), VIEW), VIEW)
    relative = (scores[:-1] - scores[:-1].mean(1, keepdim=True))[:, item].numpy()
    same = DATASET.user_table["taste"].to_numpy()[:-1] == DATASET.item_table["taste"][item]
    assert relative[same].mean() > relative[~same].mean() + relative.std()


def test_the_modalities_are_chosen_by_name() -> None:
    assert len(made(modalities=("image",)).inputs) == 1
    with pytest.raises(UnknownName, match="did you mean 'image'"):
        made(modalities=("imag",))
    with pytest.raises(DataError, match="modalign encode"):
        made(dataclasses.replace(VIEW, modalities={}))


def test_a_batch_without_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match="negatives"):
        made().loss(Batch(torch.tensor([0]), torch.tensor([0])))
