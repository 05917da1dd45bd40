"""LightGCN-M against numbers computed by hand; missing modalities; laws of content."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Queries
from modalign.core.modality import Modality
from modalign.models.lightgcn_m import LightGCNM, LightGCNMConfig
from oracles import SMALL, SMALL_TRIPLES, SMALL_VECTORS

IMAGE = np.float32([[1, 0, 2], [0, 1, 0], [1, 1, 1]])
TEXT = np.float32([[1, 1], [2, 0], [0, 1]])


def view_of(image=IMAGE, text=TEXT, present=(True, True, True)):
    modalities = {
        "image": Modality("image", image, np.array(present)),
        "text": Modality("text", text, np.ones(3, bool)),
    }
    return dataclasses.replace(SMALL, modalities=modalities)


def made(view=None, **options) -> LightGCNM:
    options = {"embedding_size": 2, "n_layers": 1, "feature_scale": "raw", **options}
    with seeds.torch_seed(1):
        model = LightGCNM(LightGCNMConfig(**options), view or view_of())
    model.users.data = SMALL_VECTORS[:2].float()
    image, text = model.projections
    image.weight.data, image.bias.data = (
        torch.tensor([[1.0, 0, 1], [0, 1, 0]]),
        torch.tensor([0.0, 1]),
    )
    text.weight.data, text.bias.data = torch.tensor([[1.0, 1], [0, 2]]), torch.zeros(2)
    return model


def test_vectors_and_scores_computed_by_hand():
    model = made()
    content = [[0.827895, 0.511667], [0.5, 0.5], [0.577160, 0.800767]]
    assert_close(model.content(), torch.tensor(content), rtol=0, atol=2e-6)
    scores = [[0.782599, 0.611803, 0.495462], [0.484878, 0.618585, 0.779620]]
    found = model.score(Queries(torch.tensor([0, 1])))
    assert_close(found, torch.tensor(scores), rtol=0, atol=2e-6)


def test_one_propagation_is_the_mean_of_one_for_each_modality():
    model = made()
    image, text = (
        torch.nn.functional.normalize(source.linear(layer), dim=1)
        for source, layer in zip(model.inputs, model.projections, strict=True)
    )
    each = [model.graph.propagate(torch.cat([model.users, one]), 1) for one in (image, text)]
    assert_close(torch.cat(model.tables()), (each[0] + each[1]) / 2)


def test_a_missing_modality_has_no_share_in_the_mean():
    model = made(view_of(present=(False, True, True)))
    direction = torch.tensor([2.0, 2.0])  # of the text (1, 1) alone
    assert_close(model.content()[0], direction / direction.norm())
    assert_close(model.content()[1:], made().content()[1:])
    filled = made(view_of(present=(False, True, True)), missing="mean")
    assert (filled.content()[0] - model.content()[0]).abs().max() > 1e-3


def test_lengths_of_features_do_not_matter_without_a_bias():
    longer = made(view_of(text=TEXT * np.float32([[3], [1], [7]])))
    assert_close(longer.content(), made().content())


def test_free_vectors_are_added_and_features_are_not_trained():
    model = made(use_id=True)
    assert_close(model.content(), made().content() + model.items)
    assert {name for name, _ in model.named_parameters()} == {
        "users", "items", "projections.0.weight", "projections.0.bias",
        "projections.1.weight", "projections.1.bias",
    }  # fmt: skip
    sum(model.loss(SMALL_TRIPLES).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
