"""Entropy of plans and overlap of factors on hand examples."""

from __future__ import annotations

import pytest
import torch

from modalign.core.explain import Explains, overlap, plan_entropy
from modalign.models.bandvae.model import BANDVAE
from modalign.models.bpr import BPR


def test_entropy_of_rows_and_columns() -> None:
    assert float(plan_entropy(torch.eye(4)[None] / 4)) == 0.0
    assert float(plan_entropy(torch.ones(1, 4, 2) / 8)) == pytest.approx((1.0 + 2.0) / 2)
    # Half of the rows sharp, half a fair coin; columns likewise.
    mixed = torch.block_diag(torch.eye(2), torch.full((2, 2), 0.5))[None]
    assert float(plan_entropy(mixed)) == pytest.approx(0.5)


def test_overlap_of_pairs() -> None:
    tops = torch.tensor([[[1, 2], [2, 3], [1, 2]], [[1, 2], [3, 4], [5, 6]]])
    assert overlap(tops).tolist() == pytest.approx([(0.5 + 1.0 + 0.5) / 3, 0.0])
    assert overlap(tops[:, :1]).tolist() == [1.0, 1.0]


def test_who_explains() -> None:
    assert issubclass(BANDVAE, Explains)
    assert not issubclass(BPR, Explains)
