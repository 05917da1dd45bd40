"""What a figure is, what it is made from, and the table of all figures."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from modalign.core import seeds
from modalign.core.registry import Registry
from modalign.data.dataset import Dataset
from modalign.errors import DataError
from modalign.experiments.fitted import FittedModel
from modalign.report.paper_figures import measures
from modalign.report.paper_figures.measures import Floats, Sample
from modalign.report.style import short

BLOCK = 50
"""Maximum number of users, and of items, in a map of scores."""


@dataclass(frozen=True)
class Drawn:
    """One figure.

    Attributes:
        title: heading on the page.
        caption: what is shown and what to look for.
        figure: the drawing.
        data: what is drawn: a table (written as CSV) or a document (as JSON).
        numbers: a summary, usually one row for each run; the first value of a row is its name, the
            others are numbers or None.
    """

    title: str
    caption: str
    figure: Figure
    data: pl.DataFrame | dict[str, Any]
    numbers: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """A run to draw.

    Attributes:
        name: short name of its folder.
        fitted: the trained model.
        vectors: final vectors of users (n_users, d) and items (n_items, d); None for a model
            without vectors.
    """

    name: str
    fitted: FittedModel
    vectors: tuple[Floats, Floats] | None

    @property
    def label(self) -> str:
        """Name and recall, at 20 where it was measured."""
        test = self.fitted.results["test"]
        ks = sorted(int(name.split("@")[1]) for name in test if name.startswith("recall@"))
        if not ks:
            return short(self.name)
        k = 20 if 20 in ks else ks[-1]
        return f"{short(self.name)}, Recall@{k} {test[f'recall@{k}']:.4f}"


@dataclass(frozen=True)
class Material:
    """What figures are made from; what several of them need is computed once.

    Attributes:
        runs: on the same data; the first one is the reference.
        seed: seed of samples and of invented points.
        pairs: maximum number of observed pairs, and of random pairs, to score.
        notes: remarks for the page, such as which run a figure leaves out; figures append theirs.
    """

    runs: Sequence[Subject]
    seed: int
    pairs: int
    notes: list[str] = field(default_factory=list)

    @property
    def dataset(self) -> Dataset:
        """The data of all runs."""
        return self.runs[0].fitted.dataset

    @property
    def labels(self) -> dict[str, str]:
        """The text of a legend for each run."""
        return {run.name: run.label for run in self.runs}

    @cached_property
    def trained(self) -> dict[str, np.ndarray]:
        """Masks of the users and of the items that have training interactions."""
        dataset = self.dataset
        items = np.bincount(dataset.train.items, minlength=dataset.n_items) > 0
        return {"users": dataset.history.trained, "items": items}

    @cached_property
    def sample(self) -> Sample:
        """The pairs that all runs score.

        Raises:
            DataError: no user of the test part can be scored by all runs.
        """
        dataset, known = self.dataset, self.trained["users"]
        if all(run.fitted.model.unseen_users for run in self.runs):
            known = np.diff(dataset.history.read("test").indptr) > 0
        if not known[dataset.test.users].any():
            raise DataError(
                "test interactions of users that all runs can score",
                f"none in {dataset.name}",
                "split the data with a test part of users that occur in training, and train again",
            )
        rng = seeds.numpy_generator(self.seed, "figures", "sample")
        return measures.draw(dataset, known, self.pairs, BLOCK, rng)

    @cached_property
    def scores(self) -> dict[str, dict[str, Floats]]:
        """For each run the scores of observed and random pairs, (n,), and of a block of users and
        items, (users, items).
        """
        sample = self.sample
        shape = len(sample.block_users), len(sample.block_items)
        users, items = (
            np.repeat(sample.block_users, shape[1]),
            np.tile(sample.block_items, shape[0]),
        )
        return {
            run.name: {
                "observed": measures.pair_scores(run.fitted, sample.users, sample.observed),
                "random": measures.pair_scores(run.fitted, sample.users, sample.random),
                "block": measures.pair_scores(run.fitted, users, items).reshape(shape),
            }
            for run in self.runs
        }


Draw = Callable[[Material], Drawn | None]


def _import_all() -> None:
    for name in ("tarec", "flows", "recgoat", "cm3", "mmssl", "over_option", "cold_items"):
        importlib.import_module(f"modalign.report.paper_figures.{name}")


FIGURES: Registry[Draw] = Registry("figure", "modalign.figures", _import_all)
"""All figures by name, which is also the name of their files."""
NEEDS: dict[str, str] = {}
"""What each figure needs, for the page that lacks it."""


def figure(name: str, runs: int = 1, needs: str = "a run") -> Callable[[Draw], Draw]:
    """Register a function that draws a figure, or returns None if the runs lack what it needs.

    Args:
        name: name of the figure's files.
        runs: minimum number of runs; a figure that needs none is always drawn.
        needs: the runs that it can be drawn from, for readers of a page without it.
    """

    def register(draw: Draw) -> Draw:
        @functools.wraps(draw)
        def drawn(material: Material) -> Drawn | None:
            return draw(material) if len(material.runs) >= runs else None

        FIGURES.register(name, drawn)
        NEEDS[name] = needs
        return draw

    return register
