"""CM3 against a dense oracle written from the equations, its laws, and what it must learn."""

import math

import numpy as np
import pydantic
import pytest
import torch
from torch.nn import functional

from modalign.core import seeds
from modalign.core.interfaces import Batch, Queries
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.models._registry import get
from modalign.models._shared.item_graph import modality_weights
from modalign.models.cm3.config import CM3Config
from modalign.models.cm3.model import CM3
from modalign.train.batches import PairBatches

D = 6
WIDTHS = {"image": 9, "text": 7, "audio": 5}


def make_view(names=("image", "text"), n_users=12, n_items=15, per_user=4, seed=0, missing=()):
    """Random taste; the last user and the last item have no interaction."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(n_items - 1)[:per_user] for _ in range(n_users - 1)])
    modalities = {}
    for name in names:
        present = np.ones(n_items, bool)
        present[[row for kind, row in missing if kind == name]] = False
        features = rng.normal(size=(n_items, WIDTHS[name])).astype(np.float32)
        modalities[name] = Modality(name, features * present[:, None], present)
    return TrainView(
        n_users,
        n_items,
        torch.arange(n_users - 1).repeat_interleave(per_user),
        torch.from_numpy(items.ravel()),
        modalities,
    )


def make_model(view, seed=0, **options):
    own = {"embedding_size": D, "hidden_size": 8, "k": 4, "n_layers": 2, "cold_length": "own"}
    options = own | options
    with seeds.torch_seed(seed, "init"):
        return CM3(CM3Config(**options), view)


def make_batch(view, size=20, seed=0):
    rng = torch.Generator().manual_seed(seed)
    pairs = torch.randperm(len(view.users), generator=rng)[:size]
    negatives = torch.randint(view.n_items, (len(pairs),), generator=rng)
    return Batch(view.users[pairs], view.items[pairs], negatives)


def total(model, batch):
    return sum(model.loss(batch).values())


def unit(x):
    return functional.normalize(x, dim=-1)


# ------------------------------------------------------------------ the oracle


def oracle_content(model, view, positions):
    """C1 to C8 in float64: P, Q, h, layer 0."""
    projected, fused_inputs = [], []
    for name, tower in zip(model.modality_names, model.towers, strict=True):
        x = torch.from_numpy(view.modalities[name].features).double()
        w, b = tower.first.weight.double(), tower.first.bias.double()
        hidden = functional.leaky_relu(x @ w[: tower.hidden].T + b[: tower.hidden], 0.01)
        projected.append(unit(hidden @ tower.second.weight.double().T))
        if tower.head:
            fused_inputs.append(unit(x @ w[tower.hidden :].T + b[tower.hidden :]))
    h = fused_inputs[0]
    for q, p in zip(fused_inputs[1:], positions.double(), strict=True):
        theta = torch.acos((q * h).sum(-1))
        h = (
            torch.sin(p * theta)[:, None] * q + torch.sin((1 - p) * theta)[:, None] * h
        ) / torch.sin(theta)[:, None]
    return projected, fused_inputs, h, torch.cat([*projected, h], dim=1)


def oracle_tables(model, view, positions):
    """C9 to C14 with dense matrices."""
    config = model.config
    _, _, h, items = oracle_content(model, view, positions)
    users = torch.cat([unit(table.double()) for table in model.user_segments], dim=1)
    n_users, n_items = view.n_users, view.n_items
    a = torch.zeros(n_users + n_items, n_users + n_items, dtype=torch.float64)
    du, di = view.user_counts().double(), view.item_counts().double()
    values = (du[view.users] * di[view.items]).rsqrt()
    a[view.users, n_users + view.items] = values
    a[n_users + view.items, view.users] = values
    layer = torch.cat([users, items])
    z = layer.clone()
    for _ in range(config.n_layers):
        layer = a @ layer
        z += layer
    weights = model.preferences.double().softmax(1)
    user_table = (z[:n_users].view(n_users, -1, D) * weights[:, :, None]).flatten(1)
    s = torch.zeros(n_items, n_items, dtype=torch.float64)
    ours = modality_weights(config.modality_weights, model.modality_names, view.modalities)
    for name, weight in zip(model.modality_names, ours, strict=True):
        x = unit(torch.from_numpy(view.modalities[name].features).double())
        near = (x @ x.T).topk(config.k, dim=1).indices
        s.scatter_add_(1, near, torch.full_like(near, 1, dtype=torch.float64) * weight / config.k)
    smooth = z[n_users:]
    for _ in range(config.n_item_layers):
        smooth = s @ smooth
    return user_table, z[n_users:] + smooth, h


def pair_log_mean(exponent):
    n = len(exponent)
    a, b = torch.triu_indices(n, n, 1)
    return exponent[a, b].exp().mean().log()


def oracle_loss(model, view, batch):
    """C15 to C19."""
    c = model.config
    users, items, h = oracle_tables(model, view, model.positions)
    u, p = unit(users[batch.users]), unit(items[batch.positives])
    n, hn = unit(items[batch.negatives]), unit(h[batch.negatives])
    s = (hn @ hn.T).clamp(c.s_min, c.s_max)
    s = s.detach() if c.detach_similarity else s
    weight = c.gamma * c.kappa
    return {
        "align": (u - p).square().sum(-1).mean(),
        "uniform_user": weight * pair_log_mean(2 * c.t * (u @ u.T - 1)),
        "cal_uniform_item": weight * pair_log_mean(2 * c.t * (n @ n.T - s)),
    }


@pytest.mark.parametrize("names", [("image",), ("image", "text"), ("audio", "image", "text")])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"detach_similarity": False},
        {"n_layers": 3, "n_item_layers": 2, "s_max": 0.8, "detach_similarity": False},
    ],
)
def test_loss_tables_and_gradients_equal_the_dense_oracle(names, options):
    view = make_view(names)
    model, batch = make_model(view, **options), make_batch(view)
    parts, expected = model.loss(batch), oracle_loss(model, view, batch)
    assert list(parts) == list(expected)
    for name, value in parts.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)
    parameters = list(model.parameters())
    mine = torch.autograd.grad(sum(parts.values()), parameters)
    theirs = torch.autograd.grad(sum(expected.values()), parameters)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    half = torch.full((len(names) - 1, view.n_items), 0.5)
    for table, oracle in zip(model.tables(), oracle_tables(model, view, half), strict=False):
        torch.testing.assert_close(table.double(), oracle, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ what is random


def test_positions_are_redrawn_by_the_hooks_and_by_nothing_else():
    view = make_view()
    model, batch = make_model(view), make_batch(view)
    losses, tables = [], []
    for epoch, seed in enumerate((1, 2, 1)):
        model.on_epoch(epoch, torch.Generator().manual_seed(seed))
        losses.append(total(model, batch).item())
        assert total(model, batch).item() == losses[-1]
        tables.append(model.tables()[1])
    assert losses[0] == losses[2] != losses[1]
    torch.testing.assert_close(tables[0], tables[1], rtol=0, atol=0)
    model.after_step(0, batch, torch.Generator().manual_seed(5))
    assert total(model, batch).item() not in losses


@pytest.mark.parametrize(
    ("names", "options", "shape"),
    [
        (("image", "text"), {}, (1, 15)),
        (("audio", "image", "text"), {}, (2, 15)),
        (("audio", "image", "text"), {"shared_lambda_levels": True}, (1, 15)),
        (("audio", "image", "text"), {"fusion_scheme": "casteljau"}, (1, 15)),
        (("audio", "image", "text"), {"fusion": "linear"}, (2, 15)),
        (("audio", "image", "text"), {"fusion": "average"}, (0, 15)),
        (("image", "text"), {"fusion": "none"}, (0, 15)),
        (("text",), {}, (0, 15)),
    ],
)
def test_one_position_for_each_item_and_level(names, options, shape):
    model = make_model(make_view(names), **options)
    assert model.positions.shape == shape
    assert "positions" not in model.state_dict()


def test_cached_tables_are_those_of_the_last_training_step():
    """E29: one optimizer step stale, at the draw of that step; saved with the weights."""
    view = make_view()
    model, batch = make_model(view, eval_lambda="cached"), make_batch(view)
    mean = make_model(view)
    torch.testing.assert_close(model.tables(), mean.tables())  # nothing was trained yet
    with torch.no_grad():
        stale = model._vectors(model._content(model.positions[None]), None, None)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    total(model, batch).backward()
    adam.step()
    assert not model.cached  # the loss itself changes no state
    model.after_step(0, batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.tables(), stale)
    copy = make_model(view, seed=9, eval_lambda="cached")
    copy.load_state_dict(model.state_dict())
    torch.testing.assert_close(copy.tables(), stale)
    with torch.no_grad():
        model.loss(batch)
    model.after_step(0, batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.tables(), stale)


def test_sampled_and_averaged_scoring():
    view = make_view()
    sample, mc = make_model(view, eval_lambda="sample"), make_model(view, eval_lambda="mc")
    for model, draws in ((sample, 1), (mc, 8)):
        model.on_epoch(0, torch.Generator().manual_seed(0))
        assert model.eval_positions.shape == (draws, 1, view.n_items)
        first = model.tables()
        torch.testing.assert_close(model.tables(), first, rtol=0, atol=0)
        copy = make_model(view, seed=3, eval_lambda=model.config.eval_lambda)
        copy.load_state_dict(model.state_dict())
        torch.testing.assert_close(copy.tables(), first, rtol=0, atol=0)
        model.on_epoch(1, torch.Generator().manual_seed(1))
        assert not torch.equal(model.tables()[1], first[1])
    # After layer 0 all is linear, so the mean of the tables is the table of the means.
    singles = [mc._vectors(mc._content(draw[None]), None, None) for draw in mc.eval_positions]
    for at, table in enumerate(mc.tables()):
        torch.testing.assert_close(table, torch.stack([pair[at] for pair in singles]).mean(0))


@pytest.mark.slow
def test_many_draws_approach_the_mean_position_in_direction():
    view = make_view()
    model = make_model(view, eval_lambda="mc", eval_draws=1000, n_layers=0, n_item_layers=0)
    mean = make_model(view, n_layers=0, n_item_layers=0)
    fused = slice(2 * D, 3 * D)
    cosine = functional.cosine_similarity(model.tables()[1][:, fused], mean.tables()[1][:, fused])
    assert cosine.min() > 0.99


# ------------------------------------------------------------------ graphs


def test_propagation_matrix_by_hand():
    """Test 10: users 0, 1, 2 with items {0, 1}, {1}, {1, 2}."""
    view = make_view(n_users=3, n_items=3, per_user=1)
    view = TrainView(
        3, 3, torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 2]), view.modalities
    )
    a = make_model(view).graph.scipy().toarray()
    np.testing.assert_allclose(a, a.T)
    r = np.array([[2**-0.5, 6**-0.5, 0], [0, 3**-0.5, 0], [0, 6**-0.5, 2**-0.5]])
    np.testing.assert_allclose(a[:3, 3:], r, rtol=1e-6)
    eigenvalues = np.linalg.eigvalsh(a)
    assert eigenvalues.max() == pytest.approx(1, abs=1e-6)
    assert eigenvalues.min() >= -1 - 1e-6


def test_item_graph_is_stochastic_and_weighted():
    """Test 11."""
    model = make_model(make_view(), k=4)
    s = model.item_graph.scipy().toarray()
    np.testing.assert_allclose(s.sum(1), 1, rtol=1e-6)
    assert ((s > 0).sum(1) <= 8).all()
    np.testing.assert_allclose(np.diag(s), 1 / 4, rtol=1e-6)
    values = np.unique(s[s > 0].round(6))
    np.testing.assert_allclose(values, [0.025, 0.225, 0.25], rtol=1e-5)
    without = make_model(make_view(), k=4, knn_exclude_self=True).item_graph.scipy().toarray()
    assert (np.diag(without) == 0).all()
    np.testing.assert_allclose(without.sum(1), 1, rtol=1e-6)


def test_item_graph_weights_what_an_item_has():
    view = make_view(missing=[("image", 2), ("text", 3), ("image", 4), ("text", 4)])
    s = make_model(view, k=3).item_graph.scipy().toarray()
    np.testing.assert_allclose(s.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(s[2][s[2] > 0], [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(s[3][s[3] > 0], [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(s[4], np.eye(15)[4])
    assert s[np.arange(15) != 4, 4].max() == 0
    text_only = make_model(view, k=3, modalities=("text",)).item_graph.scipy().toarray()
    np.testing.assert_allclose(s[2], text_only[2], rtol=1e-6)


def test_an_item_of_zeros_has_only_itself():
    """E17."""
    view = make_view(("text",))
    view.modalities["text"].features[5] = 0
    s = make_model(view).item_graph.scipy().toarray()
    np.testing.assert_allclose(s[5], np.eye(15)[5])


def test_no_layers_leave_layer_zero():
    """Test 13: an item graph of no steps is no item graph, its residual included."""
    view = make_view()
    for residual in ("propagated", "content"):
        model = make_model(view, n_layers=0, n_item_layers=0, ii_residual=residual)
        start = model._content(model._middle()).start
        torch.testing.assert_close(model.tables()[1], start)
    model = make_model(view, n_layers=0)
    s = torch.from_numpy(model.item_graph.scipy().toarray()).float()
    torch.testing.assert_close(model.tables()[1], start + s @ start)


def test_residual_of_the_content():
    """E15."""
    view = make_view()
    a, b = make_model(view), make_model(view, ii_residual="content")
    start = a._content(a._middle()).start
    plain = make_model(view, n_item_layers=0).tables()[1]
    torch.testing.assert_close(a.tables()[1] - plain, b.tables()[1] - start)


def test_sum_and_mean_readout_are_the_same_model(monkeypatch):
    """Test 14."""
    view = make_view()
    model, batch = make_model(view), make_batch(view)
    loss, (users, items) = total(model, batch), model.tables()
    propagate = model.graph.propagate
    monkeypatch.setattr(
        model.graph, "propagate", lambda x, n, readout, rows: propagate(x, n, "mean", rows)
    )
    torch.testing.assert_close(total(model, batch), loss, rtol=0, atol=1e-6)
    mean_users, mean_items = model.tables()
    order = (mean_users @ mean_items.T).argsort(1)
    torch.testing.assert_close(order, (users @ items.T).argsort(1))


def test_an_item_nobody_took_has_a_vector():
    """Test 15."""
    view = make_view()
    assert view.item_counts()[-1] == 0
    items = make_model(view).tables()[1]
    assert (items.norm(dim=1) > 0.1).all()
    cold = make_model(view, uniformity_items="catalogue")
    parts = cold.loss(make_batch(view))
    assert view.n_items - 1 in cold.drawn_items[:20]
    assert torch.autograd.grad(sum(parts.values()), cold.towers[0].first.weight)[0].norm() > 0


@pytest.mark.parametrize("fusion", ["slerp", "none"])
def test_a_cold_item_has_segments_as_long_as_those_of_the_others(fusion):
    view = make_view(n_items=17, per_user=2)
    warm = view.item_counts() > 0
    assert 1 < (~warm).sum() < 17
    users, own = make_model(view, fusion=fusion).tables()
    model = make_model(view, fusion=fusion, cold_length="warm")
    same, items = model.tables()
    torch.testing.assert_close(same, users, rtol=0, atol=0)
    torch.testing.assert_close(items[warm], own[warm], rtol=0, atol=0)
    for _, first, last in model.vector_segments():
        segment, before = items[:, first:last], own[:, first:last]
        lengths = segment.norm(dim=1)
        assert (before[~warm].norm(dim=1) < lengths[warm].mean()).all()
        torch.testing.assert_close(lengths[~warm], lengths[warm].mean().expand(int((~warm).sum())))
        torch.testing.assert_close(
            functional.normalize(segment), functional.normalize(before), rtol=0, atol=1e-6
        )


def test_without_cold_items_or_with_nothing_else_vectors_keep_their_length():
    view = make_view(n_items=15)
    everything = TrainView(
        view.n_users,
        view.n_items,
        torch.arange(view.n_users).repeat_interleave(view.n_items),
        torch.arange(view.n_items).repeat(view.n_users),
        view.modalities,
    )
    nothing = TrainView(
        view.n_users,
        view.n_items,
        torch.empty(0, dtype=torch.int64),
        torch.empty(0, dtype=torch.int64),
        view.modalities,
    )
    for one in (everything, nothing):
        own = make_model(one).tables()[1]
        torch.testing.assert_close(make_model(one, cold_length="warm").tables()[1], own)
        assert own.isfinite().all()


# ------------------------------------------------------------------ the loss


def test_similarity_sends_a_gradient_to_the_fusion_heads_unless_detached():
    """Test 22: through s alone, with the fused segment cut off."""
    view = make_view()
    batch = make_batch(view)
    for detach in (False, True):
        model = make_model(view, detach_similarity=detach)
        content = model._content(model.positions[None])
        rows = torch.randn(len(batch), 18)
        parts = model._uniformity(1.0, batch, rows, rows, batch.negatives, content)
        value = parts["cal_uniform_item"]
        if detach:
            assert not value.requires_grad
            continue
        (grad,) = torch.autograd.grad(value, model.towers[0].first.weight)
        assert grad[8:].norm() > 0  # the head
        assert grad[:8].norm() == 0  # the projection


def test_lengths_of_tables_do_not_matter(monkeypatch):
    """Test 23."""
    view = make_view()
    model, batch = make_model(view), make_batch(view)
    loss, order = total(model, batch), model.score(Queries(torch.arange(12))).argsort(1)
    vectors = model._vectors
    monkeypatch.setattr(
        model, "_vectors", lambda *args: tuple(7 * table for table in vectors(*args))
    )
    torch.testing.assert_close(total(model, batch), loss)
    torch.testing.assert_close(model.score(Queries(torch.arange(12))).argsort(1), order)


def test_kappa_is_a_factor_of_gamma():
    """Test 24."""
    view = make_view()
    batch = make_batch(view)
    half = total(make_model(view, gamma=0.8, kappa=0.5), batch)
    whole = total(make_model(view, gamma=0.4, kappa=1.0), batch)
    torch.testing.assert_close(half, whole)
    assert list(make_model(view, gamma=0).loss(batch)) == ["align"]


def test_standard_uniformity_is_similarity_one():
    view = make_view()
    batch = make_batch(view)
    plain = make_model(view, calibrated=False).loss(batch)
    ones = make_model(view, s_min=1.0, s_max=1.0).loss(batch)
    assert list(plain) == ["align", "uniform_user", "uniform_item"]
    torch.testing.assert_close(plain["uniform_item"], ones["cal_uniform_item"])


def test_user_vectors_are_weighted_segments():
    """Test 25."""
    view = make_view()
    model = make_model(view)
    free = make_model(view, pref_weights="raw")
    torch.testing.assert_close(free.preferences.detach(), torch.ones(12, 3))
    weights = model.preferences.softmax(1)
    torch.testing.assert_close(weights.sum(1), torch.ones(12))
    with torch.no_grad():
        for name, parameter in free.named_parameters():
            if name != "preferences":
                parameter.copy_(model.get_parameter(name))
    bare = free.tables()[0].view(12, 3, D)
    torch.testing.assert_close(model.tables()[0].view(12, 3, D), bare * weights[:, :, None])


def test_scores_are_inner_products_or_cosines():
    """Test 26."""
    view = make_view()
    model, asked = make_model(view), Queries(torch.tensor([3, 0]))
    users, items = model.tables()
    loop = torch.stack([torch.stack([users[u].dot(i) for i in items]) for u in (3, 0)])
    torch.testing.assert_close(model.score(asked), loop)
    cosine = make_model(view, score="cosine").score(asked)
    expected = functional.cosine_similarity(users[[3, 0]][:, None], items[None], dim=-1)
    torch.testing.assert_close(cosine, expected)


def test_only_the_rows_of_the_batch_are_needed():
    """The loss from a batch's rows is the loss from whole tables."""
    view = make_view()
    batch = make_batch(view)
    rows, whole = make_model(view), make_model(view, eval_lambda="cached")
    whole.positions = rows.positions
    a, b = rows.loss(batch), whole.loss(batch)
    for name in a:
        torch.testing.assert_close(a[name], b[name])


@pytest.mark.parametrize(
    ("source", "names"), [("raw", ("image", "text")), ("projected", ("audio", "image", "text"))]
)
def test_other_sources_of_similarity(source, names):
    """E26, against mean cosines pair by pair."""
    view = make_view(names)
    model = make_model(view, sim_source=source)
    content = model._content(model.positions[None])
    rows = torch.tensor([3, 0, 7, 3])
    ours = model._content_rows(content, rows)
    cosines = []
    for at, name in enumerate(names):
        x = torch.from_numpy(view.modalities[name].features)
        x = x - x.mean(0) if source == "raw" else content.projected[at]
        cosines.append(functional.cosine_similarity(x[rows][:, None], x[rows][None], dim=-1))
    torch.testing.assert_close(ours @ ours.T, torch.stack(cosines).mean(0), atol=1e-5, rtol=1e-5)
    assert ours.requires_grad == (source == "projected")


def test_raw_similarity_of_items_that_lack_a_modality():
    view = make_view(missing=[("image", 2), ("image", 4), ("text", 5), ("image", 5)])
    model = make_model(view, sim_source="raw")
    rows = model._content_rows(model._content(model.positions[None]), torch.tensor([2, 4, 5, 6]))
    products = rows @ rows.T
    torch.testing.assert_close(products.diagonal(), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    there = np.delete(view.modalities["text"].features, 5, axis=0)
    x = torch.from_numpy(view.modalities["text"].features[[2, 4]] - there.mean(0))
    torch.testing.assert_close(products[0, 1], functional.cosine_similarity(x[0], x[1], dim=0))


def test_similarity_at_the_mean_position():
    view = make_view()
    model = make_model(view, sim_lambda="mean")
    sampled = model._content(model.positions[None])
    middle = model._content(model._middle())
    rows = torch.tensor([1, 2, 5])
    torch.testing.assert_close(model._content_rows(sampled, rows), middle.fused[rows])
    other = make_model(view)
    torch.testing.assert_close(other._content_rows(sampled, rows), sampled.fused[rows])


def test_which_items_are_kept_apart():
    """E19."""
    view = make_view()
    batch = make_batch(view)
    swapped = Batch(batch.users, batch.positives, batch.positives)
    positives = make_model(view, uniformity_items="positives").loss(batch)
    negatives = make_model(view).loss(swapped)
    for name, value in positives.items():
        torch.testing.assert_close(value, negatives[name])
    full = make_model(view, uniformity_items="full").loss(batch)
    order = torch.randperm(view.n_items)
    catalogue = make_model(view, uniformity_items="catalogue")
    catalogue.drawn_items = order
    torch.testing.assert_close(catalogue.loss(batch), full)


def test_the_catalogue_is_drawn_without_repeats_and_anew():
    model = make_model(make_view(), uniformity_items="catalogue", batch_size=9)
    model.on_epoch(0, torch.Generator().manual_seed(0))
    first = model.drawn_items
    assert len(first.unique()) == 9
    model.after_step(0, make_batch(make_view()), torch.Generator().manual_seed(1))
    assert not torch.equal(first, model.drawn_items)


def test_duplicates_count_once_if_asked():
    """E27."""
    view = make_view()
    once = Batch(view.users[::4], view.items[::4], torch.arange(len(view.users[::4])))
    twice = Batch(*(torch.cat([x, x]) for x in (once.users, once.positives, once.negatives)))
    model = make_model(view, dedupe_uniformity=True)
    torch.testing.assert_close(model.loss(twice), model.loss(once))
    kept = make_model(view).loss(twice)
    assert kept["uniform_user"] > model.loss(twice)["uniform_user"]


def test_a_batch_of_one_has_no_pairs():
    """E49."""
    view = make_view()
    parts = make_model(view).loss(make_batch(view, size=1))
    assert parts["uniform_user"].item() == parts["cal_uniform_item"].item() == 0
    assert parts["align"].isfinite()


# ------------------------------------------------------------------ ablations


SWITCHES = [
    {},
    {"fusion": "none"},
    {"fusion": "average"},
    {"fusion": "linear"},
    {"fusion": "linear", "lf_inputs": "raw"},
    {"fusion_scheme": "casteljau"},
    {"fusion_input": "shared_projection"},
    {"calibrated": False},
    {"detach_similarity": False},
    {"sim_source": "raw"},
    {"sim_source": "projected"},
    {"sim_lambda": "mean"},
    {"segment_norm": False},
    {"fusion": "linear", "segment_norm": False},
    {"pref_weights": "raw"},
    {"n_item_layers": 0},
    {"uniformity_items": "catalogue"},
    {"uniformity_items": "full"},
    {"eval_lambda": "mc"},
    {"eval_lambda": "cached"},
    {"missing": "learned"},
]


@pytest.mark.parametrize("names", [("image",), ("image", "text"), ("audio", "image", "text")])
@pytest.mark.parametrize("options", SWITCHES, ids=lambda o: ",".join(map(str, o.values())) or "-")
def test_every_switch_runs_with_one_two_and_three_modalities(names, options):
    """Test 29: a step is finite, and no parameter is left without a gradient."""
    view = make_view(names, missing=[("image", 3), ("image", 6)])
    model = make_model(view, **options)
    total(model, make_batch(view)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name
    scores = model.scorer().score(Queries(torch.arange(view.n_users)))
    assert scores.isfinite().all()
    found = set(model.diagnostics())
    assert found >= {"similarity_mean", "antiparallel"}
    assert ("alive/similarity_spread" in found) is model.config.calibrated


def test_without_fusion_there_are_fewer_parameters():
    view = make_view()
    full = sum(p.numel() for p in make_model(view).parameters())
    bare = sum(p.numel() for p in make_model(view, fusion="none").parameters())
    heads = sum((width + 1) * D for name, width in WIDTHS.items() if name != "audio")
    assert full - bare == heads + 12 * D + 12
    shared = sum(p.numel() for p in make_model(view, fusion_input="shared_projection").parameters())
    assert full - shared == heads


def test_without_fusion_similarity_is_that_of_the_projections():
    view = make_view()
    model = make_model(view, fusion="none")
    content = model._content(model.positions[None])
    rows = model._content_rows(content, torch.arange(15))
    expected = sum(p @ p.T for p in content.projected) / 2
    torch.testing.assert_close(rows @ rows.T, expected)


def test_linear_and_average_fusion_by_hand():
    view = make_view()
    model = make_model(view, fusion="linear")
    content = model._content(model.positions[None])
    p = model.positions[0][:, None]
    blended = p * content.ends[1] + (1 - p) * content.ends[0]
    torch.testing.assert_close(content.fused, unit(blended))
    raw = make_model(view, fusion="linear", segment_norm=False)
    raw.positions = model.positions
    torch.testing.assert_close(raw._content(raw.positions[None]).fused, blended)
    average = make_model(view, fusion="average")
    content = average._content(average.positions[None])
    torch.testing.assert_close(content.fused, unit(content.ends[0] + content.ends[1]))


@pytest.mark.parametrize("fusion", ["linear", "average"])
@pytest.mark.parametrize("when", ["sample", "mean"])
def test_similarity_is_a_cosine_where_segments_keep_their_lengths(fusion, when):
    """C17 compares directions of h, whatever their lengths are in the segment."""
    options = {"segment_norm": False, "lf_inputs": "raw", "sim_lambda": when}
    model = make_model(make_view(), fusion=fusion, **options)
    content = model._content(model.positions[None])
    rows = torch.tensor([1, 2, 5])
    fused = content.fused
    if when == "mean" and fusion == "linear":
        fused = (content.ends[0] + content.ends[1]) / 2
    torch.testing.assert_close(model._content_rows(content, rows), unit(fused[rows]))
    lengths = content.fused.norm(dim=1)
    assert bool((lengths - 1).abs().max() < 1e-5) == (fusion == "average")


@pytest.mark.parametrize("fusion_input", ["separate_linear", "shared_projection"])
def test_raw_linear_fusion_blends_heads_or_projections_of_their_own_lengths(fusion_input):
    view = make_view()
    model = make_model(view, fusion="linear", lf_inputs="raw", fusion_input=fusion_input)
    content = model._content(model.positions[None])
    for end, name, tower in zip(content.ends, model.modality_names, model.towers, strict=True):
        x = torch.from_numpy(view.modalities[name].features)
        both = x @ tower.first.weight.T + tower.first.bias
        expected = both[:, 8:]
        if fusion_input == "shared_projection":
            expected = functional.leaky_relu(both, 0.01) @ tower.second.weight.T
        torch.testing.assert_close(end, expected)


def test_users_start_with_xaviers_spread():
    view = make_view(n_users=600)
    model = make_model(view, embedding_size=24)
    for table in model.user_segments:
        assert table.std().item() == pytest.approx(math.sqrt(2 / (600 + 24)), rel=0.03)


def test_order_of_modalities_is_the_order_of_the_option():
    names = ("audio", "image", "text")
    view = make_view(names)
    assert make_model(view).modality_names == names
    model = make_model(view, modalities=("text", "audio"))
    assert model.modality_names == ("text", "audio")
    content = model._content(model._middle())
    torch.testing.assert_close(content.start[:, :D], content.projected[0])


def test_dropping_a_modality_drops_it_everywhere():
    """Table 5: segment, fusion and item graph, as if the data never had it."""
    view = make_view()
    only = TrainView(
        view.n_users, view.n_items, view.users, view.items, {"text": view.modalities["text"]}
    )
    a, b = make_model(view, modalities=("text",)), make_model(only)
    torch.testing.assert_close(a.tables(), b.tables())
    torch.testing.assert_close(a._content(a._middle()).fused, a._content(a._middle()).ends[0])


@pytest.mark.parametrize(
    "options",
    [
        {"s_min": 0.9, "s_max": 0.8},
        {"alpha": 0.0},
        {"alpha": 1.1},
        {"t": 0},
        {"gamma": -1},
        {"embedding_size": 1},
        {"k": 0},
        {"fusion": "lerp"},
        {"feature_rank": 0},
        {"modality_weights": {"text": -1}},
        {"dropout": 0.1},
    ],
)
def test_options_out_of_bounds_are_refused(options):
    with pytest.raises(pydantic.ValidationError):
        CM3Config(**options)


def test_variants_are_those_of_the_tables():
    names = set(get("cm3").variants)
    tables = {"without-fusion", "linear-fusion", "standard-uniformity", "only-text", "only-image"}
    assert tables <= names


# ------------------------------------------------------------------ features


def test_an_exact_rank_changes_no_function():
    """Rotated features with rotated weights: the same towers, losses and gradients."""
    view = make_view(n_items=6, n_users=8, per_user=3)  # 9 and 7 columns for 6 items
    model, plain = make_model(view), make_model(view, feature_rank=None)
    assert [tower.first.in_features for tower in model.towers] == [6, 6]
    assert [tower.first.in_features for tower in plain.towers] == [9, 7]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("first.weight"):
                parameter.copy_(plain.get_parameter(name))
        for mine, theirs in zip(model.towers, plain.towers, strict=True):
            rotation = torch.linalg.lstsq(mine.input.features, theirs.input.features).solution
            mine.first.weight.copy_(theirs.first.weight @ rotation.T)
    model.positions = plain.positions
    batch = make_batch(view, 10)
    for name, value in model.loss(batch).items():
        torch.testing.assert_close(value, plain.loss(batch)[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        model.item_graph.scipy().toarray(), plain.item_graph.scipy().toarray()
    )


def test_initial_spread_is_that_of_the_original_width():
    rng = np.random.default_rng(0)
    wide = Modality("text", rng.normal(size=(40, 400)).astype(np.float32), np.ones(40, bool))
    view = TrainView(2, 40, torch.tensor([0, 1]), torch.tensor([0, 1]), {"text": wide})
    model = make_model(view, hidden_size=256)
    tower = model.towers[0]
    assert tower.first.in_features == 40
    w1, v = tower.first.weight[:256], tower.first.weight[256:]
    assert w1.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.05)
    assert v.std().item() == pytest.approx(math.sqrt(2 / (400 + D)), rel=0.2)
    assert make_model(view, feature_rank=5).towers[0].first.in_features == 5
    assert make_model(view, feature_rank="exact").towers[0].first.in_features == 40


def test_features_are_frozen_and_not_saved():
    """E32."""
    model = make_model(make_view())
    assert not any("features" in name for name in model.state_dict())
    towers = sum((width + 1) * (8 + D) + 8 * D for width in (9, 7))
    assert sum(p.numel() for p in model.parameters()) == towers + 12 * 3 * (D + 1)


def test_there_is_no_vector_of_an_item_itself():
    """Two items of equal content, without interactions, are scored alike."""
    view = make_view(n_items=20)
    for modality in view.modalities.values():
        modality.features[18] = modality.features[19]
    keep = (view.items != 18) & (view.items != 19)
    view = TrainView(12, 20, view.users[keep], view.items[keep], view.modalities)
    model = make_model(view)
    items = model.tables()[1]
    torch.testing.assert_close(items[18], items[19])
    assert not any(20 in p.shape for p in model.parameters())


# ------------------------------------------------------------------ learning


def adam_loop(model, view, steps, rate):
    """Written by hand: all pairs are one batch."""
    data = PairBatches(view, len(view.users), negatives=True)
    adam = torch.optim.Adam(model.parameters(), lr=rate)
    rng = torch.Generator().manual_seed(0)
    model.train()
    model.on_epoch(0, rng)
    for step in range(steps):
        (batch,) = data.epoch(rng, torch.device("cpu"))
        adam.zero_grad()
        total(model, batch).backward()
        adam.step()
        model.after_step(step, batch, rng)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_overfits(seed):
    """Test 27."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(20)[:5] for _ in range(30)])
    modalities = {
        name: Modality(name, rng.normal(size=(20, 12)).astype(np.float32), np.ones(20, bool))
        for name in ("image", "text")
    }
    view = TrainView(
        30, 20, torch.arange(30).repeat_interleave(5), torch.from_numpy(items.ravel()), modalities
    )
    model = make_model(view, seed, embedding_size=16, hidden_size=64, n_layers=1, k=5)
    adam_loop(model, view, 200, 1e-2)
    best = model.scorer().score(Queries(torch.arange(30))).topk(5).indices
    recall = (best[:, :, None] == torch.from_numpy(items)[:, None, :]).any(2).float().mean()
    assert recall > 0.95


def planted(seed):
    """Four clusters of 20 items, 120 users of one each with 8 items, of which 3 train."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(4), 20)
    modalities = {}
    for name, width in (("image", 32), ("text", 24)):
        centres = rng.normal(size=(4, width))
        features = centres[cluster] + 0.7 * rng.normal(size=(80, width))
        modalities[name] = Modality(name, features.astype(np.float32), np.ones(80, bool))
    liked = np.stack([rng.permutation(20)[:8] + 20 * (user % 4) for user in range(120)])
    users = torch.arange(120).repeat_interleave(3)
    view = TrainView(120, 80, users, torch.from_numpy(liked[:, :3].ravel()), modalities)
    return view, torch.from_numpy(liked), torch.from_numpy(cluster)


def held_out_recall(model, liked):
    scores = model.scorer().score(Queries(torch.arange(120))).clone()
    scores.scatter_(1, liked[:, :3], -torch.inf)
    best = scores.topk(10).indices
    return (best[:, :, None] == liked[:, None, 3:]).any(1).float().mean().item()


def cosines_by_cluster(model, cluster):
    items = unit(model.tables()[1].detach())
    cosine = items @ items.T
    same = cluster[:, None] == cluster
    inside = cosine[same & ~torch.eye(80, dtype=torch.bool)].mean().item()
    return inside, cosine[~same].mean().item()


@pytest.mark.slow
def test_calibration_keeps_alike_items_together():
    """Test 28: better on held-out items, and closer inside clusters, than plain uniformity.

    The similarity is that of the features: 300 steps on one batch bring a trained one out of order.
    """
    view, liked, cluster = planted(1)
    results = {}
    for calibrated in (True, False):
        model = make_model(
            view,
            seed=1,
            embedding_size=16,
            hidden_size=64,
            k=5,
            modality_weights={"image": 1, "text": 1},
            calibrated=calibrated,
            sim_source="raw",
        )
        adam_loop(model, view, 300, 5e-3)
        results[calibrated] = (
            held_out_recall(model, liked),
            *cosines_by_cluster(model, cluster),
            model.diagnostics().get("alive/similarity_spread", 0.0),
        )
    (recall, inside, across, spread), (plain_recall, plain_inside, _, _) = (
        results[True],
        results[False],
    )
    assert recall > plain_recall + 0.03
    assert inside > plain_inside + 0.2
    assert inside > across + 0.3
    assert spread > 0.1


def test_diagnostics_count_antiparallel_pairs_and_name_the_segments(monkeypatch):
    view = make_view()
    model = make_model(view)
    seen = model.diagnostics()
    assert seen["antiparallel"] == 0
    shares = [seen[f"preference_{name}"] for name in ("image", "text", "fused")]
    assert sum(shares) == pytest.approx(1)
    first, second = model.towers
    head = first.forward()[1].detach()
    monkeypatch.setattr(second, "forward", lambda: (torch.ones(15, D), -head))
    assert model.diagnostics()["antiparallel"] == 15
    for table in model.tables():
        assert table.isfinite().all()
    three = make_model(make_view(("audio", "image", "text")), fusion_scheme="casteljau")
    assert three.diagnostics()["antiparallel"] == 0


def test_bfloat16_autocast():
    view = make_view()
    model, batch = make_model(view), make_batch(view)
    expected = total(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss = total(model, batch)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.05)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device to compare with")
def test_cpu_and_cuda_take_the_same_step():
    """Test 30."""
    view = make_view()
    batch = make_batch(view)
    models = [make_model(view), make_model(view).to("cuda")]
    models[1].positions = models[0].positions.to("cuda")
    there = Batch(*(x.to("cuda") for x in (batch.users, batch.positives, batch.negatives)))
    for model, data in zip(models, (batch, there), strict=True):
        adam = torch.optim.Adam(model.parameters(), lr=1e-2)
        total(model, data).backward()
        adam.step()
        model.after_step(0, data, torch.Generator().manual_seed(0))
    for cpu, cuda in zip(models[0].tables(), models[1].tables(), strict=True):
        torch.testing.assert_close(cpu, cuda.cpu(), rtol=1e-4, atol=1e-4)
