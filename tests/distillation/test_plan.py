"""Variants and where each option goes."""

from __future__ import annotations

import pytest

from modalign.distillation.plan import VARIANTS, DistillationPlan
from modalign.errors import ConfigError, UnknownName


@pytest.mark.parametrize(
    ("variant", "stages", "kl", "embedding"),
    [
        ("full", 2, False, True),
        ("no-assistant", 1, False, True),
        ("no-wasserstein", 2, True, True),
        ("no-assistant-no-wasserstein", 1, True, True),
        ("no-embedding", 2, False, False),
    ],
)
def test_variants_are_those_of_the_papers_table(variant, stages, kl, embedding):
    plan = DistillationPlan.of(variant)
    assert [one.name for one in plan.stages] == ["assistant", "student"][-stages:]
    assert (plan.config.logit == "kl") is kl
    assert (plan.config.embedding_weight > 0) is embedding


def test_all_variants_are_tried_above_and_below():
    assert len(VARIANTS) == 5 + 5


def test_the_controls_leave_out_what_their_names_say():
    only = DistillationPlan.of("warm-start-only").config
    assert (only.logit_weight, only.embedding_weight, only.warm_start) == (0, 0, True)
    drawn = DistillationPlan.of("from-random").config
    assert drawn == DistillationPlan.of().config.model_copy(update={"warm_start": False})


def test_the_readings_of_the_logits():
    readings = {name: DistillationPlan.of(name).config for name in ("per-user", "masses")}
    assert (readings["per-user"].logit, readings["per-user"].group) == ("sinkhorn", "user")
    assert readings["masses"].logit == "masses"
    assert {one.negatives for one in readings.values()} == {16}
    printed = DistillationPlan.of("as-printed").config
    assert (printed.reduction, printed.value, printed.contrast) == ("sum", "sharp", "all")
    assert not printed.warm_start


def test_options_go_to_both_models_or_to_one():
    options = {"learning_rate": 0.01, "student.learning_rate": 0.02, "assistant.n_layers": 3}
    assistant, student = DistillationPlan.of("full", options).stages
    assert (assistant.config.learning_rate, student.config.learning_rate) == (0.01, 0.02)
    assert (assistant.config.n_layers, student.config.n_layers) == (3, 2)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"logit_wieght": 1}, "logit_weight"),
        ({"n_layers": 2}, "student.n_layers"),
        ({"teacher.n_layers": 2}, "n_layers"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest(options, hint):
    with pytest.raises(UnknownName) as caught:
        DistillationPlan.of("full", options)
    assert hint in str(caught.value)


def test_unknown_variants_are_refused():
    with pytest.raises(UnknownName, match="no-embedding"):
        DistillationPlan.of("no-embeding")


def test_an_option_against_its_variant_is_refused():
    with pytest.raises(ConfigError, match="no-wasserstein"):
        DistillationPlan.of("no-wasserstein", {"logit": "sort"})
    assert DistillationPlan.of("no-wasserstein", {"logit": "kl"}).config.logit == "kl"


def test_values_out_of_bounds_are_refused():
    with pytest.raises(ConfigError):
        DistillationPlan.of("full", {"eps": 0.0})
    with pytest.raises(ConfigError):
        DistillationPlan.of("full", {"student.n_layers": -1})
