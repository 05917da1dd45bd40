"""The evaluation protocol: which users are measured, which items are ranked, what counts.

- Averages are over users with at least one relevant item in the split.
- `mask="strict"` leaves the training and validation items of a user out of the test ranking;
  `mask="train"` leaves out only the training items, as most papers do. The ranking of the
  validation split leaves out only the training items under both. A relevant item that is left
  out counts as missed.
- A model that reads histories gets the training items of a user, under both masks.
- A user without training interactions is scored from `valid_history` or `test_history`
  (unseen users), whose items are left out of the ranking too. A user without any of these could
  only get random recommendations and is skipped for every model, so that averages stay
  comparable; `n_skipped` counts them.
- Cold items are ranked among all items, or (`candidates="cold"`) only among the items without a
  training interaction; then the relevant items are restricted to these too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import polars as pl
import pyarrow as pa
import scipy.sparse as sp
import torch
from torch import Tensor

from modalign.core import devices, showing
from modalign.core.interfaces import Factors, Queries, Recommender, Scorer
from modalign.core.sparse import row_of_entries
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.user_history import Mask, Split
from modalign.errors import DataError, InputError, UnknownName
from modalign.evaluate.metrics import JudgedLists, checked_ks, chosen_metrics, compute, hit_matrix
from modalign.evaluate.ranking import USERS, Ranking, rank

Candidates = Literal["all", "cold"]
KS = (5, 10, 20, 50)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation, with its users and rules.

    Attributes:
        metrics: `{"recall@20": mean over users, ...}`.
        per_user: one row per user of the average: user_id, user (row), n_train (training
            interactions), n_relevant, relevant (ids of the relevant items), and one column per
            metric and K.
        ranking: the lists themselves, in the order of `per_user`.
        mask, split, candidates: the rules.
        n_skipped: number of users with relevant items but without any history.
        remarks: what was left out for other reasons.
    """

    metrics: dict[str, float]
    per_user: pl.DataFrame
    ranking: Ranking
    mask: Mask
    split: Split
    candidates: Candidates
    n_users: int
    n_skipped: int
    remarks: tuple[str, ...] = ()

    def _heading(self) -> str:
        which = "" if self.candidates == "all" else ", cold items only"
        return f"Evaluation: {self.split}, mask {self.mask}, {self.n_users:,} users{which}"

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        pairs = [name.split("@") for name in self.metrics]
        ks = sorted({int(k) for _, k in pairs})
        kinds = dict.fromkeys(kind for kind, _ in pairs)
        rows = [[kind, *(f"{self.metrics[f'{kind}@{k}']:.4f}" for k in ks)] for kind in kinds]
        return ["", *(f"@{k}" for k in ks)], rows

    def __repr__(self) -> str:
        return showing.text_table(self._heading(), *self._rows())

    def _repr_html_(self) -> str:
        return showing.html_table(self._heading(), *self._rows(), self.remarks)


class Evaluator:
    """Evaluates recommenders on one split; everything that they share is computed once.

    Args:
        dataset: data with the split.
        split: "valid" or "test".
        mask: "strict" or "train", see the module.
        ks: lengths of lists, each at least 1.
        metrics: names in `METRICS`; None for all.
        candidates: rank "all" items, or only "cold" ones.
        block: number of users scored at a time.
        device: where to score; None for the recommender's device.

    Raises:
        UnknownName: no such split, mask, metric or kind of candidates.
        ConfigError: there is no K, or one is below 1.
        DataError: the split has no user to measure, or no cold item.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split = "test",
        mask: Mask = "strict",
        ks: Sequence[int] = KS,
        metrics: Sequence[str] | None = None,
        candidates: Candidates = "all",
        block: int = USERS,
        device: torch.device | str | None = None,
    ) -> None:
        for kind, name, options in (
            ("split to evaluate", split, get_args(Split)),
            ("mask", mask, get_args(Mask)),
            ("kind of candidates", candidates, get_args(Candidates)),
        ):
            if name not in options:
                raise UnknownName(kind, name, options)
        self.split, self.mask, self.candidates = split, mask, candidates
        self.ks = checked_ks(ks)
        self.metrics = [metric.name for metric in chosen_metrics(metrics)]
        self.block, self.device = block, device

        shape = (dataset.n_users, dataset.n_items)
        history = dataset.history
        train, self._history = history.train, history.read(split)
        relevant = dataset.part(split).csr(*shape)
        self._n_train = np.diff(train.indptr)
        self._item_counts = np.bincount(train.indices, minlength=dataset.n_items)
        self._candidates = self._cold(relevant) if candidates == "cold" else None
        if self._candidates is not None:
            kept = np.isin(relevant.indices, self._candidates)
            pairs = Interactions(row_of_entries(relevant)[kept], relevant.indices[kept])
            relevant = pairs.csr(*shape)

        asked = np.diff(relevant.indptr) > 0
        users = np.flatnonzero(asked & (np.diff(self._history.indptr) > 0))
        if not len(users):
            expected = f"a {split} split with an interaction of a user who has a history"
            got = f"{len(dataset.part(split))} interactions, none of such a user"
            raise DataError(expected, got, "choose another split when importing the data")
        self._n_skipped = int(asked.sum()) - len(users)
        self._users, self._unseen = users, ~history.trained[users]
        self._relevant: sp.csr_array = relevant[users]
        self._seen = history.seen(split, mask)
        self._n_relevant = np.diff(self._relevant.indptr).astype(np.int64)
        self._frame = pl.DataFrame(
            {
                "user_id": dataset.users.series.gather(users),
                "user": users,
                "n_train": self._n_train[users].astype(np.int64),
                "n_relevant": self._n_relevant,
                "relevant": _ids_of_rows(self._relevant, dataset.items.series),
            }
        )

    def _cold(self, relevant: sp.csr_array) -> np.ndarray:
        cold = np.flatnonzero(self._item_counts == 0)
        if not len(cold) or not np.isin(relevant.indices, cold).any():
            expected = f"items in the {self.split} split that have no training interaction"
            got = f"{len(cold)} items without one, none of them in the {self.split} split"
            raise DataError(expected, got, "split the data by cold items, or rank all candidates")
        return cold

    def run(self, recommender: Recommender) -> Evaluation:
        """Measure `recommender`; its training or evaluation mode is restored afterwards.

        Raises:
            InputError: it cannot score unseen users, and the split has some.
            TrainingError: a score is not a number.
        """
        if self._unseen.any() and not recommender.unseen_users:
            raise InputError(
                "a model that scores users from their history, for a split by unseen users",
                f"{type(recommender).__name__}, which knows the users of the training data only",
                "choose a model whose page says 'scores unseen users', or another split",
            )
        ranking = rank_frozen(
            recommender,
            self._users,
            max(self.ks),
            seen=self._seen,
            history=self._history,
            unseen=self._unseen,
            candidates=self._candidates,
            block=self.block,
            device=self.device,
        )
        return self.judge(ranking)

    def judge(self, ranking: Ranking) -> Evaluation:
        """Metrics of given lists, for the users of this evaluation in their order.

        Raises:
            InputError: the lists are of other users.
        """
        if not np.array_equal(ranking.users, self._users):
            expected = f"lists of the {len(self._users)} users of the {self.split} split, by row"
            got = f"lists of {len(ranking)} users"
            raise InputError(expected, got, "rank the users in the order of `users`")
        lists = JudgedLists(
            hit_matrix(ranking.items, self._relevant),
            self._n_relevant,
            ranking.items,
            self._item_counts,
            int((self._n_train > 0).sum()),
        )
        means, values = compute(lists, self.ks, self.metrics)
        return Evaluation(
            metrics=means,
            per_user=self._frame.with_columns(**values),
            ranking=ranking,
            mask=self.mask,
            split=self.split,
            candidates=self.candidates,
            n_users=len(self._users),
            n_skipped=self._n_skipped,
        )

    @property
    def users(self) -> np.ndarray:
        """Rows of the users in the average, int64."""
        return self._users

    @property
    def candidate_rows(self) -> np.ndarray | None:
        """Rows of the items that are ranked; None for all."""
        return self._candidates


def rank_frozen(
    recommender: Recommender,
    users: np.ndarray,
    k: int,
    *,
    seen: sp.csr_array,
    history: sp.csr_array,
    unseen: np.ndarray,
    candidates: np.ndarray | None = None,
    block: int = USERS,
    device: torch.device | str | None = None,
) -> Ranking:
    """The lists of a recommender; its training or evaluation mode is restored afterwards.

    Args:
        recommender: scores users by row, or from their history.
        users: rows of users, int64, shape (n,).
        k: length of the lists.
        seen: users x items; its entries are left out of the lists.
        history: users x items; what is read of users, by a model that reads histories or for
            unseen users.
        unseen: bool, shape (n,); users who are known by their history alone.
        candidates: rows of the items that may be listed; None for all items.
        block: number of users scored at a time.
        device: where to score; None for the recommender's device.
    """
    some = bool(unseen.any())
    with frozen(recommender) as scorer:
        return rank(
            _FromHistory(recommender, scorer.items)
            if some and isinstance(scorer, Factors)
            else scorer,
            users,
            k,
            seen=seen,
            history=history if some or "history" in recommender.needs else None,
            unseen=unseen,
            candidates=candidates,
            block=block,
            device=devices.of(recommender) if device is None else device,
        )


def validation_metric(dataset: Dataset, metric: str = "recall@20") -> Evaluator:
    """The evaluator that selects the best epoch: recall and ndcg at 20 and at the K of `metric`."""
    ks = {20, int(metric.partition("@")[2])}
    return Evaluator(dataset, "valid", ks=sorted(ks), metrics=("recall", "ndcg"))


def _ids_of_rows(matrix: sp.csr_array, ids: pl.Series) -> pl.Series:
    """The ids of the columns of each row's entries, as lists."""
    named = ids.gather(matrix.indices.astype(np.int64)).to_arrow()
    lists = pa.LargeListArray.from_arrays(pa.array(matrix.indptr, pa.int64()), named)
    return pl.Series("relevant", lists)


@contextmanager
def frozen(recommender: Recommender) -> Iterator[Scorer]:
    """The recommender's scorer, without gradients; the mode of every module is restored.

    Each module separately, since a part may be in evaluation mode during training.
    """
    modes = [(module, module.training) for module in recommender.modules()]
    try:
        with torch.inference_mode():
            yield recommender.scorer()
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class _FromHistory:
    """A factorised model that computes users' vectors from their histories."""

    recommender: Recommender
    items: Tensor

    def score(self, queries: Queries) -> Tensor:
        """`user_vectors(queries) @ items.T`."""
        return self.recommender.user_vectors(queries) @ self.items.T
