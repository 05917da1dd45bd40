"""Whether aligned spaces are worth it: errors of single spaces against the fused one, by epoch.

For models that can show their vectors space by space (`Aligned`). Nothing is held out of training
for it: errors are measured on the validation part, as early stopping does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from modalign.core import seeds, settings
from modalign.core.files import write_aside, write_folder_aside
from modalign.core.interfaces import Factors, Recommender, Task
from modalign.core.sparse import row_of_entries
from modalign.core.view import TrainView
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, RunError
from modalign.evaluate.protocol import Evaluator
from modalign.experiments.fit import fit_task, load_model
from modalign.experiments.options import RunOptions
from modalign.models import _registry as registry
from modalign.report import _alignment_canvas, _canvas
from modalign.report._alignment_canvas import Points
from modalign.train.checkpoint import TrainState

BLOCK = 1024
"""Users whose negatives are scored at a time."""
DRAWN = 500
"""Items in the picture of spaces; more would hide each other."""
LOG = "alignment.json"


@runtime_checkable
class Aligned(Protocol):
    """A model that shows its vectors space by space.

    `representations()` gives `users`, `id`, `unified` and, for each modality m, `raw/m` and
    `mapped/m`; `plans()` the transport plans by space.
    """

    def representations(self) -> Mapping[str, Tensor]:
        """See above."""
        ...

    def plans(self) -> Mapping[str, Tensor]:
        """See above."""
        ...


class Triples:
    """Fixed validation positives of each user, and fixed items that the user has not seen.

    Args:
        dataset: with a validation part.
        n_negatives: items drawn for each user.
        seed: of the draw.

    Raises:
        ConfigError: less than one negative.
        DataError: no user of the validation part is known from training.
    """

    def __init__(self, dataset: Dataset, n_negatives: int = 100, seed: int = 0) -> None:
        if n_negatives < 1:
            raise ConfigError("1 negative or more", str(n_negatives), "ask for 100")
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
        """Chance that a positive scores above a negative of its user, the mean over users.

        Args:
            users: vectors of all users, (n_users, d).
            items: of all items, (n_items, d).
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
        """`error/r` (one less the AUC) and `recall@20/r` of each space r in place of the fused one.

        Spaces are `id`, `unified` and each modality after transport, all with rows of length one.
        """
        vectors = {name: table.detach().cpu() for name, table in model.representations().items()}
        spaces = {name: vectors[name] for name in ("id", "unified")}
        spaces |= {
            name.removeprefix("mapped/"): table
            for name, table in vectors.items()
            if name.startswith("mapped/")
            and len(table) == len(vectors["id"])
            and name.removeprefix("mapped/") in _items(vectors)
        }
        found = {}
        for name, table in spaces.items():
            items = torch.nn.functional.normalize(table, dim=1)
            found[f"error/{name}"] = 1 - self.auc(vectors["users"], items)
            scored = self.evaluator.run(_Fixed(vectors["users"], items))
            found[f"recall@20/{name}"] = scored.metrics["recall@20"]
        return found


def _items(vectors: Mapping[str, Tensor]) -> set[str]:
    """Modalities of items among what has been mapped: users' preferences are none."""
    return {
        name.removeprefix("raw/")
        for name in vectors
        if name.startswith("raw/") and name != "raw/preference"
    }


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
    """Items that users have not seen, (len(users), n), repeats allowed; a user who has seen all
    items keeps what was drawn last.
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
        """Take note of the model; it is trained as it is."""
        self.model = model
        return model

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Nothing."""

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """Add the errors of this epoch."""
        if isinstance(self.model, Aligned):
            self.rows.append({**record, **self.triples.errors(self.model)})

    def on_end(self, state: TrainState) -> None:
        """Nothing."""


def watch(
    dataset: Dataset, model: str, out: str | Path, *, seed: int = 1, **options: Any
) -> dict[str, Any]:
    """Train a model as `modalign train` does, and measure every space after every epoch.

    Args:
        dataset: with a validation part.
        model: a registered name; the model must be `Aligned`.
        out: run folder to write; `alignment.json` in it holds the epochs.
        seed: of the training.
        options: of the model.

    Returns:
        What was written: `epochs`, `temperature` and `claim`; see `claim`.

    Raises:
        ConfigError: the model does not show its spaces. Otherwise as `modalign.fit`.
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
    """What a run says of "the fused space errs less than each alone, by at most c times a bound".

    For each modality: `above`, the share of epochs in which the fused space errs less (the claim
    says 1 at the end); `last`, the gap of the last epoch; `correlation`, Spearman's, of gap and
    bound over epochs (None where one of them does not change); `constant`, the least c with
    `g <= c B` in all epochs. The ids have the first two.
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


def write_alignment(
    runs: Sequence[str | Path], out: str | Path, *, data: str | Path | None = None
) -> dict[str, Any]:
    """Draw what runs made by `watch` say, and write a folder with PNG, SVG and `alignment.json`.

    `distances`: distances before and after transport and contrasts over epochs, with validation
    recall; `gaps`: gap against bound, a point for each epoch; `plans`: the plans, rows and columns
    ordered by likeness, and the entropy of their rows; `weights`: of the fusion over epochs;
    `spaces`: up to 500 items in every space, scaled to length one, on the two principal directions
    of all of them together, before and after transport.

    Args:
        runs: run folders; distances, plans and weights are drawn of the first.
        out: folder.
        data: the prepared data, where they are no longer where the run found them.

    Returns:
        `alignment.json`: the claim of each run.

    Raises:
        RunError: a folder was not made by `watch`.
    """
    read = {Path(run): _read(Path(run)) for run in runs}
    if not read:
        raise RunError("one run or more", "none", "name folders that `watch` wrote")
    first, log = next(iter(read.items()))
    fitted = load_model(first, data=data)
    points = [
        Points(f"{folder.name}: {name}" if len(read) > 1 else name, bound, gap)
        for folder, one in read.items()
        for name, (gap, bound) in gaps_and_bounds(one["epochs"], one["temperature"]).items()
    ]
    figures = {
        "distances": _alignment_canvas.distances(log["epochs"]),
        "gaps": _alignment_canvas.gaps(points),
        "weights": _alignment_canvas.weights(log["epochs"]),
    }
    plans = fitted.model.plans() if isinstance(fitted.model, Aligned) else {}
    if plans:
        tables = {name: plan.double().cpu().numpy() for name, plan in plans.items()}
        figures["plans"] = _alignment_canvas.plans(tables)
    if isinstance(fitted.model, Aligned):
        figures["spaces"] = _alignment_canvas.spaces(_clouds(fitted.model))
    summary = {str(folder): one["claim"] for folder, one in read.items()}
    with write_folder_aside(out) as folder:
        for name, figure in figures.items():
            for kind, content in _canvas.files(figure).items():
                (folder / f"{name}.{kind}").write_bytes(content)
        (folder / LOG).write_text(json.dumps(summary, indent=1))
    return summary


@torch.no_grad()
def _clouds(model: Aligned) -> dict[str, dict[str, np.ndarray]]:
    """Vectors of some items in the spaces of items, before and after transport."""
    vectors = model.representations()
    modalities = sorted(_items(vectors))
    n_items = len(vectors["id"])
    rows = torch.linspace(0, n_items - 1, min(DRAWN, n_items)).long()

    def cloud(names: Mapping[str, str]) -> dict[str, np.ndarray]:
        return {
            name: vectors[key][rows.to(vectors[key].device)].double().cpu().numpy()
            for name, key in names.items()
        }

    return {
        "before": cloud({"id": "id", **{name: f"raw/{name}" for name in modalities}}),
        "after": cloud(
            {"id": "id", **{name: f"mapped/{name}" for name in modalities}, "unified": "unified"}
        ),
    }


def _read(folder: Path) -> dict[str, Any]:
    path = folder / LOG
    if not path.is_file():
        raise RunError(
            f"a run with errors by epoch, as {LOG} in {folder}",
            "a folder without",
            "train it by `modalign.report.alignment.watch`",
        )
    document: dict[str, Any] = json.loads(path.read_text())
    return document


__all__ = ["Aligned", "Triples", "claim", "gaps_and_bounds", "watch", "write_alignment"]
