"""Every registered model against every check of the contract that concerns it."""

from __future__ import annotations

import pytest

from modalign.models._registry import specs
from modalign.testing.contract import Check, checks

# Promises whose checks train a model for many epochs.
SLOW = ("learns", "mechanism", "mechanism_pays", "seed_of_training")
CASES = [
    pytest.param(
        name,
        check,
        id=f"{name}-{promise}",
        marks=[pytest.mark.slow] if promise in SLOW else [],
    )
    for name, spec in specs().items()
    for promise, check in checks(spec)
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_model_keeps_its_promise(name: str, check: Check) -> None:
    check(specs()[name])
