"""Measuring a trained run again: other cut-offs, another mask, or data that have grown since.

On other data than those of its training a run is measured by ids. It ranks the items that it knows
for the users that it can score, and every item that it does not know is one that it misses. What it
has learned from is not asked of it. The result is kept in the run folder, where
`modalign compare` finds it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from modalign.core.files import write_aside
from modalign.core.sparse import row_of_entries
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.user_history import Mask, Split
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError, RunError
from modalign.evaluate.compare import EVALUATIONS
from modalign.evaluate.protocol import KS, Candidates, Evaluation, Evaluator, rank_frozen
from modalign.evaluate.ranking import Ranking
from modalign.experiments import run_folder
from modalign.experiments.fit import load_model
from modalign.experiments.fitted import FittedModel

LOG = logging.getLogger(__name__)


def evaluate(
    run: str | Path | FittedModel,
    data: str | Path | Dataset | None = None,
    *,
    split: Split = "test",
    mask: Mask | None = None,
    ks: Sequence[int] = KS,
    candidates: Candidates = "all",
    device: str = "cpu",
    keep: bool = True,
) -> Evaluation:
    """Measure a trained run again, on its own data or on others that share users and items.

    Args:
        run: a run folder, or a fitted model.
        data: the prepared data to measure on; None takes those of the training.
        split: "valid" or "test".
        mask: "strict" or "train"; None takes that of the run.
        ks: cut-offs of the metrics.
        candidates: rank "all" items, or only "cold" ones.
        device: where to score, if `run` is a folder.
        keep: write the result into the run folder, for `modalign compare`.

    Returns:
        The metrics, with remarks on users, items and pairs that had to be left out.

    Raises:
        RunError: no finished run, or the data that it was trained on are gone.
        DataError: the data share nothing with those of the run that can be measured.
        UnknownName, ConfigError: no such split, mask or candidates, or bad cut-offs.

    Example:
        >>> from modalign.experiments.fit import fit
        >>> from modalign.testing.toy import toy_dataset
        >>> toy = toy_dataset()
        >>> found = evaluate(fit(toy, "popularity"), toy, mask="train", ks=[5])
        >>> (found.mask, found.remarks)
        ('train', ())
    """
    if isinstance(run, FittedModel):
        fitted = run
        dataset = fitted.dataset if data is None else _data(data)
    else:
        fitted, dataset = opened(run, data, device)
    rules: dict[str, Any] = {
        "split": split, "ks": ks, "candidates": candidates,
        "mask": mask or fitted.results.get("mask", fitted.run.mask),
    }  # fmt: skip
    if dataset.fingerprint == fitted.dataset.fingerprint:
        found = fitted.evaluate(**rules)
    else:
        found = _by_id(fitted, dataset, rules)
    if keep and fitted.folder is not None:
        _keep(fitted, dataset, found)
    return found


def opened(
    folder: str | Path, data: str | Path | Dataset | None = None, device: str = "cpu"
) -> tuple[FittedModel, Dataset]:
    """A run, and the data to measure it on.

    Args:
        folder: the run folder.
        data: the prepared data to measure on, or those of the training at another place; None
            takes those of the training.
        device: where to put the weights.

    Raises:
        RunError: no finished run, or the data that it was trained on are gone.
    """
    folder = Path(folder)
    if data is None:
        fitted = load_model(folder, device=device)
        return fitted, fitted.dataset
    config, _ = run_folder.read_run(folder)
    dataset = _data(data)
    if dataset.fingerprint == config["fingerprint"]:
        return load_model(folder, dataset, device), dataset
    home = (folder / str(config["data"])).resolve()
    fix = (
        "restore that folder: a model is built from the data of its training. "
        "`modalign data append` with another --out keeps them"
    )
    expected = f"the data {folder} was trained on (fingerprint {config['fingerprint']}), in {home}"
    if not home.is_dir():
        raise RunError(expected, "no such folder", fix)
    own = Dataset.load(home)
    if own.fingerprint != config["fingerprint"]:
        raise RunError(expected, f"other data there, with fingerprint {own.fingerprint}", fix)
    return load_model(folder, own, device), dataset


def _data(data: str | Path | Dataset) -> Dataset:
    return data if isinstance(data, Dataset) else Dataset.load(data)


# ---------------------------------------------------------------------- other data


def _by_id(fitted: FittedModel, dataset: Dataset, rules: dict[str, Any]) -> Evaluation:
    """The evaluation on data with other rows, whose users and items are matched by id."""
    split: Split = rules["split"]
    user_of = _rows_in(dataset.users, fitted.dataset.users)
    item_of = _rows_in(dataset.items, fitted.dataset.items)
    trained = (user_of >= 0) & fitted.dataset.history.trained[user_of]
    scored = _scored(fitted, dataset, split, trained, item_of)
    asked = dataset.part(split)
    learned = _learned(fitted.dataset, user_of[asked.users], item_of[asked.items])
    kept = scored[asked.users] & ~learned
    remarks = _remarks(asked, scored, learned, item_of)
    if not kept.any():
        raise DataError(
            f"pairs in the {split} part of {dataset.name} that the run can be asked for",
            f"{len(asked)} pairs; " + ("; ".join(remarks) or "none of them"),
            "give data that have users and items of the run's own data",
        )
    asking = asked.take(kept)
    narrowed = replace(dataset, test=asking) if split == "test" else replace(dataset, valid=asking)
    evaluator = Evaluator(narrowed, **rules)
    users = evaluator.users
    known = trained[users]
    size = (fitted.dataset.n_users + len(users), fitted.dataset.n_items)
    # A user that the run does not know gets a row after all that it knows.
    rows = np.where(known, user_of[users], fitted.dataset.n_users + np.arange(len(users)))
    held = asked.take(learned).csr(dataset.n_users, dataset.n_items)
    seen = narrowed.history.seen(split, rules["mask"]) + held
    candidates = evaluator.candidate_rows
    ranked = item_of if candidates is None else item_of[candidates]
    ranking = rank_frozen(
        fitted.model,
        rows,
        max(evaluator.ks),
        seen=_moved(sp.csr_array(seen)[users], rows, item_of, size),
        history=_moved(narrowed.history.read(split)[users], rows, item_of, size),
        unseen=~known,
        candidates=ranked[ranked >= 0],
    )
    back = np.full(fitted.dataset.n_items, -1, np.int32)
    back[item_of[item_of >= 0]] = np.flatnonzero(item_of >= 0)
    items = np.where(ranking.items >= 0, back[ranking.items], -1).astype(np.int32)
    found = evaluator.judge(Ranking(users, items, ranking.scores))
    return replace(found, remarks=tuple(remarks))


def _rows_in(ids: Vocabulary, known: Vocabulary) -> np.ndarray:
    """The row in `known` of each of `ids`, or -1; int64."""
    rows = pl.DataFrame({"id": known.series, "row": np.arange(len(known))})
    wanted = pl.DataFrame({"id": ids.series})
    found = wanted.join(rows, on="id", how="left", maintain_order="left")["row"]
    return found.fill_null(-1).to_numpy().astype(np.int64)


def _scored(
    fitted: FittedModel, dataset: Dataset, split: Split, trained: np.ndarray, item_of: np.ndarray
) -> np.ndarray:
    """Whether the run can score a user: by row, or from a history of items that it knows."""
    history = dataset.history.read(split)
    reads = np.zeros(dataset.n_users, bool)
    reads[row_of_entries(history)[item_of[history.indices] >= 0]] = True
    by_row = trained & (reads if "history" in fitted.spec.needs else True)
    return by_row | (~trained & reads) if fitted.model.unseen_users else by_row


def _learned(own: Dataset, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Which pairs, by rows of `own`, its model has learned from or was selected by."""
    known = own.history.known
    keys = row_of_entries(known).astype(np.int64) * own.n_items + known.indices
    return (users >= 0) & (items >= 0) & np.isin(users * own.n_items + items, keys)


def _moved(
    matrix: sp.csr_array, rows: np.ndarray, item_of: np.ndarray, size: tuple[int, int]
) -> sp.csr_array:
    """The entries of known items, in the run's own rows and columns."""
    columns = item_of[matrix.indices]
    kept = columns >= 0
    return Interactions(rows[row_of_entries(matrix)[kept]], columns[kept]).csr(*size)


def _remarks(
    asked: Interactions, scored: np.ndarray, learned: np.ndarray, item_of: np.ndarray
) -> list[str]:
    users = np.unique(asked.users)
    strangers = int((~scored[users]).sum())
    said = []
    if strangers:
        said.append(
            f"{strangers:,} of {len(users):,} users are left out: the run cannot score them"
        )
    if learned.any():
        said.append(f"{int(learned.sum()):,} pairs are left out: the run has learned from them")
    if (item_of < 0).any():
        of = f"{int((item_of < 0).sum()):,} of {len(item_of):,} items"
        said.append(f"{of} are unknown to the run, which cannot recommend them")
    return said


# ---------------------------------------------------------------------- keeping


def _keep(fitted: FittedModel, dataset: Dataset, found: Evaluation) -> None:
    """Write a result that `results.json` does not contain; a folder that is read-only is noted."""
    assert fitted.folder is not None
    own = found.split == "test" and found.candidates == "all"
    own &= found.mask == fitted.results["mask"]
    own &= dataset.fingerprint == fitted.dataset.fingerprint
    if own and set(found.metrics) <= set(fitted.results["test"]):
        return
    name = f"{found.split}-{found.mask}-{found.candidates}-{dataset.fingerprint}.json"
    path = fitted.folder / EVALUATIONS / name
    try:
        metrics, per_user = _merged(path, found)
        document = {
            "model": fitted.spec.name,
            "data": dataset.fingerprint,
            "dataset": dataset.name,
            "split": found.split,
            "mask": found.mask,
            "candidates": found.candidates,
            "users": found.n_users,
            "remarks": list(found.remarks),
            "test": metrics,
        }
        with write_aside(path.with_suffix(".parquet")) as aside:
            per_user.write_parquet(aside)
        with write_aside(path) as aside:
            aside.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        LOG.warning("the result is not kept in %s: %s", fitted.folder, error.strerror or error)


def _merged(path: Path, found: Evaluation) -> tuple[dict[str, float], pl.DataFrame]:
    """The new values, and those at other cut-offs that were kept before."""
    table = path.with_suffix(".parquet")
    if not path.is_file() or not table.is_file():
        return found.metrics, found.per_user
    try:
        before, frame = json.loads(path.read_text())["test"], pl.read_parquet(table)
    except (ValueError, KeyError, pl.exceptions.PolarsError):
        return found.metrics, found.per_user
    if not frame["user_id"].equals(found.per_user["user_id"]):
        return found.metrics, found.per_user
    more = [name for name in frame.columns if name not in found.per_user.columns]
    return {**before, **found.metrics}, found.per_user.with_columns(frame.select(more))
