"""Several run folders: loading, averages over seeds, comparison, and results by groups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, RunError
from modalign.evaluate import groups
from modalign.evaluate.compare import (
    Comparison,
    RunResult,
    average,
    compare,
    matching,
    measurements,
    on_shared_users,
    refuse_other_data,
)
from modalign.evaluate.metrics import hit_matrix
from modalign.evaluate.protocol import Evaluation
from modalign.experiments.fit import load_model
from modalign.experiments.fitted import FittedModel
from modalign.experiments.run_folder import read_run

USUAL = (10, 20)


def compare_runs(
    folders: Sequence[str | Path],
    ks: Sequence[int] | None = None,
    level: float = 0.05,
    mask: str | None = None,
) -> Comparison:
    """Compare finished runs; runs that differ only in their seed are replaced by their mean.

    Runs on different data are compared on the users whose test pairs are the same. What
    `modalign evaluate` measured of a run counts, under the other mask and on other data too.

    Args:
        folders: run folders with at least two different models or sets of options.
        ks: cut-offs to compare at; None takes 10 and 20 where all runs have them, otherwise all
            that they share.
        level: significance level of the corrected tests, in (0, 1).
        mask: "strict" or "train"; None takes one under which all runs were measured.

    Raises:
        RunError: a folder is not a finished run, a run is given twice, or the runs cannot be
            compared (no shared test pairs, no common mask).
        ConfigError: a cut-off at which not all runs were measured.

    Example:
        >>> from modalign.experiments.fit import fit
        >>> from modalign.testing.toy import toy_dataset
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     for name in ("ease", "popularity"):
        ...         _ = fit(toy_dataset(), name, out=f"{place}/{name}")
        ...     found = compare_runs([f"{place}/ease", f"{place}/popularity"])
        >>> found.winner["recall@20"], found.n_users
        ('ease', 59)
    """
    paths = [Path(folder) for folder in folders]
    grouped = _groups(paths)
    if len(grouped) < 2:
        got = f"{len(grouped)} in {', '.join(map(str, folders))}"
        fix = "add another run"
        raise RunError("two or more runs that differ in more than their seed", got, fix)
    names = folder_names(paths)
    chosen, remarks = matching([measurements(one, names[one]) for one in paths], mask)
    shared_users = dict(zip(paths, on_shared_users(chosen), strict=True))
    runs = _averaged(grouped, names, shared_users)
    shared = set.intersection(*(_cutoffs(run) for run in runs))
    wanted = set(ks) if ks is not None else (set(USUAL) & shared or shared)
    if not wanted or wanted - shared:
        raise ConfigError(
            f"cut-offs at which all runs were measured ({_listed(shared) or 'there are none'})",
            _listed(wanted - shared) or "none",
            "choose among those, or measure the others: modalign evaluate RUN --k "
            + _listed(wanted - shared or {20}).replace(" ", ""),
        )
    return compare([_only(run, wanted) for run in runs], level, remarks)


def compare_all(folders: Sequence[Path]) -> tuple[list[RunResult], Comparison | None]:
    """The results of `by_options`, and their comparison in every metric they share.

    Returns:
        The results, and their comparison; None if there is only one result. Runs without a common
        cut-off have a comparison without metrics.

    Raises:
        RunError: a folder is not a finished run, a run is given twice, or the runs cannot be
            compared (different data, different mask).
    """
    runs = by_options(folders)
    if len(runs) < 2:
        return runs, None
    refuse_other_data(runs)
    shared = set.intersection(*(_cutoffs(run) for run in runs))
    return runs, compare([_only(run, shared) for run in runs])


def by_options(folders: Sequence[Path]) -> list[RunResult]:
    """One result for each model with its options: of a single run, or the mean over seeds.

    A single run has the name of its folder. Several seeds are called "MODEL (n seeds)", or after
    the folder of the first seed if another group has the same model.

    Raises:
        RunError: a folder is not a finished run, or the same run is given twice.
    """
    names = folder_names(folders)
    results = {folder: RunResult.read(folder, names[folder]) for folder in folders}
    return _averaged(_groups(folders), names, results)


_Group = list[tuple[Path, dict[str, Any]]]


def _groups(folders: Sequence[Path]) -> list[_Group]:
    """The runs, with their configurations, that differ in their seed only."""
    found: dict[str, _Group] = {}
    for folder in folders:
        config, _ = read_run(folder)
        same = [config[key] for key in ("model", "options", "modalities", "fingerprint")]
        distilled = config.get("distillation")  # the teacher's weights depend on the seed
        same.append(distilled and {k: v for k, v in distilled.items() if k != "source"})
        key = json.dumps([*same, config.get("precision"), config.get("mask")], sort_keys=True)
        found.setdefault(key, []).append((folder, config))
    for members in found.values():
        seeds = [config["seed"] for _, config in members]
        if len(set(seeds)) < len(seeds):
            twice = ", ".join(str(folder) for folder, _ in members)
            raise RunError("every run once", f"the same model, options and seed in {twice}",
                           "remove one of them")  # fmt: skip
    return list(found.values())


def _averaged(
    grouped: Sequence[_Group], names: Mapping[Path, str], results: Mapping[Path, RunResult]
) -> list[RunResult]:
    models = Counter(members[0][1]["model"] for members in grouped)
    runs = []
    for members in grouped:
        several = [results[folder] for folder, _ in members]
        model = members[0][1]["model"]
        name = model if models[model] == 1 else names[members[0][0]]
        runs.append(
            several[0] if len(members) == 1 else average(f"{name} ({len(members)} seeds)", several)
        )
    return runs


def popularity_groups(evaluation: Evaluation, dataset: Dataset, k: int) -> pl.DataFrame:
    """Recall of popular and of other items; see `groups.by_popularity`.

    Args:
        evaluation: of a run.
        dataset: the data it was measured on.
        k: cut-off of the recall.
    """
    shape = (dataset.n_users, dataset.n_items)
    ranking = evaluation.ranking
    relevant = dataset.part(evaluation.split).csr(*shape)[ranking.users]
    counts = np.bincount(dataset.train.csr(*shape).indices, minlength=dataset.n_items)
    hits = hit_matrix(ranking.items, relevant)
    return groups.by_popularity(ranking.items, hits, relevant.indices, counts, k)


def load_runs(folders: Sequence[Path], data: str | Path | None = None) -> dict[str, FittedModel]:
    """The models of run folders by short name; runs on one data folder share it in memory.

    Args:
        folders: finished runs.
        data: the prepared data, if they have moved since the runs were trained.

    Raises:
        RunError: a folder is not a finished run, or was trained on other data.
    """
    names, loaded = folder_names(folders), {}
    datasets: dict[Path, Dataset] = {}
    for folder in folders:
        # Copies of the data may have features of their own: only the same folder is shared.
        home = (folder / str(read_run(folder)[0]["data"])).resolve() if data is None else Path(data)
        fitted = load_model(folder, datasets.get(home, data))
        datasets[home] = fitted.dataset
        loaded[names[folder]] = fitted
    return loaded


def folder_names(folders: Sequence[Path]) -> dict[Path, str]:
    """The names of the folders themselves, or their paths if two folders have the same name."""
    short = {folder: folder.resolve().name for folder in folders}
    return short if len(set(short.values())) == len(short) else {f: str(f) for f in folders}


def _cutoffs(run: RunResult) -> set[int]:
    return {int(name.split("@")[1]) for name in run.metrics}


def _only(run: RunResult, ks: set[int]) -> RunResult:
    kept = {name: v for name, v in run.metrics.items() if int(name.split("@")[1]) in ks}
    return replace(run, metrics=kept)


def _listed(ks: set[int]) -> str:
    return ", ".join(map(str, sorted(ks)))
