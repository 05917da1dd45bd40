from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from modalign.data.dataset import Dataset
from modalign.experiments.fit import fit
from modalign.experiments.fitted import FittedModel
from modalign.testing.toy import toy_dataset


def shop() -> Dataset:
    """The toy with titles, a price and a column that an artifact has no kind for."""
    toy = toy_dataset(seed=1)
    table = toy.item_table.with_columns(
        title=pl.Series([f"Item {row}" for row in range(toy.n_items)]),
        colour=pl.Series([["red", "blue", None][row % 3] for row in range(toy.n_items)]),
        price=pl.Series([None if row % 5 == 0 else row / 2 for row in range(toy.n_items)]),
        tags=pl.Series([["a", "b"]] * toy.n_items),
    )
    return replace(toy, item_table=table)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return shop().save(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="session")
def bpr(data: Dataset) -> FittedModel:
    return fit(data, "bpr", seed=1, embedding_size=8, learning_rate=0.05, epochs=15)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of the content adapter needs no convergence here."""
    monkeypatch.setattr("modalign.export.content.STEPS", 2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "artifact"
