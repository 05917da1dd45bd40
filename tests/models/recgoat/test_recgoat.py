"""RecGOAT against its definition, its switches, its hooks, and what it learns on planted data."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pydantic
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import oracles
from modalign import ot
from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.data.interactions import Interactions
from modalign.errors import ConfigError, DataError, UnknownName
from modalign.models._registry import get
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.recgoat.config import REFERENCE, RecGOATConfig
from modalign.models.recgoat.model import RecGOAT
from modalign.models.recgoat.parts import first_weights, neighbour_graph, preferences
from modalign.models.recgoat.spaces import exact_distance
from modalign.testing.harness import batches, build, prepare, train
from modalign.testing.toy import toy_dataset
from modalign.train import optim
from modalign.train.trainer import TrainOptions, fit

SPEC = get("recgoat")
DATA = toy_dataset()
VIEW = DATA.view()
SMALL = {"embedding_size": 8, "n_heads": 2, "n_layers": 2, "k": 4, "k_users": 4, "batch_size": 64}


def made(view: TrainView = VIEW, seed: int = 3, **options) -> RecGOAT:
    with seeds.torch_seed(seed):
        return RecGOAT(RecGOATConfig(**{**SMALL, **options}), view)


def first_batch(view: TrainView = VIEW, size: int = 64) -> Batch:
    return batches(SPEC, view, size)[0]


def started(model: RecGOAT, epoch: int = 0, seed: int = 0) -> RecGOAT:
    model.train()
    model.on_epoch(epoch, seeds.torch_generator(seed, "epoch", epoch))
    return model


def stepped(model: RecGOAT, steps: int = 3, learning_rate: float = 0.02) -> RecGOAT:
    """A few steps as the trainer makes them."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    rng = seeds.torch_generator(0, "steps")
    started(model)
    data = batches(SPEC, VIEW, 64)
    for step in range(steps):
        batch = data[step % len(data)]
        optimizer.zero_grad()
        torch.stack(list(model.loss(batch).values())).sum().backward()
        optimizer.step()
        model.after_step(step, batch, rng)
    return model


def unit(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=1)


def size_of(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean().sqrt()


# ------------------------------------------------------------------ the forward pass


def branch_by_definition(branch, modality: Modality, k: int) -> torch.Tensor:
    """A dense masked softmax over the neighbours, both ways, and the row itself."""
    there = torch.from_numpy(modality.present)
    x = torch.from_numpy(modality.features).double()
    middle = x[there].mean(0)
    x = torch.where(there[:, None], x, middle) if modality.entity == "item" else x * there[:, None]
    x = x - middle
    cosine = unit(x) @ unit(x).T
    cosine[~there], cosine[:, ~there] = -math.inf, -math.inf
    cosine.fill_diagonal_(-math.inf)
    near = torch.zeros_like(cosine)
    near.scatter_(1, cosine.topk(k, dim=1).indices, 1.0)
    near[~there] = 0.0
    adjacency = ((near + near.T) > 0).double() + torch.eye(len(x)).double()
    layer = branch.layers[0]
    h = x @ branch.projection.weight.double().T + branch.projection.bias.double()
    parts = []
    for r, weight in enumerate(layer.weight.double().chunk(layer.n_heads)):
        values = h @ weight.T
        own, other = values @ layer.listening[r].double(), values @ layer.heard[r].double()
        scores = torch.nn.functional.leaky_relu(own[:, None] + other[None], 0.2)
        parts.append((scores + adjacency.log()).softmax(1) @ values)
    h = torch.nn.functional.leaky_relu(torch.cat(parts, dim=1) + layer.bias.double(), 0.2)
    return (h - h.mean(0)) / h.std(0, correction=0)


def propagated(model: RecGOAT, view: TrainView) -> tuple[torch.Tensor, torch.Tensor]:
    edges = torch.from_numpy(oracles.interaction_matrix(view)).double()
    n_users = len(edges)
    joint = torch.zeros(sum(edges.shape), sum(edges.shape), dtype=torch.float64)
    joint[:n_users, n_users:], joint[n_users:, :n_users] = edges, edges.T
    degree = joint.sum(1)
    scale = torch.where(degree > 0, degree.clamp(min=1) ** -0.5, 0.0)
    joint = scale[:, None] * joint * scale
    layers = [torch.cat([model.ids.users, model.ids.items]).detach().double()]
    for _ in range(model.config.n_layers):
        layers.append(joint @ layers[-1])
    mean = torch.stack(layers).mean(0)
    return mean[:n_users], mean[n_users:]


def tables_by_definition(model: RecGOAT, view: TrainView) -> tuple[torch.Tensor, torch.Tensor]:
    config = model.config
    users, ids = propagated(model, view)
    raw = [
        branch_by_definition(branch, view.modalities[name], config.k)
        for name, branch in zip(model.modality_names, model.branches, strict=True)
    ]
    profile = preferences(config, view, model.modality_names)
    raw.append(branch_by_definition(model.preference, profile, config.k_users))
    mapped = []
    for space, (z, target) in enumerate(zip(raw, [ids, ids, users], strict=True)):
        matrix = 8 * model.transport.plan[space].double() + model.transport.delta[space].double()
        moved = z @ matrix
        mapped.append(moved * size_of(target) / size_of(moved))
    floor = config.weight_floor
    weights = floor + (1 - 3 * floor) * model.fusion.logits.double().softmax(0)
    fused = weights[0] * ids + weights[1] * mapped[0] + weights[2] * mapped[1]
    norm = model.fusion.norm
    fused = (fused - fused.mean(1, keepdim=True)) / (
        fused.var(1, correction=0, keepdim=True) + norm.eps
    ).sqrt()
    items = unit(fused * norm.weight.double() + norm.bias.double())
    share = model.preference_logit.double().sigmoid()
    return (1 - share) * users + share * mapped[2], items


def test_the_tables_are_those_of_the_definition():
    model = stepped(made()).eval()
    with torch.no_grad():
        expected = tables_by_definition(model, VIEW)
        for found, wanted in zip(model.tables(), expected, strict=True):
            torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


def test_the_loss_computes_only_the_rows_it_needs_and_gets_the_same():
    # With as many anchors as items all rows are computed, with few only those of the batch.
    model = stepped(made(anchors=4, dropout=0.0)).eval()
    assert len(model.item_anchors) == 4
    batch = first_batch(size=8)
    users, items = model.tables()
    found = float(model.loss(batch)["bpr"].detach())
    scores = (
        torch.linalg.vecdot(users[batch.users], items[which])
        for which in (batch.positives, batch.negatives)
    )
    torch.testing.assert_close(found, float(oracle_bpr(*scores).detach()))


def oracle_bpr(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    return -torch.log(torch.sigmoid(positive - negative)).mean()


def test_items_have_length_one_and_weights_sum_to_one():
    model = stepped(made()).eval()
    lengths = model.tables()[1].norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(VIEW.n_items))
    weights = model.fusion.weights([model.ids.items] * 3)
    torch.testing.assert_close(float(weights.detach().sum()), 1.0)


def test_weights_at_the_start_are_the_releases():
    assert first_weights(["image", "text"]) == [0.15, 0.05, 0.8]
    assert first_weights(["audio", "image", "text"]) == pytest.approx(
        [0.15, 0.85 * 0.05 / 0.9, 0.85 * 0.05 / 0.9, 0.85 * 0.8 / 0.9]
    )
    for weighting in ("softmax", "free", "per_item", "equal"):
        model = made(weights=weighting, weight_floor=0.0)
        if weighting == "per_item":
            for parameter in model.fusion.gate[0].parameters():
                parameter.data.zero_()  # the gate at rest
        found = model.fusion.weights([model.ids.items] * 3).detach().reshape(-1, 3)[0]
        expected = [1 / 3] * 3 if weighting == "equal" else [0.15, 0.05, 0.8]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("weighting", ["softmax", "per_item"])
def test_no_weight_falls_below_the_floor(weighting):
    model = made(weights=weighting, weight_floor=0.1)
    with torch.no_grad():
        last = model.fusion.logits if weighting == "softmax" else model.fusion.gate[-1].bias
        last.copy_(torch.tensor([100.0, 0.0, 0.0]))
    found = model.fusion.weights([model.ids.items] * 3).detach().reshape(-1, 3)
    torch.testing.assert_close(found[0], torch.tensor([0.8, 0.1, 0.1]))
    with pytest.raises(ConfigError, match="weight_floor"):
        made(weights=weighting, weight_floor=0.34)


def test_with_all_weight_on_the_ids_items_are_the_ids_after_the_norm():
    model = made(weights="free", preference="none", user_start="random")
    with torch.no_grad():
        model.fusion.logits.zero_()
    users, items = model.tables()
    ids = model.representations()["id"]
    torch.testing.assert_close(items, unit(torch.nn.functional.layer_norm(ids, (8,))))
    torch.testing.assert_close(users, propagated(model, VIEW)[0].float())


def test_without_content_it_is_lightgcn_up_to_the_norm():
    model = made(content=False, preference="none", user_start="random")
    host = LightGCN(LightGCNConfig(embedding_size=8, n_layers=2), VIEW)
    with torch.no_grad():
        host.embeddings.copy_(torch.cat([model.ids.users, model.ids.items]))
    users, items = host.tables()
    torch.testing.assert_close(model.tables()[0], users)
    expected = unit(torch.nn.functional.layer_norm(items, (8,)))
    torch.testing.assert_close(model.tables()[1], expected)
    assert set(started(model).loss(first_batch())) == {"bpr", "contrast_users", "reg"}


def test_no_layers_leave_the_free_vectors():
    found = made(n_layers=0).representations()
    model = made(n_layers=0)
    torch.testing.assert_close(found["id"], model.ids.items.detach())
    torch.testing.assert_close(found["collaborative"], model.ids.users.detach())


def test_attentive_propagation_is_the_mean_of_the_layers():
    model = made(user_item="attentive")
    layers = [torch.cat([model.ids.users, model.ids.items])]
    for attention in model.ids.attention:
        layers.append(attention(layers[-1], model.ids.neighbours))
    expected = torch.stack(layers).mean(0)[VIEW.n_users :]
    torch.testing.assert_close(model.representations()["id"], expected.detach())


def test_modal_users_hear_their_items_in_each_modality():
    model, plain = made(modal_users=True), made()
    found, before = model.representations(), plain.representations()
    edges = torch.from_numpy(oracles.interaction_matrix(VIEW)).float()
    scale = [edges.sum(side).clamp(min=1).rsqrt() for side in (1, 0)]
    weighted = scale[0][:, None] * edges * scale[1]
    heard = []
    for name in model.modality_names:
        z = before[f"raw/{name}"]
        heard.append(weighted @ (z * size_of(before["id"]) / size_of(z)))
    expected = torch.stack([before["collaborative"], *heard]).mean(0)
    torch.testing.assert_close(found["collaborative"], expected)


# ------------------------------------------------------------------ preferences and graphs


def test_only_training_interactions_reach_a_preference():
    nothing = Interactions(np.zeros(0, np.int64), np.zeros(0, np.int64))
    other = dataclasses.replace(DATA, valid=nothing, test=nothing).view()
    found, again = (preferences(RecGOATConfig(), view, ["text"]) for view in (VIEW, other))
    np.testing.assert_array_equal(found.features, again.features)
    model, copy = (made(view) for view in (VIEW, other))
    torch.testing.assert_close(model.tables(), copy.tables(), rtol=0, atol=0)


def with_profiles(features: np.ndarray, present: np.ndarray) -> TrainView:
    profile = Modality("preference", features.astype(np.float32), present, "user")
    return dataclasses.replace(VIEW, user_modalities={"preference": profile})


def test_preferences_from_the_data_are_centred_and_absent_ones_are_zero():
    rows = seeds.numpy_generator(0, "profiles").normal(size=(VIEW.n_users, 5)) + 4.0
    present = np.arange(VIEW.n_users) % 3 > 0
    found = preferences(RecGOATConfig(preference="file"), with_profiles(rows, present), ["text"])
    expected = rows - rows[present].mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found.features[present], expected[present], atol=1e-6)
    assert not found.features[~present].any()
    model = made(with_profiles(rows, present), preference="file")
    assert not torch.equal(model.tables()[0], made().tables()[0])


def test_a_missing_file_of_preferences_is_told_in_three_facts():
    with pytest.raises(DataError, match="modalign describe") as caught:
        made(preference="file")
    assert "'preference'" in caught.value.expected
    assert "none" in caught.value.got


def test_random_preferences_say_nothing_of_the_data_and_are_always_the_same():
    first, again = (preferences(RecGOATConfig(preference="random"), VIEW, []) for _ in range(2))
    np.testing.assert_array_equal(first.features, again.features)
    assert first.present.all()


def test_without_text_histories_are_those_of_what_there_is():
    config = RecGOATConfig()
    by_text = preferences(config, VIEW, ["image", "text"])
    np.testing.assert_array_equal(by_text.features, preferences(config, VIEW, ["text"]).features)
    by_image = preferences(config, VIEW, ["image"])
    assert by_image.dim == 12
    view = dataclasses.replace(
        VIEW, modalities={"a": VIEW.modalities["image"], "b": VIEW.modalities["text"]}
    )
    both = preferences(config, view, ["a", "b"])
    lengths = np.linalg.norm(both.features[both.present], axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-6)
    cosines = both.features @ both.features.T
    mean = (by_image.features @ by_image.features.T + by_text.features @ by_text.features.T) / 2
    np.testing.assert_allclose(cosines, mean, atol=1e-5)


def test_without_any_features_there_is_no_history_to_take_means_of():
    bare = dataclasses.replace(VIEW, modalities={})
    with pytest.raises(DataError, match="modalign encode"):
        preferences(RecGOATConfig(), bare, [])


def test_users_start_at_the_principal_components_of_their_preferences():
    model = made(embedding_size=4)
    profile = preferences(model.config, VIEW, ["text"])
    rows = profile.features[profile.present].astype(float)
    left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    components = (left * values)[:, :4]
    found = model.ids.users.detach().double().numpy()[profile.present]
    np.testing.assert_allclose(found.std(axis=0), 0.1, rtol=1e-4)
    aligned = np.abs(np.corrcoef(components.T, found.T)[:4, 4:])
    np.testing.assert_allclose(aligned, np.eye(4), atol=1e-3)
    drawn = made(user_start="random").ids.users.detach()
    assert abs(float(drawn.std()) - 0.1) < 0.02


@pytest.mark.parametrize("weighted", [False, True])
def test_neighbours_are_at_least_k_and_oneself(weighted):
    modality = VIEW.modalities["text"]
    graph = neighbour_graph(modality, 4, True, weighted)
    edges = graph.edges()
    degrees = (edges.indptr[1:] - edges.indptr[:-1]).numpy()
    assert (degrees[modality.present] >= 5).all()
    assert (degrees[~modality.present] == 1).all()
    if weighted:
        x = unit(torch.from_numpy(modality.features).double())
        cosine = (x @ x.T)[edges.owner, edges.sources.long()].clamp(min=1e-3)
        own = edges.owner == edges.sources
        torch.testing.assert_close(edges.weights[~own].double(), cosine[~own], atol=1e-6, rtol=1e-5)
        assert bool((edges.weights[own] == 1).all())


def test_without_a_graph_everyone_listens_to_themselves():
    graph = neighbour_graph(VIEW.modalities["text"], 4, False, False)
    assert graph.edges().sources.tolist() == list(range(VIEW.n_items))


# ------------------------------------------------------------------ the loss


def hand_made(**options) -> tuple[RecGOAT, Batch]:
    model = started(made(dropout=0.0, **options))
    return model, first_batch()


def test_the_ranking_loss_is_bpr_and_the_penalty_has_no_half():
    model, batch = hand_made(reg=0.01)
    parts = model.eval().loss(batch)
    users, items = model.tables()
    scores = (
        torch.linalg.vecdot(users[batch.users], items[which])
        for which in (batch.positives, batch.negatives)
    )
    torch.testing.assert_close(parts["bpr"], oracle_bpr(*scores))
    free = model.ids
    squares = free.users[batch.users].square().sum() + sum(
        free.items[which].square().sum() for which in (batch.positives, batch.negatives)
    )
    torch.testing.assert_close(parts["reg"], 0.01 * squares / len(batch))


def contrast(a: torch.Tensor, b: torch.Tensor, temperature: float = 0.2) -> torch.Tensor:
    logits = unit(a) @ unit(b).T / temperature
    return (logits.logsumexp(1) - logits.diagonal()).mean()


def test_contrasts_are_those_of_the_batchs_different_items_and_users():
    model, batch = hand_made(contrast_weight=0.4, modality_share=0.25)
    parts = model.eval().loss(batch)
    vectors = model.representations()
    rows = torch.cat([batch.positives, batch.negatives]).unique()
    image, text, ids = (vectors[name][rows] for name in ("raw/image", "raw/text", "id"))
    people = batch.users.unique()
    users = contrast(vectors["collaborative"][people], vectors["raw/preference"][people])
    mean = (contrast(ids, image) + contrast(ids, text) + contrast(image, text) + users) / 4
    torch.testing.assert_close(parts["contrast_modalities"].detach(), 0.1 * mean)
    columns, own = batch.positives.unique(return_inverse=True)
    logits = unit(vectors["users"][batch.users]) @ vectors["unified"][columns].T / 0.2
    expected = torch.nn.functional.cross_entropy(logits, own)
    torch.testing.assert_close(parts["contrast_users"].detach(), 0.3 * expected)


def test_a_repeated_batch_has_the_same_contrasts():
    model, batch = hand_made(contrast_weight=1.0, preference="none", user_start="random")
    twice = Batch(*(torch.cat([x, x]) for x in (batch.users, batch.positives, batch.negatives)))
    found, again = (model.eval().loss(one) for one in (batch, twice))
    for name in ("contrast_users", "contrast_modalities"):
        torch.testing.assert_close(found[name], again[name])


def test_the_share_isolates_either_contrast():
    model, batch = hand_made(modality_share=0.0)
    assert set(model.loss(batch)) == {"bpr", "contrast_users", "transport", "reg", "delta"}
    model, batch = hand_made(modality_share=1.0)
    assert set(model.loss(batch)) == {"bpr", "contrast_modalities", "transport", "reg", "delta"}
    model, batch = hand_made(contrast_weight=0.0, transport_weight=0.0, reg=0.0, delta_reg=0.0)
    assert set(model.loss(batch)) == {"bpr"}


def test_the_repelling_sign_and_the_releases_six_terms():
    options = {"contrast_weight": 1.0, "preference": "none", "user_start": "random"}
    model, batch = hand_made(contrast_sign="repel", contrast_views="pairs", **options)
    parts = model.eval().loss(batch)
    vectors = model.representations()
    terms = []
    for rows in (batch.positives, batch.negatives):
        image, text, ids = (vectors[name][rows] for name in ("raw/image", "raw/text", "id"))
        terms += [contrast(ids, image), contrast(ids, text), contrast(image, text)]
    expected = 0.5 * torch.stack([1 - term for term in terms]).mean()
    torch.testing.assert_close(parts["contrast_modalities"].detach(), expected)
    expected = 0.5 * contrast(vectors["users"][batch.users], vectors["unified"][batch.positives])
    torch.testing.assert_close(parts["contrast_users"].detach(), expected)


def test_both_directions_of_a_contrast():
    model, batch = hand_made(
        contrast_symmetric=True,
        modality_share=1.0,
        modalities=("text",),
        preference="none",
        user_start="random",
        contrast_weight=1.0,
    )
    vectors = model.representations()
    rows = torch.cat([batch.positives, batch.negatives]).unique()
    ids, text = vectors["id"][rows], vectors["raw/text"][rows]
    expected = 0.5 * (contrast(ids, text) + contrast(text, ids))
    found = model.eval().loss(batch)["contrast_modalities"].detach()
    torch.testing.assert_close(found, expected)


def test_known_items_of_a_user_are_no_negatives():
    model, batch = hand_made(mask_known=True, contrast_weight=1.0, modality_share=0.0)
    users, items = model.eval().tables()
    columns, own = batch.positives.unique(return_inverse=True)
    logits = unit(users[batch.users]) @ items[columns].T / 0.2
    seen = torch.from_numpy(oracles.interaction_matrix(VIEW))[batch.users][:, columns] > 0
    seen[torch.arange(len(batch)), own] = False
    assert bool(seen.any())
    expected = torch.nn.functional.cross_entropy(logits.masked_fill(seen, -math.inf), own)
    torch.testing.assert_close(model.loss(batch)["contrast_users"], expected)


def test_a_contrast_takes_at_most_so_many_rows():
    model, batch = hand_made(contrast_rows=10, contrast_weight=1.0, modality_share=0.0)
    users, items = model.eval().tables()
    columns, own = batch.positives[:10].unique(return_inverse=True)
    logits = unit(users[batch.users[:10]]) @ items[columns].T / 0.2
    expected = torch.nn.functional.cross_entropy(logits, own)
    torch.testing.assert_close(model.loss(batch)["contrast_users"], expected)


def test_the_distance_has_a_weight_only_after_the_warm_up():
    model = made(warmup_epochs=2)
    assert "transport" not in started(model, epoch=1).loss(first_batch())
    assert "transport" in started(model, epoch=2).loss(first_batch())


@pytest.mark.parametrize("side", ["modality", "both"])
def test_the_distance_moves_the_modalities_and_the_ids_only_if_asked(side):
    model = started(made(distance_side=side, match_scale=False))
    model.loss(first_batch())["transport"].backward()
    assert model.branches[0].projection.weight.grad is not None
    of_ids = model.ids.items.grad
    assert (of_ids is not None and bool(of_ids.any())) == (side == "both")


def test_the_distance_is_of_mapped_vectors_to_the_ids():
    """R11, R12 and their weight: a sum over spaces, which moves the mapped side alone."""
    model = stepped(made(dropout=0.0, transport_weight=0.5)).eval()
    rows = torch.arange(20)  # as many users as items: nothing is drawn
    spaces = model.encode()
    clouds = [(z, spaces.ids) for z in spaces.mapped]
    clouds.append((spaces.preference[1], spaces.collaborative))
    total = 0.0
    for z, target in clouds:
        fixed = target[rows].detach()
        squares = (z[rows][:, None] - fixed[None]).square().sum(2)
        distance = (squares / fixed.square().sum(1).mean() + 1e-12).sqrt()
        solved = ot.sinkhorn(distance.detach(), reg=0.05, scale="mean", tolerance=1e-4)
        total = total + (solved.plan * distance).sum()
    found, expected = model.loss(Batch(rows, rows, rows))["transport"], 0.5 * total
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    reached = [model.transport.delta, *(b.projection.weight for b in model.branches)]
    for mine, theirs in zip(
        *(torch.autograd.grad(loss, reached) for loss in (found, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=1e-3 * float(theirs.abs().max()))
        assert float(theirs.abs().max()) > 0


# ------------------------------------------------------------------ hooks, plans, state


def test_plans_are_new_in_a_step_and_kept_after_it():
    model = started(made())
    before = model.transport.plan.clone()
    batch = first_batch()
    model.loss(batch)
    torch.testing.assert_close(model.transport.plan, before, rtol=0, atol=0)
    model.after_step(0, batch, seeds.torch_generator(0))
    assert not torch.equal(model.transport.plan, before)
    mass = model.transport.plan.sum((1, 2))
    torch.testing.assert_close(mass, torch.ones(3), atol=1e-4, rtol=0)


def test_evaluation_is_deterministic_and_leaves_the_plans():
    model = stepped(made())
    plan = model.transport.plan.clone()
    model.eval()
    torch.testing.assert_close(model.tables(), model.tables(), rtol=0, atol=0)
    model.loss(first_batch())
    model.after_step(9, first_batch(), seeds.torch_generator(0))
    torch.testing.assert_close(model.transport.plan, plan, rtol=0, atol=0)


def test_plans_are_due_every_so_many_steps():
    model, batch = started(made(plan_every=2)), first_batch()
    renewed = []
    for step in range(5):
        model.loss(batch)
        renewed.append(model._handed_on is not None)
        model.after_step(step, batch, seeds.torch_generator(0))
    assert renewed == [True, False, True, False, True]
    assert RecGOATConfig(embedding_size=128).steps_between_plans == 1
    assert RecGOATConfig(embedding_size=136).steps_between_plans == 10


def test_dropout_is_redrawn_by_the_hooks():
    model, batch = made(), first_batch()
    losses = []
    for seed in (1, 1, 2):
        prepare(model, batch, seed)
        losses.append(float(model.loss(batch)["bpr"].detach()))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("overrides", [{}, {"n_attention_layers": 0}, {"oat_map": "sample"}])
def test_mixed_precision_trains_and_keeps_plans_in_single_precision(overrides):
    model = build(SPEC, VIEW, overrides=overrides)
    options = TrainOptions(epochs=1, batch_size=64, device="cpu", precision="bf16-mixed")
    state = fit(model, VIEW, options)
    assert math.isfinite(state.history[0]["loss/bpr"])
    assert model.transport.g.dtype == torch.float32
    assert bool(model.tables()[1].isfinite().all())


# ------------------------------------------------------------------ options


def test_a_preset_fills_in_what_is_not_said():
    config = RecGOATConfig(preset="reference", reg=0.5, weights="equal")
    assert config.weights == "equal"
    assert config.contrast_sign == "repel"
    for name, value in REFERENCE.items():
        assert getattr(config, name) == (value if name != "weights" else "equal")


def test_the_reference_reads_users_by_their_interactions_alone():
    model = stepped(made(preset="reference"))
    torch.testing.assert_close(
        model.eval().tables()[0], model.representations()["users"], rtol=0, atol=0
    )
    assert model.preference is None
    assert model.transport.delta.detach().abs().sum() > 0
    assert "transport" not in model.loss(first_batch())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_heads": 3}, "n_heads must divide"),
        ({"plan": "none"}, "must not start at zero"),
        ({"preference_share": 1.0}, "less than 1"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_options_that_can_not_be_are_refused(options, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        RecGOATConfig(**options)


def test_an_unknown_modality_is_named():
    with pytest.raises(UnknownName, match="imaje"):
        made(modalities=("imaje",))


@pytest.mark.parametrize("name", [*SPEC.variants, "weighted", "symmetric", "ema", "deep"])
def test_every_variant_steps_to_finite_vectors(name):
    more = {
        "weighted": {"weigh_edges": True},
        "symmetric": {"contrast_symmetric": True, "distance": "divergence"},
        "ema": {"plan_average": 0.9, "distance": "sliced", "distance_side": "both"},
        "deep": {"n_attention_layers": 2, "modal_users": True, "feature_rank": 3},
    }
    model = stepped(made(**(SPEC.variants | more)[name]), steps=2).eval()
    users, items = model.tables()
    assert bool(users.isfinite().all())
    assert bool(items.isfinite().all())
    found = model.diagnostics()
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_without_transport_vectors_are_added_or_joined_at_the_size_of_the_ids(fusion, standardise):
    model = made(fusion=fusion, standardise=standardise).eval()
    found = model.representations()
    sizes = {name: size_of(found[name]) for name in ("id", "raw/image", "raw/text")}
    parts = [found[name] * (sizes["id"] / size) for name, size in sizes.items()]
    fused = torch.cat(parts, dim=1) if fusion == "concat" else sum(parts)
    with torch.no_grad():
        expected = unit(model.fusion.norm(model.fusion.linear(fused)))
    torch.testing.assert_close(found["unified"], expected)
    torch.testing.assert_close(found["mapped/text"], parts[2])
    plain = made(fusion=fusion, standardise=standardise, match_scale=False).eval().representations()
    torch.testing.assert_close(plain["mapped/text"], plain["raw/text"], rtol=0, atol=0)
    assert model.transport is None
    assert "transport" not in model.loss(first_batch())


# ------------------------------------------------------------------ what is watched


def test_diagnostics_are_the_distances_contrasts_and_weights():
    model = stepped(made()).eval()
    found = model.diagnostics()
    vectors = model.representations()
    length = vectors["id"].square().sum(1).mean().sqrt()
    for name, kind in (("before", "raw"), ("after", "mapped")):
        cost = torch.cdist(vectors[f"{kind}/text"].double(), vectors["id"].double()) / length
        rows, columns = linear_sum_assignment(cost.numpy())
        assert found[f"w1_{name}/text"] == pytest.approx(
            float(cost[rows, columns].mean()), rel=1e-3
        )
    nce = float(contrast(vectors["id"], vectors["raw/text"]))
    assert found["nce/id-text"] == pytest.approx(nce, rel=1e-4)
    assert found["information/id-text"] == pytest.approx(math.log(40) - nce, abs=1e-4)
    weights = [found[f"alive/weight/{name}"] for name in ("id", "image", "text")]
    assert sum(weights) == pytest.approx(1.0)
    assert 0 < found["preference_share"] < 1
    assert 0 < found["attention/preference"] <= 1
    assert 0 < found["plan_bits/text"] <= 3


@pytest.mark.slow
def test_mean_scores_differ_by_at_most_length_times_distance():
    # Kantorovich and Rubinstein: for every user, of trained vectors.
    model = train(SPEC, build(SPEC, VIEW), VIEW, epochs=5).eval()
    found = model.representations()
    for name in model.modality_names:
        mapped, ids = found[f"mapped/{name}"], found["id"]
        gap = (found["users"] @ (mapped.mean(0) - ids.mean(0))).abs()
        bound = found["users"].norm(dim=1) * exact_distance(mapped, ids)
        assert bool((gap <= bound + 1e-5).all())


# ------------------------------------------------------------------ what it learns


@pytest.mark.slow
def test_it_learns_a_small_set_by_heart():
    rng = seeds.numpy_generator(0, "by-heart")
    items = np.concatenate([rng.permutation(20)[:5] for _ in range(30)])
    users = np.repeat(np.arange(30), 5)
    text = Modality("text", rng.normal(size=(20, 12)).astype(np.float32), np.ones(20, bool))
    view = TrainView(30, 20, torch.from_numpy(users), torch.from_numpy(items), {"text": text})
    model = made(
        view,
        embedding_size=16,
        n_heads=4,
        n_layers=3,
        k=5,
        k_users=5,
        batch_size=150,
        learning_rate=0.05,
    )
    optimizer = optim.build(model.phases()[0])
    started(model)
    steps = seeds.torch_generator(0, "steps")
    for step in range(100):
        batch = batches(SPEC, view, 150, seed=step)[0]
        optimizer.zero_grad()
        torch.stack(list(model.loss(batch).values())).sum().backward()
        optimizer.step()
        model.after_step(step, batch, steps)
    of_users, of_items = model.eval().tables()
    best = (of_users @ of_items.T).topk(5).indices.numpy()
    own = items.reshape(30, 5)
    hits = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(best, own, strict=True)])
    assert hits > 0.9


def planted(seed: int) -> tuple[TrainView, np.ndarray]:
    """Users like what lies in their direction; features are a rotation of these directions and
    of noise; a third of what a user likes is training, the rest is returned, (n_users, 13).
    """
    rng = seeds.numpy_generator(seed, "planted")
    n_users, n_items, liked, shown = 100, 120, 20, 7
    factors = rng.normal(size=(n_items, 6))
    scores = rng.normal(size=(n_users, 6)) @ factors.T
    scores += 0.5 * rng.normal(size=scores.shape)
    best = rng.permuted(np.argsort(-scores, axis=1)[:, :liked], axis=1)
    rotation = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    features = np.concatenate([factors, 0.5 * rng.normal(size=(n_items, 18))], axis=1) @ rotation
    text = Modality("text", features.astype(np.float32), np.ones(n_items, bool))
    users, items = np.repeat(np.arange(n_users), shown), best[:, :shown].ravel()
    view = TrainView(
        n_users, n_items, torch.from_numpy(users), torch.from_numpy(items.copy()), {"text": text}
    )
    return view, best[:, shown:]


def held_out_recall(model: RecGOAT, view: TrainView, held: np.ndarray) -> float:
    with torch.no_grad():
        users, items = model.eval().tables()
    scores = users @ items.T
    scores[view.users, view.items] = -torch.inf
    best = scores.topk(10, dim=1).indices.numpy()
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, held, strict=True)]))


@pytest.mark.slow
def test_content_that_tells_tastes_beats_ids_alone_and_transport_brings_it_near():
    shared = {
        "embedding_size": 16,
        "n_heads": 4,
        "k": 5,
        "k_users": 5,
        "batch_size": 350,
        "learning_rate": 0.03,
        "epochs": 10,
    }
    recalls: dict[str, list[float]] = {"full": [], "ids": []}
    for seed in range(3):
        view, held = planted(seed)
        for name, variant in (("full", {}), ("ids", SPEC.variants["ids-only"])):
            model = made(view, seed, **{**shared, **variant})
            train(SPEC, model, view, seed)
            recalls[name].append(held_out_recall(model, view, held))
            if name == "full":
                found = model.diagnostics()
                assert found["w1_after/text"] < found["w1_before/text"]
    assert np.mean(recalls["full"]) > np.mean(recalls["ids"]) + 0.01


def test_the_trained_matrices_are_penalised_by_their_squares() -> None:
    """Without it the mapped texts of the shop fall onto one direction within twelve epochs."""
    view = toy_dataset().view()
    spec = get("recgoat")
    for options, expected in (
        ({"delta_reg": 0.5}, True), ({"delta_reg": 0.0}, False), ({"adapt": "none"}, False),
        ({"fusion": "sum"}, False),
    ):  # fmt: skip
        model = build(spec, view, overrides=options)
        batch = batches(spec, view, 64)[0]
        prepare(model, batch)
        if expected:
            torch.nn.init.normal_(model.transport.delta)
        parts = model.loss(batch)
        assert ("delta" in parts) == expected, options
        if expected:
            delta = model.transport.delta
            torch.testing.assert_close(parts["delta"], 0.5 * (delta.detach() ** 2).sum())
            (slope,) = torch.autograd.grad(parts["delta"], [delta])
            torch.testing.assert_close(slope, delta.detach())
