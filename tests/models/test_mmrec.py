"""MMRec against its equations on dense matrices, for every fusion and normalisation."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.errors import DataError, UnknownName
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.mmrec import MMRec, MMRecConfig
from modalign.testing.toy import tiny_view

VIEW = tiny_view()
BATCH = Batch(torch.tensor([0, 1, 0]), torch.tensor([0, 2, 1]), torch.tensor([3, 0, 2]))
EDGES = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0)]  # of the tiny view, written out
FUSIONS = ["mean", "concat", "post"]
NORMALISATIONS = ["symmetric", "left"]
SIZE = 3


def made(view: TrainView = VIEW, **options) -> MMRec:
    with seeds.torch_seed(1):
        model = MMRec(MMRecConfig(embedding_size=SIZE, **options), view)
        for p in model.parameters():  # so that every term is felt, biases too
            torch.nn.init.normal_(p, std=0.5)
    return model


def adjacency(normalisation: str) -> Tensor:
    a = torch.zeros(7, 7)
    for user, item in EDGES:
        a[user, 3 + item] = a[3 + item, user] = 1.0
    root = torch.diag(a.sum(1).clamp(min=1) ** -0.5)
    return root @ a @ root if normalisation == "symmetric" else root @ a


def mean_of_layers(a: Tensor, first: Tensor, n_layers: int) -> Tensor:
    return torch.stack([torch.linalg.matrix_power(a, n) @ first for n in range(n_layers + 1)]).mean(
        0
    )


def features() -> list[Tensor]:
    """Image, then text, rows less their mean, of length 1; the last text is missing and stands as
    the mean of the others.
    """
    image, text = (torch.tensor(VIEW.modalities[name].features) for name in ("image", "text"))
    image = functional.normalize(image - image.mean(0), dim=1)
    text = functional.normalize(text[:3] - text[:3].mean(0), dim=1)
    return [image, torch.cat([text, text.mean(0, keepdim=True)])]


def by_the_equations(model: MMRec) -> tuple[Tensor, Tensor]:
    """Final and layer-0 vectors of all seven nodes, differentiable in the model's parameters."""
    config = model.config
    a = adjacency(config.normalisation)
    h = [x @ p.weight.T + p.bias for x, p in zip(features(), model.projections, strict=True)]
    ids = torch.cat([model.users, model.items])
    if config.fusion == "post":
        final = mean_of_layers(a, ids, config.n_layers)
        for one in h:
            spread = mean_of_layers(a, torch.cat([torch.zeros(3, SIZE), one]), config.n_layers)
            final = final + config.content_weight * functional.normalize(spread, dim=1)
        return final, ids
    if config.fusion == "mean":
        items = model.items + (h[0] + h[1]) / 2
    else:
        items = torch.cat([model.items, *h], 1) @ model.mixing.weight.T + model.mixing.bias
    first = torch.cat([model.users, items])
    return mean_of_layers(a, first, config.n_layers), first


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_tables_are_those_of_the_equations(fusion, normalisation, n_layers):
    model = made(fusion=fusion, normalisation=normalisation, n_layers=n_layers)
    assert_close(torch.cat(model.tables()), by_the_equations(model)[0])


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
def test_loss_and_gradients_are_those_of_the_equations(fusion, normalisation, n_layers):
    model = made(fusion=fusion, normalisation=normalisation, n_layers=n_layers, reg=0.3)
    final, first = by_the_equations(model)
    u, i, j = BATCH.users, BATCH.positives + 3, BATCH.negatives + 3
    bpr = functional.softplus((final[u] * final[j]).sum(1) - (final[u] * final[i]).sum(1)).mean()
    reg = 0.3 / 2 * sum(first[rows].square().sum() for rows in (u, i, j)) / 3
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected = torch.autograd.grad(bpr + reg, parameters, allow_unused=True)
    parts = model.loss(BATCH)
    found = torch.autograd.grad(sum(parts.values()), parameters, allow_unused=True)
    assert_close(parts["bpr"], bpr)
    assert_close(parts["reg"], reg)
    for name, one, other in zip(names, found, expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("n_layers", [0, 1, 2])
def test_without_content_it_is_lightgcn(n_layers):
    model = made(n_layers=n_layers, reg=0.1)
    plain = LightGCN(LightGCNConfig(embedding_size=SIZE, n_layers=n_layers, reg=0.1), VIEW)
    with torch.no_grad():
        for layer in model.projections:
            layer.weight.zero_()
            layer.bias.zero_()
        plain.embeddings.copy_(torch.cat([model.users, model.items]))
    for one, other in zip(model.tables(), plain.tables(), strict=True):
        assert_close(one, other)
    for name, part in plain.loss(BATCH).items():
        assert_close(model.loss(BATCH)[name], part)


def test_all_ones_stay_where_every_degree_is_the_same():
    users = torch.arange(4).repeat_interleave(2)
    items = (users + torch.tensor([0, 1]).repeat(4)) % 4
    shape = dataclasses.replace(VIEW, n_users=4, users=users, items=items)
    model = made(shape, n_layers=3)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.users.fill_(1.0)
        model.items.fill_(1.0)
    for table in model.tables():
        assert_close(table, torch.ones(4, SIZE))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_an_item_nobody_chose_has_its_first_layer_and_finite_gradients(fusion, normalisation):
    model = made(fusion=fusion, normalisation=normalisation, n_layers=2)
    alone = model.tables()[1][3]
    first = by_the_equations(model)[1][6] / 3
    if fusion == "post":  # its content, of unit length whatever the layers divide it by
        h = [x[3] @ p.weight.T + p.bias for x, p in zip(features(), model.projections, strict=True)]
        first = first + 0.55 * (
            functional.normalize(h[0], dim=0) + functional.normalize(h[1], dim=0)
        )
    assert_close(alone, first)
    sum(model.loss(BATCH).values()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_users_without_content_around_them_have_finite_gradients_after_it():
    nobody = torch.empty(0, dtype=torch.int64)
    model = made(dataclasses.replace(VIEW, users=nobody, items=nobody), fusion="post")
    assert_close(model.tables()[0], model.users / 3)
    sum(model.loss(BATCH).values()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_learned_stand_in_is_trained():
    model = made(missing="learned")
    sum(model.loss(BATCH).values()).backward()
    assert bool(model.inputs[1].vector.grad.abs().sum() > 0)


def test_raw_features_are_read_as_they_are_also_by_earlier_runs():
    image, text = (VIEW.modalities[name].features for name in ("image", "text"))
    raw = made(feature_scale="raw")
    assert_close(raw.inputs[0](), torch.from_numpy(image))
    assert_close(raw.inputs[1]()[:3], torch.from_numpy(text[:3]))
    assert MMRecConfig.earlier == {"feature_scale": "raw"}


def test_neither_graph_nor_features_are_part_of_the_weights():
    names = {
        "users",
        "items",
        *(f"projections.{m}.{p}" for m in (0, 1) for p in ("weight", "bias")),
    }
    assert made().state_dict().keys() == names
    assert made(normalisation="left").state_dict().keys() == names
    assert made(fusion="concat").state_dict().keys() == names | {"mixing.weight", "mixing.bias"}


def test_without_weight_there_is_no_penalty():
    assert made(reg=0.0).loss(BATCH).keys() == {"bpr"}


def test_the_modalities_are_chosen_by_name():
    assert len(made(modalities=("image",)).inputs) == 1
    with pytest.raises(UnknownName, match="did you mean 'image'"):
        made(modalities=("imag",))
    with pytest.raises(DataError, match="modalign encode"):
        made(dataclasses.replace(VIEW, modalities={}))


def test_a_batch_without_negatives_is_refused():
    with pytest.raises(ValueError, match="negatives"):
        made().loss(Batch(BATCH.users, BATCH.positives))
