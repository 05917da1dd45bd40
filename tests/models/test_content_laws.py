"""Models that prepare features by `ContentConfig` do not see a shift or a scale of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from modalign.core.modality import Modality
from modalign.models._registry import specs
from modalign.models._shared.content import ContentConfig
from modalign.testing.harness import batches, build, prepare, score_all
from modalign.testing.toy import toy_dataset

VIEW = toy_dataset().view()
NAMES = [name for name, spec in specs().items() if issubclass(spec.config, ContentConfig)]


def answers(name: str, view) -> dict[str, torch.Tensor]:
    """Scores and parts of the loss of an untrained model."""
    spec = specs()[name]
    model = build(spec, view)
    batch = batches(spec, view, 64)[0]
    prepare(model, batch)
    parts = {part: value.detach() for part, value in model.loss(batch).items()}
    return {**parts, "scores": score_all(spec, model, view)}


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_and_a_scale_of_all_features_change_nothing(name: str) -> None:
    moved = {
        key: Modality(key, (3 * m.features + 20 * np.float32(m.present[:, None])), m.present)
        for key, m in VIEW.modalities.items()
    }
    before, after = answers(name, VIEW), answers(name, dataclasses.replace(VIEW, modalities=moved))
    for part, value in before.items():
        torch.testing.assert_close(after[part], value, rtol=1e-3, atol=1e-4)
