"""Errors of single spaces against the fused one, by epoch: is alignment worth it?

For models that show their vectors space by space (`Aligned`). Nothing more is held out of training
for it: errors are measured on the validation part, like early stopping. `modalign figures` draws
the runs that `watch` makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from modalign.core import seeds, settings
from modalign.core.files import write_aside
from modalign.core.interfaces import Aligned, Factors, Recommender, Task
from modalign.core.sparse import row_of_entries
from modalign.core.view import TrainView
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError
from modalign.evaluate.protocol import Evaluator
from modalign.experiments.fit import fit_task
from modalign.experiments.options import RunOptions
from modalign.models import _registry as registry
from modalign.train.checkpoint import TrainState

BLOCK = 1024
"""Users whose negatives are scored at a time."""
LOG = "alignment.json"


class Triples:
    """Fixed validation positives of each user, and fixed items that the user has not seen.

    Args:
        dataset: data with a validation part.
        n_negatives: number of items drawn for each user.
        seed: seed of the draw.

    Raises:
        ConfigError: fewer than one negative.
        DataError: no user of the validation part occurs in training.
    """

    def __init__(self, dataset: Dataset, n_negatives: int = 100, seed: int = 0) -> None:
        if n_negatives < 1:
            raise ConfigError("at least 1 negative", str(n_negatives), "ask for 100")
        self.evaluator = Evaluator(dataset, "valid", ks=(20,), metrics=["recall"])
        shape = (dataset.n_users, dataset.n_items)
        seen = dataset.history.known
        relevant = dataset.valid.csr(*shape)[self.evaluator.users]
        users = torch.from_numpy(self.evaluator.users)
        self.owner = torch.from_numpy(row_of_entries(relevant))
        self.positives = torch.from_numpy(relevant.indices.astype(np.int64))
        keys = row_of_entries(seen) * shape[1] + seen.indices
        self.users = users
        self.negatives = torch.from_numpy(
            _unseen(np.sort(keys), users.numpy(), shape[1], n_negatives, seed)
        )

    def auc(self, users: Tensor, items: Tensor) -> float:
        """Probability that a positive scores above a negative of its user, mean over users.

        Args:
            users: vectors of all users, (n_users, d).
            items: vectors of all items, (n_items, d).
        """
        own = torch.zeros(len(self.users), dtype=torch.float64)
        counts = torch.bincount(self.owner, minlength=len(self.users))
        for start in range(0, len(self.users), BLOCK):
            inside = (self.owner >= start) & (self.owner < start + BLOCK)
            of_users = users[self.users[start : start + BLOCK]]
            drawn = items[self.negatives[start : start + BLOCK]]  # (b, n_negatives, d)
            below = torch.einsum("bd,bnd->bn", of_users, drawn)
            owner = self.owner[inside] - start
            above = torch.linalg.vecdot(of_users[owner], items[self.positives[inside]])
            wins = (above[:, None] > below[owner]).double()
            wins += 0.5 * (above[:, None] == below[owner]).double()
            own.index_add_(0, owner + start, wins.mean(1))
        return float((own / counts.clamp(min=1))[counts > 0].mean())

    def errors(self, model: Aligned) -> dict[str, float]:
        """`error/r` (1 - AUC) and `recall@20/r` with each space r in place of the fused one.

        Spaces are `id`, `unified` and each modality after transport, all with rows of length one.
        """
        vectors = {name: table.detach().cpu() for name, table in model.representations().items()}
        spaces = {name: vectors[name] for name in ("id", "unified")}
        spaces |= {
            name: vectors[f"mapped/{name}"]
            for name in item_modalities(vectors)
            if f"mapped/{name}" in vectors
        }
        found = {}
        for name, table in spaces.items():
            items = torch.nn.functional.normalize(table, dim=1)
            found[f"error/{name}"] = 1 - self.auc(vectors["users"], items)
            scored = self.evaluator.run(_Fixed(vectors["users"], items))
            found[f"recall@20/{name}"] = scored.metrics["recall@20"]
        return found


def item_modalities(vectors: Mapping[str, Tensor]) -> list[str]:
    """Modalities of items among the spaces; users' preferences are not one."""
    names = (name.removeprefix("raw/") for name in vectors if name.startswith("raw/"))
    return [name for name in names if name != "preference"]


class _Fixed(Recommender):
    """Two tables as a recommender."""

    def __init__(self, users: Tensor, items: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.n_users, self.n_items = len(users), len(items)
        self.both = users, items

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.both

    def scorer(self) -> Factors:
        return Factors(*self.both)


def _unseen(seen: np.ndarray, users: np.ndarray, n_items: int, n: int, seed: int) -> np.ndarray:
    """Items that users have not seen, (len(users), n), with repeats; a user who has seen all items
    keeps the last draw.
    """
    rng = seeds.numpy_generator(seed, "alignment", "negatives")
    drawn = rng.integers(0, n_items, (len(users), n))
    for _ in range(100):
        keys = users[:, None] * n_items + drawn
        place = np.minimum(np.searchsorted(seen, keys), max(len(seen) - 1, 0))
        bad = seen[place] == keys if len(seen) else np.zeros_like(keys, bool)
        if not bad.any():
            break
        drawn[bad] = rng.integers(0, n_items, int(bad.sum()))
    return drawn


@dataclass
class _Watcher:
    """A callback that measures the model after every epoch."""

    triples: Triples
    model: Any = None
    rows: list[dict[str, float]] = field(default_factory=list)

    def attach(self, model: Recommender, view: TrainView) -> Task:
        """Remember the model, whose own loss is trained."""
        self.model = model
        return model

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Do nothing."""

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """Add the errors of this epoch."""
        if isinstance(self.model, Aligned):
            self.rows.append({**record, **self.triples.errors(self.model)})

    def on_end(self, state: TrainState) -> None:
        """Do nothing."""


def watch(
    dataset: Dataset, model: str, out: str | Path, *, seed: int = 1, **options: Any
) -> dict[str, Any]:
    """Train a model as `modalign train` does, and measure every space after every epoch.

    Args:
        dataset: data with a validation part.
        model: a registered name; the model must be `Aligned`.
        out: run folder to write; `alignment.json` in it holds the epochs.
        seed: seed of the training.
        options: options of the model.

    Returns:
        The content of `alignment.json`: `epochs`, `temperature` and `claim` (see `claim`).

    Raises:
        ConfigError: the model does not show its spaces, or an option is unknown or out of bounds.
        DataError: the data lack what the model needs.
        RunError: `out` holds another run.
    """
    spec = registry.get(model)
    if not issubclass(spec.cls, Aligned):
        raise ConfigError("a model that shows its vectors space by space", model, "choose recgoat")
    config = settings.build(spec.config, options, f"model {model}")
    watcher = _Watcher(Triples(dataset))
    run = RunOptions(out=out, callbacks=(watcher,))
    fit_task(dataset, spec, config, seed, run, task=watcher.attach)
    document = {
        "epochs": watcher.rows,
        "temperature": config.temperature,
        "claim": claim(watcher.rows, config.temperature),
    }
    with write_aside(Path(out) / LOG) as path:
        path.write_text(json.dumps(document, indent=1))
    return document


def gaps_and_bounds(
    rows: Iterable[Mapping[str, float]], temperature: float
) -> dict[str, tuple[list[float], list[float]]]:
    """For each space, over epochs, `g = error - error of the fused` and `B = W + T NCE`.

    W is the 1-Wasserstein distance after transport and NCE the contrast with the ids; the ids
    themselves have no bound and are left out.

    Args:
        rows: epochs of a watched run.
        temperature: T, the temperature of the contrast.

    Example:
        >>> row = {"error/unified": 0.1, "error/text": 0.3}
        >>> row |= {"w1_after/text": 1.0, "nce/id-text": 2.0}
        >>> found = gaps_and_bounds([row], 0.5)["text"]
        >>> [round(one, 6) for one in found[0] + found[1]]
        [0.2, 2.0]
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for key in row:
            name = key.removeprefix("error/")
            if not key.startswith("error/") or f"w1_after/{name}" not in row:
                continue
            gap, bound = found.setdefault(name, ([], []))
            gap.append(row[key] - row["error/unified"])
            bound.append(row[f"w1_after/{name}"] + temperature * row[f"nce/id-{name}"])
    return found


def claim(rows: Sequence[Mapping[str, float]], temperature: float) -> dict[str, Any]:
    """Test a run against "the fused space errs less than each alone, by at most c times a bound".

    For each modality: `above`, the share of epochs in which the fused space errs less (1 if the
    claim holds); `last`, the gap of the last epoch; `correlation`, Spearman's, of gap and bound
    over epochs (None where one of them does not change); `constant`, the smallest c with
    `g <= c B` in all epochs. The ids have only the first two.

    Args:
        rows: epochs of a watched run.
        temperature: temperature of the contrast.
    """
    found: dict[str, Any] = {}
    for name, (gap, bound) in gaps_and_bounds(rows, temperature).items():
        varied = len(set(gap)) > 1 and len(set(bound)) > 1
        found[name] = {
            "above": float(np.mean(np.array(gap) > 0)),
            "last": gap[-1],
            "correlation": float(spearmanr(gap, bound).statistic) if varied else None,
            "constant": float(np.max(np.array(gap) / np.array(bound))),
        }
    of_ids = [row["error/id"] - row["error/unified"] for row in rows]
    if of_ids:
        found["id"] = {"above": float(np.mean(np.array(of_ids) > 0)), "last": of_ids[-1]}
    return found
