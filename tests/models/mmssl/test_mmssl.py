"""MMSSL against dense matrices, its ablations, its phases, and what hooks may change."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pydantic
import pytest
import torch

import oracles
from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.models._registry import get
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.mmssl.config import OFFICIAL, MMSSLConfig
from modalign.models.mmssl.model import MMSSL
from modalign.nn.dropout import kept
from modalign.testing.harness import auc, batches, build, score_all, train
from modalign.testing.toy import toy_dataset
from modalign.train import optim
from modalign.train.trainer import TrainOptions, fit

SPEC = get("mmssl")
VIEW = toy_dataset().view()
SMALL = {"embedding_size": 4, "n_heads": 2, "k": 3, "critic_hidden": 8, "batch_size": 64}


PRINTED = {"own_items": False, "output_matrix": True, "attention_views": "own"}
"""The forms that the slow definitions below have."""


def made(view: TrainView = VIEW, seed: int = 3, **options) -> MMSSL:
    with seeds.torch_seed(seed):
        return MMSSL(MMSSLConfig(**{**SMALL, **PRINTED, **options}), view)


def first_batch(view: TrainView = VIEW, size: int = 64) -> Batch:
    return batches(SPEC, view, size)[0]


def started(model: MMSSL, epoch: int = 0, seed: int = 0) -> MMSSL:
    model.train()
    model.on_epoch(epoch, seeds.torch_generator(seed, "epoch", epoch))
    return model


def one_sided(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`D_U^-1/2 R` and `D_I^-1/2 R^T`."""
    both = []
    for matrix in (edges, edges.T):
        degrees = matrix.sum(1)
        both.append(np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0.0)[:, None] * matrix)
    return both[0], both[1]


def unit(x: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, lengths, out=np.zeros_like(x), where=lengths > 1e-6)


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def features_by_definition(model: MMSSL, view: TrainView) -> list[tuple[np.ndarray, np.ndarray]]:
    to_users, to_items = one_sided(oracles.interaction_matrix(view))
    found = []
    for name, layer in zip(("image", "text"), model.features.projections, strict=True):
        modality = view.modalities[name]
        x = modality.features.astype(float)
        x[~modality.present] = x[modality.present].mean(axis=0)
        users = to_users @ (x @ numbers(layer.weight).T + numbers(layer.bias))
        found.append((users, to_items @ users))
    return found


def graphs_by_definition(
    relations: list[tuple[np.ndarray, np.ndarray]], view: TrainView, k: int
) -> list[np.ndarray]:
    seen = oracles.interaction_matrix(view) > 0
    graphs = []
    for users, items in relations:
        scores = np.where(seen, -np.inf, unit(users) @ unit(items).T)
        graph = np.zeros(scores.shape)
        np.put_along_axis(graph, np.argsort(-scores, axis=1)[:, :k], 1.0, axis=1)
        graph[np.linalg.norm(users, axis=1) == 0] = 0.0
        graphs.append(graph)
    return graphs


def tables_by_definition(
    model: MMSSL, view: TrainView, graphs: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    config = model.config
    relations = features_by_definition(model, view)
    users, items = numbers(model.users), numbers(model.items)
    if model.attention is not None:
        views: tuple[list, list] = ([], [])
        for graph in graphs:
            to_users, to_items = one_sided(graph)
            views[0].append(torch.from_numpy(to_users @ items))
            views[1].append(torch.from_numpy(to_items @ users))
        attention = made(view, **config.model_dump(exclude=set(SMALL))).attention.double()
        attention.load_state_dict({k: v.double() for k, v in model.attention.state_dict().items()})
        users = users + config.eta * unit(numbers(attention(views[0]).mean(0)))
        items = items + config.eta * unit(numbers(attention(views[1]).mean(0)))
    to_users, to_items = one_sided(oracles.interaction_matrix(view))
    layers = [(users, items)]
    for _ in range(config.n_layers):
        layers.append((to_users @ layers[-1][1], to_items @ layers[-1][0]))
    final = [np.mean(side, axis=0) for side in zip(*layers, strict=True)]
    for of_users, of_items in relations:
        final[0] = final[0] + config.omega * unit(of_users)
        final[1] = final[1] + config.omega * unit(of_items)
    return final[0], final[1]


# ------------------------------------------------------------------ the forward pass


@pytest.mark.parametrize("n_layers", [0, 1, 2])
@pytest.mark.parametrize("epoch", [0, 1])
def test_scores_are_those_of_the_definition(n_layers: int, epoch: int) -> None:
    model = started(made(n_layers=n_layers), epoch)
    graphs = [oracles.interaction_matrix(VIEW)] * 2
    if epoch:
        graphs = graphs_by_definition(features_by_definition(model, VIEW), VIEW, 3)
    users, items = tables_by_definition(model, VIEW, graphs)
    expected = torch.from_numpy(users @ items.T).float()
    torch.testing.assert_close(score_all(SPEC, model, VIEW), expected, rtol=1e-4, atol=1e-5)


def test_complete_graph_with_equal_features_has_known_features() -> None:
    n_users, n_items = 4, 9
    x = np.tile(np.array([[1.0, 2.0]], dtype=np.float32), (n_items, 1))
    view = TrainView(
        n_users,
        n_items,
        torch.arange(n_users).repeat_interleave(n_items),
        torch.arange(n_items).repeat(n_users),
        {"text": Modality("text", x, np.ones(n_items, bool))},
    )
    model = made(view, feature_dropout=0.0)
    projected = model.features.projections[0](torch.from_numpy(x[:1]))
    users, items = model.features(model.observed, None)
    torch.testing.assert_close(users, (3 * projected).expand(n_users, -1))
    torch.testing.assert_close(items, (2 * 3 * projected).expand(n_items, -1))


def test_an_items_features_reach_its_users_and_their_items_alone() -> None:
    item = int(VIEW.items[0])
    text = VIEW.modalities["text"]
    doubled = text.features.copy()
    doubled[item] *= 2
    other = dataclasses.replace(
        VIEW,
        modalities={
            **VIEW.modalities,
            "text": Modality("text", doubled, np.ones_like(text.present)),
        },
    )
    same = dataclasses.replace(
        VIEW,
        modalities={
            **VIEW.modalities,
            "text": Modality("text", text.features, np.ones_like(text.present)),
        },
    )
    edges = oracles.interaction_matrix(VIEW) > 0
    with torch.no_grad():
        tables = [m.features(m.observed, None) for m in (made(same), made(other))]
    users, items = ((a != b).any(1).numpy() for a, b in zip(*tables, strict=True))
    assert (users == edges[:, item]).all()
    assert (items == edges[edges[:, item]].any(0)).all()


@torch.no_grad()
def test_features_are_dropped_before_they_are_propagated() -> None:
    model = made(feature_dropout=0.5)
    both = zip(model.features.inputs, model.features.projections, strict=True)
    projected = torch.cat([source.linear(layer) for source, layer in both], dim=1)
    dropped = projected * kept(projected.shape, 0.5, seeds.torch_generator(3))
    users, items = model.features(model.observed, seeds.torch_generator(3))
    torch.testing.assert_close(users, model.observed.to_users.matmul(dropped))
    torch.testing.assert_close(items, model.observed.to_items.matmul(users))
    assert (dropped == 0).any()


def test_each_modality_adds_vectors_of_length_omega() -> None:
    model = made(eta=0.0, n_layers=0, modalities=("text",), omega=0.3)
    with torch.no_grad():
        users, items = model.tables()
        lengths = (users - model.users).norm(dim=1), (items - model.items).norm(dim=1)
    edges = oracles.interaction_matrix(VIEW)
    for length, axis in zip(lengths, (1, 0), strict=True):
        expected = torch.from_numpy(0.3 * (edges.sum(axis) > 0)).float()
        torch.testing.assert_close(length, expected)


@pytest.mark.parametrize(("view_norm", "holds"), [("rows", True), ("squared", False)])
def test_layer_zero_adds_vectors_of_length_eta(view_norm: str, holds: bool) -> None:
    model = started(made(n_layers=0, omega=0.0, eta=0.7, view_norm=view_norm), 1)
    with torch.no_grad():
        lengths = (model.tables()[0] - model.users).norm(dim=1)
    close = (lengths - 0.7).abs() < 1e-5
    assert bool(close[:-1].all()) == holds  # the last user has no interaction
    assert lengths[-1] == 0


def test_squared_views_are_divided_by_the_square_of_their_length() -> None:
    model = started(made(n_layers=0, omega=0.0, eta=0.7, view_norm="squared"), 1)
    with torch.no_grad():
        views = model.modality_graphs.views(model.users, model.items, model.observed)
        mixed = model.attention.mean([view for view, _ in views])[:-1]
        added = (model.tables()[0] - model.users)[:-1]
    torch.testing.assert_close(added, 0.7 * mixed / mixed.square().sum(1, keepdim=True))


@torch.no_grad()
def test_residual_features_add_an_items_own_projection() -> None:
    model, plain = made(residual_features=True), made()
    both = zip(model.features.inputs, model.features.projections, strict=True)
    own = torch.cat([source.linear(layer) for source, layer in both], dim=1)
    items = plain.features(plain.observed, None)[1]
    torch.testing.assert_close(model.features(model.observed, None)[1], items + own)


def test_features_are_dropped_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the ranking loss, and by the rows that the critic judges."""
    batch, found = first_batch(), {}
    for mode, rate in (("train", 0.5), ("eval", 0.5), ("none", 0.0)):
        for seed in (1, 2):
            model = started(made(feature_dropout=rate), seed=seed)
            model.train(mode == "train")
            monkeypatch.setattr(
                model.self_supervision,
                "critic_loss",
                lambda relations, *others: {"seen": relations[0][0].sum()},
            )
            parts = model.loss(batch)["bpr"], model.loss(batch, "critic")["seen"]
            found[mode, seed] = [float(one.detach()) for one in parts]
    for place in (0, 1):
        assert found["train", 1][place] != found["train", 2][place]
        assert found["eval", 1][place] == found["eval", 2][place] == found["none", 1][place]


# ------------------------------------------------------------------ graphs


def test_graphs_are_the_observed_ones_first_and_then_each_users_best() -> None:
    model = started(made())
    assert model.modality_graphs.current(model.observed) == [model.observed] * 2
    started(model, 1)
    expected = graphs_by_definition(features_by_definition(model, VIEW), VIEW, 3)
    for graph, dense in zip(model.modality_graphs.current(model.observed), expected, strict=True):
        assert ((graph.to_users.scipy().toarray() > 0) == (dense > 0)).all()
        assert (dense[:-1].sum(1) == 3).all()
    started(model, 0)
    assert model.modality_graphs.current(model.observed) == [model.observed] * 2


def test_graphs_wait_for_their_epoch_and_survive_saving() -> None:
    model = started(made(refresh_every=2), 1)
    assert model.modality_graphs.current(model.observed) == [model.observed] * 2
    started(model, 2)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    copy = made(seed=8, refresh_every=2)
    copy.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(score_all(SPEC, copy, VIEW), score_all(SPEC, model, VIEW))


def test_no_gradient_passes_through_the_choice_of_a_graph() -> None:
    model = started(made(omega=0.0, self_supervision="none", feature_reg=0.0), 1)
    model.loss(first_batch())["contrast"].backward()
    assert all(p.grad is None for p in model.features.parameters())
    assert (model.items.grad != 0).any()


def test_observed_graphs_stay_as_they_are() -> None:
    model = started(made(graph="observed"), 3)
    assert model.modality_graphs.current(model.observed) == [model.observed] * 2


def test_number_of_neighbours_is_at_least_one_but_in_the_official_preset() -> None:
    assert MMSSLConfig(topk_rate=1e-4).n_neighbours(7050) == 1
    assert MMSSLConfig(topk_rate=0.02).n_neighbours(7050) == 141
    assert MMSSLConfig(preset="official").n_neighbours(7050) == 0
    assert MMSSLConfig(preset="official", topk_rate=0.02).n_neighbours(18357) == 367
    assert MMSSLConfig(k=50).n_neighbours(20) == 20


def test_official_graphs_of_every_batch_are_empty_nearly_always() -> None:
    model = made(preset="official", topk_rate=0.1, refresh_every=1)
    found = []
    for epoch in (0, 1):
        started(model, epoch)
        for step in range(5):
            graphs = model.modality_graphs.current(model.observed)
            assert (graphs[0] is model.observed) == (epoch == 0 and step < 2)
            found.append(len(graphs[0].seen.indices) > 0)
            model.after_step(step, first_batch(), seeds.torch_generator(step))
    # Edges are collected in the first batch of an epoch alone, so that the third sees them.
    assert found[2:] == [True, False, False, False, False, True, False, False]


def test_official_graphs_of_every_second_batch_have_the_edges_of_one() -> None:
    model = started(made(preset="official", topk_rate=0.1, refresh_every=2))
    some = [Batch(torch.tensor([place, place + 20])) for place in range(7)]
    for step, batch in enumerate(some):
        model.after_step(step, batch, seeds.torch_generator(step))
        if step in (2, 4, 6):
            neighbours = model.modality_graphs.graphs[0].neighbours
            who = torch.nonzero((neighbours >= 0).any(1)).flatten().tolist()
            assert who == {2: [0, 1, 20, 21], 4: [3, 23], 6: [5, 25]}[step]


def test_official_graphs_send_items_to_users_by_their_place_in_the_batch() -> None:
    model = started(made(preset="official", topk_rate=0.1, embedding_size=4))
    users = first_batch().users.unique()
    model.after_step(0, first_batch(), seeds.torch_generator(0))
    who, (chosen, _) = model.modality_graphs._collected[0]
    model.after_step(1, first_batch(), seeds.torch_generator(1))
    relations = model._plain_relations()[0]
    scores = (relations[0][users] @ relations[1].T).detach()
    scores[torch.from_numpy(oracles.interaction_matrix(VIEW)[users] > 0)] = 0.0
    best = scores.topk(4, dim=1).indices.flatten()
    assert torch.equal(who, users)
    for place, item in enumerate(best.tolist()):
        assert chosen[place % len(users), place // len(users)] == item
    neighbours = model.modality_graphs.graphs[0].neighbours
    assert (neighbours >= 0).any(1).sum() == len(users)


# ------------------------------------------------------------------ losses


def test_official_contrast_is_a_constant_without_edges() -> None:
    model = started(made(preset="official"))  # k = 0
    assert model.config.n_neighbours(VIEW.n_items) == 0
    for step in range(3):
        model.after_step(step, first_batch(), seeds.torch_generator(step))
    model.zero_grad()
    loss = model.loss(first_batch())["contrast"]
    n = len(first_batch().users.unique())
    assert float(loss.detach()) == pytest.approx(0.03 * 2 * np.log(2 * n - 1), rel=1e-5)


def test_official_preset_fills_what_is_not_set_and_no_more() -> None:
    config = MMSSLConfig(preset="official", critic_slope=0.5)
    assert config.critic_slope == 0.5
    rest = {name: value for name, value in OFFICIAL.items() if name != "critic_slope"}
    assert {name: getattr(config, name) for name in rest} == rest
    assert config.adversarial_settings(7050).hidden == (1762, 881)
    assert MMSSLConfig().adversarial_settings(7050).hidden == (1024, 512)
    assert MMSSLConfig().adversarial_settings(1008).hidden == (252, 126)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 3}, "n_heads must divide"),
        ({"critic_output": "linear"}, "critic_norm to layer or none"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        MMSSLConfig(**options)


@pytest.mark.parametrize("sampling", ["users", "interactions"])
def test_ranking_loss_counts_users_or_interactions_alike(sampling: str) -> None:
    # Two users with a few interactions among users with eight.
    few = torch.cat([torch.arange(3), torch.arange(13, len(VIEW.users))])
    view = dataclasses.replace(VIEW, users=VIEW.users[few], items=VIEW.items[few])
    assert len(set(view.user_counts().tolist())) > 2
    model = started(made(view, sampling=sampling, feature_dropout=0.0))
    pairs = Batch(view.users, view.items, torch.roll(view.items, 7))
    users, items = (table.detach() for table in model.tables())
    u, p, n = users[pairs.users], items[pairs.positives], items[pairs.negatives]
    each = torch.nn.functional.softplus((u * (n - p)).sum(1))
    expected = each.mean()
    if sampling == "users":
        by_user = [each[pairs.users == user].mean() for user in pairs.users.unique()]
        expected = torch.stack(by_user).mean()
    torch.testing.assert_close(model.loss(pairs)["bpr"].detach(), expected)


PARTS = {"bpr", "contrast", "generator", "reg", "feature_reg"}


@pytest.mark.parametrize(
    ("variant", "parts", "phases"),
    [
        (None, PARTS, ["main", "critic"]),
        ("without-asl", PARTS - {"generator"}, ["main"]),
        ("without-cl", PARTS - {"contrast"}, ["main", "critic"]),
        ("without-gt", PARTS, ["main", "critic"]),
        ("gae", PARTS - {"generator"} | {"autoencoder"}, ["main"]),
        ("without-views", PARTS - {"contrast"}, ["main", "critic"]),
        ("official", PARTS, ["main", "critic"]),
    ],
)
def test_variants_switch_exactly_their_terms(
    variant: str | None, parts: set[str], phases: list[str]
) -> None:
    model = started(made(**(SPEC.variants[variant] if variant else {})), 1)
    assert set(model.loss(first_batch())) == parts
    assert [phase.name for phase in model.phases()] == phases
    assert ("adversarial" in str(dict(model.named_modules()).keys())) == ("critic" in phases)


def test_without_gumbel_the_real_rows_are_another() -> None:
    losses = [
        float(started(made(densify=how)).loss(first_batch(), "critic")["critic_real"].detach())
        for how in ("gumbel", "observed")
    ]
    assert losses[0] != losses[1]


def test_generator_loss_reaches_the_projections_and_nothing_else() -> None:
    model = started(made())
    model.loss(first_batch())["generator"].backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached
    assert all(name.startswith("features.projections") for name in reached)


def test_autoencoder_is_a_cross_entropy_of_scaled_cosines() -> None:
    model = started(made(self_supervision="autoencoder", feature_dropout=0.0))
    with torch.no_grad():
        model.self_supervision.scale.fill_(2.5)
    batch = first_batch()
    expected = []
    for users, items in features_by_definition(model, VIEW):
        cosines = unit(users) @ unit(items).T
        who = batch.users.numpy()
        both = cosines[who, batch.positives], cosines[who, batch.negatives]
        logits = 2.5 * np.concatenate(both)
        signs = np.repeat([1.0, -1.0], len(batch))
        expected.append(np.log1p(np.exp(-signs * logits)).mean())
    loss = model.loss(batch)["autoencoder"]
    assert float(loss.detach()) == pytest.approx(1e-2 * np.mean(expected), rel=1e-4)
    loss.backward()
    assert model.self_supervision.scale.grad != 0


def test_penalties_are_small_squares() -> None:
    model = started(made(feature_dropout=0.0, reg=0.5, feature_reg=0.25))
    batch = first_batch()
    parts = model.loss(batch)
    users, items = (numbers(table) for table in model.tables())
    rows = users[batch.users], items[batch.positives], items[batch.negatives]
    squares = sum((one**2).sum() for one in rows) / (2 * len(batch))
    assert float(parts["reg"].detach()) == pytest.approx(0.5 * squares, rel=1e-4)
    squares = sum((t**2).sum() for pair in features_by_definition(model, VIEW) for t in pair)
    expected = 0.25 * squares / (2 * VIEW.n_items)
    assert float(parts["feature_reg"].detach()) == pytest.approx(expected, rel=1e-4)


def test_all_users_as_negatives_agree_with_a_batch_of_all_users() -> None:
    # Every user but the last, who has no view, is in a batch of all interactions.
    pairs = Batch(VIEW.users, VIEW.items, torch.roll(VIEW.items, 7))
    losses = [
        started(made(contrast_negatives=which)).loss(pairs)["contrast"].detach()
        for which in ("batch", "full")
    ]
    torch.testing.assert_close(*losses)


def contrast_by_definition(
    model: MMSSL, users: torch.Tensor, everyone: torch.Tensor
) -> torch.Tensor:
    """M19 over all modalities, from the final vectors and the views before attention."""
    unit_of = torch.nn.functional.normalize
    final, t = unit_of(model.tables()[0], dim=1), model.config.temperature
    total = torch.zeros(())
    for view, _ in model.modality_graphs.views(model.users, model.items, model.observed):
        e = unit_of(view, dim=1)
        within = (e[users] @ e[everyone].T / t).masked_fill(users[:, None] == everyone, -torch.inf)
        below = torch.cat([e[users] @ final[everyone].T / t, within], dim=1)
        total = total + (below.logsumexp(1) - (e[users] * final[users]).sum(1) / t).mean()
    return total


@pytest.mark.parametrize("negatives", ["batch", "full"])
def test_the_contrast_is_of_final_vectors_with_views_before_attention(negatives: str) -> None:
    model = started(
        made(
            contrast_negatives=negatives,
            contrast_weight=0.5,
            feature_dropout=0.0,
            self_supervision="none",
        ),
        1,
    )
    batch = first_batch()
    users = batch.users.unique()
    # The last user has no interaction and an empty view.
    everyone = users if negatives == "batch" else torch.arange(VIEW.n_users - 1)
    found, expected = model.loss(batch)["contrast"], contrast_by_definition(model, users, everyone)
    torch.testing.assert_close(found, 0.5 * expected)
    names, parameters = zip(*model.named_parameters(), strict=True)
    slopes = [
        torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        for loss in (found, 0.5 * expected)
    ]
    reached = set()
    for name, mine, theirs in zip(names, *slopes, strict=True):
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)
            reached.add(name)
    assert {"users", "items", "attention.query", "features.projections.0.weight"} <= reached


def test_the_generator_has_its_weight_in_the_loss() -> None:
    whole, quarter = (
        started(made(adversarial_weight=weight)).loss(first_batch())["generator"].detach()
        for weight in (1.0, 0.25)
    )
    torch.testing.assert_close(quarter, 0.25 * whole)
    assert float(whole) != 0


# ------------------------------------------------------------------ training


def test_stripped_of_everything_it_trains_as_lightgcn() -> None:
    model = made(
        eta=0.0,
        omega=0.0,
        contrast_weight=0.0,
        self_supervision="none",
        adjacency="symmetric",
        sampling="interactions",
        reg=0.0,
        feature_reg=0.0,
        weight_decay=0.0,
        optimizer="adam",
        learning_rate=0.01,
        learning_rate_decay=False,
    )
    other = LightGCN(LightGCNConfig(embedding_size=4, reg=0.0, learning_rate=0.01), VIEW)
    with torch.no_grad():
        other.embeddings.copy_(torch.cat([model.users, model.items]))
    options = TrainOptions(seed=5, epochs=3, batch_size=64, device="cpu")
    for one in (model, other):
        fit(one, VIEW, options)
    for left, right in zip(model.tables(), other.tables(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["gae", "without-gt", "official"])
def test_variants_learn(variant: str) -> None:
    dataset = toy_dataset()
    options = {**SPEC.variants[variant], "adversarial_weight": 1e-3}
    model = train(SPEC, build(SPEC, VIEW, overrides=options), VIEW, epochs=6)
    assert auc(score_all(SPEC, model, VIEW), dataset.test, VIEW) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("m", [1, 3])
def test_any_number_of_modalities_overfits_twenty_users(m: int) -> None:
    view = toy_dataset(n_users=20, n_items=24).view()
    text = view.modalities["text"]
    extra = {f"m{place}": Modality(f"m{place}", text.features, text.present) for place in range(m)}
    view = dataclasses.replace(view, modalities=extra)
    small = {"embedding_size": 32, "n_layers": 1, "learning_rate": 0.05}
    model = made(view, weight_decay=0.0, feature_dropout=0.0, **small)
    state = fit(model, view, TrainOptions(seed=1, epochs=40, batch_size=64, device="cpu"))
    assert state.history[-1]["loss/bpr"] < 0.05
    scores = score_all(SPEC, model, view)[:-1]
    edges = torch.from_numpy(oracles.interaction_matrix(view) > 0)[:-1]
    found = edges.gather(1, scores.topk(8, dim=1).indices)  # everyone has eight
    assert found.float().mean() > 0.97


def test_phases_leave_each_other_alone() -> None:
    model = started(made())
    critic = {id(p) for p in model.self_supervision.adversarial.parameters()}
    for phase in model.phases():
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = optim.build(phase)
        model.zero_grad()
        sum(model.loss(first_batch(), phase.name).values()).backward()
        optimizer.step()
        for name, p in model.named_parameters():
            if (id(p) in critic) != (phase.name == "critic"):
                assert torch.equal(p, before[name]), name


def test_several_critic_steps_for_one_of_the_model() -> None:
    phases = made(n_critic=5).phases()
    assert [(phase.name, phase.every) for phase in phases] == [("main", 5), ("critic", 1)]
    assert phases[1].optimizer.betas == (0.5, 0.9)
    assert phases[0].optimizer.decay == pytest.approx(0.96 ** (1 / 50))
    assert made(learning_rate_decay=False).phases()[0].optimizer.decay == 1.0


@pytest.mark.slow
def test_losses_and_training_are_functions_of_the_seed() -> None:
    runs = []
    for _ in range(2):
        state = fit(made(), VIEW, TrainOptions(seed=4, epochs=2, batch_size=200, device="cpu"))
        runs.append([{k: v for k, v in one.items() if k != "seconds"} for one in state.history])
    assert runs[0] == runs[1]
    first, other = (started(made(), seed=seed).loss(first_batch(), "critic") for seed in (1, 2))
    assert float(first["critic_real"].detach()) != float(other["critic_real"].detach())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"stale_critic_inputs": True}, {"refresh_every": 2}])
def test_a_stopped_run_goes_on_exactly(tmp_path, options: dict) -> None:
    def run(epochs: int, name: str, resume: bool = False) -> dict[str, torch.Tensor]:
        model = made(**options)
        settings = TrainOptions(seed=4, epochs=epochs, batch_size=200, device="cpu")
        fit(model, VIEW, settings, checkpoint_path=tmp_path / name, resume=resume)
        return model.state_dict()

    whole = run(4, "whole")
    run(3, "parts")
    resumed = run(4, "parts", resume=True)
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())


def test_stale_inputs_are_those_of_the_step_before() -> None:
    model = started(made(stale_critic_inputs=True, feature_dropout=0.0))
    fresh = started(made(feature_dropout=0.0))
    batch = first_batch()
    losses = []
    for one in (model, fresh):
        one.loss(batch)
        one.after_step(0, batch, seeds.torch_generator(9))
        with torch.no_grad():
            one.users.mul_(2)  # a step of the model that the stale critic does not see
        losses.append(float(one.loss(batch, "critic")["critic_real"].detach()))
        with torch.no_grad():
            one.users.div_(2)
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(float(fresh.loss(batch, "critic")["critic_real"].detach()))


def test_diagnostics_name_what_is_worth_watching() -> None:
    model = started(made(), 1)
    found = model.diagnostics()
    assert set(found) == {
        "critic_on_real",
        "critic_on_fake",
        "critic_gradient",
        "data_to_own_scores",
        "graph_degree",
        "graph_density",
        "empty_views",
        "alive/attention_focus",
        "alive/share/ids",
        "alive/share/views",
        "alive/share/features",
    }
    assert found["graph_degree"] == pytest.approx(3 * 59 / 60)
    assert found["empty_views"] == pytest.approx(1 / 60)
    assert 0 <= found["alive/attention_focus"] < 1
    assert sum(
        found[f"alive/share/{one}"] for one in ("ids", "views", "features")
    ) == pytest.approx(1)
    assert found["data_to_own_scores"] < 0.02  # a hundred times the own scores
    assert found == model.diagnostics()


def test_mostly_empty_graphs_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    started(made(), 1)
    assert caplog.messages == []
    view = dataclasses.replace(VIEW, users=VIEW.users[:40], items=VIEW.items[:40])
    started(made(view), 1)
    assert "no item in a modality's graph" in caplog.text
    assert {record.name for record in caplog.records} == {"modalign.models"}
