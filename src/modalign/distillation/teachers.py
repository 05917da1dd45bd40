"""Teachers from fitted models, run folders and exported artifacts, and several as one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from modalign.core.interfaces import Queries, Recommender
from modalign.core.view import TrainView
from modalign.data.dataset import Dataset
from modalign.distillation.source import MixedSource, Source, VectorSource, source_of
from modalign.errors import ConfigError, RunError
from modalign.evaluate.protocol import Evaluator
from modalign.experiments.fit import load_model
from modalign.experiments.fitted import FittedModel
from modalign_serve.artifact.manifest import NAME
from modalign_serve.artifact.read import read_artifact

Teacher = FittedModel | Source | str | Path
STEPS = 10
"""Number of steps between 0 and 1 in which weights of several teachers are searched."""


def read_teacher(teacher: Teacher, dataset: Dataset, view: TrainView | None = None) -> Source:
    """The source that `distill` learns from.

    Args:
        teacher: a fitted model, a run folder, an exported artifact, or a `Source` itself.
        dataset: the data, the teacher's own.
        view: its training data, where the caller has them already.

    Raises:
        RunError: no finished run, damaged, or of other data.
        ArtifactError: an artifact that is damaged.
    """
    view = view or dataset.view()
    if isinstance(teacher, str | Path):
        folder = Path(teacher)
        if (folder / NAME).is_file():
            return _exported(folder, view)
        teacher = load_model(folder, dataset)
    if isinstance(teacher, FittedModel):
        if teacher.dataset.fingerprint != dataset.fingerprint:
            got = f"{teacher.spec.name} of {teacher.dataset.name} ({teacher.dataset.fingerprint})"
            fix = "train a teacher on these data, or distil on the teacher's"
            raise RunError(f"a teacher of these data (fingerprint {dataset.fingerprint})", got, fix)
        return source_of(teacher.model, view, teacher.spec.name)
    sizes = (teacher.n_users, teacher.n_items)
    if sizes != (view.n_users, view.n_items):
        expected = f"a teacher of these {view.n_users} users and {view.n_items} items"
        got = f"{teacher.name} of {sizes[0]} users and {sizes[1]} items"
        raise RunError(expected, got, "distil on the data the teacher was trained on")
    return teacher


def _exported(folder: Path, view: TrainView) -> VectorSource:
    """The vectors of an artifact."""
    artifact = read_artifact(folder)
    manifest = artifact.manifest
    if artifact.users is None or artifact.items is None:
        got = f"{folder}, in which {manifest.model} scores without ({manifest.kind})"
        fix = "distil from the run it was exported from"
        raise RunError("an artifact with vectors of users and items", got, fix)
    for kind, mine in (("user", view.user_ids), ("item", view.item_ids)):
        theirs = manifest.fingerprints.get(f"{kind}s")
        if theirs != mine:
            expected = f"vectors of the {kind}s of these data (ids {mine or 'unknown'})"
            got = f"those of others (ids {theirs}) in {folder}"
            raise RunError(expected, got, "distil on the data the teacher was trained on")
    # Copied: what is mapped from disk is read-only, and torch wants to own what it is given.
    users, items = (torch.from_numpy(np.array(one)) for one in (artifact.users, artifact.items))
    return VectorSource(users, items, manifest.model)


def fingerprint_of(source: Source) -> str:
    """A hash of 16 hexadecimal digits of a teacher: of its weights, its vectors or some scores."""
    if source.origin is not None:
        return source.origin
    digest = hashlib.sha256(f"{source.n_users} {source.n_items}".encode())
    if isinstance(source, MixedSource):
        pairs = zip(source.sources, source.weights, strict=True)
        parts = [f"{fingerprint_of(one)} {weight}" for one, weight in pairs]
        digest.update(" ".join(parts).encode())
        return digest.hexdigest()[:16]
    if source.vectors is not None:
        tensors = list(source.vectors)
    else:
        step = max(source.n_users // 64, 1)
        tensors = [source.score(torch.arange(0, source.n_users, step))]
    for one in tensors:
        digest.update(one.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_weights(weights: Sequence[float] | None, n_teachers: int) -> None:
    """Check the weights of a mixture: one for each teacher, finite, none below 0.

    Raises:
        ConfigError: they are not.
    """
    if weights is None:
        return
    fine = len(weights) == n_teachers and all(math.isfinite(w) and w >= 0 for w in weights)
    if not fine or sum(weights) <= 0:
        what = "one weight for one teacher" if n_teachers == 1 else f"{n_teachers} weights"
        raise ConfigError(
            f"{what}, none below 0 and not all 0", str(list(weights)), "one for each teacher"
        )


def mixed(
    given: Sequence[Source], dataset: Dataset, weights: Sequence[float] | None
) -> tuple[Source, tuple[float, ...]]:
    """Several teachers as one, and their weights.

    Args:
        given: the teachers.
        dataset: the data, with a validation part where weights are searched.
        weights: one for each teacher; None searches the best on validation.

    Raises:
        ConfigError: as `best_weights`.
    """
    if len(given) == 1:
        return given[0], (1.0,)
    chosen = best_weights(given, dataset) if weights is None else tuple(weights)
    mixed = MixedSource(given, chosen)
    return mixed, tuple(mixed.weights)


def best_weights(sources: Sequence[Source], dataset: Dataset) -> tuple[float, ...]:
    """Weights of a mixture, in tenths and summing to one, with the best validation Recall@20.

    Raises:
        ConfigError: no validation part, or more than four teachers.
    """
    if not len(dataset.valid) or len(sources) > 4:
        expected = "weights, or a validation part to search them on and at most four teachers"
        got = f"{len(dataset.valid)} validation interactions and {len(sources)} teachers"
        raise ConfigError(expected, got, "give the weights")
    evaluator = Evaluator(dataset, split="valid", mask="train", ks=(20,), metrics=("recall",))
    grid = [
        tuple(part / STEPS for part in parts)
        for parts in product(range(STEPS + 1), repeat=len(sources))
        if sum(parts) == STEPS
    ]
    found = [
        (evaluator.run(_Judged(MixedSource(sources, w))).metrics["recall@20"], w) for w in grid
    ]
    return max(found)[1]


class _Judged(Recommender):
    """A source as a recommender, for the evaluation."""

    factorised = False

    def __init__(self, source: Source) -> None:
        nn.Module.__init__(self)
        self.source = source
        self.n_users, self.n_items = source.n_users, source.n_items

    def score(self, queries: Queries) -> torch.Tensor:
        return self.source.score(queries.user)
