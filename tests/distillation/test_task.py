"""A stage of distillation: the parts of its loss by hand, what moves, what must not."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from modalign import ot
from modalign.core import seeds, settings
from modalign.core.interfaces import Batch, Queries
from modalign.distillation.source import VectorSource, factors, source_of
from modalign.distillation.task import DistillConfig, DistillTask, best_unseen
from modalign.errors import ConfigError
from modalign.models import _registry as registry
from modalign.nn.losses.distillation import (
    crossed_infonce,
    margin_logits,
    transported_masses,
)
from modalign.testing.toy import toy_dataset
from modalign.train.batches import PairBatches
from modalign.train.trainer import TrainOptions, fit

VIEW = toy_dataset().view()
CPU = torch.device("cpu")


def teacher(d: int = 8, seed: int = 0) -> VectorSource:
    rng = torch.Generator().manual_seed(seed)
    sizes = (VIEW.n_users, VIEW.n_items)
    return VectorSource(*(torch.randn(n, d, generator=rng) for n in sizes))


def target(model: str = "mlprec", **options):
    spec = registry.get(model)
    plain = {"embedding_size": 8, "batch_size": 64, **options}
    with seeds.torch_seed(1):
        return spec.cls(settings.build(spec.config, plain, model), VIEW)


def task_of(model=None, source=None, **options) -> DistillTask:
    config = settings.build(DistillConfig, {"warm_start": False, **options}, "distillation")
    with seeds.torch_seed(2):
        return DistillTask(model or target(), source or teacher(), config, VIEW)


def batch(task: DistillTask, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    task.on_epoch(0, rng)
    return next(iter(PairBatches(VIEW, 64, task.n_negatives).epoch(rng, CPU)))


def scores(tables, users, items):
    return torch.einsum("bd,bkd->bk", tables[0][users], tables[1][items])


@pytest.mark.parametrize("model", ["mlprec", "lightgcn"])
def test_without_weights_it_is_the_models_own_loss(model):
    task = task_of(target(model, reg=0.1), logit_weight=0.0, embedding_weight=0.0)
    one = batch(task)
    assert_close(dict(task.loss(one)), dict(task.target.loss(one)))


def test_the_penalty_counts_the_ranked_triple_alone():
    task = task_of(target(reg=0.1), negatives=3, logit="sort", contrast=10)
    one = batch(task)
    single = Batch(one.users, one.positives, one.negatives[:, 0])
    own = task.target.loss(single)
    assert_close(task.loss(one)["reg"], own["reg"])
    assert_close(task.loss(one)["bpr"], own["bpr"])


def test_without_weights_training_is_the_models_own_step_for_step():
    own, taught = target(), target()
    options = TrainOptions(seed=3, epochs=3, batch_size=64, device="cpu")
    fit(own, VIEW, options)
    fit(task_of(taught, logit_weight=0.0, embedding_weight=0.0), VIEW, options)
    assert_close(taught.state_dict(), own.state_dict(), rtol=1e-4, atol=1e-6)


def test_the_logit_part_is_the_transport_between_groups_of_margins():
    task = task_of(logit="sort", logit_weight=2.0, embedding_weight=0.0, max_points=20)
    one = batch(task)
    pair = torch.stack([one.positives, one.negatives], dim=1)
    of_source = scores(task.source.vectors, one.users, pair)
    of_target = scores(task.target.tables(), one.users, pair)
    x, y = (margin_logits(s[:, 0], s[:, 1])[:60].view(3, 20) for s in (of_source, of_target))
    assert_close(task.loss(one)["logit"], 2.0 * ot.sorted_transport(x, y).mean())


def test_groups_of_a_users_negatives():
    options = {"group": "user", "negatives": 5, "logit": "sort", "embedding_weight": 0.0}
    task = task_of(logit_weight=1.0, **options)
    one = batch(task)
    assert one.negatives.shape == (64, 5)
    x, y = (
        margin_logits(
            scores(t, one.users, one.positives.unsqueeze(1)), scores(t, one.users, one.negatives)
        )
        for t in (task.source.vectors, task.target.tables())
    )
    assert_close(task.loss(one)["logit"], ot.sorted_transport(x, y).mean())


def test_masses_are_transported_over_a_users_own_candidates():
    options = {"logit": "masses", "negatives": 5, "embedding_weight": 0.0}
    task = task_of(logit_weight=3.0, kl_temperature=0.7, mass_eps=0.2, **options)
    one = batch(task)
    candidates = torch.cat([one.positives.unsqueeze(1), one.negatives], dim=1)
    p, q = (
        torch.softmax(scores(tables, one.users, candidates) / 0.7, dim=1)
        for tables in (task.source.vectors, task.target.tables())
    )
    cost = ot.cosine_cost(*[task.source.vectors[1][candidates]] * 2)
    solved = [
        ot.sinkhorn(cost, a, b, reg=0.2, tolerance=1e-6).value for a, b in ((p, q), (p, p), (q, q))
    ]
    expected = (solved[0] - solved[1] / 2 - solved[2] / 2).mean()
    assert_close(task.loss(one)["logit"], 3.0 * expected, rtol=1e-2, atol=1e-4)


def test_the_slope_of_the_masses_is_that_of_finite_differences():
    rng = torch.Generator().manual_seed(0)
    source, target = (torch.randn(2, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    points = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64)

    def value(scores):
        exact = {"eps": 0.3, "tolerance": 1e-12, "max_iterations": 5000}
        return transported_masses(source, scores, points, **exact)

    target.requires_grad_(True)
    assert torch.autograd.gradcheck(value, target, eps=1e-5, atol=1e-6)
    assert value(source).abs() < 1e-9
    assert value(target) > 1e-3


def test_masses_of_a_source_without_vectors_cost_what_its_best_factors_say():
    class Scores(VectorSource):
        """Scores of a teacher that hides its vectors."""

        def __init__(self, inner: VectorSource) -> None:
            super().__init__(*inner.vectors)
            self.hidden, self.vectors = inner, None

        def score(self, users):
            return self.hidden.score(users)

        def at(self, users, items):
            return self.hidden.at(users, items)

        def to(self, device):
            return self

    task = task_of(source=Scores(teacher()), logit="masses", negatives=3)
    assert task.ground.shape == (VIEW.n_items, 8)
    assert task.loss(batch(task))["logit"] > 0


def test_sums_are_means_times_the_pairs_of_a_batch():
    options = {"logit": "sort", "contrast": 10}
    mean, total = (task_of(reduction=how, **options) for how in ("mean", "sum"))
    one = batch(mean)
    batch(total)
    small, large = mean.loss(one), total.loss(one)
    for name, times in {"bpr": 64, "embedding": 64, "logit": 1}.items():
        assert_close(large[name], times * small[name])


@pytest.mark.parametrize("contrast", ["all", "batch", 10])
def test_the_embedding_part_contrasts_with_unseen_items_only(contrast):
    task = task_of(contrast=contrast, embedding_weight=3.0, logit_weight=0.0)
    one = batch(task)
    everything, own = torch.arange(VIEW.n_items), torch.unique(one.positives)
    others = {"all": everything, "batch": own}.get(contrast, task._drawn)
    pairs = set(zip(VIEW.users.tolist(), VIEW.items.tolist(), strict=True))
    forbidden = torch.tensor(
        [[(u, j) in pairs for j in others.tolist()] for u in one.users.tolist()]
    )
    (su, si), (tu, ti) = task.source.vectors, task.target.tables()
    expected = crossed_infonce(
        su[one.users], si[one.positives], tu[one.users], ti[one.positives],
        si[others], ti[others], torch.nonzero(forbidden, as_tuple=True),
    )  # fmt: skip
    assert_close(task.loss(one)["embedding"], 3.0 * expected)


def test_ego_vectors_can_be_contrasted_instead():
    task = task_of(contrast="all", vectors="ego", embedding_weight=1.0, logit_weight=0.0)
    one = batch(task)
    (su, si), (tu, ti) = task.source.vectors, task.target.ego_tables()
    forbidden = VIEW.rows().seen(one.users, torch.arange(VIEW.n_items))
    expected = crossed_infonce(
        su[one.users], si[one.positives], tu[one.users], ti[one.positives], si, ti, forbidden
    )
    assert_close(task.loss(one)["embedding"], expected)


@pytest.mark.parametrize("logit", ["sinkhorn", "sort", "kl", "bernoulli", "raw", "paired"])
def test_only_the_target_learns_whatever_the_loss(logit):
    source = teacher()
    before = [one.clone() for one in source.vectors]
    task = task_of(source=source, logit=logit, logit_weight=1.0)
    fit(task, VIEW, TrainOptions(epochs=1, batch_size=64, device="cpu"))
    assert_close(source.vectors, tuple(before), rtol=0, atol=0)
    assert all(one.grad is None and not one.requires_grad for one in source.vectors)


def test_the_loss_draws_nothing():
    task = task_of(logit="sort")
    one = batch(task)
    state = torch.random.get_rng_state()
    first, second = task.loss(one), task.loss(one)
    assert_close(dict(first), dict(second), rtol=0, atol=0)
    assert torch.equal(state, torch.random.get_rng_state())


def test_other_widths_meet_through_a_map_that_is_no_part_of_the_target():
    task = task_of(source=teacher(d=5))
    assert task.projector.weight.shape == (5, 8)
    assert len(task.phases()[0].params) == len(list(task.target.parameters())) + 1
    assert "embedding" in task.loss(batch(task))


def test_a_teacher_that_only_scores_teaches_by_its_logits():
    spec = registry.get("ease")
    ease = spec.cls(spec.config(), VIEW)
    ease.solve(VIEW)
    task = task_of(source=source_of(ease, VIEW), logit="sort")
    assert task.loss(batch(task)).keys() == {"bpr", "reg", "logit"}


def test_warm_start_gives_the_student_the_teachers_scores():
    source = teacher()
    task = task_of(target(residual=True), source=source, warm_start=True)
    users = torch.arange(VIEW.n_users)
    mine = task.target.tables()
    assert_close(mine[0] @ mine[1].T, source.score(users))
    assert mine[0].data_ptr() != source.vectors[0].data_ptr()


def test_hard_negatives_are_among_the_teachers_best_unseen():
    source = teacher()
    task = task_of(source=source, hard=6, negatives=3, logit="kl", group="user")
    one = batch(task)
    assert one.negatives.shape == (64,)
    best = best_unseen(source, VIEW, 6)
    compared = task._hard(one.users)
    assert compared.shape == (64, 3)
    assert all(
        set(c) <= set(best[u].tolist()) for u, c in zip(one.users, compared.tolist(), strict=True)
    )
    seen = VIEW.rows().seen(torch.arange(VIEW.n_users), torch.arange(VIEW.n_items))
    assert not set(zip(*(one.tolist() for one in seen), strict=True)) & {
        (u, i) for u, row in enumerate(best.tolist()) for i in row
    }


def test_the_logits_of_hard_negatives_are_compared_and_not_those_of_the_ranked_ones():
    task = task_of(hard=6, negatives=3, logit="paired", logit_weight=1.0, embedding_weight=0.0)
    one = batch(task)
    compared = task._hard(one.users)
    own = one.positives.unsqueeze(1)
    x, y = (
        margin_logits(scores(t, one.users, own), scores(t, one.users, compared))
        for t in (task.source.vectors, task.target.tables())
    )
    found = task.loss(one)
    assert_close(found["logit"], 0.5 * (x - y).square().mean())
    single = Batch(one.users, one.positives, one.negatives)
    assert_close(found["bpr"], task.target.loss(single)["bpr"])


@pytest.mark.slow
def test_logits_pull_the_students_distribution_to_the_sources():
    strong = {"logit": "sort", "logit_weight": 1e4, "embedding_weight": 0.0, "max_points": 64}
    task = task_of(target(learning_rate=0.02, embedding_size=16), **strong)
    first = task.loss(batch(task))["logit"].item()
    fit(task, VIEW, TrainOptions(epochs=150, batch_size=64, device="cpu"))
    assert task.loss(batch(task))["logit"].item() < 0.2 * first


def test_a_target_without_vectors_of_rows_is_refused():
    with pytest.raises(ConfigError, match="lightgcn and mlprec"):
        task_of(target("bpr"))


@pytest.mark.slow
def test_an_interrupted_stage_goes_on_exactly_with_the_map_between_widths(tmp_path):
    path = tmp_path / "last.pt"
    whole, halves = (target(), target())
    fit(task_of(whole, teacher(d=5)), VIEW, TrainOptions(epochs=4, batch_size=64, device="cpu"))
    for epochs in (2, 4):
        options = TrainOptions(epochs=epochs, batch_size=64, device="cpu")
        task = task_of(halves, teacher(d=5))
        fit(task, VIEW, options, checkpoint_path=path, resume=True)
    assert_close(halves.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_the_log_says_how_far_the_target_agrees_with_the_source_and_what_it_gained() -> None:
    source = teacher()
    measured = {"recall@20": 0.4}
    task = DistillTask(target(), source, DistillConfig(), VIEW, lambda _: measured)
    agreed = task.diagnostics()["alive/agreement"]
    users = torch.arange(VIEW.n_users)
    scores = {"mine": task.target.scorer().score(Queries(users)), "theirs": source.score(users)}
    rows = VIEW.rows()
    best = {}
    for name, of_all in scores.items():
        seen = torch.zeros(of_all.shape, dtype=torch.bool)
        seen[rows.of(users)] = True
        best[name] = of_all.masked_fill(seen, -torch.inf).argsort(dim=1, descending=True)[:, :20]
    overlap = [
        len({*a} & {*b}) / len(a)
        for a, b in zip(best["mine"].tolist(), best["theirs"].tolist(), strict=True)
    ]
    assert agreed == pytest.approx(sum(overlap) / len(overlap), abs=1e-6)
    assert task.after_validation({"recall@20": 0.5}) == {"alive/improvement": pytest.approx(0.2)}
    assert task.after_validation({"recall@20": 0.3}) == {"alive/improvement": 0.0}
    cold = DistillTask(target(), source, DistillConfig(warm_start=False), VIEW, lambda _: measured)
    assert cold.after_validation({"recall@20": 0.5}) == {}
    assert cold.diagnostics()["alive/agreement"] < agreed


def test_a_student_of_an_assistant_is_compared_with_a_start_from_the_teacher() -> None:
    """What the assistant's stage gained is part of what distillation is worth."""
    first, second = teacher(seed=1), teacher(seed=2)
    seen = []

    def measure(model) -> dict[str, float]:
        seen.append([table.detach().clone() for table in model.ego_tables()])
        return {"recall@20": 0.4 if len(seen) == 1 else 0.45}

    student = target()
    task = DistillTask(student, second, DistillConfig(), VIEW, measure, first)
    assert task.after_validation({"recall@20": 0.5}) == {"alive/improvement": pytest.approx(0.2)}
    width = student.ego_tables()[0].shape[1]
    assert_close(seen[0], [*map(torch.as_tensor, factors(first, width))])
    assert len(seen) == 1
    assert_close([*student.ego_tables()], [*map(torch.as_tensor, factors(second, width))])
