"""Every check of the contract turns red for a model that breaks just that promise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modalign.core.interfaces import (
    Batch,
    Config,
    MultimodalConfig,
    OptimizerSettings,
    Phase,
    Queries,
    Recommender,
    TrainedConfig,
)
from modalign.core.view import TrainView
from modalign.core.vital_signs import VitalSign
from modalign.models._registry import ModelSpec, get
from modalign.testing import contract
from modalign.testing.contract import ContractBroken
from modalign.testing.toy import toy_dataset
from modalign.testing.trials import TRIALS, Trial

TOY = {"embedding_size": 8, "learning_rate": 0.05, "batch_size": 64, "epochs": 30}


class Sound(Recommender):
    """A plain factorisation that keeps every promise; the mutants differ from it in one thing."""

    needs = ("negatives",)

    def __init__(self, config: TrainedConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.users = nn.Parameter(torch.randn(view.n_users, config.embedding_size) * 0.1)
        self.items = nn.Parameter(torch.randn(view.n_items, config.embedding_size) * 0.1)
        self.register_buffer("noise", torch.zeros(()), persistent=False)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        users, items = self.tables()
        u = users[batch.users]
        margin = (u * (items[batch.positives] - items[batch.negatives])).sum(1)
        return {"bpr": -F.logsigmoid(margin + self.noise).mean()}

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items


class SoundContent(Sound):
    """The same with one modality, whose missing rows are zeros to it."""

    needs = ("negatives", "modalities")

    def __init__(self, config: MultimodalConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.project = nn.ModuleList()
        for place, modality in enumerate(view.modalities.values()):
            features = np.where(modality.present[:, None], modality.features, 0)
            self.register_buffer(f"x{place}", torch.from_numpy(features), persistent=False)
            self.project.append(nn.Linear(modality.dim, config.embedding_size, bias=False))

    def tables(self) -> tuple[Tensor, Tensor]:
        items = self.items
        for place, layer in enumerate(self.project):
            items = items + layer(getattr(self, f"x{place}"))
        return self.users, items


class SoundHistory(Recommender):
    """Scores by the sum of the history's items' counts of common users; solved."""

    needs = ("history",)
    unseen_users = True
    factorised = False

    def __init__(self, config: Config, view: TrainView) -> None:
        super().__init__(config, view)
        self.register_buffer("common", torch.zeros(view.n_items, view.n_items))

    def solve(self, view: TrainView) -> None:
        x = torch.zeros(view.n_users, view.n_items)
        x[view.users, view.items] = 1.0
        self.common.copy_((x.T @ x).fill_diagonal_(0.0))

    def score(self, queries: Queries) -> Tensor:
        return queries.history @ self.common


def spec_of(cls: type[Recommender], **changes: Any) -> ModelSpec:
    if issubclass(cls, SoundHistory):
        spec = ModelSpec("m", cls, Config, {}, "baseline", "here")
    else:
        config = MultimodalConfig if issubclass(cls, SoundContent) else TrainedConfig
        spec = ModelSpec("m", cls, config, TOY, "collaborative", "here")
    return dataclasses.replace(spec, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [Sound, SoundContent, SoundHistory])
def test_the_sound_models_pass_everything(cls: type[Recommender]) -> None:
    for _, check in contract.checks(spec_of(cls)):
        check(spec_of(cls))


# ------------------------------------------------------------------ mutants


class IgnoresTheSeed(Sound):
    def __init__(self, config: TrainedConfig, view: TrainView) -> None:
        super().__init__(config, view)
        rng = np.random.default_rng()
        self.users.data += torch.from_numpy(rng.normal(size=self.users.shape)).float()


class SameForEverySeed(Sound):
    def __init__(self, config: TrainedConfig, view: TrainView) -> None:
        super().__init__(config, view)
        rng = np.random.default_rng(1)
        for p in self.parameters():
            p.data.copy_(torch.from_numpy(rng.normal(size=p.shape)) * 0.1)


class DrawsFromNumpyGlobally(Sound):
    def __init__(self, config: TrainedConfig, view: TrainView) -> None:
        super().__init__(config, view)
        np.random.rand()  # noqa: NPY002


class TrainsAtRandom(Sound):
    def after_step(self, step: int, batch: Batch, rng: torch.Generator) -> None:
        self.noise.fill_(float(np.random.default_rng().random()))


class KeepsTheView(Sound):
    def __init__(self, config: TrainedConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.kept = {"deep": [view]}


class HasAStrayTensor(Sound):
    def __init__(self, config: TrainedConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.prompts = [torch.zeros(3, requires_grad=True)]


class KeepsAGraph(Sound):
    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        parts = super().loss(batch, phase)
        self.last = parts["bpr"]
        return parts


class ReturnsAVector(Sound):
    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        return {"bpr": super().loss(batch, phase)["bpr"].expand(2)}


class ReturnsNaN(Sound):
    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        return {"bpr": super().loss(batch, phase)["bpr"] / 0 * 0}


class LossOfNothing(Sound):
    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        return {"bpr": super().loss(batch, phase)["bpr"].detach()}


class LossCounts(Sound):
    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        self.noise += 1
        return super().loss(batch, phase)


class LossDraws(Sound):
    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        parts = super().loss(batch, phase)
        return {**parts, "dropout": F.dropout(self.users, 0.5).square().mean()}


class IgnoresNegatives(Sound):
    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        zeros = torch.zeros_like(batch.negatives)
        return super().loss(dataclasses.replace(batch, negatives=zeros), phase)


class SharesAParameter(Sound):
    def phases(self) -> Sequence[Phase]:
        return [Phase("main", [self.users, self.items]), Phase("again", [self.items])]


class ForgetsAParameter(Sound):
    def phases(self) -> Sequence[Phase]:
        return [Phase("main", [self.users])]


class OwnsATemporary(Sound):
    def phases(self) -> Sequence[Phase]:
        return [Phase("main", [self.users, self.items, nn.Parameter(torch.zeros(1))])]


class MovesAnothersParameter(Sound):
    def phases(self) -> Sequence[Phase]:
        return [Phase("main", [self.users]), Phase("items", [self.items])]

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        with torch.no_grad():
            self.items *= 0.9
        return super().loss(batch, phase)


class StandsStill(Sound):
    def phases(self) -> Sequence[Phase]:
        return [Phase("main", [self.users, self.items], OptimizerSettings(learning_rate=0.0))]


class HasAnIdlePrompt(Sound):
    def __init__(self, config: TrainedConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.prompt = nn.Parameter(torch.ones(config.embedding_size))

    def tables(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            shift = self.prompt * 0.1
        return self.users + shift, self.items


class ResamplesInSecret(Sound):
    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        self.noise.copy_(torch.rand((), generator=rng))


SIGN = VitalSign("pulse", "a number", 0.1, "set more")


class HidesItsSign(Sound):
    vital_signs = (SIGN,)


class ReportsAnIdleSign(HidesItsSign):
    def diagnostics(self) -> Mapping[str, float]:
        return {"alive/pulse": 0.05}


class ReportsALivingSign(HidesItsSign):
    def diagnostics(self) -> Mapping[str, float]:
        return {"alive/pulse": 0.5}


class ReportsNoShare(HidesItsSign):
    def diagnostics(self) -> Mapping[str, float]:
        return {"alive/pulse": 1.5}


class ResamplesNothing(Sound):
    resamples = True


class Accumulates(Sound):
    resamples = True

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        self.noise += torch.rand((), generator=rng)


class ScoresAreInfinite(Sound):
    def tables(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items if self.training else self.items / 0


class ScoresTheWrongShape(Sound):
    def tables(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items[:-1]

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        margin = (self.users[batch.users] * self.items[batch.positives]).sum(1)
        return {"fit": -F.logsigmoid(margin).mean()}


class ScoringCounts(Sound):
    def tables(self) -> tuple[Tensor, Tensor]:
        self.noise += 1e-6
        return self.users, self.items


class TwoKindsOfScore(Sound):
    def score(self, queries: Queries) -> Tensor:
        return 2 * super().score(queries)


class LeaksTheBatch(Sound):
    factorised = False

    def score(self, queries: Queries) -> Tensor:
        users = self.users[queries.user]
        return (users - users.mean(0)) @ self.items.T


class ProductInSecret(Sound):
    factorised = False

    def score(self, queries: Queries) -> Tensor:
        return self.users[queries.user] @ self.items.T


class ReadsHistoryInSecret(SoundHistory):
    unseen_users = False


class UnseenByName(Sound):
    unseen_users = True

    def score(self, queries: Queries) -> Tensor:
        shift = torch.arange(len(queries))[:, None]
        return super().score(queries) + shift * torch.arange(self.n_items)


class IgnoresHistory(SoundHistory):
    def score(self, queries: Queries) -> Tensor:
        return self.common.sum(0).expand(len(queries), -1)


class AllAlike(Sound):
    def tables(self) -> tuple[Tensor, Tensor]:
        return torch.ones_like(self.users), self.items


class ForgetsOnSaving(SoundHistory):
    def __init__(self, config: Config, view: TrainView) -> None:
        super().__init__(config, view)
        self.register_buffer("common", torch.zeros(view.n_items, view.n_items), persistent=False)


class LearnsNothing(Sound):
    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        parts = super().loss(batch, phase)
        return {name: -part for name, part in parts.items()}


class LearnsPopularity(Sound):
    def tables(self) -> tuple[Tensor, Tensor]:
        return self.users.mean(0).expand_as(self.users) + 0 * self.users + 0.3, self.items


class MindsTheOrder(SoundHistory):
    def solve(self, view: TrainView) -> None:
        super().solve(view)
        self.common *= torch.arange(view.n_items)


class IgnoresAModality(SoundContent):
    def tables(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items + self.project[0](self.x0)


class ReadsMissingRows(SoundContent):
    def __init__(self, config: MultimodalConfig, view: TrainView) -> None:
        super().__init__(config, view)
        for place, modality in enumerate(view.modalities.values()):
            getattr(self, f"x{place}").copy_(torch.from_numpy(modality.features.copy()))


class ScoresColdItemsInSecret(SoundContent):
    cold_items = False


class IgnoresTheContentOfColdItems(SoundContent):
    def __init__(self, config: MultimodalConfig, view: TrainView) -> None:
        super().__init__(config, view)
        taken = (view.item_counts() > 0)[:, None]
        for place in range(len(view.modalities)):
            getattr(self, f"x{place}").mul_(taken)


class NoSummary(Sound):
    pass


class LooseConfig(TrainedConfig):
    model_config = {"extra": "ignore"}


class MeltedConfig(TrainedConfig):
    model_config = {"frozen": False}


class BareConfig(TrainedConfig):
    model_config = {"use_attribute_docstrings": True}
    depth: int = 1


NoSummary.__doc__ = None

MUTANTS: list[tuple[Any, type[Recommender], dict[str, Any]]] = [
    (contract.check_config, Sound, {"config": LooseConfig}),
    (contract.check_config, Sound, {"config": MeltedConfig}),
    (contract.check_config, Sound, {"config": BareConfig}),
    (contract.check_variants, Sound, {"variants": {"same": {}}}),
    (contract.check_documented, NoSummary, {}),
    (contract.check_documented, Sound, {"paper": ""}),
    (contract.check_seed, IgnoresTheSeed, {}),
    (contract.check_seed, SameForEverySeed, {}),
    (contract.check_seed, DrawsFromNumpyGlobally, {}),
    (contract.check_seed_of_training, TrainsAtRandom, {}),
    (contract.check_view_is_not_kept, KeepsTheView, {}),
    (contract.check_no_stray_tensor, HasAStrayTensor, {}),
    (contract.check_no_stray_tensor, KeepsAGraph, {}),
    (contract.check_loss, ReturnsAVector, {}),
    (contract.check_loss, ReturnsNaN, {}),
    (contract.check_loss, LossOfNothing, {}),
    (contract.check_loss_is_repeatable, LossCounts, {}),
    (contract.check_loss_is_repeatable, LossDraws, {}),
    (contract.check_needs, IgnoresNegatives, {}),
    (contract.check_phases_partition, SharesAParameter, {}),
    (contract.check_phases_partition, ForgetsAParameter, {}),
    (contract.check_phases_partition, OwnsATemporary, {}),
    (contract.check_phase_moves_only_its_own, MovesAnothersParameter, {}),
    (contract.check_phase_moves_only_its_own, StandsStill, {}),
    (contract.check_every_parameter_gets_a_gradient, HasAnIdlePrompt, {}),
    (contract.check_resamples, ResamplesInSecret, {}),
    (contract.check_resamples, ResamplesNothing, {}),
    (contract.check_resamples, Accumulates, {}),
    (contract.check_scores, ScoresAreInfinite, {}),
    (contract.check_scores, ScoresTheWrongShape, {}),
    (contract.check_scores, ScoringCounts, {}),
    (contract.check_scores, TwoKindsOfScore, {}),
    (contract.check_scores_do_not_depend_on_the_batch, LeaksTheBatch, {}),
    (contract.check_factorised, ProductInSecret, {}),
    (contract.check_factorised, TwoKindsOfScore, {}),
    (contract.check_unseen_users, ReadsHistoryInSecret, {}),
    (contract.check_unseen_users, UnseenByName, {}),
    (contract.check_unseen_users, IgnoresHistory, {}),
    (contract.check_unseen_users, AllAlike, {}),
    (contract.check_state_dict, ForgetsOnSaving, {}),
    (contract.check_learns, LearnsNothing, {}),
    (contract.check_learns, LearnsPopularity, {}),
    (contract.check_mechanism, HidesItsSign, {}),
    (contract.check_mechanism, ReportsAnIdleSign, {}),
    (contract.check_mechanism, ReportsNoShare, {}),
    (contract.check_item_order, MindsTheOrder, {}),
    (contract.check_modalities_are_read, IgnoresAModality, {}),
    (contract.check_missing_rows_are_not_read, ReadsMissingRows, {}),
    (contract.check_cold_items, ScoresColdItemsInSecret, {}),
    (contract.check_cold_items, IgnoresTheContentOfColdItems, {}),
]


@pytest.mark.parametrize(
    ("check", "cls", "changes"),
    [
        pytest.param(*m, id=f"{m[1].__name__}-{m[0].__name__[6:]}-{i}")
        for i, m in enumerate(MUTANTS)
    ],
)
def test_a_mutant_turns_its_check_red(
    check: contract.Check, cls: type[Recommender], changes: dict[str, Any]
) -> None:
    with pytest.raises(ContractBroken):
        check(spec_of(cls, **changes))


TRIAL = Trial(toy_dataset, TOY, control="without", margin=0.05, seeds=(1, 2))
UNTAUGHT = {"without": {"learning_rate": 1e-9}}


def pays(cls: type[Recommender], variants: Mapping[str, Any]) -> None:
    spec = spec_of(cls, variants=variants)
    dict(contract.checks(spec, TRIAL))["mechanism_pays"](spec)


def test_a_mechanism_that_pays_passes() -> None:
    """The mechanism here is training itself; its control has no step size."""
    pays(ReportsALivingSign, UNTAUGHT)


def test_a_mechanism_without_a_gain_turns_its_check_red() -> None:
    with pytest.raises(ContractBroken, match=r"adds 0\.05 to"):
        pays(ReportsALivingSign, {"without": {"batch_size": 64}})


def test_a_mechanism_that_idles_on_its_world_turns_its_check_red() -> None:
    with pytest.raises(ContractBroken, match=r"pulse 0\.05"):
        pays(ReportsAnIdleSign, UNTAUGHT)


def test_the_trial_of_a_registered_model_is_in_its_contract() -> None:
    for name, trial in TRIALS.items():
        spec = get(name)
        assert trial.control in spec.variants
        assert "mechanism_pays" in dict(contract.checks(spec))
    assert "mechanism_pays" not in dict(contract.checks(get("bpr")))


def test_every_check_has_a_mutant() -> None:
    groups = (
        contract.ALWAYS, contract.TRAINED, contract.SOLVED, contract.MULTIMODAL, contract.ALIGNED,
    )  # fmt: skip
    assert {check for group in groups for check in group} == {check for check, _, _ in MUTANTS}
