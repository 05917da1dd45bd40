"""A trained model with the data it knows: ask it for recommendations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch

from modalign.core import devices, showing
from modalign.core.interfaces import Factors, Recommender, Scorer
from modalign.core.vital_signs import STUDENT, Reading, VitalSign, at_epoch
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, RunError
from modalign.evaluate.protocol import Evaluation, Evaluator
from modalign.evaluate.ranking import Ranking, rank
from modalign.experiments import run_folder, store
from modalign.experiments.options import RunOptions
from modalign.models._registry import ModelSpec

Ids = Sequence[str | int]


@dataclass
class FittedModel:
    """What `fit` and `load_model` return.

    Attributes:
        results: as in `results.json`.
        described: what its task depended on besides, as its `config.yaml` states it.
        history: one record for each epoch.
        per_user: test metrics of every user, or None.
    """

    model: Recommender
    spec: ModelSpec
    config: Any
    dataset: Dataset
    seed: int
    results: dict[str, Any]
    folder: Path | None = None
    run: RunOptions = field(default_factory=RunOptions)
    described: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    per_user: pl.DataFrame | None = None

    def __repr__(self) -> str:
        test = self.results.get("test")
        on = f"{self.spec.name} on {self.dataset.name}, seed {self.seed}"
        return f"FittedModel({on}{f'; test {showing.in_words(test)}' if test else ''})"

    def _repr_html_(self) -> str:
        rows = [
            [part, *(f"{value:.4f}" for value in showing.main_metrics(self.results[part]).values())]
            for part in ("valid", "test")
            if self.results.get(part)
        ]
        part = self.results.get("test") or self.results.get("valid") or {}
        notes = [f"mask {self.results.get('mask')}"]
        if self.folder is not None:
            notes.append(f"in {self.folder}")
        title = f"{self.spec.name} on {self.dataset.name}, seed {self.seed}"
        return showing.html_table(title, ["", *showing.main_metrics(part)], rows, notes)

    @property
    def signs(self) -> tuple[VitalSign, ...]:
        """The vital signs by which this run is judged."""
        return STUDENT if "distillation" in self.results else self.spec.cls.vital_signs

    @property
    def vital_signs(self) -> list[Reading]:
        """What they were at the best epoch; none for a model without a mechanism to judge."""
        return at_epoch(self.signs, self.history, self.results.get("best_epoch"))

    @cached_property
    def _scorer(self) -> Scorer:
        return self.model.scorer()

    def recommend(
        self, users: Ids | pl.Series | None = None, k: int = 10, filter_seen: bool = True
    ) -> pl.DataFrame:
        """The best `k` items for each user, best first.

        Args:
            users: user ids; None takes all users.
            k: how many items.
            filter_seen: leave out the training and validation items of the user, and the known
                part of a held-out user.

        Returns:
            Columns user_id, rank (from 1), item_id, score, title; fewer than `k` rows for
            a user with fewer items left.

        Raises:
            DataError: an unknown user id.
            ConfigError: a user without training interactions, and a model that scores ids only.
        """
        if k < 1:
            raise ConfigError("k of at least 1", repr(k), "ask for at least one item")
        d = self.dataset
        rows = np.arange(d.n_users) if users is None else d.users.rows(users)
        trained = d.history.trained
        if not self.model.unseen_users:
            if users is None:
                rows = rows[trained]
            elif not trained[rows].all():
                who = d.users.ids(rows[~trained[rows]][:1])[0]
                expected = f"users with training interactions: {self.spec.name} knows ids only"
                fix = "ask a model that reads histories (`modalign models`)"
                raise ConfigError(expected, f"user {who!r} without any", fix)
        ranking = rank(
            self._scorer,
            rows,
            min(k, d.n_items),
            seen=d.history.known if filter_seen else None,
            history=d.history.read() if "history" in self.spec.needs else None,
            unseen=~trained[rows],
            device=devices.of(self.model),
        )
        return self._frame(ranking)

    def recommend_all(
        self, k: int = 10, filter_seen: bool = True, block: int = 20_000
    ) -> Iterator[pl.DataFrame]:
        """`recommend` for all users that the model can score, some of them at a time.

        Args:
            k: how many items.
            filter_seen: leave out what the user had, as `recommend` does.
            block: number of users in a frame.
        """
        rows = np.arange(self.dataset.n_users)
        if not self.model.unseen_users:
            rows = rows[self.dataset.history.trained]
        for start in range(0, len(rows), block):
            ids = self.dataset.users.series.gather(rows[start : start + block])
            yield self.recommend(ids, k, filter_seen)

    def recommend_for(
        self, histories: Mapping[str, Ids], k: int = 10, filter_seen: bool = True
    ) -> pl.DataFrame:
        """The best `k` items for people who were not in training, from what they liked.

        Args:
            histories: item ids by any name for the person.
            k: how many items.
            filter_seen: leave out the history itself.

        Raises:
            ConfigError: the model can not score unseen users.
            DataError: an unknown item id.
        """
        if not self.model.unseen_users:
            got = self.spec.name
            fix = "use one of: ease, itemknn, or another marked so by `modalign models`"
            raise ConfigError("a model that scores unseen users from their history", got, fix)
        d = self.dataset
        names = list(histories)
        pairs = [(row, item) for row, n in enumerate(names) for item in d.items.rows(histories[n])]
        rows, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        ones = np.ones(len(rows), np.float32)
        history = sp.csr_array((ones, (rows, items)), shape=(len(names), d.n_items))
        ranking = rank(
            self._scorer,
            np.arange(len(names)),
            min(k, d.n_items),
            seen=history if filter_seen else None,
            history=history,
            unseen=np.ones(len(names), bool),
            device=devices.of(self.model),
        )
        return self._frame(ranking, names)

    def similar_items(self, items: Ids | pl.Series, k: int = 10) -> pl.DataFrame:
        """The `k` items nearest to each given one, itself left out.

        A factorised model compares item vectors by their cosine; a model that reads
        histories is asked what follows from that single item.

        Returns:
            Columns item_id, rank, similar_item_id, score, title.

        Raises:
            DataError: an unknown item id.
        """
        d = self.dataset
        rows = d.items.rows(items)
        if self.model.factorised:
            with torch.inference_mode():
                vectors = torch.nn.functional.normalize(self.model.eval().item_vectors(), dim=1)
            scorer: Scorer = Factors(vectors, vectors)
        else:
            scorer = self._scorer
        every = np.arange(d.n_items)
        itself = sp.csr_array((np.ones(d.n_items, np.float32), (every, every)))
        ranking = rank(
            scorer,
            rows,
            min(k, d.n_items),
            seen=itself,
            history=None if self.model.factorised else itself,
            unseen=np.full(len(rows), not self.model.factorised),
            device=devices.of(self.model),
        )
        frame = self._frame(ranking, d.items.ids(rows))
        return frame.rename({"item_id": "similar_item_id", "user_id": "item_id"})

    def evaluate(self, split: Literal["valid", "test"] = "test", **options: Any) -> Evaluation:
        """Measure on a split; see `modalign.evaluate.protocol.Evaluator` for the options."""
        return Evaluator(self.dataset, split=split, **options).run(self.model)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder that `load_model` reads, as a training with `out` leaves it.

        Only `checkpoints/last.pt`, from which training could continue, is not there. Data that
        live in memory only are written into the folder.

        Raises:
            RunError: the folder is not empty.
        """
        folder = Path(folder)
        if folder.is_file() or (folder.exists() and any(folder.iterdir())):
            what = "is a file" if folder.is_file() else "is not empty"
            raise RunError("an empty or new folder", f"{folder}, which {what}", "choose another")
        description = store.describe(
            self.spec, self.config, self.seed, self.dataset, self.run, self.described
        )
        run_folder.open_new(folder, self.dataset, description, self.run)
        store.write(folder, self.model, self.results, self.history, self.per_user)
        self.folder = folder
        return folder

    def _frame(self, ranking: Ranking, names: list[str] | None = None) -> pl.DataFrame:
        n, k = ranking.items.shape
        known = self.dataset.users.series
        user_ids = pl.Series(names, dtype=pl.Utf8) if names else known.gather(ranking.users)
        flat = pl.Series(ranking.items.ravel().astype(np.int64))
        safe = flat.clip(0)
        return pl.DataFrame(
            {
                "user_id": user_ids.gather(np.repeat(np.arange(n), k)),
                "rank": np.tile(np.arange(1, k + 1), n),
                "item_id": self.dataset.items.series.gather(safe),
                "score": ranking.scores.ravel(),
                "title": self.dataset.titles().gather(safe),
            }
        ).filter(flat >= 0)
